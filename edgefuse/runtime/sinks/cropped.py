"""An output that shows only what both cameras see."""

from collections.abc import Callable
from dataclasses import replace

from edgefuse.runtime.sinks.base import FusedFrame, Sink

__all__ = ["Cropped"]


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
