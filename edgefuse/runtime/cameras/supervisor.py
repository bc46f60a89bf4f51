"""Keeping one camera going: a thread that reads it, reopens it, and is replaced when it is stuck.

How the camera is, and what it went through, is its `Health`: frames and failures go in, states and messages
come out.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum

import av
import cv2

from edgefuse.errors import EdgefuseError, FrameError, LostError
from edgefuse.memory import return_memory
from edgefuse.runtime.cameras.camera import Camera
from edgefuse.runtime.cameras.thermal import StillState
from edgefuse.runtime.frames import NAMES, Frame, Role
from edgefuse.runtime.sources.base import SilencePolicy, Source

LOG_SECONDS = 10.0  # a camera that comes and goes is not logged more often
REASONS = 8  # of one loss that are remembered, so that each is logged once


class State(str, Enum):
    """How a camera is."""

    __str__ = str.__str__  # as StrEnum, which Python 3.10 lacks

    WAITING = "waiting"
    """Has not given a frame yet."""
    LIVE = "live"
    CALIBRATING = "calibrating"
    """Infrared that repeats a picture or sends none, for up to 3 s, as behind its shutter: no fault."""
    LOST = "lost"
    """Has given frames, and gives none now: an error, or nothing for too long."""
    FAILED = "failed"
    """Got stuck again and again, with as many threads as may be. It returns if one of them does."""
    ENDED = "ended"
    """A recording is over, or a source failed that cannot be opened again."""


PRESENT = (State.LIVE, State.CALIBRATING)
AWAY = (State.LOST, State.FAILED)


class Health:
    """The state of one camera, with its history. What goes in may come from several threads.

    Args:
        role: of the camera, for messages.
        name: of the source, for messages.
        fps: its nominal rate, until it is known better.
        policy: how long it may be silent.
    """

    def __init__(self, role: Role, name: str, fps: float, policy: SilencePolicy) -> None:
        self.state = State.WAITING
        self.fps = fps
        self.losses = 0
        """How often it was lost."""
        self.calibrations = 0
        """How often infrared stood still or was silent for a moment, and then went on."""
        self.reconnects = 0
        """How often it was reopened."""
        self.stuck_threads = 0
        """Read threads that got stuck inside a driver or library."""
        self.reason = ""
        """Of the last loss, for people."""
        self.seen = 0.0
        """`time.monotonic()` of the last frame."""
        self._policy, self._name, self._what = policy, name, NAMES[role]
        self._lock = threading.Lock()
        self._lost_at = self._down = 0.0
        self._ended_at: float | None = None
        self._quiet_until = 0.0
        self._logged = False
        self._reasons: deque[str] = deque(maxlen=REASONS)

    @property
    def downtime_s(self) -> float:
        """Seconds without it, from each noticed loss on, the present one included."""
        if self.state not in AWAY:
            return self._down
        return self._down + (self._ended_at or time.monotonic()) - self._lost_at

    @property
    def patience(self) -> float:
        """Seconds without a frame after which the camera is to be done without, as it is now."""
        quiet = self._policy.quiet(self.fps)
        return max(self._policy.shutter, quiet) if self.may_calibrate else quiet

    @property
    def may_calibrate(self) -> bool:
        """Whether no frame may mean that the shutter is closed: the camera has one, and is not lost."""
        return self._policy.shutter > 0 and self.state in PRESENT

    def check(self, now: float, starved: float = 0.0) -> None:
        """Notice silence. For up to `starved` seconds of it, the machine was too busy to listen."""
        quiet = now - self.seen - starved
        if self.state in PRESENT and quiet > self.patience:
            self.mark_lost(f"{self._name}: no frame for {quiet:.1f} s")
        elif self.state is State.LIVE and quiet > self._policy.quiet(self.fps):
            with self._lock:
                self._calibrate("sends no picture")

    def on_frame(self, still: StillState | None) -> None:
        """Take note of a frame that has come."""
        if still == "frozen":
            self.mark_lost(f"{self._name}: its picture has not changed for over {self._policy.shutter:g} s")
            return
        with self._lock:
            before, self.state, self.seen = self.state, State.LIVE, time.monotonic()
            self._reasons.clear()
            if before in AWAY:
                away = self.seen - self._lost_at
                self._down += away
                level = logging.INFO if self._logged else logging.DEBUG
                logger.log(level, "%s is back after %.1f s", self._what, away)
            if still != "calibrating":
                self.calibrations += before is State.CALIBRATING
            elif before is State.CALIBRATING:
                self.state = State.CALIBRATING
            else:
                self._calibrate("repeats a picture")

    def mark_lost(self, reason: str, state: State = State.LOST) -> None:
        """Take note that no frame comes. Each reason is logged once per loss."""
        with self._lock:
            before, self.reason = self.state, reason
            news = reason not in self._reasons
            if news:
                self._reasons.append(reason)
            if before is State.WAITING and state is State.LOST:
                if news:
                    logger.warning("waiting for %s: %s", self._what, reason)
                return
            self.state = state
            self.losses += before in PRESENT
            if before not in AWAY:
                self._lost_at = time.monotonic()
                self._logged = self._lost_at >= self._quiet_until
                if self._logged:
                    self._quiet_until = self._lost_at + LOG_SECONDS
            if state is State.FAILED:
                logger.error("%s failed: %s", self._what, reason)
            elif news and self._logged:
                how = "lost" if before in PRESENT else "still lost"
                logger.warning("%s %s: %s", self._what, how, reason)

    def finish(self) -> None:
        """Count time no further."""
        self._ended_at = self._ended_at or time.monotonic()

    def _calibrate(self, how: str) -> None:
        self.state = State.CALIBRATING
        logger.info("%s %s, probably a shutter calibration", self._name, how)


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

    limit: float
    """Seconds that the source may be busy."""
    patience: float
    """Seconds after which the thread is replaced."""
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
        self._reader = self._new_reader()

    def _new_reader(self) -> ReaderThread:
        return ReaderThread(self._policy.stuck_open, self._policy.stuck_open)

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
            self._reader = self._new_reader()
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
