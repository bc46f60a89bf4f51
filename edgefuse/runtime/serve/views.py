"""Pictures for viewers: the latest frame in several views, each encoded once however many look at it."""

import threading
import time
from collections import deque
from collections.abc import Callable

import cv2
import numpy as np

from edgefuse.errors import InputError, unknown_name
from edgefuse.images import Image
from edgefuse.runtime.frames import FusedFrame

QUALITY = 80  # of the JPEG
MAX_WIDTH, MIN_WIDTH = 1920, 64
CACHED = 8  # pictures: views times widths that are looked at
RATE_FRAMES = 50  # that the frame rate is taken from
EDGE = 60.0
"""Strength of a thermal edge (Sobel) that is drawn in full colour, in grey levels."""


def _colour(image: Image) -> Image:
    return cv2.cvtColor(image, cv2.COLOR_GRAY2BGR) if image.ndim == 2 else image


def _fused(frame: FusedFrame) -> Image:
    return frame.fused


def _infrared(frame: FusedFrame) -> Image:
    return cv2.applyColorMap(_ir(frame), cv2.COLORMAP_INFERNO)


def _visible(frame: FusedFrame) -> Image:
    return np.zeros_like(frame.fused) if frame.vis is None else frame.vis


def _edges(frame: FusedFrame) -> Image:
    """Edges of the infrared picture, in colour, over the visible one."""
    ir = cv2.GaussianBlur(_ir(frame), (0, 0), 1.5)
    across, down = (cv2.Sobel(ir, cv2.CV_32F, dx, 1 - dx, ksize=3) for dx in (1, 0))
    weight = np.clip(cv2.magnitude(across, down) / EDGE, 0, 1)
    vis = np.ascontiguousarray(_colour(_visible(frame)))
    return cv2.blendLinear(np.full_like(vis, (40, 140, 255)), vis, weight, 1 - weight)


def _blend(frame: FusedFrame) -> Image:
    return cv2.addWeighted(_infrared(frame), 0.5, _colour(_visible(frame)), 0.5, 0)


def _panels(frame: FusedFrame) -> Image:
    """Fused | visible | infrared beside each other, without labels: what the page's wipe is cut from."""
    return np.hstack([_colour(frame.fused), _colour(_visible(frame)), _infrared(frame)])


def _ir(frame: FusedFrame) -> Image:
    return np.zeros(frame.fused.shape[:2], np.uint8) if frame.ir is None else frame.ir


VIEWS: dict[str, Callable[[FusedFrame], Image]] = {
    "fused": _fused,
    "infrared": _infrared,
    "visible": _visible,
    "edges": _edges,
    "blend": _blend,
    "panels": _panels,
}
"""Name of a view → what makes it of a frame."""


class Preview:
    """Keeps the latest frame, and makes JPEGs of it when somebody asks."""

    def __init__(self) -> None:
        self.frame: FusedFrame | None = None
        self.at = 0.0
        """`time.monotonic()` of its arrival."""
        self._arrivals: deque[float] = deque(maxlen=RATE_FRAMES)
        self._jpegs: dict[tuple[str, int], tuple[FusedFrame, bytes]] = {}
        self._locks: dict[tuple[str, int], threading.Lock] = {}
        self._lock = threading.Lock()

    def update(self, frame: FusedFrame) -> None:
        """Take a frame. Costs next to nothing: nothing is encoded here."""
        self.frame, self.at = frame, time.monotonic()
        self._arrivals.append(self.at)

    @property
    def fps(self) -> float:
        """Pictures per second over the last moments."""
        arrivals = list(self._arrivals)
        now = time.monotonic()
        return (len(arrivals) - 1) / (now - arrivals[0]) if len(arrivals) > 1 else 0.0

    def jpeg(self, view: str, width: int) -> tuple[int, bytes] | None:
        """Return the number of the latest frame and its JPEG; None: there is no frame yet.

        Args:
            view: a name in `VIEWS`.
            width: pixels of one picture at most; `panels` is three times as wide.

        Raises:
            InputError: an unknown view.
        """
        if view not in VIEWS:
            raise InputError(unknown_name("view", view, VIEWS))
        key = view, min(max(width, MIN_WIDTH), MAX_WIDTH)
        with self._lock:
            if key not in self._locks and len(self._locks) >= CACHED:
                self._locks.clear()
                self._jpegs.clear()
            lock = self._locks.setdefault(key, threading.Lock())
        with lock:  # whoever asks for the same picture meanwhile gets it without a second encoding
            frame = self.frame
            if frame is None:
                return None
            made = self._jpegs.get(key)
            if made is None or made[0] is not frame:
                made = frame, _encode(VIEWS[view](frame), key[1] * (3 if view == "panels" else 1))
                self._jpegs[key] = made
            return frame.index, made[1]


def _encode(image: Image, width: int) -> bytes:
    if image.shape[1] > width:
        height = max(1, round(image.shape[0] * width / image.shape[1]))
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return data.tobytes()
