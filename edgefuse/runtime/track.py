"""Recording one camera: its queue, its thread that writes, and its files."""

import logging
import queue
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edgefuse.errors import EdgefuseError, SourceError
from edgefuse.runtime.clocks import Clock
from edgefuse.runtime.lossless import LosslessVideo, UnkeepableError, kind_of
from edgefuse.runtime.sinks.base import SinkFullError
from edgefuse.runtime.sinks.budget import Budget, check_disk
from edgefuse.runtime.sources.base import NAMES, Frame, Role, Source
from edgefuse.runtime.sources.recording import part_name
from edgefuse.runtime.supervise import Connection, Supervisor

__all__ = ["RecordedCamera", "Shelf", "Track"]

logger = logging.getLogger(__name__)

QUEUE_BYTES = 128 * 2**20  # of frames that wait for the encoder, for each camera
POLL_SECONDS = 0.01
CHECK_EVERY = 16  # frames


@dataclass(frozen=True)
class RecordedCamera:
    """What became of the frames of one camera: captured = written + dropped + failed."""

    role: Role
    name: str
    files: tuple[Path, ...]
    """The videos that there are. More than one after another size came, or with segments."""
    captured: int
    written: int
    dropped: int
    """Lost inside the source, or because disk or processor were too slow."""
    failed: int
    """Not pictures that can be kept without loss."""
    reconnects: int
    size: int
    """Bytes of the videos, those included that were removed to make room."""
    error: str | None
    """What ended it early, one sentence."""


@dataclass(frozen=True)
class Shelf:
    """Where the files of a recording go."""

    folder: Path
    segment: float | None
    """Seconds of each part, counted from the common zero; None: no limit."""
    budget: Budget
    tags: Mapping[str, str]
    """For every video."""


