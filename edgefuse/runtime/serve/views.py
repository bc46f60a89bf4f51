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
WIDTHS = (160, 320, 480, 640, 960, 1280, 1920)
"""Pixels that pictures are made in, so that screens of many sizes share them."""
CACHED = 40  # pictures of different views and widths; those looked at the longest time ago go first
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
WITHOUT_PALETTE = ("fused", "visible", "edges")


class View(NamedTuple):
    """What a viewer looks at."""

    name: str
    """In `VIEWS`."""
    width: int
    """Pixels of one picture, rounded up to one of `WIDTHS`; `panels` is three times as wide."""
    palette: str = "inferno"
    """In `PALETTES`."""


class _Made(NamedTuple):
    frame: FusedFrame
    jpeg: bytes
    at: float


class _Shared:
    """The picture that the viewers of a view share."""

    def __init__(self) -> None:
        self.lock = threading.Lock()  # held while it is made
        self.made: _Made | None = None


class Preview:
    """Keeps the latest frame, and makes JPEGs of it when somebody asks."""

    def __init__(self) -> None:
        self.frame: FusedFrame | None = None
        self.at = 0.0
        """`time.monotonic()` of its arrival."""
        self.closed = False
        """Whether nobody gets a picture any more."""
        self._arrivals: deque[float] = deque(maxlen=RATE_FRAMES)
        self._shared: dict[View, _Shared] = {}  # the one that was asked for last at the end
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
        frame = self.frame
        shared = None if frame is None else self._shared.get(_key(view, frame))
        made = None if shared is None else shared.made
        return made is None or made.frame is frame or _is_old(made)

    def jpeg(self, view: View, capped: bool = False) -> tuple[int, bytes] | None:
        """Return the number of the latest frame and its JPEG; None: there is no frame yet, or it is closed.

        Args:
            view: what to show.
            capped: rather the last picture than more than `MAX_FPS` a second.

        Raises:
            InputError: an unknown view.
        """
        if view.name not in VIEWS:
            raise InputError(unknown_name("view", view.name, VIEWS))
        if (frame := self.frame) is None:
            return None
        view = _key(view, frame)
        shared = self._share(view)
        with shared.lock:  # whoever asks for the same picture meanwhile gets it without a second encoding
            if (frame := self.frame) is None or self.closed:
                return None
            made = shared.made
            if made is None or (made.frame is not frame and (not capped or _is_old(made))):
                image, wide = VIEWS[view.name](frame, view.palette), 3 if view.name == "panels" else 1
                made = shared.made = _Made(frame, _encode(image, view.width * wide), time.monotonic())
            return made.frame.index, made.jpeg

    def _share(self, view: View) -> _Shared:
        with self._lock:
            shared = self._shared.pop(view) if view in self._shared else _Shared()
            self._shared[view] = shared
            if len(self._shared) > CACHED:
                idle = (old for old, each in self._shared.items() if not each.lock.locked() and old != view)
                if (oldest := next(idle, None)) is not None:
                    del self._shared[oldest]
            return shared

    def close(self) -> None:
        """Make no more pictures, and wait for those that are being made.

        A thread that is inside OpenCV when the interpreter ends would abort the program.
        """
        self.closed = True
        with self._lock:
            locks = [shared.lock for shared in self._shared.values()]
        for lock in locks:
            if lock.acquire(timeout=CLOSE_SECONDS):
                lock.release()


def _key(view: View, frame: FusedFrame) -> View:
    """Return the view by what its picture really differs in."""
    step = next((width for width in WIDTHS if width >= view.width), WIDTHS[-1])
    palette = View._field_defaults["palette"] if view.name in WITHOUT_PALETTE else view.palette
    return View(view.name, min(step, frame.fused.shape[1]), palette)


def _is_old(made: _Made) -> bool:
    return time.monotonic() - made.at > 0.9 / MAX_FPS


def _encode(image: Image, width: int) -> bytes:
    if image.shape[1] > width:
        height = max(1, round(image.shape[0] * width / image.shape[1]))
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return data.tobytes()
