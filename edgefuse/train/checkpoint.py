"""Checkpoints: `.pt` to continue training from, `.safetensors` with the weights alone to ship."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from edgefuse.errors import ModelError
from edgefuse.files import replace_file
from edgefuse.train.models import FusionNetwork, build_model

__all__ = ["Checkpoint", "load_checkpoint", "restore_model", "save_checkpoint", "save_weights"]

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
