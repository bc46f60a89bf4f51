"""Sources without a device: recordings at their own rate, pictures cut and turned, pushed, simulated."""

import math
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, ClassVar

import cv2
import numpy as np
from numpy.typing import NDArray

from edgefuse.errors import InputError, SourceError
from edgefuse.images import parse_size, size_of
from edgefuse.rig import Rig, RigAlign, rows
from edgefuse.runtime.frames import NOMINAL_FPS, Frame, Role
from edgefuse.runtime.sources.base import Source, Spec, positive_number


class RealTime(Source):
    """Wraps a recorded source: its frames appear when they are due, counted from the first read.

    Two recordings with a common zero, read at once, stay together. In a gap of the recording, `read`
    waits for as long as the gap is.
    """

    live = True
    limit = math.inf

    def __init__(self, source: Source) -> None:
        self.name, self.fps, self.length = source.name, source.fps, source.length
        self.inner = source
        self._zero: float | None = None
        self._closing = threading.Event()

    def read(self) -> Frame | None:
        """Wait until the next frame is due and return it, stamped with that time."""
        if self._zero is None:
            self._zero = time.monotonic()
        frame = self.inner.read()
        if frame is None:
            return None
        due = self._zero + frame.timestamp
        if self._closing.wait(max(0.0, due - time.monotonic())):
            return None
        return replace(frame, timestamp=due, captured=due)

    def close(self) -> None:
        """Close the recording; a `read` that waits returns None."""
        self._closing.set()
        self.inner.close()


ROTATE = {"90": cv2.ROTATE_90_CLOCKWISE, "180": cv2.ROTATE_180, "270": cv2.ROTATE_90_COUNTERCLOCKWISE}
FLIP = {"h": 1, "v": 0, "hv": -1, "vh": -1}


MOST_SCALED, MOST_SHIFTED = 10.0, 10_000.0
"""Largest factor of a scale (and its inverse the smallest), and pixels of a shift."""


class Placed(Source):
    """Each picture of a source cut, turned, flipped, then scaled and shifted: a camera mounted another way.

    Args:
        source: is closed with this one.
        options: those of `OPTIONS` that are given. `crop` is `WIDTHxHEIGHT+LEFT+TOP`, as in
            `256x192+0+192`; `rotate` is 90, 180 or 270, clockwise; `flip` is `h` (left and right change
            places), `v` (top and bottom) or `hv`; `scale` enlarges what is seen about the middle, `shift`
            moves it by `RIGHT,DOWN` pixels, and both keep the picture's size.
        role: a margin that `scale` and `shift` leave is possible in infrared alone: there, the visible
            picture shows.

    Raises:
        SourceError: not of that form; the source is closed.
    """

    OPTIONS = ("crop", "rotate", "flip", "scale", "shift")

    def __init__(self, source: Source, options: Spec, role: Role) -> None:
        self.inner = source
        self.name, self.live, self.fps, self.length = source.name, source.live, source.fps, source.length
        self.limit, self.synchronised, self.steady = source.limit, source.synchronised, source.steady
        try:
            values = options.read_options(
                {
                    "crop": _area,
                    "rotate": _one_of(ROTATE),
                    "flip": _one_of(FLIP),
                    "scale": _scale,
                    "shift": _shift,
                }
            )
        except SourceError:
            source.close()
            raise
        self._area: tuple[int, int, int, int] | None = values.get("crop")
        self._rotate: int | None = values.get("rotate")
        self._flip: int | None = values.get("flip")
        self._scale: float = values.get("scale", 1.0)
        self._shift: tuple[float, float] = values.get("shift", (0.0, 0.0))
        self._role = role
        self._moved: RigAlign | None = None

    def read(self) -> Frame | None:
        """Return the next picture, placed.

        Raises:
            SourceError: the crop reaches beyond the picture, a shift leaves nothing of it, or a margin in a
                visible one; or as the source's own.
        """
        frame = self.inner.read()
        if frame is None:
            return None
        image = frame.image
        if self._area is not None:
            width, height, left, top = self._area
            if left + width > image.shape[1] or top + height > image.shape[0]:
                raise SourceError(f"{self.name}: the crop reaches beyond the picture of {size_of(image)}")
            image = image[top : top + height, left : left + width]
        if self._rotate is not None:
            image = cv2.rotate(image, self._rotate)
        if self._flip is not None:
            image = cv2.flip(image, self._flip)
        if self._scale == 1.0 and self._shift == (0.0, 0.0):
            return replace(frame, image=image)
        return self._move(replace(frame, image=image))

    def _move(self, frame: Frame) -> Frame:
        """Return the picture scaled and shifted, and where it is one: the warp of a rig file does it."""
        height, width = frame.image.shape[:2]
        if self._moved is None or self._moved.rig.ir_size != (width, height):
            right, down = self._shift
            x, y = (1 - self._scale) * (width - 1) / 2 + right, (1 - self._scale) * (height - 1) / 2 + down
            matrix = np.array([[self._scale, 0, x], [0, self._scale, y], [0, 0, 1]])
            try:
                self._moved = Rig(rows(matrix), (width, height), (width, height)).align()
            except InputError:
                raise SourceError(
                    f"{self.name}: scale {self._scale:g} and shift {right:g},{down:g} leave nothing of the "
                    f"picture of {size_of(frame.image)}"
                ) from None
        placed = self._moved(frame.image, (height, width))
        if self._role == "vis" and placed.valid is not None:
            raise SourceError(
                f"{self.name}: scale {self._scale:g} and shift {self._shift[0]:g},{self._shift[1]:g} leave a "
                "margin in which there is no visible picture: scale and shift infrared the other way instead"
            )
        return replace(frame, image=placed.image, valid=placed.valid)

    def close(self) -> None:
        """Close the source."""
        self.inner.close()


