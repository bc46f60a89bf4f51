"""Folders that are read as one recording: of images, or of the videos that were recorded of a camera."""

import logging
import re
import threading
import time
from collections.abc import Callable
from glob import escape, glob, has_magic
from pathlib import Path
from typing import Any

import numpy as np

from edgefuse.errors import FrameError, InputError, SourceError, counted
from edgefuse.images import IMAGE_SUFFIXES, bits_of, read_image
from edgefuse.pairs import Files, images_by_stem, natural_key, pair_files, printable
from edgefuse.runtime.frames import NOMINAL_FPS, ROLES, Frame, Role
from edgefuse.runtime.sources.base import Source, Spec, positive_number, seconds, yes_or_no
from edgefuse.runtime.sources.video import VideoFile, read_timestamps

logger = logging.getLogger(__name__)


class ImageFolder(Source):
    """The images of a folder, or of a pattern such as `frames/*_ir.png`, in natural order (2 before 10).

    Options: `fps` (25), `start` in seconds, `loop=1` to start over at the end; for visible
    images `bits`, those of 16 that are used.
    """

    texts = "frames/, 'frames/*.png'"
    live = False

    @staticmethod
    def accepts(target: str) -> bool:
        """Whether the target is a folder or a pattern with `*` or `[ ]`."""
        return Path(target).is_dir() or (has_magic(target) and not Path(target).exists())

    def __init__(self, spec: Spec, role: Role) -> None:
        readers: dict[str, Callable[[str], Any]] = {
            "fps": positive_number,
            "start": seconds,
            "loop": yes_or_no,
        }
        if role == "vis":
            readers["bits"] = bits_of
        options = spec.read_options(readers)
        self.name = spec.name
        self.fps = options.get("fps", NOMINAL_FPS)
        self._start, self._loop = options.get("start", 0.0), options.get("loop", False)
        self.by_stem = _files(spec.target, role)
        """All its images, those before `start` too."""
        self.length: int | None = None
        self.use(list(self.by_stem.values()))
        self._next = self._unread = 0
        self._role = role
        self._bits: int | None = options.get("bits")
        self._signed = False

    def use(self, files: list[Path]) -> None:
        """Read these files, from `start` on.

        Raises:
            SourceError: there are none from there on.
        """
        self._files = files[round(self._start * self.fps) :]
        if not self._files:
            raise SourceError(
                f"{self.name} has {counted(len(files), 'image')}, none of them after {self._start:g} s"
            )
        self.length = None if self._loop else len(self._files)

    def read(self) -> Frame | None:
        """Return the next image; None after the last.

        Raises:
            FrameError: a file is not an image; the next call returns the one after it.
            SourceError: none of them is, in a folder that starts over at its end.
        """
        if self._next == self.length:
            return None
        index, captured = self._next, time.monotonic()
        self._next += 1
        try:
            image = read_image(self._files[index % len(self._files)], self._role, self._bits)
        except InputError as error:
            self._unread += 1
            if self.length is None and self._unread >= len(self._files):
                raise SourceError(f"{self.name} has no image that can be read: {error}") from None
            raise FrameError(str(error)) from None
        self._unread = 0
        # Below zero was recognised in one picture: those wholly above or below count from the same zero.
        self._signed = self._signed or image.dtype == np.int16
        if self._signed and image.dtype == np.uint16 and image.ndim == 2:
            degrees = image.view(np.int16)
            if (np.abs(degrees.astype(np.int32)) <= 20_000).all():
                image = degrees
        return Frame(image, index, index / self.fps, captured)


def pair_by_stem(ir: ImageFolder, vis: ImageFolder) -> None:
    """Leave out the images of two sources that have no partner of equal stem, and say how many.

    Stems may end in `_ir`, `_vis` and the like. Where no stem is in both, images are paired in order, which
    is logged. Each one's `start` counts from the first pair.

    Raises:
        SourceError: no pair is left from `start` on.
    """
    try:
        pairs = pair_files(ir.by_stem, vis.by_stem, ir.name, vis.name).pairs
    except InputError as error:
        if ir.by_stem == vis.by_stem:  # without endings: `crop` takes two parts of each image
            return
        logger.warning("%s and %s: pairing their images in order (%s)", ir.name, vis.name, error)
        return
    for source, files in ((ir, [pair[1] for pair in pairs]), (vis, [pair[2] for pair in pairs])):
        if left := len(source.by_stem) - len(files):
            logger.warning(
                "%s: ignoring %d of %d images, which have no partner", source.name, left, len(source.by_stem)
            )
        source.use(files)


def _files(target: str, role: Role) -> Files:
    """Return the images by stem, in natural order."""
    if Path(target).is_dir():
        try:
            return images_by_stem(target, role=role)
        except InputError as error:
            raise SourceError(str(error)) from None
    root = _root(target)
    pattern = target if root is None else str(Path(escape(str(root)), Path(target).relative_to(root)))
    found = [Path(name) for name in glob(pattern, recursive=True)]
    images = [path for path in found if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()]
    if not images:
        raise SourceError(f"no images match {target} ({len(found)} other files do)")
    by_stem: Files = {}
    for path in sorted(images, key=natural_key):
        inside = path if root is None else path.relative_to(root)
        stem = printable(inside.with_suffix("").as_posix())
        by_stem[stem if stem not in by_stem else printable(inside.as_posix())] = path
    return by_stem


def _root(target: str) -> Path | None:
    """Return the folder that a pattern begins with. Its name, such as `data[1]`, stands for itself."""
    return next((parent for parent in Path(target).parents if parent.is_dir()), None)


PART = re.compile(r"\d{4,}\.mkv")


def part_name(number: int) -> str:
    """Return the name of a part, which are counted from 1: `0001.mkv`."""
    return f"{number:04d}.mkv"


def recorded_parts(folder: Path) -> list[Path]:
    """Return the parts of a recording in their order; none: the folder holds no recording."""
    if not folder.is_dir():
        return []
    parts = [path for path in folder.iterdir() if PART.fullmatch(path.name)]
    return sorted(parts, key=lambda path: int(path.stem))


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
