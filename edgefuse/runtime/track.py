"""Recording one camera: its queue, and its thread that writes."""

import logging
import queue
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from edgefuse.errors import EdgefuseError, SourceError
from edgefuse.runtime.cameras.camera import Camera
from edgefuse.runtime.cameras.clock import Clock
from edgefuse.runtime.cameras.supervisor import Supervisor
from edgefuse.runtime.lossless import UnkeepableError
from edgefuse.runtime.parts import Parts, Shelf
from edgefuse.runtime.sinks.base import QuotaReachedError
from edgefuse.runtime.sources.base import NAMES, Frame, Role

__all__ = ["RecordedCamera", "Track"]

logger = logging.getLogger(__name__)

QUEUE_BYTES = 128 * 2**20  # of frames that wait for the encoder, for each camera
POLL_SECONDS = 0.01


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
    losses: int
    """How often the camera was lost."""
    reconnects: int
    """How often it was opened again."""
    size: int
    """Bytes of the videos, those included that were removed to make room."""
    error: str | None
    """What ended it early, one sentence."""


class Track:
    """One camera of a recording.

    Args:
        role: of the camera; its files go into a folder of that name.
        camera: as for a `Supervisor`.
        shelf: shared by both cameras.
        started: `time.monotonic()` of the common zero, for live ones.
        live: frames that come too fast are dropped, and times are brought onto this machine's clock.
    """

    def __init__(self, role: Role, camera: Camera, shelf: Shelf, started: float, live: bool) -> None:
        self.role: Role = role
        self.captured = self.written = self.dropped = self.failed = 0
        self.error: str | None = None
        self.defect: BaseException | None = None
        """An error that is not the camera's, or comes before it was ever open."""
        self.full: str | None = None
        """The sentence that says so, when the recording has reached its largest size."""
        self._ended_reading = False
        self.supervisor = Supervisor(role, camera, self._arrived, self._ended)
        self._parts = Parts(role, camera.name, shelf)
        self._started, self._live = started, live
        self._clock, self._opened = Clock(), 0
        self._told = ""
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
            with self._lock:
                self.dropped = self.captured - self.written - self.failed
            self._fail(f"{self._parts.folder}: what is being written does not finish, and is left behind")
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
            self._parts.files,
            self.captured,
            self.written,
            self.dropped,
            self.failed,
            self.supervisor.health.losses,
            self.supervisor.health.reconnects,
            self._parts.size,
            self.error,
        )

    def _arrived(self, frame: Frame, lost: int) -> None:
        """Take a frame from the capture thread."""
        self.captured += 1 + lost
        self._drop(lost)
        while self._bytes and self._bytes + frame.image.nbytes > QUEUE_BYTES:
            if self._live or self._closing.wait(POLL_SECONDS):
                self._say_slow()
                self._drop()
                return
        self._count_bytes(frame.image.nbytes)
        self._queue.put(frame)

    def _say_slow(self) -> None:
        if not self._said_slow and not self._closing.is_set():
            self._said_slow = True
            logger.warning("disk or processor cannot keep up with %s: frames are dropped", NAMES[self.role])

    def _drop(self, count: int = 1) -> None:
        with self._lock:  # the camera's thread and the writer's
            self.dropped += count

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
                self._drop()
                self._late += self._given_up.is_set()
            else:
                self._write(frame)
        try:
            self._parts.close()
        except OSError as error:
            self._fail(self._sentence(error))

    def _write(self, frame: Frame) -> None:
        """Write a frame, whatever is wrong with it."""
        try:
            self._parts.write(frame, self._time_of(frame), self.supervisor.fps)
            self.written += 1
        except UnkeepableError as error:
            self.failed += 1
            if str(error) != self._told:
                self._told = str(error)
                logger.warning("a frame of the %s camera is left out: %s", NAMES[self.role], error)
        except QuotaReachedError as full:
            self._drop()
            self.full = str(full)
            logger.warning("%s", full)
        except Exception as error:
            self._drop()
            self._fail(self._sentence(error))

    def _time_of(self, frame: Frame) -> float:
        """Return the seconds since the start of the recording at which a frame was captured."""
        if not self._live:
            return frame.timestamp
        if frame.connection != self._opened:
            self._opened = frame.connection
            self._clock.reset()
        return self._clock.observe(frame.timestamp, frame.captured) - self._started

    def _fail(self, text: str) -> None:
        if not self._broken:
            logger.error("%s is not recorded any more: %s", NAMES[self.role], text)
        self._broken = True
        self.error = self.error or text

    def _sentence(self, error: Exception) -> str:
        if isinstance(error, OSError):
            return f"{self._parts.folder}: {error.strerror}"
        return str(error) if isinstance(error, EdgefuseError) else f"{type(error).__name__}: {error}"
