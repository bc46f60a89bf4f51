"""The files of one recorded camera: which frame goes into which part, and when a part ends."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edgefuse.runtime.lossless import LosslessVideo, UnkeepableError, kind_of
from edgefuse.runtime.sinks.quota import DiskQuota, check_disk
from edgefuse.runtime.sources.base import Frame, Role
from edgefuse.runtime.sources.recording import part_name

__all__ = ["Parts", "Shelf"]

CHECK_EVERY = 16  # frames


@dataclass(frozen=True)
class Shelf:
    """Where the files of a recording go."""

    folder: Path
    segment: float | None
    """Seconds of each part, counted from the common zero; None: no limit."""
    budget: DiskQuota
    tags: Mapping[str, str]
    """For every video."""


class Parts:
    """Writes the frames of one camera into numbered videos.

    Args:
        role: of the camera; its files go into a folder of that name.
        name: of the source, for the files.
        shelf: shared by both cameras.
    """

    def __init__(self, role: Role, name: str, shelf: Shelf) -> None:
        self.folder = shelf.folder / role
        self.size = 0
        """Bytes of the finished videos, those included that were removed to make room."""
        self._role, self._shelf = role, shelf
        self._tags = {**shelf.tags, "EDGEFUSE_SOURCE": name}
        self._files: list[Path] = []
        self._video: LosslessVideo | None = None
        self._ends = 0.0  # of the present part, in seconds from the common zero
        self._largest = 0  # bytes of one frame
        self._written = 0

    @property
    def files(self) -> tuple[Path, ...]:
        """The videos that there are."""
        return tuple(path for path in self._files if path.exists())

    def write(self, frame: Frame, seconds: float, fps: float) -> None:
        """Write one frame, into a new part if it does not belong into the present one.

        Raises:
            UnkeepableError: FFV1 cannot keep it; others can be written.
            QuotaReachedError: the recording has reached its largest size.
            InputError: the disk is full, or a file exists already.
            OSError: the disk is gone.
        """
        kind = kind_of(frame.image)
        if self._video is not None and self._is_complete(self._video, kind, seconds):
            self.close()
        video = self._video = self._video or self._begin(frame, seconds, fps)
        if self._written % CHECK_EVERY == 0:
            check_disk(self.folder, str(self.folder))
        before = video.size
        self._shelf.budget.make_room(before + self._largest, self._role)
        try:
            video.write(frame.image, seconds, frame.index)
        except UnkeepableError:
            self.close()
            raise
        self._largest = max(self._largest, video.size - before)
        self._written += 1

    def _is_complete(self, video: LosslessVideo, kind: str, seconds: float) -> bool:
        """Return whether the frame belongs into another file."""
        largest = self._shelf.budget.largest_part
        return (
            video.kind != kind
            or (self._shelf.segment is not None and seconds >= self._ends)
            or (largest is not None and video.size >= largest / 2)  # there are two cameras
        )

    def _begin(self, frame: Frame, seconds: float, fps: float) -> LosslessVideo:
        path = self.folder / part_name(len(self._files) + 1)
        video = LosslessVideo(path, frame.image, fps, self._tags)
        if segment := self._shelf.segment:
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
                self._shelf.budget.finish(video.files, size, self._role)
            else:
                self._files.remove(video.path)
