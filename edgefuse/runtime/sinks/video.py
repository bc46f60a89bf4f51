"""Video files as an output: one, or a series of parts."""

import os
import shutil
from datetime import UTC, datetime
from pathlib import Path

import av
import cv2

from edgefuse.errors import InputError, unknown_name
from edgefuse.images import Image
from edgefuse.runtime.compose import letterbox, side_by_side
from edgefuse.runtime.sinks.base import FusedFrame, Sink, SinkFullError
from edgefuse.runtime.sinks.encoder import CODECS, CONTAINERS, Encoder

__all__ = ["VideoOut", "check_folder"]

RESERVE = 32 * 2**20
"""Bytes that stay free on the disk, so that the machine goes on."""
CHECK_EVERY = 16  # frames


class VideoOut(Sink):
    """Writes a video: the fused picture, or infrared | visible | fused.

    Codecs need even sides: an odd width or height is made even by repeating the last column or row. A
    picture of another size than the first, as after a camera's return, is fitted into it.

    While it is written, the file has `.part` in its name and the time of its beginning; it can be played
    at any moment. It gets its name when it is complete; what an earlier run left behind is never touched.

    Args:
        path: the suffix chooses the container, see `CONTAINERS`. Parts are named `out-20260131-235959.mp4`.
        fps: frames per second of the file; None: frames come at times of their own, as from cameras.
        triptych: write infrared | visible | fused in place of the fused picture alone.
        codec: one of `CODECS`; None: that of the suffix.
        segment: seconds of each part; None: one file.
        max_size: bytes; with parts, the oldest of this run are removed, without, the output ends there.

    Raises:
        InputError: unknown suffix or codec, a value out of range, or no folder to write to.
    """

    in_main_thread = False

    def __init__(
        self,
        path: str | Path,
        fps: float | None,
        triptych: bool = False,
        *,
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
        if segment is not None and not segment >= 1:
            raise InputError(f"a segment of {segment:g} s is too short: at least 1 s")
        if max_size is not None and max_size < 2**20:
            raise InputError(f"the largest size of {max_size} bytes is too small: at least 1 MB")
        check_folder(self._path)
        if self._path.is_dir():
            raise InputError(f"cannot write {path}: it is a folder")
        self._fps, self._triptych, self._segment, self._max_size = fps, triptych, segment, max_size
        self._encoder: Encoder | None = None
        self._partial = self._final = self._path
        self._shape: tuple[int, ...] = ()
        self._start = 0.0
        self._frames = 0
        self._parts: list[tuple[Path, int]] = []

    def write(self, frame: FusedFrame) -> None:
        """Encode one frame.

        Raises:
            InputError: the disk is full, or the codec refuses.
            OSError: the disk is gone.
            SinkFullError: `max_size` is reached.
        """
        image = side_by_side(frame.ir, frame.vis, frame.fused) if self._triptych else frame.fused
        image = _even(image)
        seconds = self._frames / self._fps if self._fps else frame.timestamp
        if self._encoder is not None and self._segment and seconds - self._start >= self._segment:
            self._complete()
        if self._encoder is None:
            self._shape = self._shape or image.shape
            self._encoder = self._open()
            self._start = seconds
        self._check_room(self._encoder)
        try:
            self._encoder.write(letterbox(image, self._shape), seconds - self._start)
        except av.FFmpegError as error:
            raise InputError(f"{self.name}: {self._codec} refuses the picture: {error.strerror}") from None
        self._frames += 1

    def _open(self) -> Encoder:
        stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
        stem, suffix = self._path.stem, self._path.suffix
        self._final = _free(self._path.with_name(f"{stem}-{stamp}{suffix}")) if self._segment else self._path
        self._partial = _free(self._path.with_name(f"{stem}-{stamp}.part{suffix}"))
        try:
            return Encoder(self._partial, self._codec, self._shape, self._fps)
        except (av.FFmpegError, ValueError) as error:
            height, width = self._shape[:2]
            raise InputError(
                f"cannot write {self.name}: a {width}x{height} {self._codec} video cannot be made: {error}"
            ) from None

    def _check_room(self, encoder: Encoder) -> None:
        if self._frames % CHECK_EVERY == 0 and shutil.disk_usage(self._path.parent).free < RESERVE:
            raise InputError(f"{self.name}: the disk is full (less than {RESERVE >> 20} MiB are free)")
        if self._max_size is None:
            return
        total = encoder.size + sum(size for _, size in self._parts)
        while self._parts and total > self._max_size:
            path, size = self._parts.pop(0)
            path.unlink(missing_ok=True)
            total -= size
        if total > self._max_size:
            raise SinkFullError(f"{self.name} has reached its largest size of {self._max_size / 1e6:g} MB")

    def _complete(self) -> None:
        """Close the file and give it its name, whatever happened to it: what is in it can be played."""
        encoder, self._encoder = self._encoder, None
        if encoder is None:
            return
        try:
            encoder.close()
        except av.FFmpegError as error:
            raise InputError(f"{self.name} could not be completed: {error.strerror}") from None
        finally:
            if encoder.size:
                self._partial.replace(self._final)
                self._parts.append((self._final, encoder.size))
            else:
                self._partial.unlink(missing_ok=True)

    def close(self) -> None:
        """Complete the file and give it its name. Raises as `write`."""
        self._complete()


def check_folder(path: Path) -> None:
    """Raise `InputError` unless a file can be created beside `path`."""
    folder = path.parent
    if not folder.is_dir():
        raise InputError(f"cannot write {path}: there is no folder {folder}")
    if not os.access(folder, os.W_OK):
        raise InputError(f"cannot write {path}: no permission to write in {folder}")


def _free(path: Path) -> Path:
    """Return the path, with a number if there is such a file already: a clock may have been set back."""
    number, free = 1, path
    while free.exists():
        number += 1
        free = path.with_name(f"{path.stem}-{number}{path.suffix}")
    return free


def _even(image: Image) -> Image:
    height, width = image.shape[:2]
    if height % 2 or width % 2:
        image = cv2.copyMakeBorder(image, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
    return image
