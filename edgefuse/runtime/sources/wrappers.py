"""Sources around other sources: a recording at its own rate, and a part of the picture."""

import math
import re
import threading
import time
from dataclasses import replace

from edgefuse.errors import InputError, SourceError
from edgefuse.images import parse_size, size_of
from edgefuse.runtime.sources.base import Frame, Source

__all__ = ["Cropped", "RealTime", "inside"]


class RealTime(Source):
    """Wraps a recorded source: its frames appear when they are due, counted from the first read.

    Two recordings with a common zero, read at once, stay together. In a gap of the recording, `read`
    waits for as long as the gap is.
    """

    live = True
    limit = math.inf

    def __init__(self, source: Source) -> None:
        self.name, self.fps, self.length = source.name, source.fps, source.length
        self.inner = source
        self._zero: float | None = None
        self._closing = threading.Event()

    def read(self) -> Frame | None:
        """Wait until the next frame is due and return it, stamped with that time."""
        if self._zero is None:
            self._zero = time.monotonic()
        frame = self.inner.read()
        if frame is None:
            return None
        due = self._zero + frame.timestamp
        if self._closing.wait(max(0.0, due - time.monotonic())):
            return None
        return Frame(frame.image, frame.index, timestamp=due, captured=due)

    def close(self) -> None:
        """Close the recording; a `read` that waits returns None."""
        self._closing.set()
        self.inner.close()


class Cropped(Source):
    """A part of each picture of a source.

    Args:
        source: is closed with this one.
        crop: `WIDTHxHEIGHT+LEFT+TOP`, as in `256x192+0+192`.

    Raises:
        SourceError: not of that form; the source is closed.
    """

    def __init__(self, source: Source, crop: str) -> None:
        self.inner = source
        self.name, self.live, self.fps, self.length = source.name, source.live, source.fps, source.length
        self.limit, self.synchronised, self.steady = source.limit, source.synchronised, source.steady
        match = re.fullmatch(r"([^+]+)\+(\d{1,5})\+(\d{1,5})", crop)
        try:
            if not match:
                raise InputError(f"{crop!r} is not WIDTHxHEIGHT+LEFT+TOP")
            self._size, self._corner = parse_size(match[1]), (int(match[2]), int(match[3]))
        except InputError as error:
            source.close()
            raise SourceError(f"{self.name}: option crop: {error}") from None

    def read(self) -> Frame | None:
        """Return the part of the next picture.

        Raises:
            SourceError: the crop reaches beyond the picture, or as the source's own.
        """
        frame = self.inner.read()
        if frame is None:
            return None
        (width, height), (left, top), image = self._size, self._corner, frame.image
        if left + width > image.shape[1] or top + height > image.shape[0]:
            raise SourceError(f"{self.name}: the crop reaches beyond the picture of {size_of(image)}")
        return replace(frame, image=image[top : top + height, left : left + width])

    def close(self) -> None:
        """Close the source."""
        self.inner.close()


def inside(source: Source) -> Source:
    """Return what lies inside such wrappers."""
    while isinstance(source, Cropped | RealTime):
        source = source.inner
    return source
