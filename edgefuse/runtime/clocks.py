"""Bringing the timestamps of two cameras onto one clock: this machine's, from when the frames arrived.

A frame arrives after it was taken: arrival - timestamp is the camera's clock error plus a delay that is
never negative. The least differences of every second lie along a line; its height is the offset, its slope
the drift (as NTP filters its peers: Mills, RFC 5905, section 10). A delay that never falls below some
value, such as a network camera's encoder, cannot be told from an offset, and is corrected as one.
"""

import math
from collections import deque
from dataclasses import dataclass

import numpy as np

__all__ = ["Clock", "ClockReport"]

BUCKET = 1.0  # seconds of which the least difference is kept
BUCKETS = 120  # of them, so that a changed temperature is followed
FIT_BUCKETS = 5  # before that the drift is taken as none
STRAY = 0.5  # seconds off the line: not delay or drift, but a timestamp that is wrong
STRAYS = 5  # of them in a row: the camera's clock was set


@dataclass(frozen=True)
class ClockReport:
    """How the infrared camera's clock runs against the visible one's."""

    offset: float
    """Seconds that it is ahead, at the end of the run."""
    drift: float
    """Parts per million that it runs too fast."""
    jumps: int
    """How often one of the two was set."""


class Clock:
    """Maps the timestamps of one camera to `time.monotonic()`."""

    def __init__(self) -> None:
        self.jumps = 0
        self.offset = 0.0
        """Seconds to add to a timestamp, at the latest frame."""
        self.slope = 0.0
        """Change of the offset per second."""
        self._points: deque[tuple[float, float]] = deque(maxlen=BUCKETS)
        self._begun = 0.0  # timestamp of the latest bucket's first frame
        self._strays = 0
        self._origin = 0.0  # timestamp at which the line has the height `_height`
        self._height = 0.0

    @property
    def drift(self) -> float:
        """Parts per million that the camera's clock runs too fast."""
        return (1 / (1 + self.slope) - 1) * 1e6

    def reset(self) -> None:
        """Forget what is known: the source was opened again."""
        self._points.clear()
        self._strays = 0

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
        if self._points and abs(difference - self._at(timestamp)) > STRAY:
            self._strays += 1
            if self._strays < STRAYS:
                return arrived
            self.jumps += 1
            self.reset()
        self._strays = 0
        self._learn(timestamp, difference)
        self.offset = self._at(timestamp)
        return timestamp + self.offset

    def _learn(self, timestamp: float, difference: float) -> None:
        points = self._points
        if not points or timestamp - self._begun >= BUCKET:
            self._begun = timestamp
            points.append((timestamp, difference))
            self._fit()
        elif difference - self.slope * (timestamp - points[-1][0]) < points[-1][1]:
            points[-1] = (timestamp, difference)
            self._height = min(self._height, difference - self.slope * (timestamp - self._origin))

    def _at(self, timestamp: float) -> float:
        return self._height + self.slope * (timestamp - self._origin)

    def _fit(self) -> None:
        """Lay the line along the least differences, none of which it may exceed."""
        times, least = np.array(self._points).T
        self._origin = float(times[-1])
        times = times - self._origin
        self.slope = 0.0
        if len(times) > FIT_BUCKETS:
            # The bucket that has just begun has seen one frame only.
            self.slope = float(np.polyfit(times[:-1], least[:-1], 1)[0])
        self._height = float((least - self.slope * times).min())
