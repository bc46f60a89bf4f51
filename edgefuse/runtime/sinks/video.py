"""Files as outputs: a video or a series of its parts, an image for every frame, a single still."""

import logging
import os
import re
import sys
from pathlib import Path

import av
import cv2

from edgefuse.errors import InputError, unknown_name
from edgefuse.images import IMAGE_SUFFIXES, Image, size_of, write_image
from edgefuse.memory import return_memory
from edgefuse.runtime.compose import side_by_side
from edgefuse.runtime.frames import FusedFrame
from edgefuse.runtime.sinks.base import OutputOptions, QuotaReachedError, Sink
from edgefuse.runtime.sinks.encoder import CODECS, CONTAINERS, Encoder
from edgefuse.runtime.sinks.naming import DiskQuota, OutputNaming, check_limits

logger = logging.getLogger(__name__)

RESERVED_BY_WINDOWS = re.compile(r"(con|prn|aux|nul|com\d|lpt\d) *(\..*)?", re.IGNORECASE)
"""What is written to such a file is lost, whatever its suffix."""


class VideoOut(Sink):
    """Writes a video: the fused picture, or infrared | visible | fused.

    Codecs need even sides: an odd width or height is made even by repeating the last column or row. When the
    pictures change their size, or from grey to colour, as after a camera's return, another file begins.

    The files can be played at any moment; their names are those of `OutputNaming`.

    Args:
        path: the suffix chooses the container, see `CONTAINERS`.
        fps: frames per second of the file; None: nobody knows, as of cameras.
        timed: frames come at times of their own, whatever the rate; without a rate, they always do.
        triptych: write infrared | visible | fused in place of the fused picture alone.
        codec: one of `CODECS`; None: that of the suffix.
        segment: seconds of each part; None: one file.
        max_size: bytes of all files; with parts, the oldest are removed, without, the output ends there.

    Raises:
        InputError: unknown suffix or codec, a value out of range, or no folder to write to.
    """

    texts = f"a video ({', '.join(CONTAINERS)})"
    options = frozenset({"codec", "segment", "max_size"})
    in_main_thread = False

    @staticmethod
    def accepts(out: str) -> bool:
        """Whether the text is a file with the suffix of a video."""
        is_folder = out.endswith("/") or Path(out).is_dir()
        return "://" not in out and Path(out).suffix.lower() in CONTAINERS and not is_folder

    @classmethod
    def open(cls, out: str, options: OutputOptions) -> "VideoOut":
        """Write a video file."""
        return cls(
            out,
            options.fps,
            options.triptych,
            timed=True,
            codec=options.codec,
            segment=options.segment,
            max_size=options.max_size,
        )

    def __init__(
        self,
        path: str | Path,
        fps: float | None,
        triptych: bool = False,
        *,
        timed: bool = False,
        codec: str | None = None,
        segment: float | None = None,
        max_size: int | None = None,
    ) -> None:
        self._path = Path(path)
        self.name = str(path)
        suffix = self._path.suffix.lower()
        if suffix not in CONTAINERS:
            raise InputError(
                f"cannot write {path}: the suffix of a video must be one of {', '.join(CONTAINERS)} "
                "(a folder, for a PNG per frame, ends in /)"
            )
        self._codec = codec or CONTAINERS[suffix][1]
        if self._codec not in CODECS:
            raise InputError(unknown_name("codec", self._codec, CODECS))
        check_limits(segment, max_size)
        check_folder(self._path)
        if self._path.is_dir():
            raise InputError(f"cannot write {path}: it is a folder")
        self._fps, self._triptych, self._segment = fps, triptych, segment
        self._timed = timed or fps is None
        ring = segment is not None
        self._quota = DiskQuota(self._path.parent, self.name, max_size, ring)
        self._series = OutputNaming(self._path, ring, self._quota)
        self._encoder: Encoder | None = None
        self._shape: tuple[int, ...] = ()
        self._start = 0.0
        self._frames = 0
        self._failed = False  # the present file is not what it was to be

    def write(self, frame: FusedFrame) -> None:
        """Encode one frame.

        Raises:
            InputError: the disk is full, or the codec refuses.
            OSError: the disk is gone.
            QuotaReachedError: `max_size` is reached.
        """
        try:
            self._write(frame)
        except QuotaReachedError:
            raise
        except BaseException:
            self._failed = True
            raise

    def _write(self, frame: FusedFrame) -> None:
        image = side_by_side(frame.ir, frame.vis, frame.fused) if self._triptych else frame.fused
        image = _even(image)
        seconds = frame.timestamp if self._timed or not self._fps else self._frames / self._fps
        if self._encoder is not None and self._is_over(self._encoder, image, seconds):
            self._complete()
        if self._encoder is None:
            self._shape, self._start = image.shape, seconds
            self._encoder = self._open(image)
        self._quota.admit(self._encoder.size)
        try:
            self._encoder.write(image, seconds - self._start)
        except av.FFmpegError as error:
            raise InputError(f"{self.name}: {self._codec} refuses the picture: {error.strerror}") from None
        self._frames += 1

    def _is_over(self, encoder: Encoder, image: Image, seconds: float) -> bool:
        """Return whether the present file cannot take this picture, or has had enough."""
        if image.shape != self._shape:
            kind = "grey" if image.ndim == 2 else "colour"
            logger.warning(
                "%s: the pictures are now %s, %s: a new file begins", self.name, size_of(image), kind
            )
            return True
        if self._segment is not None and seconds - self._start >= self._segment:
            return True
        return self._quota.largest_part is not None and encoder.size >= self._quota.largest_part

    def _open(self, image: Image) -> Encoder:
        try:
            return Encoder(self._series.begin(), self._codec, image, self._fps, timed=self._timed)
        except (av.FFmpegError, ValueError) as error:
            raise InputError(
                f"cannot write {self.name}: a {size_of(image)} {self._codec} video cannot be made: {error}"
            ) from None

    def _complete(self) -> None:
        """Close the file and give it its name, whatever happened to it."""
        encoder, self._encoder = self._encoder, None
        if encoder is None:
            return
        whole = False
        try:
            encoder.close()
            whole = not self._failed
        except av.FFmpegError as error:
            raise InputError(f"{self.name} could not be completed: {error.strerror}") from None
        finally:
            self.lost_on_failure += encoder.frames - encoder.kept
            self._series.end(encoder.file_size if encoder.frames else 0, whole)
            return_memory()

    def close(self) -> None:
        """Complete the file and give it its name. Raises as `write`."""
        self._complete()


