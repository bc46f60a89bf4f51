"""Recording two cameras, unfused and without loss, each with its times on one common clock."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path

from edgefuse.errors import InputError, SourceError
from edgefuse.runtime.cameras.camera import Camera
from edgefuse.runtime.cameras.clock import Clock
from edgefuse.runtime.config import StopRequest
from edgefuse.runtime.frames import NAMES, ROLES, Frame, Role
from edgefuse.runtime.live.capture import Supervisor
from edgefuse.runtime.sinks.lossless import RecordingConfig, SegmentWriter
from edgefuse.runtime.sinks.naming import DiskQuota, check_limits
from edgefuse.runtime.sinks.writer import Deadline, SinkWriter
from edgefuse.runtime.sources.base import Source
from edgefuse.runtime.sources.folder import recorded_parts
from edgefuse.runtime.sources.video import STARTED_TAG

logger = logging.getLogger(__name__)

QUEUE_BYTES = 128 * 2**20  # of frames that wait for the encoder, for each camera
POLL_SECONDS = 0.025
FINISH_SECONDS = 30.0  # for what is queued to be written
CAMERA_SECONDS = 0.5  # for a camera's thread to end


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
    """How often it was reopened."""
    size: int
    """Bytes of the videos, those included that were removed to make room."""
    error: str | None
    """What ended it early, one sentence."""


class CameraRecorder:
    """Hands every frame of one camera to a `SegmentWriter`, with its time since the start."""

    def __init__(
        self, role: Role, camera: Camera, config: RecordingConfig, live: bool, stop: StopRequest
    ) -> None:
        self.role: Role = role
        self.captured = 0
        self.ended = False
        """No further frame comes."""
        self.error: BaseException | None = None
        """What ended it."""
        self.sink = SegmentWriter(role, camera.name, config)
        self.writer = SinkWriter(
            self.sink,
            None,
            lambda: not live and stop.reason is None,
            alone=True,
            capacity=QUEUE_BYTES,
            weight=lambda frame: frame.image.nbytes,
        )
        self.supervisor = Supervisor(role, camera, self._on_frame, self._on_end)
        self._live, self._stop = live, stop
        self._started = time.monotonic()
        self._clock, self._connection = Clock(), 0
        self._lost = 0  # inside the source
        self._logged_slow = False

    def start(self, started: float) -> None:
        """Start reading and writing; times count from `started`, in `time.monotonic()`."""
        self._started = started
        self.writer.start()
        self.supervisor.start()

    def _on_frame(self, frame: Frame, lost: int) -> None:
        self.captured += 1 + lost
        self._lost += lost
        self.sink.fps = self.supervisor.fps
        taken = self.writer.put(replace(frame, timestamp=self._time_of(frame)))
        if not taken and not self.writer.stopped and not self._logged_slow and self._stop.reason is None:
            self._logged_slow = True
            logger.warning("disk or processor cannot keep up with %s: dropping frames", NAMES[self.role])

    def _time_of(self, frame: Frame) -> float:
        """Return the seconds since the start of the recording at which a frame was captured."""
        if not self._live:
            return frame.timestamp
        if frame.connection != self._connection:
            self._connection = frame.connection
            self._clock.reset()
        return self._clock.observe(frame.timestamp, frame.captured) - self._started

    def _on_end(self, error: BaseException | None) -> None:
        self.error, self.ended = error, True

    @property
    def over(self) -> bool:
        """Whether nothing more will be recorded, and all that could be is as good as written."""
        return self.writer.stopped or (self.ended and self.writer.idle)

    def defect(self) -> BaseException | None:
        """Return an error that is not the camera's, or that came before it ever gave a frame."""
        own = self.captured and isinstance(self.error, SourceError)
        return None if own else self.error

    def report(self) -> RecordedCamera:
        """Return what it came to."""
        health, writer, name = self.supervisor.health, self.writer, self.supervisor.name
        error = writer.error or (str(self.error) if self.error is not None else None)
        if not self.captured:
            error = error or health.reason or f"{name} has not given a frame"
        return RecordedCamera(
            self.role,
            name,
            self.sink.files,
            self.captured + self.supervisor.skipped,
            writer.written,
            writer.dropped + self._lost,
            writer.failed + self.supervisor.skipped,
            health.losses,
            health.reconnects,
            self.sink.size,
            error,
        )


