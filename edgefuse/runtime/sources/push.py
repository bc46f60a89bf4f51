"""A camera whose frames come from your own code, such as the callback of a driver."""

import math
import threading
import time
from typing import Any

from numpy.typing import NDArray

from edgefuse.errors import InputError
from edgefuse.runtime.frames import NOMINAL_FPS, Frame
from edgefuse.runtime.sources.base import Source

__all__ = ["PushSource"]


class PushSource(Source):
    """Takes the frames that are pushed into it. It keeps the newest one; those in between count as dropped.

    >>> camera = PushSource("thermal", fps=30)
    >>> driver.on_frame(camera.push)  # doctest: +SKIP
    >>> for pair in edgefuse.live(camera, "cam0"): ...  # doctest: +SKIP

    Args:
        name: to print.
        fps: nominal frames per second.
    """

    live = True
    length = None
    limit = math.inf

    def __init__(self, name: str = "pushed frames", fps: float = NOMINAL_FPS) -> None:
        if not 0 < fps < math.inf:
            raise InputError(f"{name}: fps is {fps:g}, it must be over 0")
        self.name, self.fps = name, fps
        self._changed = threading.Condition()
        self._newest: Frame | None = None
        self._count = 0
        self._closed = False

    def push(self, image: NDArray[Any], timestamp: float | None = None) -> None:
        """Hand a frame over, from any thread. Returns at once.

        Args:
            image: uint8 or uint16, `[H, W]` or `[H, W, 3]` BGR. It is copied: drivers reuse their buffers.
            timestamp: seconds on the camera's own clock; None: now, by `time.monotonic()`.
        """
        now = time.monotonic()
        image = image.copy()
        with self._changed:
            self._newest = Frame(image, self._count, now if timestamp is None else timestamp, now)
            self._count += 1
            self._changed.notify_all()

    def read(self) -> Frame | None:
        """Wait for the next frame and return it; None once it is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._newest is not None or self._closed)
            frame, self._newest = self._newest, None
            return frame

    def close(self) -> None:
        """End it: a `read` that waits returns None."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
