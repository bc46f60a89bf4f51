"""Reading two cameras in a thread each, which reopens them and is replaced when stuck, for one consumer."""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import av
import cv2

from edgefuse.errors import EdgefuseError, FrameError, InputError, LostError
from edgefuse.machine import return_memory
from edgefuse.runtime.cameras.camera import Camera, Health, State, StillState, ThermalPreprocess
from edgefuse.runtime.frames import NAMES, ROLES, Frame, Role
from edgefuse.runtime.live.report import FrameCounters
from edgefuse.runtime.sources.base import Source
from edgefuse.runtime.timing import StageTimes

logger = logging.getLogger(__name__)

FIRST_DELAY, MAX_DELAY = 0.1, 1.0  # seconds between two attempts to open; doubled each time
SETTLED_SECONDS = 1.0  # a connection that lived this long has earned a quick first attempt
MAX_STUCK = 4  # stuck threads; beside them, one more tries
MAX_LOST = 10_000  # frames; a larger gap in the numbers is a counter that started over

LOSSES = (EdgefuseError, OSError, av.FFmpegError, cv2.error)
"""What a camera may raise once it is known to work. Anything else is a bug of ours."""


@dataclass
class ReaderThread:
    """One thread with the source that it reads."""

    limit: float = 0.0
    """Seconds that the source may be busy; set before it is."""
    patience: float = 0.0
    """Seconds after which the thread is replaced; set before the source is busy."""
    source: Source | None = None
    busy_since: float | None = None
    thread: threading.Thread | None = None


