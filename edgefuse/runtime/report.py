"""What a run of the live loop tells, while it goes on and at its end."""

from dataclasses import dataclass, field

from edgefuse.runtime.cameras.clock import ClockReport
from edgefuse.runtime.cameras.health import State
from edgefuse.runtime.quality import QualityReport
from edgefuse.runtime.sources.base import Role
from edgefuse.runtime.timing import Histogram, StageStats

__all__ = ["Progress", "Report", "SinkReport", "SourceReport"]


@dataclass(frozen=True)
class SourceReport:
    """What became of a camera and its frames: captured = fused + passed + dropped + failed."""

    role: Role
    name: str
    captured: int
    fused: int
    """Part of at least one fused picture."""
    passed: int
    """Shown alone, since the other camera was lost."""
    dropped: int
    """Lost inside the source, overwritten by a newer frame, in no pair, or left over at the end."""
    failed: int
    """No usable picture, or refused by the fusion."""
    unpaired: int
    """Those of `dropped` that were looked at and had no partner."""
    state: State = State.ENDED
    """At the end of the run."""
    losses: int = 0
    """How often the camera was lost."""
    calibrations: int = 0
    """How often infrared stood still or was silent for up to 3 s, as behind its shutter: no losses."""
    reconnects: int = 0
    """How often it was opened again."""
    abandoned: int = 0
    """Threads that hung inside a driver or library and were replaced."""
    down: float = 0.0
    """Seconds without it, from the noticed loss on."""


@dataclass(frozen=True)
class SinkReport:
    """What one output has done."""

    name: str
    written: int
    dropped: int
    error: str | None


@dataclass(frozen=True)
class Progress:
    """How it goes, several times a second."""

    frames: int
    fps: float
    """Of the last moments."""
    dropped: dict[Role, int]
    states: dict[Role, State] = field(default_factory=dict)


@dataclass(frozen=True)
class Report:
    """What a run came to."""

    frames: int
    """Pairs fused."""
    passed: int
    """Frames of one camera that were shown alone."""
    repeated: int
    """Held or black pictures, shown while a camera was lost."""
    seconds: float
    """From the start of capture until every output was complete."""
    cpu_seconds: float
    """Processor time of the whole process in that time."""
    sources: tuple[SourceReport, ...]
    sinks: tuple[SinkReport, ...]
    stages: dict[str, StageStats]
    """By the names of `timing.STAGES`."""
    skew: Histogram
    """Between the two frames of a pair."""
    ages: dict[Role, Histogram]
    """Of each camera's frames when they are fused, from their capture on."""
    clock: ClockReport | None
    """For live cameras."""
    quality: QualityReport | None
    ended: str
    """Why, for people."""
    error: str | None
    """The first failure of a source or output, one sentence; None: all went well."""

    @property
    def fps(self) -> float:
        """Fused frames per second of the whole run."""
        return self.frames / self.seconds if self.seconds > 0 else 0.0
