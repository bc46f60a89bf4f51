"""What became of every frame, counted in one place for all threads."""

import threading
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Literal, TypeAlias

from edgefuse.runtime.frames import ROLES, FrameState, Role

__all__ = ["FrameCounters", "FrameCounts", "Outcome"]

Outcome: TypeAlias = Literal["fused", "unpaired", "dropped", "failed"]

FUSED: tuple[FrameState, ...] = ("fused", "infrared held")
ALONE: tuple[FrameState, ...] = ("visible only", "infrared only")
"""Pictures that are a frame whose partner is missing."""


@dataclass(frozen=True)
class FrameCounts:
    """What became of the frames of one camera: captured = fused + unpaired + dropped + failed + in_flight."""

    captured: int = 0
    """All of them, those included that the source itself lost."""
    fused: int = 0
    """Part of at least one fused picture."""
    unpaired: int = 0
    """Had no partner that was near enough in time, or none at all, since the other camera was lost."""
    shown_alone: int = 0
    """Those of `unpaired` that were shown, with a label."""
    dropped: int = 0
    """Never paired: overwritten by a newer frame, lost inside the source, or left over at the end."""
    failed: int = 0
    """No usable picture, or refused by the fusion."""

    @property
    def in_flight(self) -> int:
        """Read, and still being prepared, waiting for a partner, or fused."""
        return self.captured - self.fused - self.unpaired - self.dropped - self.failed


class FrameCounters:
    """Counts frames by camera and outcome, and pictures by state. Its lock is held for additions only."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        names = [each.name for each in fields(FrameCounts)]
        self._frames: dict[Role, dict[str, int]] = {role: dict.fromkeys(names, 0) for role in ROLES}
        self._pictures: Counter[FrameState] = Counter()

    def add_captured(self, role: Role, lost: int = 0) -> None:
        """Count a frame that was read, and those that its source lost before it."""
        with self._lock:
            self._frames[role]["captured"] += 1 + lost
            self._frames[role]["dropped"] += lost

    def add(self, role: Role, outcome: Outcome, count: int = 1) -> None:
        """Count frames of which no picture was made."""
        with self._lock:
            self._frames[role][outcome] += count

    def add_picture(self, state: FrameState, roles: Iterable[Role] = ()) -> None:
        """Count a picture, and the frames of these cameras that were used for the first time in it."""
        with self._lock:
            self._pictures[state] += 1
            for role in roles:
                counts = self._frames[role]
                counts["fused" if state in FUSED else "unpaired"] += 1
                counts["shown_alone"] += state in ALONE

    def snapshot(self) -> tuple[Mapping[Role, FrameCounts], Mapping[FrameState, int]]:
        """Return the frames by camera and the pictures by state, all of one moment."""
        with self._lock:
            frames = {role: FrameCounts(**counts) for role, counts in self._frames.items()}
            return frames, Counter(self._pictures)