def record(
    cameras: Mapping[Role, Source | Camera],
    folder: str | Path,
    *,
    duration: float | None = None,
    segment: float | None = None,
    max_size: int | None = None,
    stop: StopRequest | None = None,
    progress: Callable[[Mapping[Role, int]], None] = lambda _: None,
) -> tuple[RecordedCamera, RecordedCamera]:
    """Write each camera into a separate folder, `ir/` and `vis/`: `0001.mkv` and `0001.times.csv` …

    Ends after `duration`, at `max_size`, on `stop`, or when a live source ends; two recordings are copied in
    full. A camera that is lost is reopened if it was connected, and the other one is recorded meanwhile.
    A frame of another size or format than the one before begins a new part; one that cannot be kept is
    left out and counted.

    Args:
        cameras: infrared and visible. The caller closes open sources.
        folder: is made if needed; must hold no recording.
        duration: seconds from now on; None: no limit.
        segment: seconds of each part, at the same times for both cameras; None: one part.
        max_size: bytes of everything; with segments, the oldest parts are removed, without, it is the end.
        stop: call it with a reason to end; if it is immediate, what is not written soon is dropped.
        progress: gets the frames written so far, about four times a second.

    Raises:
        InputError: the folder cannot be used, or a number that is out of range.
        SourceError: a camera that cannot be opened and never will.
    """
    if duration is not None and not duration > 0:
        raise InputError(f"duration is {duration:g} s, it must be over 0")
    check_limits(segment, max_size)
    folder, stop = _prepared(Path(folder)), stop or StopRequest()
    used = {role: Camera.of(camera) for role, camera in cameras.items()}
    live = any(camera.live for camera in used.values())
    if live:
        used = {role: camera.paced() for role, camera in used.items()}
    tags = {STARTED_TAG: datetime.now(timezone.utc).isoformat(timespec="microseconds")}
    quota = DiskQuota(folder, str(folder), max_size, segment is not None)
    config = RecordingConfig(folder, segment, quota, tags)
    recorders = [CameraRecorder(role, used[role], config, live, stop) for role in ROLES]
    started = time.monotonic()
    try:
        for recorder in recorders:
            recorder.start(started)
        _watch(recorders, live, stop, duration, progress)
    finally:
        stop("an error")  # which has no effect after any other reason
        _finish(recorders, stop)
    for recorder in recorders:
        if (defect := recorder.defect()) is not None:
            raise defect
    ir, vis = (recorder.report() for recorder in recorders)
    return ir, vis


def _watch(
    recorders: Sequence[CameraRecorder],
    live: bool,
    stop: StopRequest,
    duration: float | None,
    progress: Callable[[Mapping[Role, int]], None],
) -> None:
    """Look after the cameras until the recording is over."""
    begun = shown = time.monotonic()
    while stop.reason is None:
        time.sleep(POLL_SECONDS)
        now = time.monotonic()
        for recorder in recorders:
            recorder.supervisor.check(now)
        _notice_end(recorders, live, stop)
        if duration is not None and now - begun >= duration:
            stop(f"the duration of {duration:g} s is over")
        if now - shown >= 0.25:
            progress({recorder.role: recorder.writer.written for recorder in recorders})
            shown = now


def _notice_end(recorders: Sequence[CameraRecorder], live: bool, stop: StopRequest) -> None:
    """Stop when nothing more can be recorded, and say why."""
    over = [recorder for recorder in recorders if recorder.over]
    full = next((recorder.writer.full for recorder in over if recorder.writer.full), None)
    if full is not None:
        stop(full)
    elif over and (live or len(over) == len(recorders)):
        failed = over[0].writer.error or over[0].error
        stop(str(failed) if failed else f"end of {over[0].supervisor.name}")


def _finish(recorders: Sequence[CameraRecorder], stop: StopRequest) -> None:
    """End the threads, and complete the files, in a bounded time."""
    for recorder in recorders:
        recorder.supervisor.stop()
    ends = time.monotonic() + CAMERA_SECONDS
    for recorder in recorders:
        recorder.supervisor.join(ends)
    deadline = Deadline(FINISH_SECONDS, lambda: stop.immediate)
    for recorder in recorders:
        recorder.writer.finish(deadline)


def _prepared(folder: Path) -> Path:
    try:
        for role in ROLES:
            (folder / role).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make folder {folder}: {error.strerror}") from None
    if any(recorded_parts(folder / role) for role in ROLES):
        raise InputError(f"{folder} already contains a recording: give an empty or a new folder")
    return folder
