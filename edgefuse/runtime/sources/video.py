"""Video files with their real timestamps, and recordings: many files of a camera, read as one.

A recording has for each camera a folder of numbered videos, each with its exact times: `0001.mkv` has
`0001.times.csv` beside it, since Matroska's clock has milliseconds only.
"""

import logging
import re
import threading
from bisect import bisect_left
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import av
import numpy as np
from numpy.typing import NDArray

from edgefuse.errors import SourceError
from edgefuse.images import IMAGE_SUFFIXES, bits_of, scale_bits
from edgefuse.runtime.frames import NOMINAL_FPS, ROLES, Frame, Role
from edgefuse.runtime.sources.base import Source
from edgefuse.runtime.sources.decoder import REORDERED, Decoded, Decoder, is_steady, rate_of
from edgefuse.runtime.sources.text import Spec, positive_number, seconds, yes_or_no

PART = re.compile(r"\d{4,}\.mkv")
HEADER = "pts_ms,timestamp_s,index"
STARTED_TAG = "EDGEFUSE_STARTED"
"""Tag of a recorded video: the common zero of the times of both cameras, as UTC."""


def part_name(number: int) -> str:
    """Return the name of a part, which are counted from 1: `0001.mkv`."""
    return f"{number:04d}.mkv"


def recorded_parts(folder: Path) -> list[Path]:
    """Return the parts of a recording in their order; none: the folder holds no recording."""
    if not folder.is_dir():
        return []
    parts = [path for path in folder.iterdir() if PART.fullmatch(path.name)]
    return sorted(parts, key=lambda path: int(path.stem))


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


logger = logging.getLogger(__name__)

OPTIONS: dict[str, Callable[[str], Any]] = {
    "fps": positive_number,
    "start": seconds,
    "loop": yes_or_no,
    "raw": yes_or_no,
}


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


class Recording(Source):
    """One camera's folder of a recording, all parts as one video, every frame with its time.

    Parts that were removed leave a gap in the times, or let them begin late. A part that a power cut has
    damaged is read as far as it goes.

    Options: those of `VideoFile`.
    """

    texts = "the folder of a recorded camera"
    live = False

    @staticmethod
    def accepts(target: str) -> bool:
        """Whether the target is a folder of parts, or of those of both cameras."""
        return any(recorded_parts(Path(target, inside)) for inside in ("", *ROLES))

    def __init__(self, spec: Spec, role: Role) -> None:
        common, own = spec.split(["bits"])
        self._options = common.options  # for each part
        options = own.read_options({"fps": positive_number, "start": seconds, "loop": yes_or_no})
        self.name, self._role = spec.name, role
        self._start = options.get("start", 0.0)
        self._loop = options.get("loop", False)
        self._rate: float | None = options.get("fps")
        self.synchronised = self._rate is None
        parts = recorded_parts(Path(spec.target))
        if not parts:
            raise SourceError(f"{self.name} holds the recordings of two cameras: give {spec.target}/{role}")
        self._parts, left = _from(parts, self._start)
        self.length = left if left and not self._loop else None
        self._lock = threading.Lock()
        self._closed = False
        self._opened = 0  # of `_parts`, in this pass
        self._video: VideoFile | None = None
        self.fps = self._rate or NOMINAL_FPS  # until a part is open
        self._shift = 0.0  # to subtract from the times of the present part
        self._index = -1  # of the latest frame
        self._before = 0  # to add to the numbers of the present part
        self._latest = self._offset = 0.0  # time of the latest frame; seconds of earlier passes
        if not self._open_next():
            raise SourceError(f"{self.name} has no part that can be read from {self._start:g} s on")

    def _open_next(self) -> bool:
        """Open the next part that can be read; False: there is none."""
        with self._lock:
            self._close_video()
            while self._opened < len(self._parts) and not self._closed:
                part, begins = self._parts[self._opened]
                self._opened += 1
                # One can go to a place in a part, but not to one before its first frame.
                inside = self._start > max(begins, 0.0)
                options = {**self._options, **({"start": repr(self._start)} if inside else {})}
                try:
                    self._video = VideoFile(Spec(str(part), str(part), options), self._role)
                except SourceError as error:
                    logger.warning("skipping a part of the recording: %s", error)
                    continue
                self.fps = self._rate or self._video.fps
                self._shift = 0.0 if inside else self._start
                self._before = self._index + 1
                return True
        return False

    def read(self) -> Frame | None:
        """Return the next frame; None at the end of the last part."""
        while (video := self._video) is not None:
            try:
                frame = video.read()
            except SourceError as error:  # nothing at all could be decoded
                logger.warning("skipping a part of the recording: %s", error)
                frame = None
            if frame is None:
                if not self._open_next() and not self._rewound():
                    return None
            elif (placed := self._placed(frame)) is not None:
                return placed
        return None

    def _placed(self, frame: Frame) -> Frame | None:
        """Return a frame of the present part with its number and time in the whole; None: it is too early."""
        position = frame.timestamp - self._shift
        if self._start and position < 0:
            self._before = self._index - frame.index
            return None
        self._index = self._before + frame.index
        self._latest = self._index / self._rate if self._rate else self._offset + position
        return Frame(frame.image, self._index, self._latest, frame.captured)

    def _rewound(self) -> bool:
        """Begin again, if that was asked for."""
        if not self._loop or self._index < 0:
            return False
        self._opened, self._offset = 0, self._latest + 1 / self.fps
        return self._open_next()

    def _close_video(self) -> None:
        if self._video is not None:
            self._video.close()
            self._video = None

    def close(self) -> None:
        """Close the part that is open."""
        self._closed = True
        with self._lock:
            self._close_video()


def _from(parts: list[Path], start: float) -> tuple[list[tuple[Path, float]], int]:
    """Return the parts that have something from `start` on, with their first times, and their frames."""
    kept, left = [], 0
    for part in parts:
        times = list(read_timestamps(part).values())
        if not times or not start or max(times) >= start:
            kept.append((part, times[0] if times else float("inf")))
            left += sum(not start or time >= start for time in times)
    return kept, left
