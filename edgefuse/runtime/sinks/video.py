"""A video file as an output."""

import os
import shutil
from pathlib import Path
from typing import Any

import cv2

from edgefuse.errors import InputError
from edgefuse.images import Image, size_of
from edgefuse.runtime.compose import side_by_side
from edgefuse.runtime.opencv_video import open_capture, open_writer
from edgefuse.runtime.sinks.base import FusedFrame, Sink

__all__ = ["CODECS", "VideoOut"]

CODECS = {".mp4": "mp4v", ".avi": "MJPG", ".mkv": "FFV1"}
"""Suffix → codec, of those that every build of OpenCV can write: MPEG-4 part 2, Motion JPEG, lossless."""

RESERVE = 32 * 2**20
"""Bytes that must stay free on the disk: OpenCV does not report a failed write, so none may come."""


class VideoOut(Sink):
    """Writes a video: the fused picture, or infrared | visible | fused.

    Codecs need even sides: an odd width or height is made even by repeating the last column or row.
    The file is written beside its place under another name, checked, and renamed when it is complete.

    Args:
        path: the suffix chooses the codec, see `CODECS`.
        fps: frames per second of the file.
        keep_pace: for live sources: a frame is repeated (for up to a second) when the next one is late,
            since OpenCV writes no timestamps and the video would otherwise play too fast.
        triptych: write infrared | visible | fused in place of the fused picture alone.

    Raises:
        InputError: unknown suffix, or no folder to write to.
    """

    in_main_thread = False

    def __init__(self, path: str | Path, fps: float, keep_pace: bool = False, triptych: bool = False) -> None:
        self._path = Path(path)
        self.name = str(path)
        if self._path.suffix.lower() not in CODECS:
            raise InputError(
                f"cannot write {path}: the suffix of a video must be one of {', '.join(CODECS)} "
                "(a folder, for a PNG per frame, ends in /)"
            )
        check_folder(self._path)
        if self._path.is_dir():
            raise InputError(f"cannot write {path}: it is a folder")
        self._partial = self._path.with_name(f".{self._path.stem}.{os.getpid()}.part{self._path.suffix}")
        self._fps, self._keep_pace, self._triptych = fps, keep_pace, triptych
        self._writer: Any = None
        self._size = ""
        self._frames = 0
        self._start = 0.0

    def write(self, frame: FusedFrame) -> None:
        """Encode one frame.

        Raises:
            InputError: the picture changed its size, the disk is full, or the codec refuses.
        """
        image = side_by_side(frame.ir, frame.vis, frame.fused) if self._triptych else frame.fused
        image = _even_bgr(image)
        if self._writer is None:
            self._open(image)
            self._start = frame.timestamp
        if size_of(image) != self._size:
            raise InputError(
                f"{self.name}: the picture changed from {self._size} to {size_of(image)}, a video cannot"
            )
        if self._frames % 16 == 0 and shutil.disk_usage(self._path.parent).free < RESERVE:
            raise InputError(f"{self.name}: the disk is full (less than {RESERVE >> 20} MiB are free)")
        for _ in range(self._repeats(frame.timestamp)):
            self._writer.write(image)
            self._frames += 1

    def _open(self, image: Image) -> None:
        height, width = image.shape[:2]
        codec = CODECS[self._path.suffix.lower()]
        self._writer = open_writer(str(self._partial), codec, self._fps, (width, height))
        if self._writer is None:
            self._partial.unlink(missing_ok=True)
            raise InputError(
                f"cannot write {self.name}: OpenCV cannot open a {width}x{height} {codec} video there"
            )
        self._size = size_of(image)

    def _repeats(self, timestamp: float) -> int:
        """Return how often a frame is written so that frame number / fps follows its timestamp."""
        if not self._keep_pace:
            return 1
        due = round((timestamp - self._start) * self._fps)
        late = due - self._frames
        if late > self._fps:  # a gap: the video goes on at its own time
            self._start = timestamp - self._frames / self._fps
            late = 0
        return max(0, 1 + late)

    def close(self) -> None:
        """Complete the file and give it its name.

        Raises:
            InputError: what was written cannot be read back in full.
        """
        if self._writer is None:
            return
        self._writer.release()
        self._writer = None
        readable = _count_frames(self._partial)
        if not readable:
            self._partial.unlink(missing_ok=True)
            raise InputError(f"{self.name} could not be completed and was removed")
        self._partial.replace(self._path)
        if readable < self._frames:
            raise InputError(f"{self.name} holds only {readable} of {self._frames} frames")


def check_folder(path: Path) -> None:
    """Raise `InputError` unless a file can be created beside `path`."""
    folder = path.parent
    if not folder.is_dir():
        raise InputError(f"cannot write {path}: there is no folder {folder}")
    if not os.access(folder, os.W_OK):
        raise InputError(f"cannot write {path}: no permission to write in {folder}")


def _even_bgr(image: Image) -> Image:
    height, width = image.shape[:2]
    if height % 2 or width % 2:
        image = cv2.copyMakeBorder(image, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
    return image if image.ndim == 3 else cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)


def _count_frames(path: Path) -> int:
    capture = open_capture(str(path), cv2.CAP_FFMPEG)
    if capture is None:
        return 0
    count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    capture.release()
    return count
