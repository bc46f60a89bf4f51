"""Recording one camera bit for bit: FFV1 in Matroska, in numbered parts, with the exact times beside each."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
from numpy.typing import NDArray

from edgefuse.errors import InputError
from edgefuse.files import readable
from edgefuse.images import size_of
from edgefuse.runtime.frames import Frame, Role
from edgefuse.runtime.sinks.base import FrameRefusedError, Sink
from edgefuse.runtime.sinks.encoder import Encoder
from edgefuse.runtime.sinks.naming import DiskQuota
from edgefuse.runtime.sources.folder import part_name
from edgefuse.runtime.sources.video import Timestamps, timestamps_path

SYNC_SECONDS = 1.0
KEPT = {("uint8", 2), ("uint16", 2), ("uint8", 3)}
"""(Pixel type, dimensions) of the arrays of which FFV1 keeps every bit."""


def kind_of(image: NDArray[Any]) -> str:
    """Return what all frames of one video have in common, such as `640x480 uint16`.

    Raises:
        FrameRefusedError: the array is none of those that FFV1 keeps.
    """
    if (str(image.dtype), image.ndim) not in KEPT or 0 in image.shape or image.shape[2:] not in ((), (3,)):
        raise FrameRefusedError(
            f"{image.dtype} frames of shape {image.shape} cannot be recorded without loss"
        )
    return f"{size_of(image)} {'colour' if image.ndim == 3 else image.dtype}"


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

    def __init__(self, path: Path, image: NDArray[Any], fps: float, tags: Mapping[str, str]) -> None:
        self.path = path
        self.kind = kind_of(image)
        self._synced = 0.0
        sheet = timestamps_path(path)
        try:
            self._times = sheet.open("x", encoding="ascii", buffering=1)
            try:
                self._encoder = Encoder(path, "ffv1", image, fps, timed=True, tags=tags)
            except BaseException:
                self._times.close()
                sheet.unlink()
                raise
        except FileExistsError as error:
            raise InputError(f"{error.filename} exists already: give another folder") from None
        except OSError as error:
            raise InputError(f"cannot write {path}: {error.strerror}") from None
        self._sheet = Timestamps(self._times)

    @property
    def frames(self) -> int:
        """How many were written."""
        return self._encoder.frames

    @property
    def files(self) -> tuple[Path, Path]:
        """The video and its times."""
        return self.path, timestamps_path(self.path)

    @property
    def size(self) -> int:
        """Bytes of the video so far, those included that wait to be written."""
        return self._encoder.size

    def write(self, image: NDArray[Any], seconds: float, index: int) -> None:
        """Append one frame.

        Args:
            image: of the kind of the first one.
            seconds: its time since the start of the recording.
            index: its number at the source.

        Raises:
            FrameRefusedError: the encoder refuses the frame; the video can only be closed then.
            OSError: the disk is full, or gone.
        """
        try:
            pts = self._encoder.write(image, seconds)
        except av.FFmpegError as error:
            if isinstance(error, OSError) and not isinstance(error, ValueError):
                raise
            raise FrameRefusedError(
                f"a {self.kind} frame cannot be recorded without loss: {error.strerror}"
            ) from None
        self._sheet.add(pts, seconds, index)
        if seconds - self._synced >= SYNC_SECONDS:
            self._synced = seconds
            os.fsync(self._times.fileno())

    def close(self) -> None:
        """Complete the file. Can be called twice.

        Raises:
            OSError: the disk is full, or gone.
        """
        if self._times.closed:
            return
        try:
            self._encoder.close()
            os.fsync(self._times.fileno())
        except av.FFmpegError as error:
            raise OSError(error.errno, error.strerror, str(self.path)) from None
        finally:
            self._times.close()
            if not self.frames:
                for file in self.files:
                    file.unlink(missing_ok=True)


@dataclass(frozen=True)
class RecordingConfig:
    """Where the files of a recording go."""

    folder: Path
    segment: float | None
    """Seconds of each part, counted from the common zero; None: no limit."""
    quota: DiskQuota
    tags: Mapping[str, str]
    """For every video."""


class SegmentWriter(Sink):
    """Writes the frames of one camera into numbered videos; a frame's timestamp counts from the common zero.

    A frame that does not belong into the present part begins another one: it is of another size or format,
    or the part is complete.

    Args:
        role: of the camera; its files go into a folder of that name.
        source: its name, for the files.
        config: shared by both cameras.
    """

    in_main_thread = False
    timed = False

    def __init__(self, role: Role, source: str, config: RecordingConfig) -> None:
        self.folder = config.folder / role
        self.name = str(self.folder)
        self.fps = 0.0
        """Nominal rate of the camera, to be set before a frame is written."""
        self.size = 0
        """Bytes of the finished videos, those included that were removed to make room."""
        self._role, self._config = role, config
        self._tags = {**config.tags, "EDGEFUSE_SOURCE": readable(source)}
        self._files: list[Path] = []
        self._video: LosslessVideo | None = None
        self._ends = 0.0  # of the present part, in seconds from the common zero

    @property
    def files(self) -> tuple[Path, ...]:
        """The videos that there are."""
        return tuple(path for path in self._files if path.exists())

    def write(self, frame: Frame) -> None:  # type: ignore[override]
        """Write one frame.

        Raises:
            FrameRefusedError: FFV1 cannot keep it; others can be written.
            QuotaReachedError: the recording has reached its largest size.
            InputError: the disk is full, or a file exists already.
            OSError: the disk is gone.
        """
        kind, seconds = kind_of(frame.image), frame.timestamp
        if self._video is not None and self._is_complete(self._video, kind, seconds):
            self.close()
        video = self._video = self._video or self._begin(frame.image, seconds)
        self._config.quota.admit(video.size, self._role)
        try:
            video.write(frame.image, seconds, frame.index)
        except FrameRefusedError:
            self.close()
            raise

    def _is_complete(self, video: LosslessVideo, kind: str, seconds: float) -> bool:
        """Return whether a frame belongs into another file."""
        largest = self._config.quota.largest_part
        return (
            video.kind != kind
            or (self._config.segment is not None and seconds >= self._ends)
            or (largest is not None and video.size >= largest / 2)  # there are two cameras
        )

    def _begin(self, image: NDArray[Any], seconds: float) -> LosslessVideo:
        path = self.folder / part_name(len(self._files) + 1)
        video = LosslessVideo(path, image, self.fps, self._tags)
        if segment := self._config.segment:
            self._ends = (seconds // segment + 1) * segment
        self._files.append(path)
        return video

    def close(self) -> None:
        """Complete the present part. Can be called twice.

        Raises:
            OSError: the disk is full, or gone.
        """
        video, self._video = self._video, None
        if video is None:
            return
        size = video.size
        try:
            video.close()
        finally:
            if video.frames:
                self.size += size
                self._config.quota.finish(video.files, size, self._role)
            else:
                self._files.remove(video.path)
