"""Checkpoints: `.pt` to continue training from, `.safetensors` with the weights alone to ship.

Those that the paper's authors released are plain `state_dict`s under other names, with linear layers where we
have 1×1 convolutions; they are brought into our networks.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from edgefuse.errors import ModelError, unknown_name
from edgefuse.files import replace_file
from edgefuse.train.models import FusionNetwork, build_model

FORMAT = 2


@dataclass(frozen=True)
class Checkpoint:
    """A network's weights and how they came about."""

    model: str
    weights: dict[str, Tensor]
    """Those to fuse with: the moving average, where there is one."""
    step: int
    config: dict[str, Any]
    training: dict[str, Any] | None = None
    """What training needs to continue; see `Trainer.state_dict`."""


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a `.pt` file; one that exists is replaced in a single move, so it is never half-written."""
    values = {
        "format": FORMAT,
        "model": checkpoint.model,
        "weights": checkpoint.weights,
        "step": checkpoint.step,
        "config": checkpoint.config,
        "training": checkpoint.training,
    }
    replace_file(path, lambda partial: torch.save(values, partial), durable=True)


def save_weights(path: Path, checkpoint: Checkpoint) -> None:
    """Write the weights alone as safetensors, with model, step and configuration as metadata."""
    facts = {"model": checkpoint.model, "step": checkpoint.step, "config": checkpoint.config}
    tensors = {k: v.detach().cpu().contiguous() for k, v in checkpoint.weights.items()}
    # Not by `save_file`, whose files only their owner can read.
    content = save(tensors, metadata={"edgefuse": json.dumps(facts)})
    replace_file(path, lambda partial: partial.write_bytes(content), durable=True)


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a `.pt` or `.safetensors` file. Nothing in it is executed.

    Raises:
        ModelError: missing, damaged, or not written by edgefuse.
    """
    if path.suffix == ".onnx":
        raise ModelError(f"{path} is an exported file: give the .pt or .safetensors file that it was made of")
    if not path.is_file():
        raise ModelError(f"no such checkpoint: {path}")
    return _load_safetensors(path) if path.suffix == ".safetensors" else _load_pt(path)


def restore_model(checkpoint: Checkpoint, path: object = "the checkpoint") -> FusionNetwork:
    """Build the checkpoint's network, with its weights, in evaluation mode.

    Raises:
        ModelError: unknown network, or weights that do not fit it.
    """
    model = build_model(checkpoint.model)
    try:
        model.load_state_dict(checkpoint.weights)
    except RuntimeError as error:
        reason = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
        raise ModelError(f"the weights in {path} do not fit {checkpoint.model!r}: {reason[:160]}") from None
    return model.eval()


def _load_pt(path: Path) -> Checkpoint:
    try:
        values = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # unpickling raises anything at all on damaged files
        raise ModelError(f"{path} is not a readable checkpoint ({type(error).__name__})") from None
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise ModelError(
            f"{path} is not a checkpoint written by `edgefuse train`: for the networks that "
            "the paper's authors released use `edgefuse import-weights`"
        )
    del values["format"]
    return _checked(values, path)


def _load_safetensors(path: Path) -> Checkpoint:
    try:
        with safe_open(path, framework="pt") as file:
            facts = (file.metadata() or {}).get("edgefuse")
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path} is not a readable safetensors file: {error}") from None
    if facts is None:
        raise ModelError(f"{path} has no edgefuse metadata that names its network")
    try:
        values = dict(json.loads(facts))
    except (ValueError, TypeError):
        raise ModelError(f"{path} has damaged edgefuse metadata") from None
    return _checked({**values, "weights": weights}, path)


def _checked(values: dict[str, Any], path: Path) -> Checkpoint:
    try:
        checkpoint = Checkpoint(**values)
    except TypeError:
        raise ModelError(
            f"{path} lacks parts of a checkpoint, or has unknown ones: {', '.join(values)}"
        ) from None
    types = {"model": str, "weights": dict, "step": int, "config": dict}
    for name, expected in types.items():
        if not isinstance(getattr(checkpoint, name), expected):
            raise ModelError(f"{path} is damaged: its {name} is a {type(getattr(checkpoint, name)).__name__}")
    return checkpoint


# (part of a released name, what it is in ours), all applied in this order.
NAMES = [
    (r"^(inchange|proj)\.", "stem."),
    (r"^(outchange|final)\.", "head."),
    (r"^fuse?_(\d)\.", r"skip_\1."),
    (r"\.linear([12])\.0\.", r".linear\1."),
    (r"\.eca\.conv\.linear\.", ".gate."),
    (r"\.eca\.conv\.", ".gate.conv."),
    (r"\.dense_block\.(\d)\.change\.", r".\1.layers."),
    (r"^(down|up)_(\d)\.(down|up)sampler\.", r"\1_\2."),
    (r"^trans_(\d)\.transformer_layers\.0\.", r"layer_\1."),
    (r"\.attn\.norm\.", ".norm_1."),
    (r"\.attn\.fn\.(group_)?", ".attention."),
    (r"\.attention\.fus\.", ".attention.merge."),
    (r"\.ff\.norm\.", ".norm_2."),
    (r"\.ff\.fn\.net\.0\.", ".mlp.0."),
    (r"\.ff\.fn\.net\.3\.", ".mlp.2."),
]
RELEASED = ("cnn", "transformer", "gan")
CONSTANTS = re.compile(r"\.mask$")


def import_released(path: Path, model: str) -> Checkpoint:
    """Read a released checkpoint as one of ours.

    Args:
        path: the authors' file, such as `CNN.model`. Nothing in it is executed.
        model: the network in it, a name in `RELEASED`.

    Returns:
        The checkpoint, at step 0, with an empty configuration: how it was trained is not in the file.

    Raises:
        ModelError: missing or damaged, an unknown network, or weights of another one.
    """
    if model not in RELEASED:
        raise ModelError(unknown_name("released network", model, RELEASED))
    if not path.is_file():
        raise ModelError(f"no such checkpoint: {path}")
    try:
        released = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # unpickling raises anything at all on damaged files
        raise ModelError(f"{path} is not a readable checkpoint ({type(error).__name__})") from None
    if not isinstance(released, dict) or not all(isinstance(value, Tensor) for value in released.values()):
        raise ModelError(f"{path} is not a plain state_dict, as the released checkpoints are")

    renamed = {_rename(k): v for k, v in released.items() if not CONSTANTS.search(k)}
    own = build_model(model).state_dict()
    if renamed.keys() != own.keys():
        odd = min(renamed.keys() ^ own.keys())
        raise ModelError(f"{path} is not a released {model!r}: {odd!r} is in one of the two networks only")
    for name, value in renamed.items():
        if value.numel() != own[name].numel():
            raise ModelError(f"{path} is not a released {model!r}: {name!r} has {tuple(value.shape)}")
    return Checkpoint(model, {name: renamed[name].reshape(own[name].shape) for name in own}, 0, {})


def _rename(name: str) -> str:
    for pattern, ours in NAMES:
        name = re.sub(pattern, ours, name)
    return name
