"""A function as an output."""

from collections.abc import Callable

from edgefuse.runtime.sinks.base import FusedFrame, Sink

__all__ = ["Callback"]


class Callback(Sink):
    """Calls a function with every frame, in a thread of its own; if it raises, it is called no more.

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

    def close(self) -> None:
        """Nothing is held open."""
