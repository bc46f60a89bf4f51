"""Writing the frames of one camera bit for bit: FFV1 in Matroska, with a sheet of their exact times."""

import os
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from edgefuse.errors import InputError
from edgefuse.images import size_of
from edgefuse.runtime.sources.timesheet import Timesheet, timesheet_path

__all__ = ["LosslessVideo", "UnkeepableError", "kind_of"]

SYNC_SECONDS = 1.0
MILLISECONDS = Fraction(1, 1000)  # Matroska's clock
FORMATS = {("uint8", 2): "gray", ("uint16", 2): "gray16le", ("uint8", 3): "bgr0"}
"""(Pixel type, dimensions) of an array → FFV1's format that keeps every bit of it."""

MUXER = {"cluster_time_limit": "1000", "flush_packets": "1"}
# Key frames only, so that any frame can be sought; checksums in slices, which are coded in parallel.
ENCODER = {"level": "3", "g": "1", "slicecrc": "1", "context": "0"}
SMALL, LARGE = 16, 16 * 10**6  # side and area, in pixels, at which the number of slices must change


class UnkeepableError(InputError):
    """A frame that cannot be recorded without loss; others can."""


def kind_of(image: NDArray[Any]) -> str:
    """Return what all frames of one video have in common, such as `640x480 gray16le`.

    Raises:
        UnkeepableError: the array is none of those that FFV1 keeps.
    """
    name = FORMATS.get((str(image.dtype), image.ndim))
    if name is None or 0 in image.shape or (image.ndim == 3 and image.shape[2] != 3):
        raise UnkeepableError(f"{image.dtype} frames of shape {image.shape} cannot be recorded without loss")
    return f"{size_of(image)} {name}"


class LosslessVideo:
    """One `.mkv` and its times. A crash or power cut loses no more than the last two seconds.

    Without any frame, both files are removed at the end.

    Args:
        path: of the video; must not exist.
        image: the first frame: the others must be of its kind.
        fps: nominal rate, for players.
        tags: texts to put into the file.

    Raises:
        InputError: the file exists, or cannot be made.
    """

    def __init__(self, path: Path, image: NDArray[Any], fps: float, tags: dict[str, str]) -> None:
        self.path = path
        self.kind = kind_of(image)
        self._format = self.kind.split()[1]
        self.frames = 0
        self._encoded = 0  # bytes
        self._latest = -1
        self._synced = 0.0
        try:
            self._times = timesheet_path(path).open("x", encoding="ascii", buffering=1)
            self._sheet = Timesheet(self._times)
            self._file = path.open("xb")
        except FileExistsError as error:
            raise InputError(f"{error.filename} exists already: give another folder") from None
        except OSError as error:
            raise InputError(f"cannot write {path}: {error.strerror}") from None
        self._container = av.open(str(path), "w", format="matroska", options=dict(MUXER))
        self._container.metadata.update(tags)
        stream = self._container.add_stream("ffv1", rate=Fraction(fps).limit_denominator(1001))
        stream.height, stream.width = image.shape[:2]
        stream.pix_fmt = self._format
        slices = 1 if min(image.shape[:2]) < SMALL else 16 if image.shape[0] * image.shape[1] > LARGE else 4
        stream.options = {**ENCODER, "slices": str(slices)}
        stream.codec_context.time_base = MILLISECONDS
        stream.codec_context.thread_count = min(4, os.cpu_count() or 1)
        stream.thread_type = "SLICE"
        self._stream = stream

    def write(self, image: NDArray[Any], seconds: float, index: int) -> None:
        """Append one frame.

        Args:
            image: of the kind of the first one.
            seconds: its time since the start of the recording.
            index: its number at the source.

        Raises:
            UnkeepableError: the encoder refuses the frame; the video can only be closed then.
            OSError: the disk is full, or gone.
        """
        pts = max(self._latest + 1, round(seconds * 1000))
        self._latest = pts
        frame = _to_frame(image, self._format)
        frame.pts, frame.time_base = pts, MILLISECONDS
        try:
            packets = self._stream.encode(frame)
        except av.FFmpegError as error:
            raise UnkeepableError(
                f"a {self.kind} frame cannot be recorded without loss: {error.strerror}"
            ) from None
        self._sheet.add(pts, seconds, index)
        self.frames += 1
        self._encoded += sum(packet.size for packet in packets)
        self._mux(packets)
        if seconds - self._synced >= SYNC_SECONDS:
            self._synced = seconds
            self._sync()

    def _mux(self, packets: list[Any]) -> None:
        try:
            self._container.mux(packets)
        except av.FFmpegError as error:
            raise OSError(error.errno, error.strerror, str(self.path)) from None

    def _sync(self) -> None:
        """Have the disk take what the system still holds back."""
        os.fsync(self._file.fileno())
        os.fsync(self._times.fileno())

    @property
    def files(self) -> tuple[Path, Path]:
        """The video and its times."""
        return self.path, timesheet_path(self.path)

    @property
    def size(self) -> int:
        """Bytes of the video so far, those included that wait to be written."""
        return max(self._encoded, os.fstat(self._file.fileno()).st_size)

    def close(self) -> None:
        """Complete the file. Can be called twice.

        Raises:
            OSError: the disk is full, or gone.
        """
        if self._file.closed:
            return
        try:
            if self.frames:
                self._mux(self._stream.encode(None))
            self._container.close()
            self._sync()
        except av.FFmpegError as error:
            raise OSError(error.errno, error.strerror, str(self.path)) from None
        finally:
            self._file.close()
            self._times.close()
            if not self.frames:
                for file in self.files:
                    file.unlink(missing_ok=True)


def _to_frame(image: NDArray[Any], name: str) -> av.VideoFrame:
    if name == "bgr0":
        four = cv2.cvtColor(image, cv2.COLOR_BGR2BGRA)
        return av.VideoFrame.from_ndarray(four, format="bgra").reformat(format="bgr0")
    return av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format=name)
