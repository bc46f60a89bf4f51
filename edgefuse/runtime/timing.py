"""How long each stage of a live frame takes. `stream`, the benchmarks and any monitoring share its names."""

import math
import threading
import time
from bisect import bisect_left
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgefuse.errors import unknown_name

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

DELAYS = {
    "skew": "between the two frames of a pair",
    "age_ir": "from the capture of an infrared frame to its fusion",
    "age_vis": "from the capture of a visible frame to its fusion",
}
"""Further durations that are kept for each pair → what they cover."""

WINDOW = 4096
"""How many of the latest values the percentiles are taken from."""

EDGES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""Upper ends of the buckets in seconds; one more takes all that is longer."""

BEAT_SECONDS, HISTORY_SECONDS = 0.05, 15.0
USUAL_DELAY = 0.1  # seconds

PERCENTS = np.array((50.0, 95.0, 99.0))


@dataclass(frozen=True)
class Durations:
    """Statistics of one stage or delay, in seconds.

    Percentiles are of the last `WINDOW` values, linearly interpolated. `buckets` counts how many of all
    values lie between two neighbours of `EDGES`, the upper one included.
    """

    count: int = 0
    sum: float = 0.0
    p50: float = 0.0
    p95: float = 0.0
    p99: float = 0.0
    max: float = 0.0
    buckets: tuple[int, ...] = (0,) * (len(EDGES) + 1)

    @property
    def mean(self) -> float:
        """Of all values; 0 without any."""
        return self.sum / self.count if self.count else 0.0

    def bins(self) -> list[tuple[str, int]]:
        """Return the buckets that are not empty, named in milliseconds.

        >>> Durations(buckets=(0, 7, *[0] * 9)).bins()
        [('1-2', 7)]
        """
        ends = [f"{1000 * edge:g}" for edge in EDGES]
        names = [f"<{ends[0]}", *(f"{a}-{b}" for a, b in pairwise(ends)), f">{ends[-1]}"]
        return [(name, count) for name, count in zip(names, self.buckets, strict=True) if count]


class _Series:
    """The values of one stage or delay."""

    def __init__(self) -> None:
        self.latest = np.zeros(WINDOW)  # a ring
        self.count, self.sum, self.max = 0, 0.0, 0.0
        self.buckets = [0] * (len(EDGES) + 1)

    def add(self, seconds: float) -> None:
        self.latest[self.count % WINDOW] = seconds
        self.count += 1
        self.sum += seconds
        self.max = max(self.max, seconds)
        self.buckets[bisect_left(EDGES, seconds)] += 1


class StageTimes:
    """Collects durations from several threads, in bounded memory."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._series = {name: _Series() for name in (*STAGES, *DELAYS)}

    def record(self, name: str, seconds: float) -> None:
        """Add one duration.

        Raises:
            KeyError: the name is in neither `STAGES` nor `DELAYS`.
        """
        if name not in self._series:
            raise KeyError(unknown_name("stage", name, self._series))
        with self._lock:
            self._series[name].add(seconds)

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        """Record the time that the `with` block takes, unless it raises."""
        start = time.perf_counter()
        yield
        self.record(stage, time.perf_counter() - start)

    def stats(self) -> dict[str, Durations]:
        """Return the statistics of all stages and delays that have values, in the order above."""
        with self._lock:  # held for copies only: the threads of the stream wait for it
            taken = [
                (name, each.count, each.sum, each.max, tuple(each.buckets), each.latest[: each.count].copy())
                for name, each in self._series.items()
                if each.count
            ]
        return {
            name: Durations(count, total, *percentiles(latest), longest, buckets)
            for name, count, total, longest, buckets, latest in taken
        }

    def latest(self) -> dict[str, NDArray[np.float64]]:
        """Return the last `WINDOW` values of all stages and delays that have some, in no order."""
        with self._lock:
            return {
                name: each.latest[: each.count].copy() for name, each in self._series.items() if each.count
            }


class WakeDelay:
    """Measures how late a sleeping thread of this process is woken: how long threads wait for a core.

    A camera that seems to be silent on a machine that is too busy may only not have been listened to.
    """

    def __init__(self) -> None:
        self.total = 0.0
        """Sum of the delays since the start, those that are usual not counted in."""
        self._late: deque[tuple[float, float]] = deque(maxlen=round(HISTORY_SECONDS / BEAT_SECONDS))
        self._due = math.inf
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread."""
        self._due = time.monotonic() + BEAT_SECONDS
        self._thread = threading.Thread(target=self._run, name="wake-delay", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join()

    def since(self, begin: float) -> float:
        """Return the longest delay since `time.monotonic()` was `begin`, in seconds, with the present one.

        However many short ones there are, a thread gets its turn after each.
        """
        past = [late for at, late in list(self._late) if at > begin]
        return max(0.0, time.monotonic() - self._due, *past)

    def _run(self) -> None:
        while not self._closing.wait(max(0.0, self._due - time.monotonic())):
            now = time.monotonic()
            if now - self._due > USUAL_DELAY:
                self.total += now - self._due
                self._late.append((now, now - self._due))
            self._due = now + BEAT_SECONDS


def percentiles(values: ArrayLike) -> tuple[float, float, float]:
    """Return the 50th, 95th and 99th percentile of `[N]` values, linearly interpolated.

    Several times as fast as `np.percentile`, which knows many ways.

    >>> percentiles([1.0, 2.0, 3.0])[0]
    2.0
    """
    found = np.array(values, np.float64)
    places = PERCENTS / 100 * (len(found) - 1)
    below = places.astype(np.intp)
    above = np.minimum(below + 1, len(found) - 1)
    found.partition(np.concatenate((below, above)))
    p50, p95, p99 = (found[below] + (places - below) * (found[above] - found[below])).tolist()
    return p50, p95, p99