class Track:
    """One camera of a recording.

    Args:
        role: of the camera; its files go into a folder of that name.
        camera: as for a `Supervisor`.
        shelf: shared by both cameras.
        started: `time.monotonic()` of the common zero, for live ones.
        live: frames that come too fast are dropped, and times are brought onto this machine's clock.
    """

    def __init__(
        self, role: Role, camera: Source | Connection, shelf: Shelf, started: float, live: bool
    ) -> None:
        self.role: Role = role
        self.captured = self.written = self.dropped = self.failed = self.size = 0
        self.error: str | None = None
        self.defect: BaseException | None = None
        """An error that is not the camera's, or comes before it was ever open."""
        self.full: str | None = None
        """The sentence that says so, when the recording has reached its largest size."""
        self._ended_reading = False
        self.supervisor = Supervisor(role, camera, self._arrived, self._ended)
        self._shelf, self._folder = shelf, shelf.folder / role
        self._started, self._live = started, live
        self._tags = {**shelf.tags, "EDGEFUSE_SOURCE": camera.name}
        self._files: list[Path] = []
        self._video: LosslessVideo | None = None
        self._part_ends = 0.0
        self._clock, self._opened = Clock(), 0
        self._told = ""
        self._largest = 0  # bytes of one frame
        self._said_slow = self._broken = False
        self._late = 0
        self._queue: queue.Queue[Frame | None] = queue.Queue()
        self._lock = threading.Lock()
        self._bytes = 0  # that are queued
        self._closing = threading.Event()
        self._given_up = threading.Event()
        self._writer = threading.Thread(target=self._write_all, name=f"record-{role}", daemon=True)

    def start(self) -> None:
        """Start reading and writing."""
        self._writer.start()
        self.supervisor.start()

    def close(self, deadline: float) -> None:
        """Stop reading; what is queued is written on. To be called after `supervisor.stop`."""
        self._closing.set()
        self.supervisor.join(deadline)
        self._queue.put(None)

    @property
    def over(self) -> bool:
        """Whether nothing more will be recorded, and all that could be is as good as written."""
        return self._broken or self.full is not None or (self._ended_reading and not self._bytes)

    @property
    def writing(self) -> bool:
        """Whether the files are not complete yet."""
        return self._writer.is_alive()

    def give_up(self) -> None:
        """Drop what is queued, and complete the files at once."""
        self._given_up.set()

    def join(self, deadline: float) -> None:
        """Wait until the files are complete; a disk that hangs is left behind, and said so."""
        self._writer.join(max(0.0, deadline - time.monotonic()))
        if self._writer.is_alive():
            self.dropped = self.captured - self.written - self.failed
            self._fail(f"{self._folder}: what is being written does not finish, and is left behind")
        if self._late:
            logger.warning(
                "%s: %d frames were still to be written, and are lost", NAMES[self.role], self._late
            )
        if not self.captured and self.error is None:
            self.error = self.supervisor.health.reason or f"{self.supervisor.name} has not given a frame"

    def report(self) -> RecordedCamera:
        """Return what it came to."""
        return RecordedCamera(
            self.role,
            self.supervisor.name,
            tuple(path for path in self._files if path.exists()),
            self.captured,
            self.written,
            self.dropped,
            self.failed,
            self.supervisor.health.reconnects,
            self.size,
            self.error,
        )

    def _arrived(self, frame: Frame, lost: int) -> None:
        """Take a frame from the capture thread."""
        self.captured += 1 + lost
        self.dropped += lost
        while self._bytes and self._bytes + frame.image.nbytes > QUEUE_BYTES:
            if self._live or self._closing.wait(POLL_SECONDS):
                self._say_slow()
                self.dropped += 1
                return
        self._count_bytes(frame.image.nbytes)
        self._queue.put(frame)

    def _say_slow(self) -> None:
        if not self._said_slow and not self._closing.is_set():
            self._said_slow = True
            logger.warning("disk or processor cannot keep up with %s: frames are dropped", NAMES[self.role])

    def _count_bytes(self, change: int) -> None:
        with self._lock:
            self._bytes += change

    def _ended(self, error: BaseException | None) -> None:
        if isinstance(error, SourceError) and self.captured:
            self.error = str(error)
        elif error is not None:
            self.defect = error
        self._ended_reading = True

    def _write_all(self) -> None:
        # After a failure the queue is still emptied, so that nobody waits for it.
        while (frame := self._queue.get()) is not None:
            self._count_bytes(-frame.image.nbytes)
            if self._broken or self.full or self._given_up.is_set():
                self.dropped += 1
                self._late += self._given_up.is_set()
            else:
                self._try(frame)
        self._finish_video()

    def _try(self, frame: Frame) -> None:
        """Write a frame, whatever is wrong with it."""
        try:
            self._write(frame)
            self.written += 1
        except UnkeepableError as error:
            self.failed += 1
            if str(error) != self._told:
                self._told = str(error)
                logger.warning("a frame of the %s camera is left out: %s", NAMES[self.role], error)
        except SinkFullError as full:
            self.dropped += 1
            self.full = str(full)
            logger.warning("%s", full)
        except Exception as error:
            self.dropped += 1
            self._fail(_sentence(error, self._folder))

    def _write(self, frame: Frame) -> None:
        kind, seconds = kind_of(frame.image), self._time_of(frame)
        if self._video is not None and self._is_complete(self._video, kind, seconds):
            self._finish_video()
        video = self._video = self._video or self._begin(frame, seconds)
        if self.written % CHECK_EVERY == 0:
            check_disk(self._folder, str(self._folder))
        before = video.size
        self._shelf.budget.make_room(before + self._largest, self.role)
        try:
            video.write(frame.image, seconds, frame.index)
        except UnkeepableError:
            self._finish_video()
            raise
        self._largest = max(self._largest, video.size - before)

    def _is_complete(self, video: LosslessVideo, kind: str, seconds: float) -> bool:
        """Return whether the frame belongs into another file."""
        largest = self._shelf.budget.largest_part
        return (
            video.kind != kind
            or (self._shelf.segment is not None and seconds >= self._part_ends)
            or (largest is not None and video.size >= largest / 2)  # there are two cameras
        )

    def _begin(self, frame: Frame, seconds: float) -> LosslessVideo:
        path = self._folder / part_name(len(self._files) + 1)
        video = LosslessVideo(path, frame.image, self.supervisor.fps, self._tags)
        if segment := self._shelf.segment:
            self._part_ends = (seconds // segment + 1) * segment
        self._files.append(path)
        return video

    def _time_of(self, frame: Frame) -> float:
        """Return the seconds since the start of the recording at which a frame was captured."""
        if not self._live:
            return frame.timestamp
        reconnects = self.supervisor.health.reconnects
        if reconnects != self._opened:
            self._opened = reconnects
            self._clock.reset()
        return self._clock.observe(frame.timestamp, frame.captured) - self._started

    def _finish_video(self) -> None:
        video, self._video = self._video, None
        if video is None:
            return
        size = video.size
        try:
            video.close()
        except OSError as error:
            self._fail(_sentence(error, self._folder))
        if video.frames:
            self.size += size
            self._shelf.budget.finish(video.files, size, self.role)
        else:
            self._files.remove(video.path)

    def _fail(self, text: str) -> None:
        if not self._broken:
            logger.error("%s is not recorded any more: %s", NAMES[self.role], text)
        self._broken = True
        self.error = self.error or text


def _sentence(error: Exception, folder: Path) -> str:
    if isinstance(error, OSError):
        return f"{folder}: {error.strerror}"
    return str(error) if isinstance(error, EdgefuseError) else f"{folder}: {type(error).__name__}: {error}"
