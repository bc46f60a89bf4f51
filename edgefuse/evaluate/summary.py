"""Means over the pairs: what a table shows."""

import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from edgefuse.degrade import DEGRADATIONS, LEVEL_CHANGES
from edgefuse.evaluate.run import Evaluation
from edgefuse.metrics import CHANGE, Parts, measure_named

__all__ = ["Mean", "best", "judging", "level_changes", "places", "summarise", "summarise_degraded"]


class Mean(NamedTuple):
    """Means of one column over the pairs that have it; NaN where there is none."""

    total: float
    ir: float
    vis: float
    worst_source: float
    """Mean of what the worse served source of each pair has."""
    pairs: int
    """How many pairs have it."""


def summarise(evaluation: Evaluation) -> dict[str, dict[str, Mean]]:
    """Return the means by candidate, then column."""
    rows = [pair.scores for pair in evaluation.pairs]
    return {c.name: _means(rows, c.name, evaluation.settings.columns) for c in evaluation.candidates}


def summarise_degraded(evaluation: Evaluation) -> dict[str, dict[str, dict[str, Mean]]]:
    """Return the means of what was fused from degraded sources by degradation, candidate, column.

    Only the columns of `judging`, and by how much the output changes; empty unless the settings ask for it.
    """
    if not evaluation.settings.robust:
        return {}
    names = [candidate.name for candidate in evaluation.candidates if candidate.fuses]
    columns = [*judging(evaluation), CHANGE.name]
    rows = {d: [pair.degraded[d] for pair in evaluation.pairs] for d in DEGRADATIONS}
    return {d: {name: _means(rows[d], name, columns) for name in names} for d in DEGRADATIONS}


def level_changes(evaluation: Evaluation) -> dict[str, dict[str, float]]:
    """Return how little each candidate depends on how bright infrared happens to be.

    Returns:
        By candidate: for each change of level the RMS change of the output, grey levels; their `mean` and
        `worst`; and `VIF_ir` and `VIF_vis`, by how many percent the VIF that each source keeps changes, the
        mean over the changes of level, whatever their sign. Empty unless the settings ask for it.
    """
    clean, degraded = summarise(evaluation), summarise_degraded(evaluation)
    found = {}
    for name in next(iter(degraded.values()), {}):
        rms = {change: degraded[change][name][CHANGE.name].total for change in LEVEL_CHANGES}
        row = {**rms, "mean": float(np.mean(list(rms.values()))), "worst": max(rms.values())}
        for column in ("VIF_ir", "VIF_vis"):
            before = clean[name][column].total
            after = [degraded[change][name][column].total for change in LEVEL_CHANGES]
            row[column] = 100 * float(np.mean(np.abs(np.array(after) / before - 1))) if before else math.nan
        found[name] = row
    return found


def judging(evaluation: Evaluation) -> list[str]:
    """Return the columns that compare with the clean sources; others, such as entropy, reward noise."""
    columns = evaluation.settings.columns
    return [c for c in columns if measure_named(c).compares]


def best(summary: dict[str, dict[str, Mean]], column: str, part: str = "total") -> set[str]:
    """Return the candidates with the best mean of a column as it is printed; empty if none has it.

    Args:
        summary: from `summarise`.
        column: one of its columns.
        part: `total`, `ir`, `vis` or `worst_source`.
    """
    digits = places(column)
    means = {name: round(getattr(row[column], part), digits) for name, row in summary.items()}
    means = {name: mean for name, mean in means.items() if not math.isnan(mean)}
    if not means:
        return set()
    top = (max if measure_named(column).higher_is_better else min)(means.values())
    return {name for name, mean in means.items() if mean == top}


def places(column: str) -> int:
    """Return the number of decimals that a column is printed with."""
    return 3 if measure_named(column).unit == "1" else 2


def _means(
    rows: list[dict[str, dict[str, Parts]]], candidate: str, columns: Iterable[str]
) -> dict[str, Mean]:
    return {
        column: _mean([row[candidate][column] for row in rows if column in row[candidate]])
        for column in columns
    }


def _mean(parts: list[Parts]) -> Mean:
    if not parts:
        return Mean(math.nan, math.nan, math.nan, math.nan, 0)
    values = np.array([(p.total, p.ir, p.vis, p.worst_source) for p in parts], np.float64)  # None becomes NaN
    total, ir, vis, worst_source = values.mean(axis=0).tolist()
    return Mean(total, ir, vis, worst_source, len(parts))
