"""A recording played at its own rate, as if it were a camera."""

import time

from edgefuse.runtime.sources.base import Frame, Source

__all__ = ["RealTime"]


class RealTime(Source):
    """Wraps a recorded source: its frames appear when they are due, counted from the first read."""

    live = True

    def __init__(self, source: Source) -> None:
        self.name, self.fps, self.length = source.name, source.fps, source.length
        self._source = source
        self._start: float | None = None

    def read(self) -> Frame | None:
        """Wait until the next frame is due and return it, stamped with that time."""
        frame = self._source.read()
        if frame is None:
            return None
        if self._start is None:
            self._start = time.monotonic() - frame.timestamp
        due = self._start + frame.timestamp
        time.sleep(max(0.0, due - time.monotonic()))
        return Frame(frame.image, frame.index, timestamp=due, captured=due)

    def close(self) -> None:
        """Close the recording."""
        self._source.close()
