"""The training loop, top to bottom."""

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from edgefuse.errors import InputError, ModelError
from edgefuse.files import check_writable
from edgefuse.settings import from_plain, to_plain
from edgefuse.train.checkpoint import (
    Checkpoint,
    load_checkpoint,
    restore_model,
    save_checkpoint,
    save_weights,
)
from edgefuse.train.config import PYRAMID, TrainConfig
from edgefuse.train.data import TrainingSet
from edgefuse.train.machine import SINGLE_PROCESS, DistributedContext, resolve_precision
from edgefuse.train.models import FusionNetwork
from edgefuse.train.record import Progress, RunRecord, require_finite
from edgefuse.train.target import PyramidTarget
from edgefuse.train.trainer import Trainer
from edgefuse.weights import checkpoint_file

CHECKPOINT = "checkpoint.pt"
"""Its name in a run folder."""

FREE = ("threads", "checkpoint_minutes", "sample_every", "steps")
MOVED = ("ir", "vis", "val_ir", "val_vis", "teacher", "init")
"""What a resumed run may have other values of. Whether moved images and teachers are the same ones, their
fingerprints tell."""


def train(
    config: TrainConfig,
    data: TrainingSet,
    folder: Path,
    *,
    resume: bool = False,
    on_progress: Callable[[Progress], None] = lambda _: None,
    on_step: Callable[[int, FusionNetwork], None] = lambda _done, _averaged: None,
    stop: threading.Event | None = None,
    context: DistributedContext = SINGLE_PROCESS,
) -> Path:
    """Train a network and return the file to continue with: its weights, or the checkpoint if stopped.

    The run folder gets `config.json`, `log.csv`, `loss.png`, `samples/`, `checkpoint.pt` and, at the end,
    `<model>.safetensors`; with pairs to validate on, also `validation.csv` and `validation.png`. Same
    configuration, images, machine and thread count: same weights; also when the run was interrupted and
    resumed.

    Args:
        config: what to train, how.
        data: the images, from `training_set(config)`.
        folder: the run folder; made if it does not exist.
        resume: continue from the folder's checkpoint; without one, start.
        on_progress: called with the mean losses every few steps.
        on_step: called after every step with the number of steps done and the averaged network.
        context: the processes that train together; the first one writes the folder.
        stop: when set, the run writes a checkpoint after the step at hand and ends.

    Raises:
        InputError: the folder holds another run, its checkpoint is of other images, or the loss or a
            gradient became infinite.
        ModelError: the checkpoint to start or resume from is damaged or of another configuration.
    """
    config = replace(config, precision=resolve_precision(config.precision))
    checkpoint, saved = folder / CHECKPOINT, time.monotonic()
    trainer, start, images = _begin(config, data, checkpoint, resume, context)
    writes = context.rank == 0
    record = RunRecord(folder, config, trainer, data, start, on_progress) if writes else None

    for step, patches in enumerate(data.batches(start, config.steps, context), start):
        counts = data.counts(step, context) if trainer.uses_levels else None
        losses, stopped = trainer.step(patches, step, stop is not None and stop.is_set(), counts)
        done = step + 1
        on_step(done, trainer.averaged)
        stopped = stopped and done < config.steps
        if record is not None:
            record.add(done, losses, trainer.averaged)
            if stopped or done == config.steps or time.monotonic() - saved > config.checkpoint_minutes * 60:
                require_finite(float(losses["total"]), done)
                save_checkpoint(checkpoint, _checkpoint(config, trainer, done, images))
                saved = time.monotonic()
        if stopped:
            return checkpoint
    weights = folder / f"{config.model}.safetensors"
    if writes:
        save_weights(weights, _checkpoint(config, trainer, config.steps, images))
    return weights


def _begin(
    config: TrainConfig, data: TrainingSet, checkpoint: Path, resume: bool, context: DistributedContext
) -> tuple[Trainer, int, str]:
    """Return the trainer, the step to begin with, and a fingerprint of the images and the teacher."""
    if context.size != config.processes:
        raise InputError(
            f"the configuration is for {config.processes} processes, but {context.size} are running"
        )
    data.move_to(context.device)
    trainer = Trainer(config, context, None if config.teacher is None else _model_of(config.teacher))
    images = data.fingerprint() + trainer.fingerprint()
    if resume and checkpoint.exists():
        return trainer, _resume(checkpoint, config, trainer, images), images
    if context.rank == 0:
        check_run_folder(checkpoint.parent, resume=False)
    if config.init is not None:
        trainer.initialise(_initial_weights(checkpoint_file(config.init), config))
    return trainer, 0, images


def check_run_folder(folder: Path, *, resume: bool) -> None:
    """See that a run can be written into a folder, before minutes are spent on its images.

    Raises:
        InputError: it holds a run that is not to be resumed, or it cannot be made or written.
    """
    # Only a checkpoint makes a run: what was killed before its first one starts again.
    if not resume and (folder / CHECKPOINT).exists():
        raise InputError(f"{folder} already holds a run: give another --out, or --resume to continue it")
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not there.is_dir():
        raise InputError(f"cannot make the run folder {folder}: {there} is a file")
    check_writable(there / "config.json" if there == folder else there / folder.name)


def _initial_weights(path: Path, config: TrainConfig) -> dict[str, Tensor]:
    # The name does not count: `gan` may start from the weights of a `cnn`, which is its generator.
    return restore_model(replace(load_checkpoint(path), model=config.model), path).state_dict()


def _model_of(teacher: str) -> FusionNetwork:
    if teacher == PYRAMID:
        return PyramidTarget()
    path = checkpoint_file(teacher)
    return restore_model(load_checkpoint(path), path)


def _resume(path: Path, config: TrainConfig, trainer: Trainer, images: str) -> int:
    checkpoint = load_checkpoint(path)
    before = to_plain(from_plain(TrainConfig, checkpoint.config, str(path)))
    now = to_plain(config)
    if changed := [name for name in now if before[name] != now[name] and name not in FREE + MOVED]:
        name = changed[0]
        raise ModelError(f"{path} was trained with {name} = {before[name]}, this run has {now[name]}")
    if checkpoint.training is None:
        raise ModelError(f"{path} holds only weights, nothing to resume: start from it with --set init=FILE")
    if checkpoint.training.get("images") != images:
        raise InputError(
            f"{path} was trained on other images, whose names or sizes have changed, or with another teacher"
        )
    if config.steps < checkpoint.step:
        raise InputError(f"steps is {config.steps}, and {path} is at step {checkpoint.step} already")
    trainer.restore(checkpoint.weights, checkpoint.training)
    return checkpoint.step


def _checkpoint(config: TrainConfig, trainer: Trainer, step: int, images: str) -> Checkpoint:
    weights = trainer.averaged.state_dict()
    training = {**trainer.state_dict(), "images": images}
    return Checkpoint(config.model, weights, step, to_plain(config), training)
