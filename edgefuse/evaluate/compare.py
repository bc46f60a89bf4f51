"""Whether one candidate is better than another, or only luckier: paired differences with a bootstrap.

References: Efron, Annals of Statistics 7(1), 1979: percentile intervals over resampled pairs. Frames of one
video resemble each other and are not independent; there whole blocks of consecutive frames are resampled, in
a circle (Politis and Romano, A circular block-resampling procedure for stationary data, 1992), so long that
the differences in two blocks are hardly correlated.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgefuse.errors import InputError, unknown_name
from edgefuse.evaluate.run import Evaluation
from edgefuse.metrics import MEASURES

__all__ = ["Comparison", "Difference", "compare"]

RESAMPLES = 10_000
AT_A_TIME = 500  # resamples drawn, so that memory stays flat
CONFIDENCE = 0.95
FEWEST = 10
"""Of fewer pairs, or blocks of frames, a bootstrap interval is far too narrow, and none is given."""


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
        both = [
            (pair.scores[a][column].total, pair.scores[b][column].total)
            for pair in evaluation.pairs
            if column in pair.scores[a] and column in pair.scores[b]
        ]
        if both:
            columns[column] = _difference(
                np.array(both), MEASURES[column].higher_is_better, evaluation.settings.video, seed
            )
    return Comparison(evaluation.settings.protocol, a, b, columns)


def _difference(both: NDArray[np.float64], higher_is_better: bool, video: bool, seed: int) -> Difference:
    differences = both[:, 1] - both[:, 0]
    better = differences if higher_is_better else -differences
    block = _correlated(differences) if video else 1
    low, high = _interval(differences, seed, block)
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


def _correlated(values: NDArray[np.float64]) -> int:
    """How many consecutive values belong together: twice the sum of their positive autocorrelations.

    The first lag whose correlation could be that of independent values (two standard errors) ends the sum.
    """
    centred = values - values.mean()
    variance = float(centred @ centred)
    reach = 1.0
    for lag in range(1, len(values)):
        if variance <= 0:
            break
        correlation = float(centred[:-lag] @ centred[lag:]) / variance
        if correlation < 2 / math.sqrt(len(values)):
            break
        reach += 2 * correlation
    return 1 if reach == 1 else math.ceil(2 * reach)


def _interval(values: NDArray[np.float64], seed: int, block: int = 1) -> tuple[float, float]:
    count = len(values)
    if count < FEWEST * block:
        return math.nan, math.nan
    rng = np.random.default_rng(seed)
    means = []
    for _ in range(RESAMPLES // AT_A_TIME):
        starts = rng.integers(0, count, (AT_A_TIME, -(-count // block), 1))
        drawn = (starts + np.arange(block)).reshape(AT_A_TIME, -1)[:, :count] % count
        means.append(values[drawn].mean(axis=1))
    low, high = np.quantile(np.concatenate(means), [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)
