"""One video stream of a file or URL, decoded by PyAV into arrays with their times.

Pictures leave a decoder in the order in which they are shown. Most containers state for each when that is.
AVI and ASF state only when its data is due, in the order of the data, which differs where pictures refer to
later ones (B-frames): the n-th picture shown has the n-th smallest of these times. Bare streams state none.
"""

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from heapq import heappop, heappush
from itertools import islice, pairwise
from typing import Any, TypeAlias

import av
import cv2
import numpy as np
from av.video.reformatter import Colorspace, VideoReformatter
from numpy.typing import NDArray

from edgefuse.errors import SourceError
from edgefuse.images import scale_bits
from edgefuse.runtime.frames import HD_LINES, NOMINAL_FPS, Role

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
        self.reorders = bool(stream.codec_context.codec.reorder)
        """Whether pictures may refer to later ones (B-frames)."""
        self.counts_from_start = self._sorts and self.reorders
        """Whether times are right only if the stream is read from its start: behind a jump, the decoder
        leaves out pictures that refer to earlier ones, and nothing says which times were theirs."""
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


UNSPECIFIED = 2  # AVCOL_SPC_UNSPECIFIED


Timeouts: TypeAlias = tuple[float | None, float | None]

MOST_ERRORS = 250
"""Packets in a row that cannot be decoded before the stream is given up: some seconds, since one that is
entered in the middle has nothing to decode until its next key frame."""
MOST_THREADS = 4  # of one decoder: more do not help at the sizes of cameras
MAX_ASPECT = 16.0  # of a pixel; beyond, a file is damaged


@dataclass(frozen=True, slots=True)
class Decoded:
    """One picture."""

    image: NDArray[Any]
    """uint8 or uint16 `[H, W]`, or uint8 `[H, W, 3]` BGR."""
    seconds: float | None
    """On the stream's clock; None: the format has none."""
    pts: int | None
    """The same in units of the stream."""
    arrived: float
    """`time.monotonic()` when its data had come."""
    lost: int
    """Pictures before it that could not be decoded."""


class Decoder:
    """An open container and the decoder of its best video stream.

    Args:
        url: file or address.
        role: infrared is decoded to grey, unless it is stored as RGB, and keeps its bits; visible to grey or
            BGR as it is stored.
        timeouts: seconds to open, and without any data; None: no limit.
        options: for the demuxer and protocol.
        prompt: every picture is given as soon as its data has come, at the price of using one core.
        raw: pictures are given as they are stored.

    Raises:
        av.FFmpegError: it cannot be opened. Its text holds the URL with its password: print `strerror`.
        SourceError: there is no video in it; the text is the end of a sentence.
    """

    def __init__(
        self,
        url: str,
        role: Role,
        timeouts: Timeouts = (None, None),
        options: Mapping[str, str] | None = None,
        prompt: bool = False,
        raw: bool = False,
    ) -> None:
        self._grey, self._raw = role == "ir", raw
        self._converter = VideoReformatter()  # kept: to set one up takes as long as to convert a frame
        self._lock = threading.Lock()
        self._closing = False
        self._ready: deque[tuple[av.VideoFrame, float]] = deque()
        self._errors = 0  # since the last picture
        self.container = av.open(url, timeout=timeouts, options=dict(options or {}))
        try:
            stream = self.container.streams.best("video")
            if not isinstance(stream, av.VideoStream):
                raise SourceError("has no video in it")
            stream.thread_type = "SLICE" if prompt else "AUTO"
            stream.codec_context.thread_count = min(MOST_THREADS, os.cpu_count() or 1)
            self.stream = stream
            self.clock = StreamClock(self.container, stream)
            self._packets: Iterator[Any] = self.container.demux()
        except BaseException:
            self.container.close()
            raise

    def read(self, limit: float | None = None) -> Decoded | None:
        """Return the next picture; None at the end.

        Raises:
            TimeoutError: data comes, but for `limit` seconds no picture.
            av.FFmpegError: the data stopped coming or cannot be read.
        """
        with self._lock:
            try:
                return None if self._closing else self._read(limit)
            finally:
                if self._closing:
                    self._close()

    def _read(self, limit: float | None) -> Decoded | None:
        deadline = None if limit is None else time.monotonic() + limit
        while not self._ready:
            packet = next(self._packets, None)
            if packet is None:
                return None
            arrived = time.monotonic()
            if packet.stream.index == self.stream.index:
                self._decode(packet, arrived)
            if deadline is not None and arrived > deadline and not self._ready:
                raise TimeoutError
        frame, arrived = self._ready.popleft()
        lost, self._errors = self._errors, 0
        pts, seconds = self.clock.time_of(frame)
        return Decoded(self._to_array(frame), seconds, pts, arrived, lost)

    def _decode(self, packet: Any, arrived: float) -> None:
        self.clock.on_packet(packet)
        try:
            frames = packet.decode()
        except av.FFmpegError:
            self.clock.on_lost_packet(packet)
            self._errors += 1
            if self._errors > MOST_ERRORS:
                raise
            return
        for frame in frames:
            if frame.is_corrupt:
                self.clock.time_of(frame)
                self._errors += 1
            else:
                self._ready.append((frame, arrived))

    def _to_array(self, frame: av.VideoFrame) -> NDArray[Any]:
        image: Any
        name = frame.format.name
        bits = max(component.bits for component in frame.format.components)
        if self._raw:
            image = frame.to_ndarray()
        elif name.startswith("gray") and not name.startswith("grayf"):
            image = frame.to_ndarray()  # as it is, and without a copy
            if 8 < bits < 16 and not self._grey:  # of 16, who knows how many are in use
                image = scale_bits(image, bits)
        else:
            colours = frame.colorspace
            if colours == UNSPECIFIED and frame.height >= HD_LINES:
                colours = Colorspace.ITU709
            wanted = self._wanted(frame.format)
            image = self._converter.reformat(frame, format=wanted, src_colorspace=colours).to_ndarray()
        if not self._raw:  # whose numbers need not be grey values
            image = _square(image, self.stream.sample_aspect_ratio)
        turns = round(frame.rotation / 90) % 4
        return np.ascontiguousarray(np.rot90(image, turns)) if turns else image

    def _wanted(self, stored: av.VideoFormat) -> str:
        """Return what to convert a picture to that is not grey."""
        if not self._grey:
            return "bgr24"
        if any(component.bits > 8 for component in stored.components):
            return "gray16le"
        # The luma that is stored is infrared's grey; of other colours, it is what `images.luma` makes of
        # them, as for a camera that sends these.
        return "bgr24" if stored.is_rgb or stored.has_palette else "gray"

    def seek(self, seconds: float) -> None:
        """Go on at the last key frame before `seconds` on the stream's clock."""
        with self._lock:
            self._ready.clear()
            self.clock.reset()
            self.container.seek(round(seconds * av.time_base))
            self._packets = self.container.demux()

    def close(self) -> None:
        """Close the container: now, or, where a reader is at it, as soon as that one returns."""
        self._closing = True
        if self._lock.acquire(timeout=0.1):
            try:
                self._close()
            finally:
                self._lock.release()

    def _close(self) -> None:
        self._packets = iter(())
        self.container.close()


def _square(image: NDArray[Any], aspect: Fraction | None) -> NDArray[Any]:
    """Return a picture with square pixels, of those that are `aspect` times as wide as high."""
    if not aspect or aspect == 1 or not 1 / MAX_ASPECT <= aspect <= MAX_ASPECT:
        return image
    height, width = image.shape[:2]
    size = (round(width * aspect), height) if aspect > 1 else (width, round(height / aspect))
    return cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
