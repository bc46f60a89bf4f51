"""Means over the pairs, and whether one candidate is better than another or only luckier.

References for the paired differences: Efron, Annals of Statistics 7(1), 1979: percentile intervals over
resampled pairs. Frames of one video resemble each other and are not independent; there whole blocks of
consecutive frames are resampled, in a circle (Politis and Romano, A circular block-resampling procedure for
stationary data, 1992), so long that the differences in two blocks are hardly correlated. A block never runs
into another clip or over a frame that was left out: the circle is closed within each run of frames.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgefuse.degrade import DEGRADATIONS, LEVEL_CHANGES
from edgefuse.errors import InputError, unknown_name
from edgefuse.evaluate.journal import PairScores, Row
from edgefuse.evaluate.run import Evaluation
from edgefuse.metrics import CHANGE, Parts, measure_named

RESAMPLES = 10_000
AT_A_TIME = 500  # resamples drawn, so that memory stays flat
CONFIDENCE = 0.95
FEWEST = 10
"""Of fewer pairs, or blocks of frames, a bootstrap interval is far too narrow, and none is given."""


class Mean(NamedTuple):
    """Means of one column over the pairs that have it; NaN where there is none."""

    total: float
    ir: float
    vis: float
    worst_source: float
    """Mean of what the worse served source of each pair has."""
    spread: float
    """Standard deviation of the total over the pairs."""
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


def best(means: dict[str, Mean], column: str, part: str = "total") -> set[str]:
    """Return the names with the best mean of a column as it is printed; empty if none has it.

    Args:
        means: of one column, by name; only of what competes.
        column: which it is.
        part: `total`, `ir`, `vis` or `worst_source`.
    """
    digits = places(column)
    values = {name: round(getattr(mean, part), digits) for name, mean in means.items()}
    values = {name: value for name, value in values.items() if not math.isnan(value)}
    if not values:
        return set()
    top = (max if measure_named(column).higher_is_better else min)(values.values())
    return {name for name, value in values.items() if value == top}


def places(column: str) -> int:
    """Return the number of decimals that a column is printed with."""
    return {"1": 3, "grey level²": 0}.get(measure_named(column).unit, 2)


def _means(rows: list[dict[str, Row]], candidate: str, columns: Iterable[str]) -> dict[str, Mean]:
    return {
        column: _mean([row[candidate][column] for row in rows if column in row[candidate]])
        for column in columns
    }


def _mean(parts: list[Parts]) -> Mean:
    if not parts:
        return Mean(math.nan, math.nan, math.nan, math.nan, math.nan, 0)
    values = np.array(parts, np.float64)  # None becomes NaN
    total, ir, vis, worst_source = values.mean(axis=0).tolist()
    return Mean(total, ir, vis, worst_source, float(values[:, 0].std()), len(parts))


class Difference(NamedTuple):
    """A column of candidate B minus that of A, over the pairs that both have."""

    a: float
    b: float
    mean: float
    """Mean of B − A."""
    low: float
    high: float
    """Its 95 % confidence interval; NaN with fewer than 10 pairs or blocks of frames."""
    wins: float
    """Share of the pairs in which B is better than A; equal ones count by half."""
    pairs: int
    block: int
    """How many consecutive pairs were resampled together; 1 unless they are frames of a video."""

    @property
    def certain(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class Comparison:
    """Candidate B against candidate A."""

    protocol: str
    a: str
    b: str
    columns: dict[str, Difference]


def compare(evaluation: Evaluation, a: str, b: str, seed: int = 0) -> Comparison:
    """Return the paired differences of two candidates; a column without a pair that has both is left out.

    Args:
        evaluation: that has both.
        a: name of the candidate to compare with.
        b: name of the candidate that is judged.
        seed: of the resampling.

    Raises:
        InputError: one of them was not evaluated.
    """
    names = [candidate.name for candidate in evaluation.candidates]
    for name in (a, b):
        if name not in names:
            raise InputError(unknown_name("candidate", name, names))
    columns = {}
    for column in evaluation.settings.columns:
        pairs = [pair for pair in evaluation.pairs if column in pair.scores[a] and column in pair.scores[b]]
        if pairs:
            both = np.array([(pair.scores[a][column].total, pair.scores[b][column].total) for pair in pairs])
            joins = _joins(pairs) if evaluation.settings.video else None
            columns[column] = _difference(both, measure_named(column).higher_is_better, joins, seed)
    return Comparison(evaluation.settings.protocol, a, b, columns)


def _joins(pairs: Sequence[PairScores]) -> list[int]:
    """Return the places at which a pair is not the frame after the pair before it."""
    return [k for k in range(1, len(pairs)) if pairs[k].before != pairs[k - 1].stem]


def _difference(
    both: NDArray[np.float64], higher_is_better: bool, joins: list[int] | None, seed: int
) -> Difference:
    differences = both[:, 1] - both[:, 0]
    better = differences if higher_is_better else -differences
    runs = np.split(differences, joins or [])
    block = 1 if joins is None else _correlated(runs)
    low, high = _interval(runs, seed, block)
    return Difference(
        a=float(both[:, 0].mean()),
        b=float(both[:, 1].mean()),
        mean=float(differences.mean()),
        low=low,
        high=high,
        wins=float((np.sign(better).mean() + 1) / 2),
        pairs=len(both),
        block=block,
    )


def _correlated(runs: Sequence[NDArray[np.float64]]) -> int:
    """How many consecutive values belong together: twice the sum of their positive autocorrelations.

    The first lag whose correlation could be that of independent values (two standard errors) ends the sum.
    """
    values = np.concatenate(runs)
    centred = [run - values.mean() for run in runs]
    variance = float(np.var(values))
    reach = 1.0
    for lag in range(1, max(map(len, runs))):
        products = np.concatenate([run[:-lag] * run[lag:] for run in centred if len(run) > lag])
        if variance <= 0:
            break
        correlation = float(products.mean()) / variance
        if correlation < 2 / math.sqrt(len(products)):
            break
        reach += 2 * correlation
    return 1 if reach == 1 else math.ceil(2 * reach)


def _interval(runs: Sequence[NDArray[np.float64]], seed: int, block: int = 1) -> tuple[float, float]:
    """Resample blocks of consecutive values, whole runs where these are shorter."""
    lengths = np.concatenate([np.full(len(run), min(block, len(run))) for run in runs])
    sums = np.concatenate([_sums(run, min(block, len(run))) for run in runs])
    share = 1 / lengths  # drawn the more often the shorter, a value is as likely in each block
    blocks = round(share.sum())  # as many as there are side by side
    if blocks < FEWEST:
        return math.nan, math.nan
    rng = np.random.default_rng(seed)
    means = []
    for _ in range(RESAMPLES // AT_A_TIME):
        drawn = rng.choice(len(sums), (AT_A_TIME, blocks), p=share / share.sum())
        means.append(sums[drawn].sum(axis=1) / lengths[drawn].sum(axis=1))
    low, high = np.quantile(np.concatenate(means), [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def _sums(run: NDArray[np.float64], length: int) -> NDArray[np.float64]:
    """Sum of `length` values beginning at each, in a circle."""
    total = np.concatenate([[0.0], np.cumsum(np.tile(run, 2))])
    return total[length : length + len(run)] - total[: len(run)]
