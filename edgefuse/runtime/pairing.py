"""Which infrared frame belongs to which visible one. Pure: frames and the time go in, pairs come out."""

from collections import deque
from dataclasses import dataclass
from typing import Protocol

from edgefuse.runtime.sources.base import Frame, Role

__all__ = ["Every", "Held", "Pair", "Pairer", "alone", "other", "pair_of"]


@dataclass(frozen=True, slots=True)
class Pair:
    """Two frames to be fused, or one whose partner is lost."""

    ir: Frame | None
    vis: Frame | None
    time: float
    """Of the leading frame, in seconds on the clock that frames are paired by."""
    skew: float = 0.0
    """Seconds between the two frames."""
    fresh: tuple[Role, ...] = ("ir", "vis")
    """The cameras whose frame was in no pair before."""

    @property
    def captured(self) -> float:
        """`time.monotonic()` of the arrival of the newer frame, in seconds."""
        return max(frame.captured for frame in (self.ir, self.vis) if frame is not None)


class Pairer(Protocol):
    """A way to pair."""

    unpaired: dict[Role, int]
    """Frames that were taken in and will never be in a pair."""

    @property
    def wants(self) -> tuple[Role, ...]:
        """The cameras whose next frame is needed to go on; empty: `end` was called and all is over."""

    def push(self, role: Role, frame: Frame, at: float, now: float) -> None:
        """Take one frame in: `at` is its time on the clock that frames are paired by, `now` the present."""

    def pop(self, now: float) -> Pair | None:
        """Return the next pair, if there is one."""

    def due(self, now: float) -> float:
        """Return after how many seconds `pop` may answer otherwise, with no further frame."""

    def end(self, role: Role) -> None:
        """Hear that this camera has no more frames."""

    def finish(self) -> None:
        """Count the frames that are left over."""


def other(role: Role) -> Role:
    """Return the other camera."""
    return "vis" if role == "ir" else "ir"


@dataclass(slots=True)
class Held:
    """A frame that waits for its partner."""

    frame: Frame
    at: float
    used: bool = False


class Every:
    """Every frame of one recording, each exactly once, with the nearest of the other.

    Args:
        grid: the camera whose frames each get a partner.
        limit: a partner further off than this, on the clock that frames are paired by, is none.
    """

    def __init__(self, grid: Role = "vis", limit: float = float("inf")) -> None:
        self.unpaired: dict[Role, int] = {"ir": 0, "vis": 0}
        self._grid, self._partner, self._limit = grid, other(grid), limit
        self._waiting: deque[Held] = deque()
        self._near: deque[Held] = deque()
        self._ended: set[Role] = set()

    @property
    def wants(self) -> tuple[Role, ...]:
        """Frames of the grid until one waits, then partners until one is not earlier than it."""
        if not self._waiting:
            return () if self._grid in self._ended else (self._grid,)
        if self._partner in self._ended:
            return () if not self._near else (self._grid,)
        return (self._partner,)

    def push(self, role: Role, frame: Frame, at: float, now: float) -> None:
        """Take one frame in."""
        del now
        (self._waiting if role == self._grid else self._near).append(Held(frame, at))

    def pop(self, now: float) -> Pair | None:
        """Return the waiting frame with its partner once no later one can be nearer."""
        del now
        while self._waiting:
            lead = self._waiting[0]
            while len(self._near) > 1 and abs(self._near[1].at - lead.at) <= abs(self._near[0].at - lead.at):
                self._give_up(self._partner, self._near.popleft())
            settled = self._partner in self._ended or (self._near and self._near[-1].at >= lead.at)
            if not settled:
                return None
            self._waiting.popleft()
            best = self._near[0] if self._near else None
            if best is not None and abs(best.at - lead.at) <= self._limit:
                return pair_of(self._grid, lead, best)
            self._give_up(self._grid, lead)
            if self._partner in self._ended and (best is None or best.at < lead.at):
                self._ended.add(self._grid)
        return None

    def due(self, now: float) -> float:
        """Time alone changes nothing."""
        del now
        return float("inf")

    def end(self, role: Role) -> None:
        """Hear that this recording is over."""
        self._ended.add(role)

    def finish(self) -> None:
        """Count the frames that are left over."""
        for role, frames in ((self._grid, self._waiting), (self._partner, self._near)):
            for held in frames:
                self._give_up(role, held)
            frames.clear()

    def _give_up(self, role: Role, held: Held) -> None:
        self.unpaired[role] += not held.used


def pair_of(lead_role: Role, lead: Held, partner: Held) -> Pair:
    """Return a pair, in which `lead` is of the camera `lead_role`, and mark both as used."""
    frames = {lead_role: lead.frame, other(lead_role): partner.frame}
    fresh = tuple(role for role, held in ((lead_role, lead), (other(lead_role), partner)) if not held.used)
    lead.used = partner.used = True
    return Pair(frames["ir"], frames["vis"], lead.at, abs(lead.at - partner.at), fresh)


def alone(role: Role, held: Held) -> Pair:
    """Return a frame without a partner, and mark it as used."""
    held.used = True
    frame = held.frame
    return Pair(frame if role == "ir" else None, frame if role == "vis" else None, held.at, 0.0, (role,))
