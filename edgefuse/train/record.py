"""What a run leaves to look at: losses and validation as CSV and plots, and sample fusions."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from torch import Tensor, nn

from edgefuse.errors import InputError
from edgefuse.images import Image, write_image
from edgefuse.metrics import CORE_METRICS, score
from edgefuse.runtime.fuser import Fuser
from edgefuse.train.backend import TorchBackend
from edgefuse.train.config import TrainConfig
from edgefuse.train.csvlog import CsvLog, plot_rows
from edgefuse.train.data import TrainingSet
from edgefuse.train.models import ADVERSARIAL

__all__ = [
    "LOSSES",
    "OPPONENTS",
    "Progress",
    "RunRecord",
    "require_finite",
    "sample_tiles",
    "validate",
]

LOSSES = ("total", "intensity", "gradient", "ssim")
OPPONENTS = ("adversarial", "discriminator", "score_real", "score_fused")
LOG_EVERY = 20
SAMPLES = 3
GAP = 4


@dataclass(frozen=True)
class Progress:
    """Where a run stands; the losses are means over the last steps."""

    step: int
    losses: dict[str, float]
    pairs_per_second: float


class RunRecord:
    """Gathers the losses of a run and writes its logs, plots and `samples/` into its folder.

    Args:
        folder: the run folder.
        config: the run's settings.
        data: the images; the first pairs to validate on become the samples, or some that are trained on.
        start: step that the run begins or goes on at; later rows of an older log are dropped.
        on_progress: called with every row that is logged.
    """

    def __init__(
        self,
        folder: Path,
        config: TrainConfig,
        data: TrainingSet,
        start: int,
        on_progress: Callable[[Progress], None],
    ) -> None:
        self.folder, self.config = folder, config
        self.on_progress = on_progress
        self.held_out = data.validation
        self.samples = list(self.held_out[:SAMPLES]) or data.samples(SAMPLES)
        self.title = f"{config.model}, {config.paradigm}, {len(data.pairing):,} possible pairs"
        self.panels: list[tuple[str, ...]] = [(name,) for name in LOSSES]
        names: tuple[str, ...] = LOSSES
        if config.model in ADVERSARIAL:
            self.panels += [("discriminator",), OPPONENTS[2:]]
            names += OPPONENTS
        if config.teacher is not None:
            self.panels.append(("fallback",))
            names += ("fallback",)
        self.log = CsvLog(folder / "log.csv", ("step", *names, "pairs_per_second"), start)
        if self.held_out:
            self.validation = CsvLog(folder / "validation.csv", ("step", *CORE_METRICS), start)
        self._sums: dict[str, Tensor | float] = {}
        self._count, self._since = 0, time.monotonic()

    def add(self, step: int, losses: dict[str, Tensor], model: nn.Module) -> None:
        """Take in the losses of a step; write what is due after it, seen with the model's weights."""
        for name, value in losses.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        self._count += 1
        last = step == self.config.steps
        if step % LOG_EVERY == 0 or last:
            self._write_row(step)
        if step % self.config.sample_every == 0 or last:
            write_samples(self.folder / "samples" / f"step_{step:06d}.png", model, self.samples)
            plot_rows(self.log.rows(), self.panels, self.folder / "loss.png", self.title, logarithmic=True)
            if self.held_out:
                self._validate(step, model)

    def _write_row(self, step: int) -> None:
        means = {name: float(value) / self._count for name, value in self._sums.items()}
        require_finite(means["total"], step)
        patches = self._count * self.config.batch * self.config.processes
        speed = patches / (time.monotonic() - self._since)
        self.log.append({"step": step, **means, "pairs_per_second": round(speed, 2)})
        self._sums, self._count, self._since = {}, 0, time.monotonic()
        self.on_progress(Progress(step, means, speed))

    def _validate(self, step: int, model: nn.Module) -> None:
        self.validation.append({"step": step, **validate(model, self.held_out)})
        title = f"{self.title}; {len(self.held_out)} pairs to validate on, protocol field"
        plots = [(name,) for name in CORE_METRICS]
        plot_rows(self.validation.rows(), plots, self.folder / "validation.png", title)


def require_finite(loss: float, step: int) -> None:
    """Raise `InputError` if the loss is not a finite number."""
    if not math.isfinite(loss):
        raise InputError(f"the loss is {loss} at step {step}: lower the learning rate")


def validate(model: nn.Module, pairs: tuple[tuple[Image, Image], ...]) -> dict[str, float]:
    """Return the means of the five metrics over aligned grey pairs, by protocol `field`."""
    fuser = Fuser(TorchBackend(model, "validated"))
    scores = [score(fuser(ir, vis), ir, vis, metrics=CORE_METRICS) for ir, vis in pairs]
    return {name: float(np.mean([values[name] for values in scores])) for name in CORE_METRICS}


def write_samples(path: Path, model: nn.Module, pairs: list[tuple[Image, Image]]) -> None:
    """Fuse grey pairs and write them as rows infrared | visible | fused of one picture."""
    fuser = Fuser(TorchBackend(model, "sample"))
    rows: list[Image] = []
    for ir, vis in pairs:
        tiles = (ir, vis, fuser(ir, vis))
        framed = [cv2.copyMakeBorder(t, 0, GAP, 0, GAP, cv2.BORDER_CONSTANT, value=255) for t in tiles]
        rows.append(np.hstack(framed))
    width = max(row.shape[1] for row in rows)
    rows = [np.pad(row, ((0, 0), (0, width - row.shape[1])), constant_values=255) for row in rows]
    write_image(path, np.vstack(rows))


def sample_tiles(picture: Image, shape: tuple[int, int]) -> tuple[Image, Image, Image]:
    """Cut infrared, visible and fused image of the first sample, of that shape, out of `write_samples`'."""
    height, width = shape
    ir, vis, fused = (picture[:height, k * (width + GAP) :][:, :width] for k in range(3))
    return ir, vis, fused
