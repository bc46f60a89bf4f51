"""What a source of frames is, and how long it may be silent."""

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from edgefuse.runtime.frames import Frame, Role


@dataclass(frozen=True)
class SilencePolicy:
    """What it means when a camera gives no new picture. All times in seconds.

    Attributes:
        stutter: without a frame, or for three frame periods if that is longer: more than a stutter.
        shutter: the longest shutter calibration: until then, a missing or repeated picture is no fault.
        read: without a frame: the source gives up, and the camera is reopened.
        stuck_read: beyond `read`: the thread that reads is stuck in a library, and is replaced.
        stuck_open: the same in opening. Libraries have shorter timeouts.
        frozen: with a picture that stands still beyond `shutter`: the camera is reopened.
        grace: from the start, in which a camera may come up before the other one is shown alone.
    """

    stutter: float = 0.5
    shutter: float = 0.0
    read: float = 2.0
    stuck_read: float = 3.0
    stuck_open: float = 12.0
    frozen: float = 3.0
    grace: float = 2.0

    def quiet(self, fps: float) -> float:
        """Return after how many seconds without a frame a camera of this rate does more than stutter."""
        return max(self.stutter, 3.0 / fps)


SILENCE: dict[Role, SilencePolicy] = {"ir": SilencePolicy(shutter=3.0, read=3.5), "vis": SilencePolicy()}
"""The policies in use; thermal cameras close a shutter now and then."""


class Source(Protocol):
    """A camera, a stream or a recording: an iterator of frames that is closed after use.

    One thread reads; another one may close. The constructor opens; if it raises, nothing stays open.

    A source that may be back later raises `LostError`, from its constructor or from `read`: whoever wants
    to continue closes and reopens it. Any other `SourceError` would come again.
    """

    name: str
    """To print: what was asked for, without passwords."""
    live: bool
    """True: frames come when they come and are lost if nobody reads. False: every frame waits."""
    fps: float
    """Nominal frames per second, over 0."""
    length: int | None
    """Frames in the recording, where that is known, if only about."""
    limit: float = SILENCE["vis"].read
    """Seconds that `read` may take. A library that is stuck can exceed them."""

    extra: ClassVar[str | None] = None
    reopens: ClassVar[bool] = False
    own_options: ClassVar[tuple[str, ...]] = ()

    synchronised: bool = False
    """Times are those at which the frames were captured, counted from a zero that is common to both
    cameras of a recording: they, and not the numbers of the frames, say what belongs together."""

    steady: bool = True
    """The rate says when each frame of a recording comes; False: only the times of the frames do."""

    def read(self) -> Frame | None:
        """Wait for the next frame, for up to about `limit` seconds, and return it; None after the last one.

        Its size and pixel type can differ from those of the frame before: cameras restart.

        Raises:
            FrameError: this frame of a recording cannot be read, and the next one may be asked for.
            LostError: the camera or stream ended, stalled or was cut off.
            SourceError: it gives no usable frame.
        """

    def close(self) -> None:
        """Give the device or file back. Can be called twice."""
        return

    def __enter__(self) -> "Source":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class SourceKind(Protocol):
    """A class of sources, as it stands in `SOURCES`: it says itself what it opens."""

    texts: str
    """What asks for it, for people: `cam0, /dev/video2`."""
    extra: str | None
    """The extra of the package that it needs; None: none."""
    reopens: bool
    """Whether it may be lost, and come back when it is reopened: a camera, a stream."""
    own_options: tuple[str, ...]
    """Options that it takes itself although `Placed` knows some of that name."""

    def accepts(self, target: str) -> bool:
        """Whether this text, without its options, asks for it."""

    def __call__(self, spec: Any, role: Role) -> Source:
        """Open it: the constructor. Raises `SourceError`."""
