"""Video files with their real timestamps, and streams of cameras and servers on the network, read by PyAV.

A video that was recorded has its exact times beside it, `0001.times.csv` for `0001.mkv`, since Matroska's
clock has milliseconds only.
"""

import logging
from bisect import bisect_left
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

import av
import numpy as np
from numpy.typing import NDArray

from edgefuse.errors import LostError, SourceError, counted, unknown_name
from edgefuse.images import IMAGE_SUFFIXES, bits_of, scale_bits
from edgefuse.runtime.frames import Frame, Role
from edgefuse.runtime.sources.base import SILENCE, Source, Spec, positive_number, seconds, yes_or_no
from edgefuse.runtime.sources.decoder import REORDERED, Decoded, Decoder, is_steady, rate_of

logger = logging.getLogger(__name__)

HEADER = "pts_ms,timestamp_s,index"
STARTED_TAG = "EDGEFUSE_STARTED"
"""Tag of a recorded video: the common zero of the times of both cameras, as UTC."""

OPTIONS: dict[str, Callable[[str], Any]] = {
    "fps": positive_number,
    "start": seconds,
    "loop": yes_or_no,
    "raw": yes_or_no,
}


def timestamps_path(video: Path) -> Path:
    """Return the name of the times beside a video: `ir.mkv` has `ir.times.csv`."""
    return video.with_suffix(".times.csv")


class Timestamps:
    """Writes the times, a line per frame, each complete on disk before the next.

    Args:
        file: open for text; line buffering makes a line survive a crash of the program.
    """

    def __init__(self, file: IO[str]) -> None:
        self._file = file
        file.write(f"{HEADER}\n")

    def add(self, pts: int, timestamp: float, index: int) -> None:
        """Note one frame: its milliseconds in the video, its time in seconds, its number at the source."""
        self._file.write(f"{pts},{timestamp:.6f},{index}\n")


def read_timestamps(video: Path) -> dict[int, float]:
    """Return the times that belong to a video, by milliseconds in it; empty if there are none.

    A last line that is not complete, as after a power cut, is left out. A file that is damaged otherwise is
    reported, and read as far as it goes.
    """
    path = timestamps_path(video)
    try:
        lines = path.read_text("ascii", errors="replace").splitlines(keepends=True)
    except FileNotFoundError:
        return {}
    except OSError as error:
        logger.warning("cannot read %s (%s): using the video's own times", path, error.strerror)
        return {}
    if lines[:1] != [f"{HEADER}\n"]:
        if lines:
            logger.warning("%s does not begin with %r: using the video's own times", path, HEADER)
        return {}
    times: dict[int, float] = {}
    for number, line in enumerate(lines[1:], 2):
        fields = line.split(",")
        try:
            if not line.endswith("\n") or len(fields) != 3:
                raise ValueError
            times[int(fields[0])] = float(fields[1])
        except ValueError:
            if number < len(lines):
                logger.warning(
                    "%s is damaged in line %d: using the video's own times from there", path, number
                )
            break
    return times


