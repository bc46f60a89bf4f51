"""What an output is, and what it gets."""

from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

from edgefuse.errors import EdgefuseError
from edgefuse.images import Image
from edgefuse.runtime.sources.base import Role

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["FrameState", "FrameStats", "FusedFrame", "Sink", "SinkFullError"]

FrameState: TypeAlias = Literal["fused", "visible only", "infrared only", "held", "black"]
"""What a picture is: a fusion, or what is shown while a camera is lost."""


class SinkFullError(EdgefuseError):
    """An output has taken as much as it was asked to."""


@dataclass(frozen=True, slots=True)
class FrameStats:
    """How one picture came about, in seconds."""

    latency: float = 0.0
    """From the capture of the newer frame until the picture was ready."""
    skew: float = 0.0
    """Between its two frames."""
    ages: dict[Role, float] = field(default_factory=dict)
    """Of its frames, from their capture on, when their fusion began."""


@dataclass(frozen=True, slots=True)
class FusedFrame:
    """One result with what it was made of."""

    ir: Image
    """uint8 `[H, W]`, aligned with the visible image; black if there is none."""
    vis: Image
    """uint8 `[H, W]` or `[H, W, 3]` BGR; black if there is none."""
    fused: Image
    """uint8, of the shape of `vis`; with a label while a camera is lost."""
    index: int
    """Number of the picture, from 0."""
    timestamp: float
    """Seconds: `time.monotonic()` of the capture for cameras, the position in the visible recording else."""
    state: FrameState = "fused"
    captured: float = 0.0
    """`time.monotonic()` of the arrival of its newer frame."""
    stats: FrameStats = FrameStats()
    valid: Image | None = None
    """Where infrared covers the visible image, see `Aligned`; None: everywhere."""


class Sink(Protocol):
    """Something that takes fused frames: a file, a folder, a window.

    The constructor checks and opens what it can; if it raises, nothing stays behind.
    """

    name: str
    """To print."""
    in_main_thread: bool
    """True for windows, which toolkits allow in the main thread only."""
    timed: bool = True
    """False: `write` only keeps the frame, which says nothing about how long outputs take."""

    unsaved: int = 0
    """Frames that `write` took, and that a later failure has cost."""

    def write(self, frame: FusedFrame) -> None:
        """Take one frame. Raises `EdgefuseError` or `OSError` when it can take no more."""

    def idle(self) -> None:
        """Called several times a second in the main thread, whether frames come or not."""
        return

    def interrupt(self) -> None:
        """Called in another thread: a `write` that waits for somebody is to return, if it can."""
        return

    def close(self) -> None:
        """Finish what was begun. Raises as `write`. Can be called twice."""

    def __enter__(self) -> "Self":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
