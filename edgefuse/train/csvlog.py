"""Numbers by step, in a CSV file that survives being killed, and their plot."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgefuse.files import replace_file

__all__ = ["CsvLog", "plot_rows"]


class CsvLog:
    """A CSV file with one row of numbers per logged step.

    Args:
        path: the file.
        columns: names; the first is `step`.
        start: step that the run goes on at; rows after it are dropped, 0 empties the file.
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
    # On a canvas of its own: pyplot keeps global state and may look for a display.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    across = 2 if len(panels) <= 4 else 3
    down = -(-len(panels) // across)
    figure = Figure(figsize=(5 * across, 2.8 * down), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    figure.suptitle(title)
    grid = list(figure.subplots(down, across, squeeze=False).flat)
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
    replace_file(out, canvas.print_png)


def _smooth(values: Any, share: float = 0.02) -> Any:
    window = max(1, int(len(values) * share))
    if not len(values):
        return values
    padded = np.pad(values, (window // 2, window - 1 - window // 2), mode="edge")
    return np.convolve(padded, np.ones(window) / window, mode="valid")
