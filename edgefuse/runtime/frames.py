"""What passes between the parts of the live loop: frames of a camera, and fused frames."""

from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from numpy.typing import NDArray

from edgefuse.images import Image

Role: TypeAlias = Literal["ir", "vis"]

ROLES: tuple[Role, Role] = ("ir", "vis")
NAMES: dict[Role, str] = {"ir": "infrared", "vis": "visible"}

NOMINAL_FPS = 25.0
"""Frames per second where nobody states a rate. Whoever uses it for a source says so."""

HD_LINES = 720
"""Lines from which on colours of a video are BT.709 rather than BT.601, unless it says otherwise."""

FrameState: TypeAlias = Literal["fused", "infrared held", "visible only", "infrared only", "held", "black"]
"""What a picture is: a fusion, a fusion with old infrared while the shutter is closed, or what is shown while
a camera is lost. All but the first carry a label."""


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
    """How often its camera was reopened before; each time, its clock may start over. Sources leave it at 0:
    whoever reopens them counts."""
    repeated_s: float = 0.0
    """Seconds for which the camera has repeated this picture, as behind its shutter. Sources leave 0."""
    valid: Image | None = None
    """255 where there is a picture, less at the rim of a margin and 0 in it, `[H, W]`; None: everywhere."""


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

    ir: Image | None
    """uint8 `[H, W]`, aligned with the visible image; None while the camera is absent."""
    vis: Image | None
    """uint8 `[H, W]` or `[H, W, 3]` BGR; None while the camera is absent."""
    fused: Image
    """uint8, of the shape of `vis`; with a label unless `state` is `fused`."""
    index: int
    """Number of the picture, from 0."""
    timestamp: float
    """Seconds of its frame of the reference camera: `time.monotonic()` of the capture, or the position in the
    recording."""
    state: FrameState = "fused"
    captured: float = 0.0
    """`time.monotonic()` of the arrival of its newer frame."""
    stats: FrameStats = FrameStats()
    wall_time: float | None = None
    """Seconds since 1970 (UTC) at `timestamp`; None for recordings."""
    valid: Image | None = None
    """Where infrared covers the visible image, see `Aligned`; None: everywhere."""
