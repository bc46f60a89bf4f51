"""Reading two sources in a thread each, and handing their frames to one consumer."""

import logging
import threading
import time
from collections import deque
from dataclasses import dataclass, replace

from edgefuse.images import as_infrared, as_visible
from edgefuse.runtime.sources.base import Frame, Role, Source
from edgefuse.runtime.timing import StageTimes

__all__ = ["Capture", "Counts"]

logger = logging.getLogger(__name__)

ROLES: tuple[Role, Role] = ("ir", "vis")
PREPARE = {"ir": as_infrared, "vis": as_visible}
QUEUE = 4  # frames of a recording that are read ahead
JOIN_SECONDS = 1.0


@dataclass
class Counts:
    """What became of the frames of one camera. `captured` = taken + `dropped` + what still waits."""

    captured: int = 0
    dropped: int = 0
    """Came too late to be looked at: overwritten by a newer one, or lost inside the source."""


class Capture:
    """Two capture threads and the frames that they have read.

    Args:
        ir, vis: open sources. If either is live, only the newest frame of each is kept and older
            ones are dropped and counted; two recordings are read ahead and wait.
        times: gets `capture_ir` and `capture_vis`.
    """

    def __init__(self, ir: Source, vis: Source, times: StageTimes) -> None:
        self.live = ir.live or vis.live
        self.counts: dict[Role, Counts] = {role: Counts() for role in ROLES}
        self.errors: dict[Role, BaseException] = {}
        self._sources: dict[Role, Source] = {"ir": ir, "vis": vis}
        self._times = times
        self._changed = threading.Condition()
        self._frames: dict[Role, deque[Frame]] = {role: deque() for role in ROLES}
        self._ended: set[Role] = set()
        self._closing = False
        self._threads = [
            threading.Thread(target=self._read, args=(role,), name=f"capture-{role}", daemon=True)
            for role in ROLES
        ]

    def start(self) -> None:
        """Start reading."""
        for thread in self._threads:
            thread.start()

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
        """Wait until it is known whether this camera has another frame, and return that."""
        with self._changed:
            self._changed.wait_for(lambda: self._frames[role] or role in self._ended)
            return bool(self._frames[role])

    def _exhausted(self, roles: tuple[Role, ...]) -> Role | None:
        return next((r for r in roles if r in self._ended and not self._frames[r]), None)

    def close(self) -> None:
        """Stop reading and wait for the threads; one that hangs in a driver is left behind, and said so."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        deadline = time.monotonic() + JOIN_SECONDS
        for role, thread in zip(ROLES, self._threads, strict=True):
            if thread.ident is not None:
                thread.join(max(0.0, deadline - time.monotonic()))
            if thread.is_alive():
                logger.warning("%s does not answer and is left behind", self._sources[role].name)

    def _read(self, role: Role) -> None:
        source, stage, next_index = self._sources[role], f"capture_{role}", None
        try:
            while not self._closing:
                start = time.perf_counter()
                frame = source.read()
                if frame is None:
                    break
                frame = replace(frame, image=PREPARE[role](frame.image))
                self._times.record(stage, time.perf_counter() - start)
                lost = frame.index - next_index if next_index is not None else 0
                next_index = frame.index + 1
                self._put(role, frame, lost)
        except BaseException as error:  # shown by whoever consumes: a thread has nobody to raise to
            self.errors[role] = error
        finally:
            with self._changed:
                self._ended.add(role)
                self._changed.notify_all()

    def _put(self, role: Role, frame: Frame, lost: int) -> None:
        frames, counts = self._frames[role], self.counts[role]
        with self._changed:
            counts.captured += 1 + lost
            counts.dropped += lost
            if self.live:
                counts.dropped += len(frames)
                frames.clear()
            else:
                self._changed.wait_for(lambda: len(frames) < QUEUE or self._closing)
            frames.append(frame)
            self._changed.notify_all()