class Supervisor:
    """Reads one camera or recording.

    Args:
        role: of the camera.
        camera: is opened here, and again and again if it `reopens`; else it ends when it fails or is over.
        deliver: gets every frame with the number of frames lost before it, in a thread. May say whether the
            frame stands still.
        ended: called in a thread, once, when nothing more will come; with the error that ended it, if any.
    """

    def __init__(
        self,
        role: Role,
        camera: Camera,
        deliver: Callable[[Frame, int], StillState | None],
        ended: Callable[[BaseException | None], None],
    ) -> None:
        self.name = camera.name
        self.skipped = 0
        """Frames of a recording that could not be read."""
        self.unreadable: tuple[str, ...] = ()
        """Why, one sentence each."""
        self._policy = camera.policy(role)
        self.health = Health(role, self.name, camera.fps, self._policy)
        self._thread_name = f"capture-{NAMES[role]}"
        self._deliver, self._on_end = deliver, ended
        self._camera = camera
        self._closing = threading.Event()
        self._opened = not camera.reopens
        self._stuck: list[ReaderThread] = []
        self._reader = ReaderThread()

    @property
    def fps(self) -> float:
        """Nominal frames per second, as far as they are known."""
        return self.health.fps

    def start(self) -> None:
        """Start reading."""
        self._start(self._reader)

    def check(self, now: float, starved_since: Callable[[float], float] = lambda _: 0.0) -> None:
        """Notice silence and stuck threads; to be called several times a second.

        Args:
            now: `time.monotonic()`.
            starved_since: how long threads have waited for a core since then, see `WakeDelay`.
        """
        if self._camera.live:
            self.health.check(now, starved_since(self.health.seen))
        if not self._camera.reopens or self.health.state is State.ENDED or self._closing.is_set():
            return
        since = self._reader.busy_since
        if since is not None and now - since - starved_since(since) > self._reader.patience:
            self._replace()

    def _replace(self) -> None:
        """Give a stuck thread up, and start another one unless there are too many."""
        self._stuck = [reader for reader in self._stuck if reader.thread and reader.thread.is_alive()]
        if len(self._stuck) < MAX_STUCK:
            self._stuck.append(self._reader)
            self.health.stuck_threads += 1
            self.health.mark_lost(f"{self.name} does not answer: read thread is stuck, starting a new one")
            self._reader = ReaderThread()
            self._start(self._reader)
        elif self.health.state is not State.FAILED:
            self.health.mark_lost(
                f"{self.name} got stuck {self.health.stuck_threads + 1} times inside its driver or library: "
                "trying again as soon as one of these threads returns",
                State.FAILED,
            )

    def stop(self) -> None:
        """Ask the thread to end."""
        self._closing.set()

    def join(self, deadline: float) -> None:
        """Wait for the thread until `deadline` after `stop`; a stuck one is not waited for."""
        thread = self._reader.thread
        if thread is None:
            return
        thread.join(max(0.0, deadline - time.monotonic()))
        since = self._reader.busy_since
        if thread.is_alive() and since is not None:  # most are only waiting for a frame
            late = time.monotonic() - since > self._reader.limit
            level = logging.WARNING if late else logging.DEBUG
            logger.log(level, "%s does not answer: not waiting for its read thread", self.name)
        self.health.finish()

    def _start(self, reader: ReaderThread) -> None:
        reader.thread = threading.Thread(
            target=self._work, args=(reader,), name=self._thread_name, daemon=True
        )
        reader.thread.start()

    def _is_over(self, reader: ReaderThread) -> bool:
        return self._closing.is_set() or reader is not self._reader

    def _work(self, reader: ReaderThread) -> None:
        error: BaseException | None = None
        try:
            if self._camera.reopens:
                self._keep_going(reader)
            else:
                self._read_all(reader, self._camera.open())
        except BaseException as raised:  # shown by whoever consumes: a thread has nobody to raise to
            error = raised
            if not isinstance(raised, LOSSES):
                logger.error("%s: reading failed with a bug in edgefuse", self.name, exc_info=raised)
        if reader is self._reader:
            if not self._closing.is_set():
                self.health.state = State.ENDED
            self._on_end(error)

    def _keep_going(self, reader: ReaderThread) -> None:
        """Open and read until this thread is over; errors before the first opening may be raised."""
        delay = FIRST_DELAY
        while not self._is_over(reader):
            opened_at = time.monotonic()
            try:
                reader.limit = reader.patience = self._policy.stuck_open
                reader.busy_since = time.monotonic()
                reader.source = self._camera.open()
                self._note_opening(reader.source)
                self._read_all(reader, reader.source)
                raise LostError(f"{self.name} has ended")
            except LOSSES as error:
                # Until it was open once, what is wrong with it may be what was asked for.
                if not self._opened and not isinstance(error, LostError):
                    raise
                if not self._is_over(reader):
                    own = isinstance(error, EdgefuseError)
                    self.health.mark_lost(str(error) if own else f"{self.name}: {error}")
            finally:
                self._close_source(reader)
                reader.busy_since = None
            delay = FIRST_DELAY if time.monotonic() - opened_at > SETTLED_SECONDS else delay
            if not self._is_over(reader):
                self._closing.wait(delay)
            delay = min(2 * delay, MAX_DELAY)

    def _note_opening(self, source: Source) -> None:
        self.health.reconnects += self._opened
        self._opened = True
        self.health.fps = source.fps

    def _close_source(self, reader: ReaderThread) -> None:
        """Close what was opened here; what a close may raise is of no use to anybody."""
        source, reader.source = reader.source, None
        if source is not None:
            try:
                source.close()
            except Exception as error:
                logger.debug("closing %s: %r", self.name, error)
            return_memory()

    def _skip(self, error: FrameError) -> None:
        """Count a frame that cannot be read, and log why the first time."""
        self.skipped += 1
        if str(error) not in self.unreadable:
            self.unreadable = (*self.unreadable, str(error))
            logger.warning("%s", error)

    def _read_all(self, reader: ReaderThread, source: Source) -> None:
        """Deliver frames until the source or this thread is over."""
        next_index = None
        connection = self.health.reconnects
        frozen_since: float | None = None
        reader.limit, reader.patience = source.limit, source.limit + self._policy.stuck_read
        while not self._is_over(reader):
            reader.busy_since = time.monotonic()
            try:
                frame = source.read()
            except FrameError as error:
                self._skip(error)
                next_index = None if next_index is None else next_index + 1
                continue
            finally:
                reader.busy_since = None
            if frame is None or self._is_over(reader):
                return
            lost = frame.index - next_index if next_index is not None else 0
            next_index = frame.index + 1
            if connection:
                frame = replace(frame, connection=connection)
            state = self._deliver(frame, lost if 0 < lost < MAX_LOST else 0)
            self.health.on_frame(state)
            now = time.monotonic()
            frozen_since = (frozen_since or now) if state == "frozen" else None
            if self._camera.reopens and frozen_since and now - frozen_since > self._policy.frozen:
                raise LostError(f"{self.name}: its picture still does not change, reopening it")


QUEUE = 4  # frames of a recording that are read ahead
JOIN_SECONDS = 0.5  # for a camera to finish its read; a stuck one is not waited for


