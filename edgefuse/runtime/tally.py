"""Counting what became of every frame."""

from edgefuse.runtime.pairing import Pair
from edgefuse.runtime.sinks.base import FrameState
from edgefuse.runtime.sources.base import Role
from edgefuse.runtime.timing import Histogram

__all__ = ["Tally"]


class Tally:
    """The fates of the frames that came out of the pairer. A frame that serves twice counts once."""

    def __init__(self) -> None:
        self.frames = 0
        """Pairs fused."""
        self.shown = 0
        """Frames of one camera that were passed through."""
        self.repeated = 0
        """Held and black pictures."""
        self.fused: dict[Role, int] = {"ir": 0, "vis": 0}
        self.passed: dict[Role, int] = {"ir": 0, "vis": 0}
        self.unseen: dict[Role, int] = {"ir": 0, "vis": 0}
        """Frames in whose place a held or black picture was shown."""
        self.failed: dict[Role, int] = {"ir": 0, "vis": 0}
        self.skew = Histogram()
        self.ages: dict[Role, Histogram] = {"ir": Histogram(), "vis": Histogram()}

    def fuse(self, pair: Pair, skew: float, ages: dict[Role, float]) -> None:
        """Count a pair that was fused, whose frames are `skew` seconds apart."""
        self.frames += 1
        self.skew.add(skew)
        for role, age in ages.items():
            self.ages[role].add(age)
        for role in pair.fresh:
            self.fused[role] += 1

    def alone(self, pair: Pair, state: FrameState) -> None:
        """Count a frame without a partner, by what was shown for it."""
        through = state in ("visible only", "infrared only")
        self.shown += through
        self.repeated += not through
        for role in pair.fresh:
            (self.passed if through else self.unseen)[role] += 1

    def refuse(self, pair: Pair) -> None:
        """Count a pair that could not be fused."""
        for role in pair.fresh:
            self.failed[role] += 1
