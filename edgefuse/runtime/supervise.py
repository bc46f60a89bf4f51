"""Keeping one camera going: a thread that reads it, opens it again, and is replaced when it hangs."""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import TracebackType
from typing import TYPE_CHECKING

from edgefuse.errors import LostError, SourceError
from edgefuse.runtime.arenas import return_memory
from edgefuse.runtime.health import Health, State
from edgefuse.runtime.sources.base import NAMES, Frame, Role, Source
from edgefuse.runtime.thermal import Look

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Connection", "Supervisor"]

logger = logging.getLogger(__name__)

FIRST_DELAY, MOST_DELAY = 0.1, 1.0  # seconds between two attempts to open; doubled each time
SETTLED_SECONDS = 1.0  # a connection that lived so long has earned a quick first attempt
READ_PATIENCE = 3.0  # seconds that a read may take longer than the source's own limit
OPEN_PATIENCE = 12.0  # seconds that an opening may take; libraries have shorter timeouts of their own
FROZEN_SECONDS = 3.0  # of a picture that stands still as after a fault, until the camera is opened again
MOST_HUNG = 4  # threads left behind that have not come back; beside them, one more tries
MOST_LOST = 10_000  # frames; a larger gap in the numbers is a counter that started anew


@dataclass(frozen=True)
class Connection:
    """A live source by the way to open it, so that it can be opened again."""

    name: str
    """To print, without passwords."""
    open: Callable[[], Source]
    """Called in a thread. Raises `LostError` while the source is not there."""

    def __enter__(self) -> "Self":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """What is opened through it is closed by whoever opened it."""


class _Life:
    """One thread with the source that it reads."""

    def __init__(self, source: Source | None) -> None:
        self.source = source
        self.busy_since: float | None = None
        self.limit = self.patience = OPEN_PATIENCE
        """Seconds that the source may be busy, and after which its thread is replaced."""
        self.thread: threading.Thread | None = None


class Supervisor:
    """Reads one camera or recording.

    Args:
        role: of the camera; infrared may be silent for as long as its shutter calibration takes.
        camera: an open source, which ends when it fails or is over and is closed by its owner; or a
            `Connection`, which is opened and closed here, again and again.
        deliver: gets every frame with the number of frames lost before it, in a thread. May say what the
            frame looks like.
        ended: called in a thread, once, when nothing more will come; with the error that ended it, if any.
    """

    def __init__(
        self,
        role: Role,
        camera: Source | Connection,
        deliver: Callable[[Frame, int], Look | None],
        ended: Callable[[BaseException | None], None],
    ) -> None:
        self.name = camera.name
        self.health = Health(role, self.name, 25.0 if isinstance(camera, Connection) else camera.fps)
        self._thread_name = f"capture-{NAMES[role]}"
        self._deliver, self._tell_end = deliver, ended
        self._connection = camera if isinstance(camera, Connection) else None
        self._live = True if isinstance(camera, Connection) else camera.live
        self._closing = threading.Event()
        self._opened = self._connection is None
        self._hung: list[_Life] = []
        self._life = _Life(None if isinstance(camera, Connection) else camera)

    @property
    def fps(self) -> float:
        """Nominal frames per second, as far as they are known."""
        return self.health.fps

    def start(self) -> None:
        """Start reading."""
        self._start(self._life)

    def check(self, now: float) -> None:
        """Notice silence and hanging threads; to be called several times a second."""
        if self._live:
            self.health.check(now)
        if self._connection is None or self.health.state is State.ENDED or self._closing.is_set():
            return
        since = self._life.busy_since
        if since is not None and now - since > self._life.patience:
            self._replace()

    def _replace(self) -> None:
        """Leave a thread that hangs behind, and start another one while there are not too many."""
        self._hung = [life for life in self._hung if life.thread and life.thread.is_alive()]
        if len(self._hung) < MOST_HUNG:
            self._hung.append(self._life)
            self.health.abandoned += 1
            self.health.lose(f"{self.name} does not answer: its thread is left behind and replaced")
            self._life = _Life(None)
            self._start(self._life)
        elif self.health.state is not State.FAILED:
            self.health.lose(
                f"{self.name} has hung {self.health.abandoned + 1} times inside its driver or library: it is "
                "tried again as soon as one of the threads that were left behind comes back",
                State.FAILED,
            )

    def stop(self) -> None:
        """Ask the thread to end."""
        self._closing.set()

    def join(self, deadline: float) -> None:
        """Wait for the thread until `deadline` after `stop`; one that hangs is left behind."""
        thread = self._life.thread
        if thread is None:
            return
        thread.join(max(0.0, deadline - time.monotonic()))
        since = self._life.busy_since
        if thread.is_alive() and since is not None:  # most are only waiting for a frame
            late = time.monotonic() - since > self._life.limit
            logger.log(
                logging.WARNING if late else logging.DEBUG,
                "%s does not answer and is left behind",
                self.name,
            )
        self.health.finish()

    def _start(self, life: _Life) -> None:
        life.thread = threading.Thread(target=self._work, args=(life,), name=self._thread_name, daemon=True)
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
                life.limit = life.patience = OPEN_PATIENCE
                life.busy_since = time.monotonic()
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
                    self.health.lose(str(error))
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
        self.health.fps = source.fps

    def _close_source(self, life: _Life) -> None:
        """Close what was opened here; what a close may raise is of no use to anybody."""
        source, life.source = life.source, None
        if source is not None:
            try:
                source.close()
            except Exception as error:
                logger.debug("closing %s: %r", self.name, error)
            return_memory()

    def _read_all(self, life: _Life, source: Source) -> None:
        """Deliver frames until the source is over or this life is."""
        next_index = None
        connection = self.health.reconnects
        frozen_since: float | None = None
        life.limit, life.patience = source.limit, READ_PATIENCE + source.limit
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
            if connection:
                frame = replace(frame, connection=connection)
            look = self._deliver(frame, lost if 0 < lost < MOST_LOST else 0)
            self.health.find(look)
            now = time.monotonic()
            frozen_since = (frozen_since or now) if look == "frozen" else None
            if self._connection and frozen_since and now - frozen_since > FROZEN_SECONDS:
                raise LostError(f"{self.name}: its picture still stands still, so it is opened again")