class Capture:
    """Two capture threads and the frames that they have read.

    Args:
        cameras: by role. If either is live, only the newest frame of each is kept and older ones
            are dropped and counted; two recordings are read ahead and wait.
        times: gets `capture_ir` and `capture_vis`.
        counters: get what is read, dropped and failed.
    """

    def __init__(
        self,
        cameras: Mapping[Role, Camera],
        times: StageTimes,
        counters: FrameCounters,
    ) -> None:
        self.live = any(camera.live for camera in cameras.values())
        self.errors: dict[Role, BaseException] = {}
        self._preprocess = {role: camera.preprocess(role) for role, camera in cameras.items()}
        # Pictures that repeat are a matter of a camera, not of what was recorded.
        self._can_freeze = {role: camera.live and not camera.recorded for role, camera in cameras.items()}
        self._times, self._counters = times, counters
        self._changed = threading.Condition()
        self._frames: dict[Role, deque[Frame]] = {role: deque() for role in ROLES}
        self._waited: dict[Role, float] = dict.fromkeys(ROLES, 0.0)
        self._logged: dict[Role, str] = dict.fromkeys(ROLES, "")
        self._ended: set[Role] = set()
        self._closing = False
        self.supervisors = {role: self._supervisor(role, cameras[role]) for role in ROLES}

    def _supervisor(self, role: Role, camera: Camera) -> Supervisor:
        return Supervisor(
            role,
            camera,
            lambda frame, lost: self._arrived(role, frame, lost),
            lambda error: self._on_end(role, error),
        )

    def start(self) -> None:
        """Start reading."""
        for role, supervisor in self.supervisors.items():
            self._waited[role] = time.perf_counter()
            supervisor.start()

    def check(self, now: float, starved_since: Callable[[float], float]) -> None:
        """Let the supervisors notice silence and stuck threads, see `Supervisor.check`."""
        for supervisor in self.supervisors.values():
            supervisor.check(now, starved_since)

    def take(self, roles: tuple[Role, ...], timeout: float) -> tuple[Role, Frame] | None:
        """Wait up to `timeout` seconds for a frame of one of these cameras; the first named comes first.

        None: none came, or one of the cameras has ended and `exhausted` says which.
        """
        deadline = time.monotonic() + timeout
        with self._changed:
            while True:
                if self._exhausted(roles):
                    return None
                for role in roles:
                    if self._frames[role]:
                        frame = self._frames[role].popleft()
                        self._changed.notify_all()
                        return role, frame
                if not self._changed.wait(deadline - time.monotonic()):
                    return None

    def exhausted(self, roles: tuple[Role, ...]) -> Role | None:
        """Return the first of these cameras that has ended and has no frame left, if any."""
        with self._changed:
            return self._exhausted(roles)

    def has_more(self, role: Role) -> bool:
        """Wait until it is known whether this recording has another frame, and return that."""
        with self._changed:
            self._changed.wait_for(lambda: self._frames[role] or role in self._ended)
            return bool(self._frames[role])

    def _exhausted(self, roles: tuple[Role, ...]) -> Role | None:
        return next((r for r in roles if r in self._ended and not self._frames[r]), None)

    def close(self) -> None:
        """Stop reading and wait for the threads; a stuck one is not waited for."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        deadline = time.monotonic() + JOIN_SECONDS
        for supervisor in self.supervisors.values():
            supervisor.stop()
        for supervisor in self.supervisors.values():
            supervisor.join(deadline)
        with self._changed:
            for role in ROLES:
                self._counters.add(role, "dropped", len(self._frames[role]))
                self._frames[role].clear()

    def _arrived(self, role: Role, frame: Frame, lost: int) -> StillState | None:
        """Take a frame from a capture thread; return what it looks like, if it is a camera's."""
        preprocess = self._preprocess[role]
        self._counters.add_captured(role, lost)
        try:
            frame = replace(frame, image=preprocess(frame.image, frame.timestamp))
        except (InputError, cv2.error, ValueError, TypeError) as error:
            self._reject(role, error)
            return None
        still = None
        if self._can_freeze[role] and isinstance(preprocess, ThermalPreprocess):
            still = preprocess.still.state
            if still == "calibrating":
                frame = replace(frame, repeated_s=preprocess.still.seconds)
        if still == "frozen":
            self._counters.add(role, "dropped")
            return still
        self._times.record(f"capture_{role}", time.perf_counter() - self._waited[role])
        self._put(role, frame)
        self._waited[role] = time.perf_counter()
        return still

    def _reject(self, role: Role, error: Exception) -> None:
        """Count a frame that is no picture, and log why if that is new."""
        self._counters.add(role, "failed")
        if str(error) != self._logged[role]:
            self._logged[role] = str(error)
            logger.warning("a frame of the %s camera cannot be used: %s", NAMES[role], error)

    def _put(self, role: Role, frame: Frame) -> None:
        frames = self._frames[role]
        with self._changed:
            if self.live:
                self._counters.add(role, "dropped", len(frames))
                frames.clear()
            else:
                self._changed.wait_for(lambda: len(frames) < QUEUE or self._closing)
            if self._closing:
                self._counters.add(role, "dropped")
                return
            frames.append(frame)
            self._changed.notify_all()

    def _on_end(self, role: Role, error: BaseException | None) -> None:
        with self._changed:
            if error is not None:
                self.errors[role] = error
            self._ended.add(role)
            self._changed.notify_all()
