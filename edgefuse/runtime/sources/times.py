"""When a picture was taken, as far as its container knows: the one place where such times are judged.

Pictures leave a decoder in the order in which they are shown. Most containers state for each when that is.
AVI and ASF state only when its data is due, in the order of the data, which differs where pictures refer to
later ones (B-frames): the n-th picture shown has the n-th smallest of these times. Bare streams state none.
"""

import logging
from heapq import heappop, heappush
from itertools import islice, pairwise
from typing import Any

import av

from edgefuse.runtime.frames import NOMINAL_FPS

__all__ = ["StreamClock", "is_steady", "rate_of"]

logger = logging.getLogger(__name__)

UNTIMED = frozenset({"mpjpeg", "mjpeg", "h264", "hevc", "image2", "image2pipe", "rawvideo"})
"""Formats without timestamps: the library counts frames there, and calls that a time."""
IN_ORDER_OF_DATA = frozenset({"avi", "asf"})
BARE = frozenset({"h264", "hevc", "mjpeg", "rawvideo"})
"""Formats for whose rate the library fills in a guess: only the stream's own headers may know it."""
PROBED, REORDERED = 250, 16  # pictures
TOLERANCE = 0.01
MAX_FPS = 1000.0  # a larger rate is that of a clock


class StreamClock:
    """The times of the pictures of one video stream."""

    def __init__(self, container: Any, stream: av.VideoStream) -> None:
        names = set(container.format.name.split(","))
        self.timed = not UNTIMED & names
        """Whether there are any."""
        self._stream = stream
        self._sorts = bool(IN_ORDER_OF_DATA & names)
        self._due: list[int] = []

    @property
    def zero(self) -> float | None:
        """Time of the first picture in seconds; None: not known."""
        first, tick = self._stream.start_time, self._stream.time_base
        if self._sorts:
            return 0.0
        return None if first is None else float(first * (tick or 0))

    def on_packet(self, packet: Any) -> None:
        """Take note of data that goes into the decoder."""
        if self._sorts and packet.size and packet.dts is not None:
            heappush(self._due, packet.dts)

    def on_lost_packet(self, packet: Any) -> None:
        """Take note that no picture will come of it."""
        if packet.dts in self._due:
            self._due.remove(packet.dts)

    def time_of(self, frame: av.VideoFrame) -> tuple[int | None, float | None]:
        """Return a picture's time in units of the stream, and in seconds; None: not known."""
        pts, tick = frame.pts, frame.time_base or self._stream.time_base
        if self._sorts:
            pts = heappop(self._due) if self._due else None
        if not self.timed or pts is None or not tick:
            return None, None
        return pts, float(pts * tick)

    def reset(self) -> None:
        """Forget what was read: the next data is of another place."""
        self._due.clear()


def is_steady(url: str) -> bool:
    """Return whether a file's pictures come at one rate, as far as its rates and its beginning tell.

    It is opened for that alone: some formats cannot be wound back exactly.
    """
    with av.open(url) as container:
        stream: Any = container.streams.best("video")
        if stream is None or UNTIMED & set(container.format.name.split(",")):
            return True
        mean, base = stream.average_rate, stream.base_rate
        if not mean or not base:
            return True
        if abs(mean / base - 1) > TOLERANCE and abs(2 * mean / base - 1) > TOLERANCE:  # fields count, too
            return False
        timed = (packet for packet in container.demux(stream) if packet.pts is not None)
        times = sorted(float(packet.pts * packet.time_base) for packet in islice(timed, PROBED))
    # Those at the end may be out of order: their predecessors are not read.
    period = 1 / float(mean)
    return all(abs(later - earlier - period) < period / 2 for earlier, later in pairwise(times[:-REORDERED]))


def rate_of(container: Any, stream: av.VideoStream, name: str, fallback: float | None = None) -> float:
    """Return the frame rate that a container or the stream's own headers state.

    Where they state none, or their clock's, `NOMINAL_FPS` is assumed, which is logged.

    Args:
        container: that of the stream.
        stream: whose rate it is.
        name: of the source, to print.
        fallback: what to take where they state none.
    """
    bare = bool(BARE & set(container.format.name.split(",")))
    own = stream.codec_context.framerate
    for rate in (own,) if bare else (stream.average_rate, stream.guessed_rate):
        if rate and 0 < float(rate) <= MAX_FPS:
            return float(rate)
    if fallback:
        return fallback
    logger.warning("%s states no frame rate: assuming %g per second; fps=… states another", name, NOMINAL_FPS)
    return NOMINAL_FPS
