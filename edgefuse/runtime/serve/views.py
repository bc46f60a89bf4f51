"""Pictures for viewers: the latest frame in several views, each encoded once however many look at it."""

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np

from edgefuse.errors import InputError, unknown_name
from edgefuse.images import Image
from edgefuse.runtime.frames import FusedFrame

QUALITY = 80  # of the JPEG
MAX_WIDTH, MIN_WIDTH = 1920, 64
CACHED = 8  # pictures: views times widths that are looked at
MAX_FPS = 25.0  # of the pictures that are encoded of a view
RATE_FRAMES = 50  # that the frame rate is taken from
CLOSE_SECONDS = 1.0  # that a picture may take, at the end
EDGE = 60.0
"""Strength of a thermal edge (Sobel) that is drawn in full colour, in grey levels."""


def _colour(image: Image) -> Image:
    return cv2.cvtColor(image, cv2.COLOR_GRAY2BGR) if image.ndim == 2 else image


def _fused(frame: FusedFrame, _: str) -> Image:
    return frame.fused


def _infrared(frame: FusedFrame, palette: str) -> Image:
    return PALETTES[palette](_ir(frame))


def _visible(frame: FusedFrame, _: str) -> Image:
    return np.zeros_like(frame.fused) if frame.vis is None else frame.vis


def _edges(frame: FusedFrame, palette: str) -> Image:
    """Edges of the infrared picture, in colour, over the visible one."""
    ir = cv2.GaussianBlur(_ir(frame), (0, 0), 1.5)
    across, down = (cv2.Sobel(ir, cv2.CV_32F, dx, 1 - dx, ksize=3) for dx in (1, 0))
    weight = np.clip(cv2.magnitude(across, down) / EDGE, 0, 1)
    vis = np.ascontiguousarray(_colour(_visible(frame, palette)))
    return cv2.blendLinear(np.full_like(vis, (40, 140, 255)), vis, weight, 1 - weight)


def _blend(frame: FusedFrame, palette: str) -> Image:
    return cv2.addWeighted(_infrared(frame, palette), 0.5, _colour(_visible(frame, palette)), 0.5, 0)


def _panels(frame: FusedFrame, palette: str) -> Image:
    """Fused | visible | infrared beside each other, without labels: what the page's wipe is cut from."""
    return np.hstack([_colour(frame.fused), _colour(_visible(frame, palette)), _infrared(frame, palette)])


def _ir(frame: FusedFrame) -> Image:
    return np.zeros(frame.fused.shape[:2], np.uint8) if frame.ir is None else frame.ir


PALETTES: dict[str, Callable[[Image], Image]] = {
    "inferno": lambda ir: cv2.applyColorMap(ir, cv2.COLORMAP_INFERNO),
    "turbo": lambda ir: cv2.applyColorMap(ir, cv2.COLORMAP_TURBO),
    "hot": lambda ir: cv2.applyColorMap(ir, cv2.COLORMAP_HOT),
    "white": _colour,
    "black": lambda ir: _colour(255 - ir),
}
"""Name of a palette → what colours infrared, uint8 `[H, W]`; `white` and `black`: how grey is what is hot."""

VIEWS: dict[str, Callable[[FusedFrame, str], Image]] = {
    "fused": _fused,
    "infrared": _infrared,
    "visible": _visible,
    "edges": _edges,
    "blend": _blend,
    "panels": _panels,
}
"""Name of a view → what makes it of a frame, in a palette."""


class View(NamedTuple):
    """What a viewer looks at."""

    name: str
    """In `VIEWS`."""
    width: int
    """Pixels of one picture at most; `panels` is three times as wide."""
    palette: str = "inferno"
    """In `PALETTES`."""


class _Made(NamedTuple):
    frame: FusedFrame
    jpeg: bytes
    at: float


class Preview:
    """Keeps the latest frame, and makes JPEGs of it when somebody asks."""

    def __init__(self) -> None:
        self.frame: FusedFrame | None = None
        self.at = 0.0
        """`time.monotonic()` of its arrival."""
        self.closed = False
        """Whether nobody gets a picture any more."""
        self._arrivals: deque[float] = deque(maxlen=RATE_FRAMES)
        self._made: dict[View, _Made] = {}
        self._locks: dict[View, threading.Lock] = {}
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

    def is_due(self, view: View) -> bool:
        """Whether the last picture of a view is old enough for another one, at `MAX_FPS` a second."""
        made = self._made.get(_within_limits(view))
        return made is None or made.frame is self.frame or time.monotonic() - made.at > 0.9 / MAX_FPS

    def jpeg(self, view: View) -> tuple[int, bytes] | None:
        """Return the number of the latest frame and its JPEG; None: there is no frame yet, or it is closed.

        Raises:
            InputError: an unknown view.
        """
        if view.name not in VIEWS:
            raise InputError(unknown_name("view", view.name, VIEWS))
        view = _within_limits(view)
        with self._lock:
            if view not in self._locks and len(self._locks) >= CACHED:
                self._locks.clear()
                self._made.clear()
            lock = self._locks.setdefault(view, threading.Lock())
        with lock:  # whoever asks for the same picture meanwhile gets it without a second encoding
            frame = self.frame
            if frame is None or self.closed:
                return None
            made = self._made.get(view)
            if made is None or made.frame is not frame:
                image, wide = VIEWS[view.name](frame, view.palette), 3 if view.name == "panels" else 1
                made = _Made(frame, _encode(image, view.width * wide), time.monotonic())
                self._made[view] = made
            return frame.index, made.jpeg

    def close(self) -> None:
        """Make no more pictures, and wait for those that are being made.

        A thread that is inside OpenCV when the interpreter ends would abort the program.
        """
        self.closed = True
        with self._lock:
            locks = list(self._locks.values())
        for lock in locks:
            if lock.acquire(timeout=CLOSE_SECONDS):
                lock.release()


def _within_limits(view: View) -> View:
    return view._replace(width=min(max(view.width, MIN_WIDTH), MAX_WIDTH))


def _encode(image: Image, width: int) -> bytes:
    if image.shape[1] > width:
        height = max(1, round(image.shape[0] * width / image.shape[1]))
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return data.tobytes()
