"""Recording two cameras, unfused and without loss, each with its times on one common clock."""

import logging
import queue
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from edgefuse.errors import InputError, SourceError
from edgefuse.runtime.capture import NAMES, ROLES
from edgefuse.runtime.clocks import Clock
from edgefuse.runtime.config import Stop
from edgefuse.runtime.lossless import LosslessVideo, kind_of
from edgefuse.runtime.sources.base import Frame, Role, Source
from edgefuse.runtime.sources.paced import RealTime
from edgefuse.runtime.sources.timesheet import STARTED_TAG
from edgefuse.runtime.supervise import Connection, Supervisor

__all__ = ["RecordedCamera", "record"]

logger = logging.getLogger(__name__)

QUEUE_BYTES = 128 * 2**20  # of frames that wait for the encoder, for each camera
RESERVE = 64 * 2**20  # bytes that stay free on the disk
POLL_SECONDS = 0.1
JOIN_SECONDS = 1.0


@dataclass(frozen=True)
class RecordedCamera:
    """What became of the frames of one camera."""

    role: Role
    name: str
    files: tuple[Path, ...]
    """More than one where the camera came back with another size."""
    captured: int
    written: int
    dropped: int
    """Lost inside the source, or because disk or processor were too slow."""
    reconnects: int
    size: int
    """Bytes of the videos."""
    error: str | None
    """What ended it early, one sentence."""


def record(
    cameras: Mapping[Role, Source | Connection],
    folder: str | Path,
    *,
    duration: float | None = None,
    stop: Stop | None = None,
    progress: Callable[[Mapping[Role, int]], None] = lambda _: None,
) -> tuple[RecordedCamera, RecordedCamera]:
    """Write both cameras to `ir.mkv` and `vis.mkv`, with `ir.times.csv` and `vis.times.csv`.

    Ends after `duration`, on `stop`, or when a live source ends; two recordings are copied in full. A camera
    that is lost is opened again if it is a `Connection`, and the other one goes on meanwhile.

    Args:
        cameras: infrared and visible. The caller closes open sources.
        folder: is made if needed; must hold no recording.
        duration: seconds; None: no limit.
        stop: call it with a reason to end.
        progress: gets the frames written so far, about four times a second.

    Raises:
        InputError: the folder cannot be used, or a duration that is not over 0.
        SourceError: a camera that cannot be opened and never will.
    """
    if duration is not None and not duration > 0:
        raise InputError(f"duration is {duration:g} s, it must be over 0")
    folder, stop = _prepared(Path(folder)), stop or Stop()
    live = any(isinstance(c, Connection) or c.live for c in cameras.values())
    started = time.monotonic()
    tags = {STARTED_TAG: datetime.now(UTC).isoformat(timespec="microseconds")}
    if live:
        cameras = {role: _as_live(camera) for role, camera in cameras.items()}
    tracks = [_Track(role, cameras[role], folder, started, tags, live) for role in ROLES]
    ended = any if live else all
    shown = started
    try:
        for track in tracks:
            track.start()
        while stop.reason is None and not ended(track.over for track in tracks):
            time.sleep(POLL_SECONDS / 4)
            now = time.monotonic()
            for track in tracks:
                track.supervisor.check(now)
            if duration is not None and now - started >= duration:
                stop(f"{duration:g} s are over")
            if now - shown >= 0.25:
                progress({track.role: track.written for track in tracks})
                shown = now
    finally:
        for track in tracks:
            track.supervisor.stop()
        for track in tracks:
            track.finish()
    for track in tracks:
        if track.defect is not None:
            raise track.defect
    ir, vis = (track.report() for track in tracks)
    return ir, vis


def _as_live(camera: Source | Connection) -> Source | Connection:
    """Let a recording beside a camera play at its own rate."""
    return camera if isinstance(camera, Connection) or camera.live else RealTime(camera)


