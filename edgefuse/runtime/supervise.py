"""Keeping one camera going: a thread that reads it, opens it again, and is replaced when it hangs."""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from types import TracebackType
from typing import Self

from edgefuse.errors import LostError, SourceError
from edgefuse.runtime.sources.base import Frame, Source

__all__ = ["Connection", "Health", "State", "Supervisor", "silence"]

logger = logging.getLogger(__name__)

FIRST_DELAY, MOST_DELAY = 0.1, 1.0  # seconds between two attempts to open; doubled each time
SETTLED_SECONDS = 1.0  # a connection that lived so long has earned a quick first attempt
READ_PATIENCE = 3.0  # seconds that a read may take longer than the source's own limit
OPEN_PATIENCE = 12.0  # seconds that an opening may take; libraries have shorter timeouts of their own
MOST_HUNG = 4  # threads left behind that have not come back; no more are started beside them
QUIET_SECONDS = 10.0  # a camera that comes and goes is not logged more often
MOST_LOST = 10_000  # frames; a larger gap in the numbers is a counter that started anew


class State(StrEnum):
    """How a camera is."""

    WAITING = "waiting"
    """Has not given a frame yet."""
    LIVE = "live"
    LOST = "lost"
    """Has given frames, and gives none now: an error, or nothing for `silence(fps)` seconds."""
    ENDED = "ended"
    """A recording is over, or a source failed that cannot be opened again."""