class VideoFile(Source):
    """A video file, every frame of it.

    The times are those of the file; of a recording by `edgefuse record`, those at which the frames
    were captured, counted from the common start of its two videos.

    `raw=1` takes the two bytes of each pixel of a video in YUYV as a 16-bit count, as some thermal cameras
    send these.

    Further options: `fps` in place of the file's own times, `start` in seconds (times count from there),
    `loop=1` to start over at the end; times and numbers continue. `bits` says how many of 16 are in use in
    a visible video.
    """

    texts = "a video file"
    live = False

    @staticmethod
    def accepts(target: str) -> bool:
        """Whether the target is a file."""
        return Path(target).is_file()

    def __init__(self, spec: Spec, role: Role) -> None:
        options = spec.read_options(OPTIONS | ({"bits": bits_of} if role == "vis" else {}))
        self._bits: int | None = options.get("bits")
        self._raw = options.get("raw", False)
        self._path = Path(spec.target)
        self._role = role
        self._decoder = _open(self._path, role, self._raw)
        stream = self._decoder.stream
        self._sheet = read_timestamps(self._path)
        self._own_rate = rate_of(self._decoder.container, stream, spec.name, options.get("fps"))
        self.synchronised = bool(self._sheet) or STARTED_TAG in self._decoder.container.metadata
        with suppress(av.FFmpegError):  # which reading it will report
            self.steady = self.synchronised or "fps" in options or is_steady(f"file:{self._path}")
        self.name = spec.name
        self.fps = options.get("fps", self._own_rate)
        self._timed = "fps" not in options
        self._start = options.get("start", 0.0)
        self._loop = options.get("loop", False)
        # A recording's zero is that of both its videos; any other file begins at its first frame.
        self._zero = 0.0 if self.synchronised else self._decoder.clock.zero or 0.0
        self.length = self._count()
        self._next = 0  # number of the next frame in this pass
        self._offset, self._before = 0.0, 0  # seconds and frames of earlier passes
        self._latest = 0.0  # time of the last frame
        self._forget_place()
        if self._start:
            self._rewind()

    def _forget_place(self) -> None:
        self._at = -self._start - 1 / self._own_rate  # position of the last picture, if not given out
        self._shift = 0.0  # seconds by which times that went back were put off
        self._wound = False  # the next picture is the first one after a jump

    def _count(self) -> int | None:
        """Return how many frames there are, if only about; None: nobody knows, or no end."""
        stream, seconds = self._decoder.stream, self._decoder.container.duration
        if self._loop:
            return None
        if self._sheet:
            return len(self._sheet) - bisect_left(list(self._sheet.values()), self._start)
        whole = stream.frames or (round(seconds / av.time_base * self._own_rate) if seconds else 0)
        return max(0, whole - round(self._start * self._own_rate)) if whole else None

    def read(self) -> Frame | None:
        """Return the next frame; None at the end of the file."""
        while True:
            decoded = self._decode()
            if decoded is None:
                if not self._next:
                    where = f" after {self._start:g} s" if self._start else ""
                    raise SourceError(f"{self.name} has no picture that can be decoded{where}")
                if not self._loop:
                    self._check_length()
                    return None
                self._offset += self._latest + 1 / self.fps
                self._before += self._next
                self._next = 0
                self._rewind()
                continue
            self._next += decoded.lost
            position = self._position(decoded)
            if position is None or (self._wound and position > 1.5 / self._own_rate):
                self._begin_again()
                continue
            self._at, self._wound = position, False
            if self._start and position < -0.5 / self._own_rate:
                self._next = 0
                continue
            self._latest = position if self._timed else self._next / self.fps
            index = self._before + self._next
            self._next += 1
            image = self._counts(decoded.image) if self._raw else decoded.image
            if self._bits and image.dtype == np.uint16:
                image = scale_bits(image, self._bits)
            return Frame(image, index, self._offset + self._latest, decoded.arrived)

    def _decode(self) -> Decoded | None:
        try:
            return self._decoder.read()
        except av.FFmpegError as error:
            if self._next:  # what came so far is good
                logger.warning("%s cannot be read to its end: %s", self.name, error.strerror)
                return None
            raise SourceError(f"{self.name} has no picture that can be decoded ({error.strerror})") from None

    def _counts(self, image: NDArray[Any]) -> NDArray[np.uint16]:
        """Return the 16-bit counts that were stored as if they were a picture in YUYV."""
        if image.shape[2:] != (2,):
            raise SourceError(f"{self.name}: raw=1 needs a video in YUYV, as the camera sent it")
        return np.ascontiguousarray(image).view(np.uint16)[:, :, 0]

    def _position(self, decoded: Decoded) -> float | None:
        """Return a frame's time in the file, in seconds from the start; None: not to be told after a jump."""
        if decoded.seconds is None or decoded.pts is None:  # such as before a file's zero
            return None if self._wound else self._at + 1 / self._own_rate
        if decoded.pts in self._sheet:
            return self._sheet[decoded.pts] - self._start
        position = decoded.seconds - self._zero - self._start + self._shift
        if position < self._at and not self._wound:  # a counter that wrapped, or another file joined on
            self._shift += self._at + 1 / self._own_rate - position
            position = self._at + 1 / self._own_rate
        return position

    def _rewind(self) -> None:
        """Go to the start; where the file cannot be wound, by reading up to it."""
        self._forget_place()
        clock = self._decoder.clock
        if self._start and clock.counts_from_start:
            self._begin_again()
            return
        # Some formats look for the key frame by when its data is due. Pictures that are shown before it and
        # come after it cannot be decoded then: they need the key frame before.
        margin = REORDERED / self._own_rate if clock.reorders else 0.0
        try:
            self._decoder.seek(self._zero + max(0.0, self._start - margin))
        except av.FFmpegError:
            self._begin_again()
        else:
            self._wound = True

    def _begin_again(self) -> None:
        self._decoder.close()
        self._decoder = _open(self._path, self._role, self._raw)
        self._forget_place()
        self._next = 0

    def _check_length(self) -> None:
        """Say it if the file is shorter than it says itself."""
        stream = self._decoder.stream
        said, duration, tick = stream.frames, stream.duration, stream.time_base
        # Frames can be marked as not to be shown: the duration does without them.
        whole = duration is not None and tick and self._at + 2.5 / self._own_rate > duration * tick
        if said and not self._start and self._next < said and not whole:
            logger.warning("%s ends early: %d of its %d frames can be read", self.name, self._next, said)

    def close(self) -> None:
        """Close the file."""
        self._decoder.close()


def _open(path: Path, role: Role, raw: bool) -> Decoder:
    if path.suffix.lower() in IMAGE_SUFFIXES:
        raise SourceError(f"{path} is an image: give a video or a folder of images, or use `edgefuse fuse`")
    size = path.stat().st_size
    if size == 0:
        raise SourceError(f"{path} is empty (0 bytes), a video file is needed")
    try:
        return Decoder(f"file:{path}", role, raw=raw)  # or a colon in the name would make it a URL
    except av.FFmpegError as error:
        raise SourceError(
            f"{path} is not a video that can be decoded ({size} bytes; {error.strerror})"
        ) from None
    except SourceError as error:
        raise SourceError(f"{path} {error}") from None


