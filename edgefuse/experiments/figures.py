"""The plots of an experiment."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgefuse.experiments.grids import Row, RowScores
from edgefuse.files import replace_file
from edgefuse.images import read_image, write_image
from edgefuse.metrics import CORE_METRICS
from edgefuse.train.record import labelled, new_figure, sample_tiles

COLORS = {"sptp": "tab:blue", "uptp": "tab:orange", "aptp": "tab:green"}


def metric_against_base(rows: Sequence[Row], results: Sequence[RowScores], test: str, out: Path) -> None:
    """Draw every metric against the base size, one line a mode, bars for the spread over the seeds."""
    figure, grid = new_figure((1, len(CORE_METRICS)), f"{rows[0].cell.model}, tested on {test}")
    for axes, name in zip(grid, CORE_METRICS, strict=True):
        for mode in dict.fromkeys(row.cell.paradigm for row in rows):
            chosen = [k for k, row in enumerate(rows) if row.cell.paradigm == mode]
            values = [[scores[test][name] for scores in results[k]] for k in chosen]
            axes.errorbar(
                [rows[k].cell.base for k in chosen],
                [np.mean(v) for v in values],
                [np.std(v, ddof=1) if len(v) > 1 else 0 for v in values],
                marker="o",
                capsize=3,
                label=mode,
                color=COLORS[mode],
            )
        axes.set_title(name, fontsize=10)
        axes.set_xscale("log")
        axes.set_xlabel("base images", fontsize=8)
        axes.grid(alpha=0.25)
    grid[0].legend(fontsize=8)
    _save(figure, out)


def convergence(rows: Sequence[Row], runs: Sequence[Sequence[Path]], out: Path) -> None:
    """Draw the loss and the SSIM of the validated pairs against the step: Fig. 2 of the paper.

    Args:
        rows: what was trained.
        runs: the run folders of each row, one a seed.
        out: the PNG file.
    """
    models = list(dict.fromkeys(row.cell.model for row in rows))
    figure, grid = new_figure((2, len(models)), "total training loss, and SSIM of test pairs")
    for row, folders in zip(rows, runs, strict=True):
        column = models.index(row.cell.model)
        for line, (log, name) in enumerate((("log.csv", "total"), ("validation.csv", "SSIM"))):
            axes = grid[line * len(models) + column]
            for k, folder in enumerate(folders):
                steps, values = _columns(folder / log, name)
                label = row.cell.paradigm if k == 0 else None
                axes.plot(steps, values, color=COLORS[row.cell.paradigm], lw=1, alpha=0.8, label=label)
            axes.set_title(f"{row.cell.model}: {name}", fontsize=10)
            axes.set_xlabel("step", fontsize=8)
            axes.grid(alpha=0.25)
            axes.legend(fontsize=8)
            if name == "total":
                axes.set_yscale("log")
    _save(figure, out)


def evolution(rows: Sequence[Row], runs: Sequence[Path], shape: tuple[int, int], out: Path) -> None:
    """Put the first sample of every row's run, as it was at each sampled step, side by side: Fig. 3.

    Args:
        rows: what was trained.
        runs: the run folder of each row.
        shape: height and width of the sample.
        out: the PNG file.
    """
    lines = []
    for row, folder in zip(rows, runs, strict=True):
        samples = sorted((folder / "samples").glob("step_*.png"))
        first = [sample_tiles(read_image(path), shape) for path in samples]
        ir, vis, _ = first[0]
        shown = [("infrared", ir), ("visible", vis)]
        shown += [
            (f"{row.cell.paradigm}, step {int(path.stem[5:])}", fused)
            for path, (_, _, fused) in zip(samples, first, strict=True)
        ]
        lines.append(np.hstack([labelled(image, text) for text, image in shown]))
    write_image(out, np.vstack(lines))


def _columns(path: Path, name: str) -> tuple[list[float], list[float]]:
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [float(row["step"]) for row in rows], [float(row[name]) for row in rows]


def _save(figure: Any, out: Path) -> None:
    replace_file(out, lambda partial: figure.savefig(partial, format="png"))