@dataclass(frozen=True)
class Connection:
    """A live source by the way to open it, so that it can be opened again."""

    name: str
    """To print, without passwords."""
    open: Callable[[], Source]
    """Called in a thread. Raises `LostError` while the source is not there."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """What is opened through it is closed by whoever opened it."""


@dataclass
class Health:
    """What a camera went through."""

    state: State = State.WAITING
    losses: int = 0
    """How often it was lost."""
    reconnects: int = 0
    """How often it was opened again."""
    abandoned: int = 0
    """Threads that were left behind, hanging inside a driver or library."""
    down: float = 0.0
    """Seconds without it, the present loss not counted in."""
    reason: str = ""
    """Of the last loss, for people."""


def silence(fps: float) -> float:
    """Return after how many seconds without a frame a camera of that rate counts as lost."""
    return max(0.5, 3.0 / fps)


class _Life:
    """One thread with the source that it reads."""

    def __init__(self, source: Source | None) -> None:
        self.source = source
        self.busy_since: float | None = None
        self.patience = READ_PATIENCE
        self.thread: threading.Thread | None = None


class Supervisor:
    """Reads one camera or recording.

    Args:
        what: for messages: `infrared`.
        camera: an open source, which ends when it fails or is over and is closed by its owner; or a
            `Connection`, which is opened and closed here, again and again.
        deliver: gets every frame with the number of frames lost before it, in a thread.
        ended: called in a thread, once, when nothing more will come; with the error that ended it, if any.
    """

    def __init__(
        self,
        what: str,
        camera: Source | Connection,
        deliver: Callable[[Frame, int], None],
        ended: Callable[[BaseException | None], None],
    ) -> None:
        self.health = Health()
        self.name = camera.name
        self.fps = 25.0 if isinstance(camera, Connection) else camera.fps
        self._what, self._deliver, self._tell_end = what, deliver, ended
        self._connection = camera if isinstance(camera, Connection) else None
        self._live = True if isinstance(camera, Connection) else camera.live
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._opened = self._connection is None
        self._last = 0.0  # time.monotonic() of the last frame
        self._lost_at = 0.0
        self._quiet_until = 0.0
        self._told = False
        self._hung: list[_Life] = []
        self._life = _Life(None if isinstance(camera, Connection) else camera)

    def start(self) -> None:
        """Start reading."""
        self._start(self._life)

    def check(self, now: float) -> None:
        """Notice silence and hanging threads; to be called several times a second."""
        if self._live and self.health.state is State.LIVE and now - self._last > silence(self.fps):
            self._lose(f"{self.name}: no frame for {now - self._last:.1f} s")
        if self._connection is None or self.health.state is State.ENDED:
            return
        self._hung = [life for life in self._hung if life.thread and life.thread.is_alive()]
        life = self._life
        since = life.busy_since
        stuck = since is not None and now - since > life.patience
        if stuck and len(self._hung) < MOST_HUNG and not self._closing.is_set():
            self._hung.append(life)
            self.health.abandoned += 1
            self._lose(f"{self.name} does not answer: its thread is left behind and replaced")
            self._life = _Life(None)
            self._start(self._life)

    def stop(self) -> None:
        """Ask the thread to end."""
        self._closing.set()

    def join(self, deadline: float) -> None:
        """Wait for the thread until `deadline` after `stop`; one that hangs is left behind."""
        thread = self._life.thread
        if thread is None:
            return
        thread.join(max(0.0, deadline - time.monotonic()))
        if thread.is_alive():
            logger.warning("%s does not answer and is left behind", self.name)
        if self.health.state is State.LOST:
            self.health.down += time.monotonic() - self._lost_at

    def _start(self, life: _Life) -> None:
        name = f"capture-{self._what}"
        life.thread = threading.Thread(target=self._work, args=(life,), name=name, daemon=True)
        life.thread.start()

    def _over(self, life: _Life) -> bool:
        return self._closing.is_set() or life is not self._life

    def _work(self, life: _Life) -> None:
        error: BaseException | None = None
        try:
            if self._connection is not None:
                self._keep_going(life, self._connection)
            elif life.source is not None:
                self._read_all(life, life.source)
        except BaseException as raised:  # shown by whoever consumes: a thread has nobody to raise to
            error = raised
        if life is self._life:
            if not self._closing.is_set():
                self.health.state = State.ENDED
            self._tell_end(error)

    def _keep_going(self, life: _Life, connection: Connection) -> None:
        """Open and read until the end of this life; errors before the first opening may be raised."""
        delay = FIRST_DELAY
        while not self._over(life):
            opened_at = time.monotonic()
            try:
                life.patience, life.busy_since = OPEN_PATIENCE, time.monotonic()
                life.source = connection.open()
                self._note_opening(life.source)
                self._read_all(life, life.source)
                raise LostError(f"{self.name} has ended")
            except Exception as error:
                # Until it was open once, what is wrong with it may be what was asked for.
                if not self._opened and not isinstance(error, LostError):
                    raise
                if not isinstance(error, SourceError):
                    logger.debug("%s raised %r", self.name, error, exc_info=True)
                    error = SourceError(f"{self.name}: {type(error).__name__}: {error}")
                if not self._over(life):
                    self._lose(str(error))
            finally:
                self._close_source(life)
                life.busy_since = None
            delay = FIRST_DELAY if time.monotonic() - opened_at > SETTLED_SECONDS else delay
            if not self._over(life):
                self._closing.wait(delay)
            delay = min(2 * delay, MOST_DELAY)

    def _note_opening(self, source: Source) -> None:
        self.health.reconnects += self._opened
        self._opened = True
        self.fps = source.fps

    def _close_source(self, life: _Life) -> None:
        """Close what was opened here; what a close may raise is of no use to anybody."""
        source, life.source = life.source, None
        if source is not None:
            try:
                source.close()
            except Exception as error:
                logger.debug("closing %s: %r", self.name, error)

    def _read_all(self, life: _Life, source: Source) -> None:
        """Deliver frames until the source is over or this life is."""
        next_index = None
        life.patience = READ_PATIENCE + source.limit
        while not self._over(life):
            life.busy_since = time.monotonic()
            frame = source.read()
            life.busy_since = None
            if frame is None:
                return
            if self._over(life):
                return
            lost = frame.index - next_index if next_index is not None else 0
            next_index = frame.index + 1
            self._find()
            self._deliver(frame, lost if 0 < lost < MOST_LOST else 0)

    def _find(self) -> None:
        """A frame has come."""
        with self._lock:
            self._last = time.monotonic()
            if self.health.state is State.LOST:
                away = self._last - self._lost_at
                self.health.down += away
                logger.log(
                    logging.INFO if self._told else logging.DEBUG, "%s is back after %.1f s", self._what, away
                )
            self.health.state = State.LIVE

    def _lose(self, reason: str) -> None:
        """No frame comes. Of attempts to open that fail for the same reason, the first is told."""
        with self._lock:
            news = reason != self.health.reason
            self.health.reason = reason
            if self.health.state is State.WAITING and news:
                logger.warning("waiting for %s: %s", self._what, reason)
            if self.health.state is not State.LIVE:
                return
            self.health.state = State.LOST
            self.health.losses += 1
            self._lost_at = time.monotonic()
            self._told = self._lost_at >= self._quiet_until
            if self._told:
                self._quiet_until = self._lost_at + QUIET_SECONDS
                logger.warning("%s lost: %s", self._what, reason)
