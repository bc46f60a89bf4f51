"""What a run of the live loop has come to so far, or in the end."""

from dataclasses import dataclass

from edgefuse.runtime.cameras.clock import ClockReport
from edgefuse.runtime.cameras.health import State
from edgefuse.runtime.frames import Role
from edgefuse.runtime.live.background import DriftReport, QualityReport
from edgefuse.runtime.live.counters import FrameCounts
from edgefuse.runtime.timing import Durations

__all__ = ["Report", "SinkReport", "SourceReport"]


@dataclass(frozen=True, kw_only=True)
class SourceReport(FrameCounts):
    """One camera: what became of its frames, and how it is."""

    role: Role
    name: str
    state: State = State.ENDED
    losses: int = 0
    """How often the camera was lost."""
    calibrations: int = 0
    """How often infrared stood still or was silent for up to 3 s, as behind its shutter: no losses."""
    reconnects: int = 0
    """How often it was reopened."""
    stuck_threads: int = 0
    """Read threads that got stuck inside a driver or library, and were replaced."""
    downtime_s: float = 0.0
    """Seconds without it, from the noticed loss on."""
    unreadable: tuple[str, ...] = ()
    """Why frames of a recording could not be read, one sentence a file; they count as failed."""


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
