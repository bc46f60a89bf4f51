"""Recording two cameras, unfused and bit for bit, each with its times on one common clock.

Each camera gets numbered parts, FFV1 in Matroska, with the exact times of the frames beside each.
"""

import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import av
from numpy.typing import NDArray

from edgefuse.errors import InputError, SourceError
from edgefuse.files import readable
from edgefuse.images import size_of
from edgefuse.runtime.cameras.camera import Camera
from edgefuse.runtime.cameras.clock import Clock
from edgefuse.runtime.config import StopRequest
from edgefuse.runtime.frames import NAMES, ROLES, Frame, Role
from edgefuse.runtime.live.capture import Supervisor
from edgefuse.runtime.sinks.base import Deadline, FrameRefusedError, Sink, SinkWriter
from edgefuse.runtime.sinks.naming import DiskQuota, check_limits
from edgefuse.runtime.sinks.video import Encoder
from edgefuse.runtime.sources.base import Source
from edgefuse.runtime.sources.folder import part_name, recorded_parts
from edgefuse.runtime.sources.video import STARTED_TAG, Timestamps, timestamps_path

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
            if not self._encoder.frames:
                for file in self.files:
                    file.unlink(missing_ok=True)


class SegmentWriter(Sink):
    """Writes the frames of one camera into numbered videos; a frame's timestamp counts from the common zero.

    A frame that does not belong into the present part begins another one: it is of another size or format,
    or the part is complete.

    Args:
        role: of the camera.
        source: its name, for the files.
        folder: of the recording; its files go into one in it, of the name of the role.
        segment: seconds of each part, counted from the common zero; None: no limit.
        quota: shared by both cameras.
        tags: for every video.
    """

    in_main_thread = False
    timed = False

    def __init__(
        self,
        role: Role,
        source: str,
        folder: Path,
        segment: float | None,
        quota: DiskQuota,
        tags: Mapping[str, str],
    ) -> None:
        self.folder = folder / role
        self.name = str(self.folder)
        self.fps = 0.0
        """Nominal rate of the camera, to be set before a frame is written."""
        self.size = 0
        """Bytes of the finished videos, those included that were removed to make room."""
        self.role, self._segment, self._quota = role, segment, quota
        self._tags = {**tags, "EDGEFUSE_SOURCE": readable(source)}
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
        self._quota.admit(video.size, self.role)
        try:
            video.write(frame.image, seconds, frame.index)
        except FrameRefusedError:
            self.close()
            raise

    def _is_complete(self, video: LosslessVideo, kind: str, seconds: float) -> bool:
        """Return whether a frame belongs into another file."""
        largest = self._quota.largest_part
        return (
            video.kind != kind
            or (self._segment is not None and seconds >= self._ends)
            or (largest is not None and video.size >= largest / 2)  # there are two cameras
        )

    def _begin(self, image: NDArray[Any], seconds: float) -> LosslessVideo:
        path = self.folder / part_name(len(self._files) + 1)
        video = LosslessVideo(path, image, self.fps, self._tags)
        if self._segment:
            self._ends = (seconds // self._segment + 1) * self._segment
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
            if video.path.exists():
                self.size += size
                self._quota.finish(video.files, size, self.role)
            else:
                self._files.remove(video.path)


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
    """Hands every frame of one camera to a `SegmentWriter`, with its time since `started`."""

    def __init__(
        self, camera: Camera, sink: SegmentWriter, live: bool, stop: StopRequest, started: float
    ) -> None:
        self.role, self.sink = sink.role, sink
        self.captured = 0
        self.ended = False
        """No further frame comes."""
        self.error: BaseException | None = None
        """What ended it."""
        self.writer = SinkWriter(
            sink,
            None,
            lambda: not live and stop.reason is None,
            alone=True,
            capacity=QUEUE_BYTES,
            weight=lambda frame: frame.image.nbytes,
        )
        self.supervisor = Supervisor(sink.role, camera, self._on_frame, self._on_end)
        self._live, self._stop, self._started = live, stop, started
        self._clock, self._connection = Clock(), 0
        self._lost = 0  # inside the source
        self._logged_slow = False

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
    sinks = [SegmentWriter(role, used[role].name, folder, segment, quota, tags) for role in ROLES]
    started = time.monotonic()
    recorders = [CameraRecorder(used[sink.role], sink, live, stop, started) for sink in sinks]
    try:
        for recorder in recorders:
            recorder.writer.start()
            recorder.supervisor.start()
        _watch(recorders, live, stop, duration, progress)
    finally:
        stop("an error")  # which has no effect after any other reason
        _finish(recorders, stop)
    for recorder in recorders:  # what is not the camera's, or came before it ever gave a frame
        if recorder.error is not None and not (recorder.captured and isinstance(recorder.error, SourceError)):
            raise recorder.error
    return recorders[0].report(), recorders[1].report()


def _watch(
    recorders: Sequence[CameraRecorder],
    live: bool,
    stop: StopRequest,
    duration: float | None,
    progress: Callable[[Mapping[Role, int]], None],
) -> None:
    """Look after the cameras until nothing more can be recorded, and say why."""
    begun = shown = time.monotonic()
    while stop.reason is None:
        time.sleep(POLL_SECONDS)
        now = time.monotonic()
        for recorder in recorders:
            recorder.supervisor.check(now)
        over = [recorder for recorder in recorders if recorder.over]
        if full := next((recorder.writer.full for recorder in over if recorder.writer.full), None):
            stop(full)
        elif over and (live or len(over) == len(recorders)):
            failed = over[0].writer.error or over[0].error
            stop(str(failed) if failed else f"end of {over[0].supervisor.name}")
        if duration is not None and now - begun >= duration:
            stop(f"the duration of {duration:g} s is over")
        if now - shown >= 0.25:
            progress({recorder.role: recorder.writer.written for recorder in recorders})
            shown = now


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