SCHEMES = frozenset({"http", "https", "rtmp", "rtp", "rtsp", "rtsps", "srt", "tcp", "udp"})
REFUSED = (av.error.HTTPUnauthorizedError, av.error.HTTPForbiddenError, av.error.ProtocolNotFoundError)
"""Answers that another attempt will not change. A server that has no such stream, or sends what is none, may
have it in a moment: it starts before its cameras do."""
MOST_UNTIMED = 25
"""Frames without a time, after which there will be none with one."""
MOST_PATIENCE = 10.0
"""Seconds to answer; a thread that takes longer to open counts as stuck, and is replaced."""


class NetworkStream(Source):
    """A URL. Its options stand behind `#`: `rtsp://host/live#transport=udp`.

    `transport` of RTSP is `tcp` (nothing is lost on the way) or `udp`; `fps` is stated where the server
    does not; `timeout` is how many seconds the server may take to answer the opening, up to 10.
    """

    texts = "rtsp://…, http://…, udp://…"
    reopens = True
    live = True
    length = None
    open_seconds = 5.0

    @staticmethod
    def accepts(target: str) -> bool:
        """Whether the target looks like a URL."""
        return "://" in target

    def __init__(self, spec: Spec, role: Role) -> None:
        options = spec.read_options({"transport": _transport, "fps": positive_number, "timeout": _patience})
        scheme = _check(spec)
        self.name, self.limit = spec.name, SILENCE[role].read
        patience = options.get("timeout", self.open_seconds)
        # Little is looked at in advance, or a stream that is back would take another second to open.
        settings = {"analyzeduration": "300000", "fpsprobesize": "3"}
        if scheme in ("rtsp", "rtsps"):
            settings |= {
                "rtsp_transport": options.get("transport", "tcp"),
                "allowed_media_types": "video",
            }
        if scheme == "udp":
            settings |= {"overrun_nonfatal": "1", "fifo_size": "50000"}
        try:
            self._decoder = Decoder(spec.target, role, (patience, self.limit), settings, prompt=True)
        except av.error.ExitError:
            raise LostError(f"{self.name} does not answer within {patience:g} s") from None
        except REFUSED as error:
            raise SourceError(
                f"{self.name} cannot be used ({error.strerror}): check user and password"
            ) from None
        except av.FFmpegError as error:
            raise LostError(f"{self.name} cannot be opened: {error.strerror}") from None
        except SourceError as error:
            raise LostError(f"{self.name} {error}") from None
        self.fps = options.get("fps") or rate_of(self._decoder.container, self._decoder.stream, self.name)
        self._next = 0
        self._offset: float | None = None  # server's clock minus ours

    def read(self) -> Frame | None:
        """Return the next frame, stamped on the server's clock where the protocol has one.

        Raises:
            LostError: the stream ended, stalled or was cut off.
        """
        while True:
            decoded = self._decode()
            index = self._next + decoded.lost
            self._next = index + 1
            if decoded.seconds is not None:
                self._offset = decoded.seconds - decoded.arrived
                return Frame(decoded.image, index, decoded.seconds, decoded.arrived)
            # An RTSP server sends its first frames without a time. They are left out: on our clock, they
            # would seem to be hours away from the others.
            if self._offset is not None or index >= MOST_UNTIMED or not self._decoder.clock.timed:
                self._offset = self._offset or 0.0
                return Frame(decoded.image, index, decoded.arrived + self._offset, decoded.arrived)

    def _decode(self) -> Decoded:
        try:
            decoded = self._decoder.read(self.limit)
        except (av.error.ExitError, TimeoutError):
            raise LostError(f"{self.name}: no picture for {self.limit:g} s") from None
        except av.FFmpegError as error:
            raise LostError(
                f"{self.name} was lost after {counted(self._next, 'frame')}: {error.strerror}"
            ) from None
        if decoded is None:
            raise LostError(f"{self.name} ended after {counted(self._next, 'frame')}")
        return decoded

    def close(self) -> None:
        """Hang up."""
        self._decoder.close()


def _check(spec: Spec) -> str:
    """Return the scheme of a URL that can be meant."""
    try:
        url = urlsplit(spec.target)
        host, _ = url.hostname, url.port
    except ValueError:  # whose text can hold a part of the password
        raise SourceError(
            f"{spec.name} is not a valid URL: write scheme://host:port/path, and a / or ? in a password "
            "as %2F or %3F"
        ) from None
    if url.scheme == "file":
        raise SourceError(f"{spec.name}: give a file by its path: {url2pathname(url.path)}")
    if url.scheme not in SCHEMES:
        raise SourceError(f"{spec.name}: {unknown_name('URL scheme', url.scheme, SCHEMES)}")
    if not host and url.scheme not in ("udp", "rtp", "tcp", "srt"):  # these can listen: udp://:5000
        raise SourceError(f"{spec.name} names no host")
    return url.scheme


def _patience(text: str) -> float:
    return positive_number(text, most=MOST_PATIENCE)


def _transport(text: str) -> str:
    if text not in ("tcp", "udp"):
        raise ValueError(unknown_name("transport", text, ["tcp", "udp"]))
    return text
