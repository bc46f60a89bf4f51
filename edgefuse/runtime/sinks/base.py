"""What an output is, and the two that are none by themselves: a function, and another output cut down."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar, Protocol

from edgefuse.errors import EdgefuseError, InputError
from edgefuse.runtime.frames import FusedFrame


class QuotaReachedError(EdgefuseError):
    """An output has taken as much as it was asked to."""


class FrameRefusedError(InputError):
    """A frame that an output cannot take; it can take others."""


@dataclass(frozen=True)
class OutputOptions:
    """How frames are to be written, for every kind of output."""

    fps: float | None = None
    """Nominal frames per second; None: nobody knows, as of cameras. Frames have times of their own."""
    triptych: bool = False
    """Write infrared | visible | fused in place of the fused picture alone."""
    codec: str | None = None
    """One of `CODECS`; None: the usual one."""
    segment: float | None = None
    """Seconds of each file; None: one file."""
    max_size: int | None = None
    """Bytes of all files; None: no limit."""


class SinkKind(Protocol):
    """A class of outputs, as it stands in `SINKS`: it says itself what it writes to."""

    texts: str
    """What asks for it, for people: `frames/`."""
    extra: str | None
    """The extra of the package that it needs; None: none."""
    options: frozenset[str]
    """Which of `codec`, `segment` and `max_size` it takes."""

    def accepts(self, out: str) -> bool:
        """Whether this text asks for it."""

    def open(self, out: str, options: OutputOptions) -> "Sink":
        """Open it. Raises `InputError`."""


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

    extra: ClassVar[str | None] = None

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
        return

    def __enter__(self) -> "Sink":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Callback(Sink):
    """Calls a function with every frame, in a separate thread; if it raises, it is not called again.

    Args:
        function: must not change the arrays: other outputs have the same.
        name: to print.
    """

    in_main_thread = False

    def __init__(self, function: Callable[[FusedFrame], object], name: str = "callback") -> None:
        self._function, self.name = function, name

    def write(self, frame: FusedFrame) -> None:
        """Call the function."""
        self._function(frame)


class Cropped(Sink):
    """Hands frames on to another output, cut to a rectangle.

    Args:
        sink: the other output.
        rectangle: shape of a visible picture → its rows and columns to keep; the same every time, also while
            a camera is lost, so that a video keeps its size.
    """

    def __init__(self, sink: Sink, rectangle: Callable[[tuple[int, ...]], tuple[slice, slice]]) -> None:
        self._sink, self._rectangle = sink, rectangle
        self._known: dict[tuple[int, ...], tuple[slice, slice]] = {}
        self.name, self.in_main_thread, self.timed = sink.name, sink.in_main_thread, sink.timed

    def write(self, frame: FusedFrame) -> None:
        """Cut a frame and hand it on."""
        shape = frame.fused.shape[:2]
        if shape not in self._known:
            self._known[shape] = self._rectangle(shape)
        part = self._known[shape]
        ir, vis, valid = (None if each is None else each[part] for each in (frame.ir, frame.vis, frame.valid))
        self._sink.write(replace(frame, ir=ir, vis=vis, fused=frame.fused[part], valid=valid))
        self.lost_on_failure = self._sink.lost_on_failure

    def idle(self) -> None:
        """As the other output."""
        self._sink.idle()

    def interrupt(self) -> None:
        """As the other output."""
        self._sink.interrupt()

    def close(self) -> None:
        """Close the other output."""
        try:
            self._sink.close()
        finally:
            self.lost_on_failure = self._sink.lost_on_failure
