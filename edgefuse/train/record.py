"""What a run leaves to look at: the losses as CSV and plot, and sample fusions."""

import csv
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from torch import Tensor, nn

from edgefuse.errors import InputError
from edgefuse.files import replace_file
from edgefuse.images import Image, write_image
from edgefuse.runtime.fuser import Fuser
from edgefuse.train.backend import TorchBackend
from edgefuse.train.config import TrainConfig
from edgefuse.train.data import TrainingSet

__all__ = ["Progress", "RunRecord", "plot_losses", "read_log", "require_finite"]

COLUMNS = ("step", "total", "intensity", "gradient", "ssim", "pairs_per_second")
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
    """Gathers the losses of a run and writes `log.csv`, `loss.png` and `samples/` into its folder.

    Args:
        folder: the run folder.
        config: the run's settings.
        data: the images; the first pairs of epoch 0 become the samples.
        start: step that the run begins or goes on at; later rows of an older log are dropped.
        sample_every: steps between two sets of sample fusions.
        on_progress: called with every row that is logged.
    """

    def __init__(
        self,
        folder: Path,
        config: TrainConfig,
        data: TrainingSet,
        start: int,
        sample_every: int,
        on_progress: Callable[[Progress], None],
    ) -> None:
        self.folder, self.config, self.sample_every = folder, config, sample_every
        self.on_progress = on_progress
        self.samples = data.samples(SAMPLES)
        self.title = f"{config.model}, {config.paradigm}, {len(data.pairing):,} possible pairs"
        self.log = folder / "log.csv"
        kept = [row for row in read_log(self.log) if row["step"] <= start] if start else []
        with self.log.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(kept)
        self._sums: dict[str, Tensor | float] = {}
        self._count, self._since = 0, time.monotonic()

    def add(self, step: int, losses: dict[str, Tensor], model: nn.Module) -> None:
        """Take in the losses of a step; write what is due after it."""
        for name, value in losses.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        self._count += 1
        last = step == self.config.steps
        if step % LOG_EVERY == 0 or last:
            self._write_row(step)
        if step % self.sample_every == 0 or last:
            write_samples(self.folder / "samples" / f"step_{step:06d}.png", model, self.samples)
            plot_losses(self.log, self.folder / "loss.png", self.title)

    def _write_row(self, step: int) -> None:
        means = {name: float(value) / self._count for name, value in self._sums.items()}
        require_finite(means["total"], step)
        speed = self._count * self.config.batch / (time.monotonic() - self._since)
        with self.log.open("a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, COLUMNS).writerow(
                {"step": step, **means, "pairs_per_second": round(speed, 2)}
            )
        self._sums, self._count, self._since = {}, 0, time.monotonic()
        self.on_progress(Progress(step, means, speed))


def require_finite(loss: float, step: int) -> None:
    """Raise `InputError` if the loss is not a finite number."""
    if not math.isfinite(loss):
        raise InputError(f"the loss is {loss} at step {step}: lower the learning rate")


def read_log(path: Path) -> list[dict[str, float]]:
    """Read the complete rows of a `log.csv`; none if there is no such file."""
    rows: list[dict[str, float]] = []
    if not path.exists():
        return rows
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            try:
                rows.append({name: float(row[name]) for name in COLUMNS})
            except (KeyError, TypeError, ValueError):
                break  # a row cut short when the run was killed
    return rows


def plot_losses(log: Path, out: Path, title: str) -> None:
    """Draw every loss of a `log.csv` against the step, one panel each, on a logarithmic scale."""
    # On a canvas of its own: pyplot keeps global state and may look for a display.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = read_log(log)
    steps = [row["step"] for row in rows]
    figure = Figure(figsize=(10, 5.6), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    figure.suptitle(title)
    for axes, name in zip(figure.subplots(2, 2).flat, COLUMNS[1:5], strict=True):
        values = np.array([row[name] for row in rows])
        axes.plot(steps, values, lw=0.7, alpha=0.35, color="tab:blue")
        axes.plot(steps, _smooth(values), lw=1.6, color="tab:blue")
        axes.set_title(name, fontsize=10)
        axes.set_xlabel("step", fontsize=8)
        axes.grid(alpha=0.25)
        if len(values) and (values > 0).all():
            axes.set_yscale("log")
    replace_file(out, canvas.print_png)


def write_samples(path: Path, model: nn.Module, pairs: list[tuple[Image, Image]]) -> None:
    """Fuse grey pairs and write them as rows infrared | visible | fused of one picture."""
    fuser = Fuser(TorchBackend(model, "sample"))
    rows: list[Any] = []
    for ir, vis in pairs:
        tiles = (ir, vis, fuser(ir, vis))
        framed = [cv2.copyMakeBorder(t, 0, GAP, 0, GAP, cv2.BORDER_CONSTANT, value=255) for t in tiles]
        rows.append(np.hstack(framed))
    width = max(row.shape[1] for row in rows)
    rows = [np.pad(row, ((0, 0), (0, width - row.shape[1])), constant_values=255) for row in rows]
    write_image(path, np.vstack(rows))


def _smooth(values: Any, share: float = 0.02) -> Any:
    window = max(1, int(len(values) * share))
    padded = np.pad(values, (window // 2, window - 1 - window // 2), mode="edge")
    return np.convolve(padded, np.ones(window) / window, mode="valid")