def check_folder(path: Path) -> None:
    """Raise `InputError` unless a file can be created beside `path`."""
    folder = path.parent
    if sys.platform.startswith("win") and RESERVED_BY_WINDOWS.fullmatch(path.name):
        raise InputError(f"cannot write {path}: Windows takes this name for a device: give another")
    if not folder.is_dir():
        raise InputError(f"cannot write {path}: there is no folder {folder}")
    if not os.access(folder, os.W_OK):
        raise InputError(f"cannot write {path}: no permission to write in {folder}")


def _even(image: Image) -> Image:
    height, width = image.shape[:2]
    if height % 2 or width % 2:
        image = cv2.copyMakeBorder(image, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
    return image


class ImageSequence(Sink):
    """Writes every frame as `000000.png`, `000001.png` … into a folder, which is made if needed.

    Args:
        folder: must have no images in it.
        triptych: write infrared | visible | fused in place of the fused picture alone.
        max_size: bytes of all files, at which the output ends; None: no limit.

    Raises:
        InputError: the folder cannot be made, or has images in it already, or a size that is too small.
    """

    texts = "a folder (frames/)"
    options = frozenset({"max_size"})
    in_main_thread = False

    @staticmethod
    def accepts(out: str) -> bool:
        """Whether the text is a folder, ends in / or has no suffix."""
        return "://" not in out and (out.endswith("/") or Path(out).is_dir() or not Path(out).suffix)

    @classmethod
    def open(cls, out: str, options: OutputOptions) -> "ImageSequence":
        """Write into a folder."""
        return cls(out, options.triptych, max_size=options.max_size)

    def __init__(self, folder: str | Path, triptych: bool = False, *, max_size: int | None = None) -> None:
        check_limits(None, max_size)
        self.name = str(folder)
        self._folder, self._triptych = Path(folder), triptych
        self._quota = DiskQuota(self._folder, self.name, max_size, ring=False)
        self._size = 0  # bytes of all files
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"cannot make folder {folder}: {error.strerror}") from None
        if any(p.suffix.lower() in IMAGE_SUFFIXES for p in self._folder.iterdir()):
            raise InputError(f"{folder} already has images in it: give an empty or a new folder")

    def write(self, frame: FusedFrame) -> None:
        """Write one file.

        Raises:
            InputError: the disk is full.
            QuotaReachedError: `max_size` is reached.
        """
        self._quota.admit(self._size)
        image = side_by_side(frame.ir, frame.vis, frame.fused) if self._triptych else frame.fused
        path = self._folder / f"{frame.index:06d}.png"
        write_image(path, image)
        self._size += path.stat().st_size


class Still(Sink):
    """Keeps the last frame and writes infrared | visible | fused as one image at the end.

    Raises:
        InputError: unknown suffix, or no folder to write to.
    """

    in_main_thread = False
    timed = False

    def __init__(self, path: str | Path) -> None:
        self.name = str(path)
        self._path = Path(path)
        if self._path.suffix.lower() not in IMAGE_SUFFIXES:
            known = ", ".join(sorted(IMAGE_SUFFIXES))
            raise InputError(f"cannot write {path}: the suffix of a still must be one of {known}")
        check_folder(self._path)
        self._last: FusedFrame | None = None

    def write(self, frame: FusedFrame) -> None:
        """Keep the frame."""
        self._last = frame

    def close(self) -> None:
        """Write the last frame, if there was any."""
        frame, self._last = self._last, None
        if frame is not None:
            write_image(self._path, side_by_side(frame.ir, frame.vis, frame.fused))
