"""What an output is, and what it gets."""

from types import TracebackType
from typing import TYPE_CHECKING, Protocol

from edgefuse.errors import EdgefuseError, InputError
from edgefuse.runtime.frames import FrameState, FrameStats, FusedFrame

__all__ = ["FrameRefusedError", "FrameState", "FrameStats", "FusedFrame", "QuotaReachedError", "Sink"]

if TYPE_CHECKING:
    from typing_extensions import Self


class QuotaReachedError(EdgefuseError):
    """An output has taken as much as it was asked to."""


class FrameRefusedError(InputError):
    """A frame that an output cannot take; it can take others."""


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

    lost_on_failure: int = 0
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
