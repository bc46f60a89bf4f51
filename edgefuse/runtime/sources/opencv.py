"""What the sources that OpenCV reads have in common."""

import threading
import time
from typing import Any

import cv2
from numpy.typing import NDArray

from edgefuse.errors import LostError
from edgefuse.runtime.sources.base import Frame, Source

__all__ = ["CaptureSource"]

DEFAULT_FPS = 25.0
MOST_TORN = 10  # frames in a row that cannot be decoded
KERNEL_SECONDS = 5.0  # older than this, a timestamp is of another clock


class CaptureSource(Source):
    """A live source on a `cv2.VideoCapture`. The first frame is read at once: only that proves it works."""

    live = True
    length = None

    def __init__(self, name: str, capture: Any) -> None:
        self.name = name
        # Some drivers report 0, others their clock (90000).
        reported = capture.get(cv2.CAP_PROP_FPS)
        self.fps = reported if 0 < reported <= 1000 else DEFAULT_FPS
        self._capture = capture
        self._busy = threading.Lock()
        self._closing = False
        self._next = 0
        self._first: Frame | None = None

    def _prove(self, hint: str) -> None:
        """Read the first frame, or raise `LostError` with a hint why there is none."""
        self._first = self._grab()
        if self._first is None:
            raise LostError(f"{self.name} gives no picture: {hint}")

    def read(self) -> Frame | None:
        """Return the next frame.

        Raises:
            LostError: none came for about `limit` seconds, or the device is gone.
        """
        frame, self._first = self._first or self._grab(), None
        if frame is None and not self._closing:
            raise LostError(f"{self.name} was lost after {self._next} frames")
        return frame

    def _grab(self) -> Frame | None:
        """Return the next frame that is whole; None: the device is gone, closed, or gives nothing usable."""
        for _ in range(MOST_TORN):
            with self._busy:
                try:
                    if self._closing or not self._capture.grab():
                        return None
                    arrived = time.monotonic()
                    captured = self._kernel_time(arrived)
                    ok, image = self._capture.retrieve()
                except cv2.error:
                    return None
                finally:
                    if self._closing:
                        self._capture.release()
            index, self._next = self._next, self._next + 1
            if ok and image is not None:
                return Frame(self._decode(image), index, timestamp=captured, captured=captured)
        return None

    def _kernel_time(self, arrived: float) -> float:
        """Return the driver's time of the frame where that is on `time.monotonic()`, else its arrival."""
        stamp = self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
        return stamp if 0 <= arrived - stamp <= KERNEL_SECONDS else arrived

    def _decode(self, image: NDArray[Any]) -> NDArray[Any]:
        return image[:, :, 0] if image.ndim == 3 and image.shape[2] == 1 else image

    def close(self) -> None:
        """Release the device: now, or, where a reader is at it, as soon as that one returns."""
        self._closing = True
        if self._busy.acquire(timeout=0.1):  # releasing it under a reader would crash OpenCV
            try:
                self._capture.release()
            finally:
                self._busy.release()
