"""What a source of frames is."""

from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

from numpy.typing import NDArray

from edgefuse.runtime.thermal import CALIBRATION_SECONDS

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["NAMES", "READ_SECONDS", "ROLES", "Frame", "Role", "Source"]

Role: TypeAlias = Literal["ir", "vis"]

ROLES: tuple[Role, Role] = ("ir", "vis")
NAMES: dict[Role, str] = {"ir": "infrared", "vis": "visible"}

READ_SECONDS: dict[Role, float] = {"ir": CALIBRATION_SECONDS + 0.5, "vis": 2.0}
"""Seconds without a frame after which a camera or stream is given up, and opened again."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One picture of one camera."""

    image: NDArray[Any]
    """As the source has it: uint8 or uint16, `[H, W]` or `[H, W, 3]` BGR."""
    index: int
    """Number of the frame, from 0; a gap means frames that the source itself lost."""
    timestamp: float
    """Seconds on the source's clock. A camera at this machine: `time.monotonic()` of the capture, as the
    kernel noted it. A stream: the server's clock, whatever its zero. A recording: the position in it."""
    captured: float
    """`time.monotonic()` in seconds when the frame came into being for this program: latencies start here."""
    connection: int = 0
    """How often its camera had been opened again before; with each time, a clock may begin anew. Sources
    leave it at 0: whoever opens them again counts."""


class Source(Protocol):
    """A camera, a stream or a recording: an iterator of frames that is closed after use.

    One thread reads; another one may close. The constructor opens; if it raises, nothing stays open.

    A source that may be back later raises `LostError`, from its constructor or from `read`: whoever wants
    to go on closes it and opens it again. Any other `SourceError` would come again.
    """

    name: str
    """To print: what was asked for, without passwords."""
    live: bool
    """True: frames come when they come and are lost if nobody reads. False: every frame waits."""
    fps: float
    """Nominal frames per second, over 0."""
    length: int | None
    """Frames in the recording, where that is known, if only about."""
    limit: float = READ_SECONDS["vis"]
    """Seconds that `read` may take. A library that hangs can exceed them: its thread is lost then."""

    synchronised: bool = False
    """Times are those at which the frames were captured, counted from a zero that is common to both
    cameras of a recording: they, and not the numbers of the frames, say what belongs together."""

    def read(self) -> Frame | None:
        """Wait for the next frame, for up to about `limit` seconds, and return it; None after the last one.

        Its size and pixel type can differ from those of the frame before: cameras restart.

        Raises:
            LostError: the camera or stream ended, stalled or was cut off.
            SourceError: it gives no usable frame.
        """

    def close(self) -> None:
        """Give the device or file back. Can be called twice."""

    def __enter__(self) -> "Self":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
