"""Bringing the timestamps of two cameras onto one clock: this machine's, from when the frames arrived.

A frame arrives after it was taken: arrival - timestamp is the camera's clock error plus a delay that is
never negative. The least differences of every second lie along a line; its height is the offset, its slope
the drift (as NTP filters its peers: Mills, RFC 5905, section 10). The slope is the median of those between
any two seconds, which some seconds of congestion do not bend (Theil and Sen), and no steeper than clocks
run. A delay that never falls below some value, such as a network camera's encoder, cannot be told from an
offset, and is corrected as one.

A clock that was set shows in two ways. Set forward, its frames seem to come before they were taken: five
of them in a row, all by as much, and a new line is begun. Set back, they seem to be delayed, as in a
congestion: when three whole seconds have passed without a single frame near the line, a new line is begun. A
delay that has changed for good is followed likewise.
"""

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BUCKET = 1.0  # seconds of which the least difference is kept
BUCKETS = 120  # of them, so that a changed temperature is followed
FIT_BUCKETS = 5  # before that the drift is taken as none, and every difference under STRAY as delay
MOST_SLOPE = 600e-6  # seconds per second: bad crystals run wrong by 500 ppm
SHIFTED = 3  # buckets in a row off the line: the clock was set, or the delay is another one
LEAST_SHIFT = 0.01  # seconds; less is no matter for pairing
SCATTER = 5.0  # times as far off as buckets usually are is too far
STRAY = 0.5  # seconds above the line: not delay, but a timestamp that is wrong
STRAYS = 5  # such frames in a row that agree: the camera's clock was set
AGREED = 0.05  # seconds between them; the frames of a burst after a stall come nearer to the line one by one
STRAY_SECONDS = 5.0  # of such frames alone, whether they agree or not


@dataclass(frozen=True)
class ClockReport:
    """How the infrared camera's clock runs against the visible one's."""

    offset: float
    """Seconds that it is ahead, at the end of the run."""
    drift: float
    """Parts per million that it runs too fast."""
    jumps: int
    """How often one of the two was set, or its delay changed for good."""


class Clock:
    """Maps the timestamps of one camera to `time.monotonic()`."""

    def __init__(self) -> None:
        self.jumps = 0
        self.offset = 0.0
        """Seconds to add to a timestamp, at the latest frame."""
        self.slope = 0.0
        """Change of the offset per second."""
        # (timestamp, difference) of the least difference of each bucket; the last one is being filled
        self._points: deque[tuple[float, float]] = deque(maxlen=BUCKETS)
        self._begun = 0.0  # arrival of the latest bucket's first frame
        self._strays: deque[tuple[float, float]] = deque(maxlen=STRAYS)
        self._stray_since = 0.0
        self._origin = 0.0  # timestamp at which the line has the height `_height`
        self._height = 0.0
        self._tolerance = STRAY  # seconds under the line that are no noise

    @property
    def drift(self) -> float:
        """Parts per million that the camera's clock runs too fast."""
        return (1 / (1 + self.slope) - 1) * 1e6

    def reset(self) -> None:
        """Forget what is known: the source was opened again."""
        self.slope = 0.0
        self._points.clear()
        self._strays.clear()

    def observe(self, timestamp: float, arrived: float) -> float:
        """Learn from one frame and return when it was taken.

        Args:
            timestamp: seconds on the camera's clock.
            arrived: `time.monotonic()` of its arrival.

        Returns:
            `time.monotonic()` of the frame; its arrival where the timestamp makes no sense.
        """
        difference = arrived - timestamp
        if not math.isfinite(difference):
            return arrived
        if self._points and not -self._tolerance <= difference - self._at(timestamp) <= STRAY:
            if not self._was_set(timestamp, difference, arrived):
                return arrived
        else:
            self._learn(timestamp, difference, arrived)
        self._strays.clear()
        self.offset = self._at(timestamp)
        return timestamp + self.offset

    def _at(self, timestamp: float) -> float:
        return self._height + self.slope * (timestamp - self._origin)

    def _was_set(self, timestamp: float, difference: float, arrived: float) -> bool:
        """Take in a frame off the line; whether a new line was begun with it."""
        if not self._strays:
            self._stray_since = arrived
        self._strays.append((timestamp, difference))
        differences = [difference for _, difference in self._strays]
        agreed = len(differences) == STRAYS and max(differences) - min(differences) < AGREED
        if not agreed and arrived - self._stray_since < STRAY_SECONDS:
            return False
        self.jumps += 1
        self._points.clear()
        self._points.append(min(self._strays, key=lambda point: point[1]) if agreed else self._strays[-1])
        self._begun = arrived
        self._fit()
        return True

    def _learn(self, timestamp: float, difference: float, arrived: float) -> None:
        points = self._points
        if not points or not 0 <= arrived - self._begun < BUCKET:
            self._leave_what_was_before_a_shift()
            self._begun = arrived
            points.append((timestamp, difference))
            self._fit()
        elif difference - self.slope * (timestamp - points[-1][0]) < points[-1][1]:
            points[-1] = (timestamp, difference)
            self._height = min(self._height, difference - self.slope * (timestamp - self._origin))

    def _leave_what_was_before_a_shift(self) -> None:
        """If not even the least differences of the latest buckets come near the line, keep only these."""
        above = [difference - self._at(timestamp) for timestamp, difference in self._points]
        older, latest = above[:-SHIFTED], above[-SHIFTED:]
        if older and min(latest) > _noise(older):
            self.jumps += len(older) >= FIT_BUCKETS  # fewer were no clock yet
            for _ in older:
                self._points.popleft()

    def _fit(self) -> None:
        """Lay the line along the least differences, none of which it may exceed."""
        times, least = np.array(self._points).T
        self._origin = float(times[-1])
        times = times - self._origin
        settled = len(times) > FIT_BUCKETS
        if settled:  # the bucket that has just begun has seen one frame only
            self.slope = _slope(times[:-1], least[:-1])
        above = least - self.slope * times
        self._height = float(above.min())
        self._tolerance = _noise(above - self._height) if settled else STRAY


def _noise(above: Sequence[float] | NDArray[np.float64]) -> float:
    """Return by how much buckets may be off the line, from how much they usually are, in seconds."""
    return max(LEAST_SHIFT, SCATTER * float(np.median(above)))


def _slope(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """Return the median slope between any two points, within what clocks do; 0 if none differ in x."""
    first, second = np.triu_indices(len(x), 1)
    run = x[second] - x[first]
    slopes = (y[second] - y[first])[run > 0] / run[run > 0]
    return float(np.clip(np.median(slopes), -MOST_SLOPE, MOST_SLOPE)) if len(slopes) else 0.0
