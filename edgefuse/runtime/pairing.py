"""Which infrared frame belongs to which visible one. Pure: frames go in, pairs come out."""

from collections import deque
from dataclasses import dataclass
from typing import Protocol

from edgefuse.runtime.sources.base import Frame, Role

__all__ = ["InOrder", "Newest", "Pair", "Pairer"]


@dataclass(frozen=True, slots=True)
class Pair:
    """Two frames to be fused."""

    ir: Frame
    vis: Frame

    @property
    def captured(self) -> float:
        """`time.monotonic()` of the capture of the newer one, in seconds."""
        return max(self.ir.captured, self.vis.captured)


class Pairer(Protocol):
    """A way to pair."""

    unpaired: dict[Role, int]
    """Frames that were taken in and will never be in a pair."""

    @property
    def wants(self) -> tuple[Role, ...]:
        """The cameras whose next frame is needed to go on; never empty."""

    def push(self, role: Role, frame: Frame) -> Pair | None:
        """Take one frame in; return a pair if that completes one."""


class InOrder:
    """Frame i with frame i: for two recordings that were made together. Nothing is left out."""

    def __init__(self) -> None:
        self.unpaired: dict[Role, int] = {"ir": 0, "vis": 0}
        self._waiting: dict[Role, deque[Frame]] = {"ir": deque(), "vis": deque()}

    @property
    def wants(self) -> tuple[Role, ...]:
        """Whichever camera has no frame waiting for its partner."""
        return tuple(role for role, frames in self._waiting.items() if not frames)

    def push(self, role: Role, frame: Frame) -> Pair | None:
        """Take one frame in; return it with its partner as soon as both are there."""
        self._waiting[role].append(frame)
        if not all(self._waiting.values()):
            return None
        return Pair(ir=self._waiting["ir"].popleft(), vis=self._waiting["vis"].popleft())


class Newest:
    """Each visible frame with the newest infrared one, which can serve several visible frames."""

    def __init__(self) -> None:
        self.unpaired: dict[Role, int] = {"ir": 0, "vis": 0}
        self._ir: Frame | None = None
        self._ir_used = True
        self._vis: Frame | None = None

    @property
    def wants(self) -> tuple[Role, ...]:
        """Both: infrared first, so that a visible frame meets the newest."""
        return ("ir", "vis")

    def push(self, role: Role, frame: Frame) -> Pair | None:
        """Take one frame in; a visible one completes a pair as soon as there is any infrared."""
        if role == "ir":
            self.unpaired["ir"] += not self._ir_used
            self._ir, self._ir_used = frame, False
        else:
            self.unpaired["vis"] += self._vis is not None
            self._vis = frame
        if self._ir is None or self._vis is None:
            return None
        pair = Pair(self._ir, self._vis)
        self._vis, self._ir_used = None, True
        return pair
