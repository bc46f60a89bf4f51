"""What a run leaves to look at: losses and validation as CSV and plots, and sample fusions."""

import csv
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from torch import Tensor

from edgefuse.errors import InputError, counted
from edgefuse.files import replace_file
from edgefuse.images import Image, write_image
from edgefuse.metrics import CORE_METRICS, score
from edgefuse.runtime.engines.fuser import Fuser
from edgefuse.settings import to_plain
from edgefuse.train.config import TrainConfig
from edgefuse.train.data import TrainingSet
from edgefuse.train.models import FusionNetwork
from edgefuse.train.models.base import TorchEngine
from edgefuse.train.trainer import Trainer

CRITIC = ("discriminator", "score_real", "score_fused")
LOG_EVERY = 20
SAMPLES = 3
GAP = 4
LABEL_HEIGHT = 22


@dataclass(frozen=True)
class Progress:
    """Where a run stands; the losses are means over the last steps."""

    step: int
    losses: dict[str, float]
    pairs_per_second: float


class RunRecord:
    """Gathers the losses of a run and writes its settings, logs, plots and `samples/` into its folder.

    Args:
        folder: the run folder.
        config: the run's settings.
        trainer: whose losses are written down.
        data: the images; the first pairs to validate on become the samples, or some that are trained on.
        start: step that the run starts or continues at; later rows of an older log are dropped.
        on_progress: called with every row that is logged.
    """

    def __init__(
        self,
        folder: Path,
        config: TrainConfig,
        trainer: Trainer,
        data: TrainingSet,
        start: int,
        on_progress: Callable[[Progress], None],
    ) -> None:
        self.folder, self.config = folder, config
        self.on_progress = on_progress
        self.held_out = data.validation
        self.samples = list(self.held_out[:SAMPLES]) or data.samples(SAMPLES)
        self.title = f"{config.model}, {config.paradigm}, {len(data.pairing):,} possible pairs"
        names = ["total", *trainer.losses]
        self.panels: list[tuple[str, ...]] = [(name,) for name in names]
        if trainer.adversary is not None:
            self.panels += [CRITIC[:1], CRITIC[1:]]
            names += CRITIC
        self._write_config()
        self.log = CsvLog(folder / "log.csv", ("step", *names, "pairs_per_second"), start)
        if self.held_out:
            self.validation = CsvLog(folder / "validation.csv", ("step", *CORE_METRICS), start)
        self._sums: dict[str, Tensor | float] = {}
        self._count, self._since = 0, time.monotonic()

    def _write_config(self) -> None:
        try:
            (self.folder / "samples").mkdir(parents=True, exist_ok=True)
            text = json.dumps(to_plain(self.config), indent=2) + "\n"
            (self.folder / "config.json").write_text(text, "utf-8")
        except OSError as error:
            raise InputError(f"cannot make the run folder {self.folder}: {error.strerror}") from None

    def add(self, step: int, losses: dict[str, Tensor], model: FusionNetwork) -> None:
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

    def _validate(self, step: int, model: FusionNetwork) -> None:
        self.validation.append({"step": step, **validate(model, self.held_out)})
        title = f"{self.title}; {counted(len(self.held_out), 'pair')} to validate on, protocol field"
        plots = [(name,) for name in CORE_METRICS]
        plot_rows(self.validation.rows(), plots, self.folder / "validation.png", title)


def require_finite(loss: float, step: int) -> None:
    """Raise `InputError` if the loss is not a finite number."""
    if not math.isfinite(loss):
        raise InputError(f"the loss is {loss} at step {step}: lower the learning rate")


def validate(model: FusionNetwork, pairs: tuple[tuple[Image, Image], ...]) -> dict[str, float]:
    """Return the means of the five metrics over aligned grey pairs, by protocol `field`."""
    fuser = Fuser(TorchEngine(model, "validated"))
    scores = [score(fuser(ir, vis), ir, vis, metrics=CORE_METRICS) for ir, vis in pairs]
    return {name: float(np.mean([values[name] for values in scores])) for name in CORE_METRICS}


def write_samples(path: Path, model: FusionNetwork, pairs: list[tuple[Image, Image]]) -> None:
    """Fuse grey pairs and write them as rows infrared | visible | fused of one picture, with labels."""
    fuser = Fuser(TorchEngine(model, "sample"))
    rows: list[Image] = []
    for ir, vis in pairs:
        tiles = {"infrared": ir, "visible": vis, "fused": fuser(ir, vis)}
        rows.append(np.hstack([labelled(tile, name) for name, tile in tiles.items()]))
    width = max(row.shape[1] for row in rows)
    rows = [np.pad(row, ((0, 0), (0, width - row.shape[1])), constant_values=255) for row in rows]
    write_image(path, np.vstack(rows))


