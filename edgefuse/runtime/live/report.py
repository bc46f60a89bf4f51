"""What became of every frame, counted in one place, and what a run has come to so far or in the end."""

import threading
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Literal, TypeAlias

from edgefuse.runtime.cameras.camera import State
from edgefuse.runtime.cameras.clock import ClockReport
from edgefuse.runtime.frames import NAMES, ROLES, FrameState, Role
from edgefuse.runtime.live.background import DriftReport, QualityReport
from edgefuse.runtime.timing import Durations

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
    in_flight: int = 0
    """Read, and still being prepared, waiting for a partner, or being fused."""


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
            counts = self._frames[role]
            counts["captured"] += 1 + lost
            counts["dropped"] += lost
            counts["in_flight"] += 1

    def add(self, role: Role, outcome: Outcome, count: int = 1) -> None:
        """Count frames of which no picture was made."""
        with self._lock:
            self._frames[role][outcome] += count
            self._frames[role]["in_flight"] -= count

    def add_picture(self, state: FrameState, roles: Iterable[Role] = ()) -> None:
        """Count a picture, and the frames of these cameras that were used for the first time in it."""
        with self._lock:
            self._pictures[state] += 1
            for role in roles:
                counts = self._frames[role]
                counts["fused" if state in FUSED else "unpaired"] += 1
                counts["shown_alone"] += state in ALONE
                counts["in_flight"] -= 1

    def snapshot(self) -> tuple[Mapping[Role, FrameCounts], Mapping[FrameState, int]]:
        """Return the frames by camera and the pictures by state, all of one moment."""
        with self._lock:
            frames = {role: FrameCounts(**counts) for role, counts in self._frames.items()}
            return frames, Counter(self._pictures)


@dataclass(frozen=True, kw_only=True)
class SourceReport(FrameCounts):
    """One camera: what became of its frames, and how it is.

    Attributes:
        losses: how often the camera was lost.
        calibrations: how often infrared stood still or was silent for up to 3 s, as behind its shutter: no
            losses.
        reconnects: how often it was reopened.
        stuck_threads: read threads that got stuck inside a driver or library, and were replaced.
        downtime_s: seconds without it, from the noticed loss on.
        unreadable: why frames of a recording could not be read, one sentence a file; they count as failed.
    """

    role: Role
    name: str
    losses: int = 0
    calibrations: int = 0
    reconnects: int = 0
    stuck_threads: int = 0
    downtime_s: float = 0.0
    unreadable: tuple[str, ...] = ()
    state: State = State.ENDED

    @property
    def camera(self) -> str:
        """Which one it is, in words."""
        return NAMES[self.role]


@dataclass(frozen=True)
class SinkReport:
    """What one output has done."""

    name: str
    written: int
    dropped: int
    error: str | None


@dataclass(frozen=True)
class Report:
    """The state of a run at one moment: `Session.snapshot`."""

    live: bool
    """Whether a camera is among the two sources."""
    frames: int
    """Pairs fused."""
    held: int
    """Those of `frames` with an old infrared picture, since its camera's shutter was closed."""
    shown_alone: int
    """Frames of one camera that were shown while the other one was lost."""
    repeated: int
    """Held or black pictures, shown while a camera was lost."""
    seconds: float
    """From the start of capture until now, or until every output was complete."""
    cpu_seconds: float
    """Processor time of the whole process in that time."""
    starved_s: float
    """Seconds for which threads of a live run waited for a core, waits under 0.1 s not counted."""
    sources: tuple[SourceReport, SourceReport]
    """Infrared and visible."""
    sinks: tuple[SinkReport, ...]
    stages: dict[str, Durations]
    """By the names of `timing.STAGES`; those that have values."""
    skew: Durations
    """Between the two frames of a pair."""
    ages: dict[Role, Durations]
    """Of each camera's frames when they are fused, from their capture on."""
    clock: ClockReport | None
    """For live cameras."""
    quality: QualityReport | None
    ended: str | None
    """Why it has ended, for people; None: it has not."""
    error: str | None
    """The first failure of a source or output, one sentence; None: all went well."""
    alignment: DriftReport | None = None
    """None: nothing watches over it, as without a rig file."""

    @property
    def fps(self) -> float:
        """Fused frames per second of the whole run."""
        return self.frames / self.seconds if self.seconds > 0 else 0.0
