"""A recording played at its own rate, as if it were a camera."""

import math
import threading
import time

from edgefuse.runtime.sources.base import Frame, Source

__all__ = ["RealTime"]


class RealTime(Source):
    """Wraps a recorded source: its frames appear when they are due, counted from the first read.

    Two recordings with a common zero, read at once, stay together. In a gap of the recording, `read`
    waits for as long as the gap is.
    """

    live = True
    limit = math.inf

    def __init__(self, source: Source) -> None:
        self.name, self.fps, self.length = source.name, source.fps, source.length
        self._source = source
        self._zero: float | None = None
        self._closing = threading.Event()

    def read(self) -> Frame | None:
        """Wait until the next frame is due and return it, stamped with that time."""
        if self._zero is None:
            self._zero = time.monotonic()
        frame = self._source.read()
        if frame is None:
            return None
        due = self._zero + frame.timestamp
        if self._closing.wait(max(0.0, due - time.monotonic())):
            return None
        return Frame(frame.image, frame.index, timestamp=due, captured=due)

    def close(self) -> None:
        """Close the recording; a `read` that waits returns None."""
        self._closing.set()
        self._source.close()
