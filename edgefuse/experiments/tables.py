"""The tables of an experiment as Markdown, with the spread over the seeds and the paper's figures."""

from collections.abc import Sequence

import numpy as np

from edgefuse.experiments.cells import Scores
from edgefuse.experiments.grids import Row, published
from edgefuse.metrics import CORE_METRICS

RowScores = list[dict[str, Scores]]
"""Of one row: scores by test set, for every seed."""


def rows_table(
    rows: Sequence[Row], drawn: Sequence[tuple[int, int]], results: Sequence[RowScores], test: str
) -> str:
    """Return mean ± standard deviation over the seeds, one row of the table a training.

    `drawn` has the steps of each and the different pairs that they drew.
    """
    paper = any(row.paper for row in rows)
    head = ["network", "mode", "infrared", "visible", "base", "pairs", "drawn", "steps", *CORE_METRICS]
    lines = [head + [f"paper {name}" for name in CORE_METRICS] * paper]
    for row, (steps, distinct), seeds in zip(rows, drawn, results, strict=True):
        cell = row.cell
        own = [cell.model, cell.paradigm, cell.ir.name, cell.vis.name, str(cell.base), str(cell.pairs)]
        own += [str(distinct), str(steps)]
        own += [_spread([scores[test][name] for scores in seeds]) for name in CORE_METRICS]
        if paper:
            own += [f"{row.paper[name]:.2f}" if row.paper else "–" for name in CORE_METRICS]
        lines.append(own)
    return _markdown(lines, 4)


def relation(title: str, before: RowScores, after: RowScores, test: str, paper: float | None) -> list[str]:
    """Return a table row of what changes from one training to another, seed by seed, and the paper's gain."""
    values = [title]
    for name in CORE_METRICS:
        gains = [new[test][name] - old[test][name] for old, new in zip(before, after, strict=True)]
        values.append(_spread(gains, sign="+"))
    gains = [improvement(old[test], new[test]) for old, new in zip(before, after, strict=True)]
    values.append(_spread(gains, sign="+", digits=1) + " %")
    return [*values, "–" if paper is None else f"{paper:+.2f} %"]


def improvement(before: Scores, after: Scores) -> float:
    """Return the mean relative gain of the five metrics in percent, the paper's "Avg. Imp." (Table 3)."""
    return float(np.mean([100 * (after[name] / before[name] - 1) for name in CORE_METRICS]))


def relations_table(lines: list[list[str]]) -> str:
    """Return `relation`s as one table."""
    return _markdown([["", *CORE_METRICS, "mean gain", "paper's"], *lines], 1)


def others_table(scores: dict[str, Scores], test: str) -> str:
    """Return methods that were not trained here, and the paper's rows where the test set is one of its."""
    lines = [["method", *CORE_METRICS]]
    lines += [[name, *(f"{values[m]:.3f}" for m in CORE_METRICS)] for name, values in scores.items()]
    for row in published("table4"):
        if row.test.lower() in test.lower():
            figures = (f"{row.scores[m]:.2f}" for m in CORE_METRICS)
            lines.append([f"{row.model} (the paper's figures)", *figures])
    return _markdown(lines, 1)


def _spread(values: Sequence[float], sign: str = "", digits: int = 3) -> str:
    text = f"{np.mean(values):{sign}.{digits}f}"
    return text if len(values) == 1 else f"{text} ± {np.std(values, ddof=1):.{digits}f}"


def _markdown(lines: list[list[str]], names: int) -> str:
    rule = ["---"] * names + ["---:"] * (len(lines[0]) - names)
    return "\n".join("| " + " | ".join(line) + " |" for line in [lines[0], rule, *lines[1:]])
