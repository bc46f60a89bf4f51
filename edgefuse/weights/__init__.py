"""The shipped models. Each has three files here, named after it:

`.onnx` to run, `.safetensors` to fine-tune and export again, `.json` with what is known about it; and some
have a fourth, `-int8.onnx`, for engines that compute in 8 bits, which take it by themselves.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from edgefuse.errors import ModelError, unknown_name

__all__ = ["DEFAULT_MODEL", "Card", "checkpoint_file", "model_file", "shipped"]

DEFAULT_MODEL = "nano"
FOLDER = Path(__file__).parent
FP32, INT8 = "-fp32", "-int8"

CHECKPOINTS = (".pt", ".pth", ".ckpt", ".safetensors")
"""Suffixes of files that hold weights without a graph."""


@dataclass(frozen=True)
class Card:
    """What is known about a shipped model. The full story is in `docs/models.md`."""

    name: str
    summary: str
    parameters: int
    licence: str
    """Terms that the training data puts on the weights."""
    training: dict[str, Any]
    quality: dict[str, dict[str, float]]
    """Metric values by test set, protocol `field`."""
    int8_speed: dict[str, float] = field(default_factory=dict)
    """By engine: how many times as fast as the fp32 file it runs the int8 one, by `bench/int8_speed.py`."""

    @property
    def onnx(self) -> Path:
        """The file to run."""
        return FOLDER / f"{self.name}.onnx"

    @property
    def int8(self) -> Path | None:
        """The same in 8 bits, `NAME-int8` by name; None: there is none."""
        path = FOLDER / f"{self.name}{INT8}.onnx"
        return path if path.exists() else None

    @property
    def safetensors(self) -> Path:
        """The weights, to fine-tune or export."""
        return FOLDER / f"{self.name}.safetensors"


def shipped() -> dict[str, Card]:
    """Return the cards of the shipped models by name, the default first."""
    cards = [msgspec.json.decode(path.read_bytes(), type=Card) for path in FOLDER.glob("*.json")]
    return {card.name: card for card in sorted(cards, key=lambda c: (c.name != DEFAULT_MODEL, c.name))}


def model_file(model: str | Path) -> Path:
    """Return the ONNX file of a shipped model's name, or the given file itself.

    By a name such as `nano` an engine takes the file that it runs the fastest, see `engines.file_for`; here
    it is the one in fp32, as by `nano-fp32`. `nano-int8` is the one in 8 bits.

    Raises:
        ModelError: neither a shipped model nor an existing file, or a checkpoint.
    """
    cards = shipped()
    files = {name: card.onnx for name, card in cards.items()}
    files |= {f"{name}{INT8}": card.int8 for name, card in cards.items() if card.int8 is not None}
    if isinstance(model, str) and model.removesuffix(FP32) in cards:
        model = model.removesuffix(FP32)
    path = _resolve(model, files, "model file")
    if path.suffix in CHECKPOINTS:
        raise ModelError(f"{path} is a checkpoint: make a model file of it with `edgefuse export {path}`")
    return path


def checkpoint_file(model: str | Path) -> Path:
    """Return the weights of a shipped model's name, or the given file itself.

    Raises:
        ModelError: neither a shipped model nor an existing file.
    """
    return _resolve(model, {name: card.safetensors for name, card in shipped().items()}, "checkpoint")


def _resolve(model: str | Path, files: dict[str, Path], kind: str) -> Path:
    if isinstance(model, str) and model in files:
        return files[model]
    path = Path(model)
    if path.is_dir():
        raise ModelError(f"{path} is a folder, a model file or one of {', '.join(files)} is needed")
    if path.is_file():
        return path
    if path.suffix or len(path.parts) > 1:
        raise ModelError(f"no such {kind}: {path}")
    raise ModelError(unknown_name("model", str(model), files))
