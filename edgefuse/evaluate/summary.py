"""Means over the pairs: what a table shows."""

import math
from typing import NamedTuple

import numpy as np

from edgefuse.degrade import DEGRADATIONS
from edgefuse.evaluate.run import Evaluation
from edgefuse.metrics import MEASURES, TARGET

__all__ = ["Mean", "best", "judging", "places", "summarise", "summarise_degraded"]


class Mean(NamedTuple):
    """Means of one column over the pairs that have it; NaN where there is none."""

    total: float
    ir: float
    vis: float
    weaker: float
    """Mean of what the worse served source of each pair has."""
    pairs: int
    """How many pairs have it."""


def summarise(evaluation: Evaluation) -> dict[str, dict[str, Mean]]:
    """Return the means by candidate, then column."""
    return {
        candidate.name: {
            column: _mean(evaluation, candidate.name, column) for column in evaluation.settings.columns
        }
        for candidate in evaluation.candidates
    }


def summarise_degraded(evaluation: Evaluation) -> dict[str, dict[str, dict[str, float]]]:
    """Return the means of what was fused from degraded sources by degradation, candidate, column.

    NaN where there is none; empty unless the settings ask for it.
    """
    if not evaluation.settings.robust:
        return {}
    names = [candidate.name for candidate in evaluation.candidates if candidate.fuses]
    means: dict[str, dict[str, dict[str, float]]] = {}
    for degradation in DEGRADATIONS:
        scores = [pair.degraded[degradation] for pair in evaluation.pairs]
        means[degradation] = {
            name: {column: _average(scores, name, column) for column in judging(evaluation)} for name in names
        }
    return means


def judging(evaluation: Evaluation) -> list[str]:
    """Return the columns that compare with the clean sources; others, such as entropy, reward noise."""
    columns = evaluation.settings.columns
    return [c for c in columns if MEASURES[c].by_source or c == TARGET.name]


def best(summary: dict[str, dict[str, Mean]], column: str) -> set[str]:
    """Return the candidates with the best mean of a column as it is printed; empty if none has it."""
    digits = places(column)
    means = {name: round(row[column].total, digits) for name, row in summary.items() if row[column].pairs}
    if not means:
        return set()
    top = (max if MEASURES[column].higher_is_better else min)(means.values())
    return {name for name, mean in means.items() if mean == top}


def places(column: str) -> int:
    """Return the number of decimals that a column is printed with."""
    return 3 if MEASURES[column].unit == "1" else 2


def _mean(evaluation: Evaluation, candidate: str, column: str) -> Mean:
    parts = [p.scores[candidate][column] for p in evaluation.pairs if column in p.scores[candidate]]
    if not parts:
        return Mean(math.nan, math.nan, math.nan, math.nan, 0)
    values = np.array([(p.total, p.ir, p.vis, p.weaker) for p in parts], np.float64)  # None becomes NaN
    total, ir, vis, weaker = values.mean(axis=0).tolist()
    return Mean(total, ir, vis, weaker, len(parts))


def _average(scores: list[dict[str, dict[str, float]]], candidate: str, column: str) -> float:
    values = [s[candidate][column] for s in scores if column in s[candidate]]
    return sum(values) / len(values) if values else math.nan
