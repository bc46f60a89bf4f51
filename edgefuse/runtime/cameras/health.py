"""How a camera is, and what it went through: frames and failures go in, states and messages come out."""

import logging
import threading
import time
from collections import deque
from enum import Enum

from edgefuse.runtime.cameras.thermal import StillState
from edgefuse.runtime.frames import NAMES, Role
from edgefuse.runtime.sources.base import SilencePolicy

logger = logging.getLogger(__name__)

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
