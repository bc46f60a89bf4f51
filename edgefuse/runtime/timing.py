"""How long each stage of a live frame takes. `stream`, the benchmarks and any monitoring share its names."""

import threading
import time
from bisect import bisect_left
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from edgefuse.errors import unknown_name

__all__ = ["EDGES", "STAGES", "Histogram", "StageStats", "StageTimes", "percentiles"]

STAGES = {
    "capture_ir": "wait for the infrared frame, decode and convert it",
    "capture_vis": "wait for the visible frame and decode it",
    "pair": "from the capture of a pair's newer frame to the start of its alignment",
    "align": "bring the infrared frame onto the visible one's pixels",
    "fuse": "pre-processing, network, post-processing",
    "sink": "one output writes one frame",
    "total": "from the capture of a pair's newer frame to the hand-over of the fused one to the outputs",
    "output": "from the capture of a pair's newer frame until an output has written the fused one",
}
"""Name of the stage → what its time covers. Capture, fusion and output overlap, so they do not add up."""

WINDOW = 4096
"""How many of the latest values of a stage the percentiles are taken from."""

EDGES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""Upper ends of a histogram's bins in seconds; one more bin takes all that is longer."""


@dataclass(frozen=True)
class StageStats:
    """Times of one stage in seconds; the percentiles are of the last `WINDOW` values."""

    count: int
    mean: float
    p50: float
    p95: float
    p99: float
    max: float


class Histogram:
    """Counts times in the bins between `EDGES`. One thread adds."""

    def __init__(self) -> None:
        self.counts = [0] * (len(EDGES) + 1)

    def add(self, seconds: float) -> None:
        """Count one time."""
        self.counts[bisect_left(EDGES, seconds)] += 1

    def bins(self) -> list[tuple[str, int]]:
        """Return the bins that are not empty, named in milliseconds: `1-2`.

        >>> Histogram().bins()
        []
        """
        ends = [f"{1000 * edge:g}" for edge in EDGES]
        names = [f"<{ends[0]}", *(f"{a}-{b}" for a, b in pairwise(ends)), f">{ends[-1]}"]
        return [(name, count) for name, count in zip(names, self.counts, strict=True) if count]


class StageTimes:
    """Collects stage times from several threads, in bounded memory."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._latest: dict[str, deque[float]] = {stage: deque(maxlen=WINDOW) for stage in STAGES}
        self._count = dict.fromkeys(STAGES, 0)
        self._sum = dict.fromkeys(STAGES, 0.0)
        self._max = dict.fromkeys(STAGES, 0.0)

    def record(self, stage: str, seconds: float) -> None:
        """Add one time.

        Raises:
            KeyError: the stage is none of `STAGES`.
        """
        if stage not in STAGES:
            raise KeyError(unknown_name("stage", stage, STAGES))
        with self._lock:
            self._latest[stage].append(seconds)
            self._count[stage] += 1
            self._sum[stage] += seconds
            self._max[stage] = max(self._max[stage], seconds)

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        """Record the time that the `with` block takes, unless it raises."""
        start = time.perf_counter()
        yield
        self.record(stage, time.perf_counter() - start)

    def stats(self) -> dict[str, StageStats]:
        """Return the statistics of every stage that has values, in the order of `STAGES`."""
        with self._lock:
            return {
                stage: StageStats(
                    self._count[stage],
                    self._sum[stage] / self._count[stage],
                    *percentiles(list(self._latest[stage])),
                    max=self._max[stage],
                )
                for stage in STAGES
                if self._count[stage]
            }


def percentiles(values: list[float]) -> tuple[float, float, float]:
    """Return the 50th, 95th and 99th percentile, linearly interpolated.

    >>> percentiles([1.0, 2.0, 3.0])[0]
    2.0
    """
    p50, p95, p99 = np.percentile(values, (50, 95, 99)).tolist()
    return p50, p95, p99