def sample_tiles(picture: Image, shape: tuple[int, int]) -> tuple[Image, Image, Image]:
    """Cut infrared, visible and fused image of the first sample, of that shape, out of `write_samples`'."""
    height, width = shape
    tiles = picture[LABEL_HEIGHT:][:height]
    ir, vis, fused = (tiles[:, k * (width + GAP) :][:, :width] for k in range(3))
    return ir, vis, fused


def labelled(image: Image, text: str) -> Image:
    """Return a grey image with a text above it, and a gap below and to the right."""
    head = np.full((LABEL_HEIGHT, image.shape[1]), 255, np.uint8)
    cv2.putText(head, text, (4, 16), cv2.FONT_HERSHEY_SIMPLEX, 0.45, 0, 1, cv2.LINE_AA)
    framed = np.vstack((head, image))
    return cv2.copyMakeBorder(framed, 0, GAP, 0, GAP, cv2.BORDER_CONSTANT, value=255)


class CsvLog:
    """A CSV file with one row of numbers per logged step.

    Args:
        path: the file.
        columns: names; the first is `step`.
        start: step that the run continues at; rows after it are dropped, 0 empties the file.
    """

    def __init__(self, path: Path, columns: Sequence[str], start: int = 0) -> None:
        self.path, self.columns = path, tuple(columns)
        kept = [row for row in self.rows() if row["step"] <= start] if start else []
        replace_file(path, lambda partial: self._write(partial, kept))

    def _write(self, path: Path, rows: list[dict[str, float]]) -> None:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self.columns)
            writer.writeheader()
            writer.writerows(rows)

    def append(self, row: dict[str, float]) -> None:
        """Write one row."""
        with self.path.open("a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, self.columns).writerow(row)

    def rows(self) -> list[dict[str, float]]:
        """Read the complete rows; none if there is no such file."""
        rows: list[dict[str, float]] = []
        if not self.path.exists():
            return rows
        with self.path.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                try:
                    rows.append({name: float(row[name]) for name in self.columns})
                except (KeyError, TypeError, ValueError):
                    break  # a row cut short when the run was killed
        return rows


def plot_rows(
    rows: list[dict[str, float]],
    panels: Sequence[Sequence[str]],
    out: Path,
    title: str,
    *,
    logarithmic: bool = False,
) -> None:
    """Draw columns against the step and write a PNG file.

    Args:
        rows: with a `step` and the panels' columns.
        panels: the columns that each panel shows.
        out: the file, replaced in one move.
        title: above all panels.
        logarithmic: of panels whose values are all positive, the scale is logarithmic.
    """
    from matplotlib.ticker import LogLocator, NullFormatter

    across = 2 if len(panels) <= 4 else 3
    figure, grid = new_figure((-(-len(panels) // across), across), title, (5.0, 2.8))
    for axes in grid[len(panels) :]:
        axes.set_axis_off()
    steps = [row["step"] for row in rows]
    for axes, names in zip(grid, panels, strict=False):
        values = {name: np.array([row[name] for row in rows]) for name in names}
        for name, color in zip(names, ("tab:blue", "tab:orange"), strict=False):
            axes.plot(steps, values[name], lw=0.7, alpha=0.35, color=color)
            axes.plot(steps, _smooth(values[name]), lw=1.6, color=color, label=name)
        axes.set_title(", ".join(names), fontsize=10)
        axes.set_xlabel("step", fontsize=8)
        axes.grid(alpha=0.25)
        if len(names) > 1:
            axes.legend(fontsize=8)
        if logarithmic and rows and all((column > 0).all() for column in values.values()):
            axes.set_yscale("log")
            # Plain numbers at 1, 2 and 5: powers of ten alone leave less than a decade without any.
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_major_formatter("{x:.3g}")
            axes.yaxis.set_minor_formatter(NullFormatter())
    replace_file(out, lambda partial: figure.savefig(partial, format="png"))


def new_figure(
    panels: tuple[int, int], title: str, inches: tuple[float, float] = (3.4, 3.0)
) -> tuple[Any, list[Any]]:
    """Return a figure, and the axes of its panels: (down, across) of them, each of a size in inches."""
    # Without pyplot, which keeps global state and may look for a display.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    size = (inches[0] * panels[1], inches[1] * panels[0])
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, wrap=True)
    return figure, list(figure.subplots(*panels, squeeze=False).flat)


def _smooth(values: Any, share: float = 0.02) -> Any:
    window = max(1, int(len(values) * share))
    if not len(values):
        return values
    padded = np.pad(values, (window // 2, window - 1 - window // 2), mode="edge")
    return np.convolve(padded, np.ones(window) / window, mode="valid")