def _prepared(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make folder {folder}: {error.strerror}") from None
    if any(folder.glob("*.mkv")):
        raise InputError(f"{folder} holds a recording already: give an empty or a new folder")
    return folder


class _Track:
    """One camera, its queue and its file."""

    def __init__(
        self,
        role: Role,
        camera: Source | Connection,
        folder: Path,
        started: float,
        tags: Mapping[str, str],
        live: bool,
    ) -> None:
        self.role = role
        self.captured = self.written = self.dropped = self.size = 0
        self.error: str | None = None
        self.defect: BaseException | None = None
        """An error that is not the camera's, or comes before it was ever open."""
        self.over = False
        self._folder, self._started, self._live = folder, started, live
        self._tags = {**tags, "EDGEFUSE_SOURCE": camera.name}
        self._files: list[Path] = []
        self._video: LosslessVideo | None = None
        self._clock, self._opened = Clock(), 0
        self._queue: queue.Queue[Frame | None] = queue.Queue()
        self._lock = threading.Lock()
        self._bytes = 0  # that are queued
        self._closing = threading.Event()
        self._writer = threading.Thread(target=self._write_all, name=f"record-{role}", daemon=True)
        self.supervisor = Supervisor(NAMES[role], camera, self._arrived, self._ended)

    def start(self) -> None:
        self._writer.start()
        self.supervisor.start()

    def finish(self) -> None:
        """Wait for the camera's thread and for what is queued."""
        self._closing.set()
        self.supervisor.join(time.monotonic() + JOIN_SECONDS)
        self._queue.put(None)
        self._writer.join()
        if not self.captured and self.error is None:
            self.error = self.supervisor.health.reason or f"{self.supervisor.name} has not given a frame"

    def report(self) -> RecordedCamera:
        return RecordedCamera(
            self.role,
            self.supervisor.name,
            tuple(self._files),
            self.captured,
            self.written,
            self.dropped,
            self.supervisor.health.reconnects,
            self.size,
            self.error,
        )

    def _arrived(self, frame: Frame, lost: int) -> None:
        """Take a frame from the capture thread."""
        self.captured += 1 + lost
        self.dropped += lost
        while self._bytes and self._bytes + frame.image.nbytes > QUEUE_BYTES:
            if self._live or self._closing.wait(POLL_SECONDS / 10):
                self.dropped += 1
                return
        self._count_bytes(frame.image.nbytes)
        self._queue.put(frame)

    def _count_bytes(self, change: int) -> None:
        with self._lock:
            self._bytes += change

    def _ended(self, error: BaseException | None) -> None:
        if isinstance(error, SourceError) and self.captured:
            self.error = str(error)
        elif error is not None:
            self.defect = error
        self.over = True

    def _write_all(self) -> None:
        # After a failure the queue is still emptied, so that nobody waits for it.
        while (frame := self._queue.get()) is not None:
            self._count_bytes(-frame.image.nbytes)
            try:
                if self.error is None:
                    self._write(frame)
                    self.written += 1
                else:
                    self.dropped += 1
            except (InputError, OSError) as error:
                self.dropped += 1
                self._fail(error)
        self._finish_video()

    def _write(self, frame: Frame) -> None:
        if self._video is None or self._video.kind != kind_of(frame.image):
            self._finish_video()
            part = f"-{len(self._files) + 1}" if self._files else ""
            path = self._folder / f"{self.role}{part}.mkv"
            self._video = LosslessVideo(path, frame.image, self.supervisor.fps, self._tags)
            self._files.append(path)
        if self.written % 16 == 0 and shutil.disk_usage(self._folder).free < RESERVE:
            raise InputError(f"the disk of {self._folder} is full (less than {RESERVE >> 20} MiB are free)")
        self._video.write(frame.image, self._time_of(frame), frame.index)

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
        if video is not None:
            try:
                self.size += video.size
                video.close()
            except OSError as error:
                self._fail(error)

    def _fail(self, error: Exception) -> None:
        text = f"{self._folder}: {error.strerror}" if isinstance(error, OSError) else str(error)
        if self.error is None:
            self.error = text
            logger.error("%s is not recorded any more: %s", NAMES[self.role], text)
        self.over = True