def _area(text: str) -> tuple[int, int, int, int]:
    match = re.fullmatch(r"([^+]+)\+(\d{1,5})\+(\d{1,5})", text)
    if not match:
        raise InputError(f"{text!r} is not WIDTHxHEIGHT+LEFT+TOP")
    return *parse_size(match[1]), int(match[2]), int(match[3])


def _scale(text: str) -> float:
    scale = positive_number(text, MOST_SCALED)
    if scale < 1 / MOST_SCALED:
        raise ValueError(f"{text!r} is outside {1 / MOST_SCALED:g} to {MOST_SCALED:g}")
    return scale


def _shift(text: str) -> tuple[float, float]:
    try:
        right, down = (float(part) for part in text.split(","))
    except ValueError:
        raise ValueError(f"{text!r} is not RIGHT,DOWN in pixels, such as 12,-4") from None
    if not (abs(right) <= MOST_SHIFTED and abs(down) <= MOST_SHIFTED):
        raise ValueError(f"{text!r} is more than {MOST_SHIFTED:g} pixels")
    return right, down


def _one_of(known: Mapping[str, int]) -> Callable[[str], int]:
    def read(text: str) -> int:
        if text not in known:
            raise InputError(f"{text!r} is not one of {', '.join(known)}")
        return known[text]

    return read


def inside(source: Source) -> Source:
    """Return what lies inside such wrappers."""
    while isinstance(source, Placed | RealTime):
        source = source.inner
    return source


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


STARTED = time.monotonic()
"""When time began in the simulated street: one moment for all its cameras, so that two of them agree."""


class SimulatedCamera(Source):
    """`sim`: one camera of `edgefuse.sim.Rig`, live at its frame rate.

    Options are those of `RigConfig`, and `frames=N`: then it is a recording of frames 0 to N - 1,
    which come as fast as they are made and are the same every time.
    """

    texts = "sim"
    own_options: ClassVar[tuple[str, ...]] = ("scale", "shift")  # of the simulated rig, not of the picture
    live = False  # until asked for without an end; it is never lost

    @staticmethod
    def accepts(target: str) -> bool:
        """Whether the target is the word `sim`."""
        return target == "sim"

    def __init__(self, spec: Spec, role: Role) -> None:
        from edgefuse.sim import Rig, RigConfig

        options = dict(spec.options)
        frames = options.pop("frames", None)
        if frames is not None and not (frames.isdecimal() and 0 < int(frames) <= 10**9):
            raise SourceError(f"{spec.name}: option frames: {frames!r} is not a whole number from 1 on")
        try:
            config = RigConfig.from_options(options)
        except InputError as error:
            raise SourceError(f"{spec.name}: {error}") from None
        self.name = spec.name
        self.live = frames is None
        self.length = None if frames is None else int(frames)
        self.fps = config.ir_fps if role == "ir" else config.vis_fps
        self._rig = Rig(config)
        self._role = role
        self._next = 0 if frames else self._frame_now() + 1

    def read(self) -> Frame | None:
        """Wait for the next frame, skipping those that came and went since the last call."""
        if self.length is not None:
            if self._next == self.length:
                return None
            captured, stamp = time.monotonic(), 0.0
        else:
            self._next = max(self._next, self._frame_now())
            captured, stamp = STARTED + self._next / self.fps, STARTED
            time.sleep(max(0.0, captured - time.monotonic()))
        index = self._next
        self._next += 1
        timestamp = stamp + self._rig.timestamp(self._role, index)
        return Frame(self._rig.frame(self._role, index), index, timestamp, captured)

    def _frame_now(self) -> int:
        return int((time.monotonic() - STARTED) * self.fps)
