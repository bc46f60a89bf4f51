"""The training loop, top to bottom."""

import json
import math
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edgefuse.errors import InputError, ModelError
from edgefuse.train.checkpoint import (
    Checkpoint,
    load_checkpoint,
    restore_model,
    save_checkpoint,
    save_weights,
)
from edgefuse.train.config import TrainConfig
from edgefuse.train.data import TrainingSet
from edgefuse.train.heap import keep_heap
from edgefuse.train.losses import fusion_losses
from edgefuse.train.models import build_model
from edgefuse.train.record import Progress, RunRecord, require_finite
from edgefuse.weights import checkpoint_file

__all__ = ["train"]


def train(
    config: TrainConfig,
    data: TrainingSet,
    folder: Path,
    *,
    resume: bool = False,
    checkpoint_minutes: float = 5.0,
    sample_every: int = 500,
    on_progress: Callable[[Progress], None] = lambda _: None,
    stop: threading.Event | None = None,
) -> Path:
    """Train a network and return the file to go on with: its weights, or the checkpoint if stopped.

    The run folder gets `config.json`, `log.csv`, `loss.png`, `samples/`, `checkpoint.pt` and, at the end,
    `<model>.safetensors`. Same configuration, images, machine and thread count: same weights; also when
    the run was interrupted and resumed.

    Args:
        config: what to train, how.
        data: the images, from `training_set(config)`.
        folder: the run folder; made if it does not exist.
        resume: go on from the folder's checkpoint.
        checkpoint_minutes: time between two checkpoints.
        sample_every: steps between two sets of sample fusions.
        on_progress: called with the mean losses every few steps.
        stop: when set, the run writes a checkpoint after the step at hand and ends.

    Raises:
        InputError: the folder holds another run or nothing to resume, or the loss became infinite.
        ModelError: the checkpoint to begin with or to resume from is damaged or of another configuration.
    """
    if sample_every < 1:
        raise InputError(f"sample_every is {sample_every}, it must be at least 1")
    keep_heap()
    torch.manual_seed(config.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = build_model(config.model).to(device).train()
    optimiser = torch.optim.Adam(model.parameters(), lr=config.learning_rate)
    start = _resume(folder, config, model, optimiser) if resume else _begin(folder, config, model)
    record = RunRecord(folder, config, data, start, sample_every, on_progress)
    checkpoint, saved = folder / "checkpoint.pt", time.monotonic()

    for step, patches in enumerate(data.batches(start, config.steps), start):
        x = torch.from_numpy(patches).to(device).float() / 255
        losses = _step(model, optimiser, x, config, step)
        done = step + 1
        record.add(done, losses, model)
        stopped = stop is not None and stop.is_set() and done < config.steps
        if stopped or done == config.steps or time.monotonic() - saved > checkpoint_minutes * 60:
            require_finite(float(losses["total"]), done)
            save_checkpoint(checkpoint, _checkpoint(config, model, optimiser, done))
            saved = time.monotonic()
        if stopped:
            return checkpoint
    weights = folder / f"{config.model}.safetensors"
    save_weights(weights, load_checkpoint(checkpoint))
    return weights


def _step(
    model: nn.Module, optimiser: torch.optim.Optimizer, x: Tensor, config: TrainConfig, step: int
) -> dict[str, Tensor]:
    """Do one step on `[B, 2, P, P]` in [0, 1] and return its losses by name."""
    for group in optimiser.param_groups:
        group["lr"] = config.learning_rate * rate(step, config.steps)
    total, terms = fusion_losses(model(x), x[:, :1], x[:, 1:], config.losses)
    optimiser.zero_grad(set_to_none=True)
    total.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(model.parameters(), config.clip)
    optimiser.step()
    return {"total": total.detach(), **{name: term.detach() for name, term in terms.items()}}


def rate(step: int, steps: int) -> float:
    """Return the share of the peak learning rate: 2 % linear warm-up, then a cosine down to 1 %."""
    warm = max(1, steps // 50)
    if step < warm:
        return (step + 1) / warm
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


def _begin(folder: Path, config: TrainConfig, model: nn.Module) -> int:
    # Only a checkpoint makes a run: what was killed before its first one is begun anew.
    if (folder / "checkpoint.pt").exists():
        raise InputError(f"{folder} already holds a run: give another --out, or --resume to go on with it")
    if config.init is not None:
        _initialise(model, checkpoint_file(config.init), config)
    try:
        (folder / "samples").mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps(config.to_dict(), indent=2) + "\n", "utf-8")
    except OSError as error:
        raise InputError(f"cannot make the run folder {folder}: {error.strerror}") from None
    return 0


def _initialise(model: nn.Module, path: Path, config: TrainConfig) -> None:
    checkpoint = load_checkpoint(path)
    if checkpoint.model != config.model:
        raise ModelError(f"{path} holds {checkpoint.model!r} weights, and {config.model!r} is to be trained")
    model.load_state_dict(restore_model(checkpoint, path).state_dict())


def _resume(folder: Path, config: TrainConfig, model: nn.Module, optimiser: torch.optim.Optimizer) -> int:
    path = folder / "checkpoint.pt"
    if not path.exists():
        raise InputError(f"{folder} has no checkpoint.pt to resume from")
    checkpoint = load_checkpoint(path)
    before, now = TrainConfig.from_dict(checkpoint.config).to_dict(), config.to_dict()
    if changed := [name for name in now if before[name] != now[name]]:
        name = changed[0]
        raise ModelError(f"{path} was trained with {name} = {before[name]}, this run has {now[name]}")
    model.load_state_dict(checkpoint.weights)
    optimiser.load_state_dict(checkpoint.optimiser or {})
    return checkpoint.step


def _checkpoint(
    config: TrainConfig, model: nn.Module, optimiser: torch.optim.Optimizer, step: int
) -> Checkpoint:
    state: dict[str, Any] = optimiser.state_dict()
    return Checkpoint(config.model, model.state_dict(), step, config.to_dict(), state)
