"""16-bit infrared to 8-bit, live: an automatic gain control (AGC) that does not flicker.

The gain control is a tone curve, one grey level for each of the 65,536 counts. Each frame proposes a
curve from its histogram; the curve in use moves towards it smoothly, and by no more than `MAX_STEP` grey
levels from one frame to the next, at any count. So whatever enters the scene, a pixel that stays at its
temperature never jumps, and a scene that only has noise keeps its curve to the bit.

Plateau equalisation: V. E. Vickers, "Plateau equalization algorithm for real-time display of high-quality
infrared imagery", Optical Engineering 35(7), 1996. Deviation: bins without counts keep a little of the
scale, so that the curve is strictly rising where the scene is. CLAHE is left out: its tiles would need a
curve each to keep the promise above.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from edgefuse.errors import InputError, unknown_name
from edgefuse.images import Image, luma, plain
from edgefuse.runtime.cameras.freeze import StillDetector

__all__ = [
    "CURVES",
    "MAX_STEP",
    "ThermalAgc",
    "ThermalConfig",
    "linear_curve",
    "plateau_curve",
]

Curve: TypeAlias = NDArray[np.float32]
Polarity: TypeAlias = Literal["white", "black"]

COUNTS = 65536
MAX_STEP = 16.0
"""Most grey levels that the curve moves at any count from one frame to the next."""
DEAD_BAND = 4.0
"""Grey levels that a proposed curve must differ by before it is followed: noise differs by less."""
SMOOTHING_SECONDS = 0.5
"""Time constant of the curve."""
TAIL = 0.005
"""Share of the pixels at either end that may saturate."""
MAX_GAIN = 1.0
"""Grey levels per count, at most: a flat scene is not stretched until its noise fills the scale."""
PLATEAU = 3.0
"""Where the histogram is cut off, in multiples of its mean."""
SAMPLES = 20_000
"""Pixels that the histogram is taken from, about."""


@dataclass(frozen=True)
class ThermalConfig:
    """How infrared frames become 8-bit ones.

    Raises:
        InputError: a value that is unknown or out of range.
    """

    agc: str = "auto"
    """`auto` (16-bit linear, 8-bit as it is), or one of `CURVES` for both."""
    polarity: Polarity = "white"
    """Which end of the scale is hot in what the camera sends; `black` is turned round, since the models
    expect white = hot."""
    window: tuple[int, int] | None = None
    """Counts that become 0 and 255, in place of any AGC; None: the AGC finds them."""

    def __post_init__(self) -> None:
        if self.agc not in ("auto", *CURVES):
            raise InputError(unknown_name("AGC", self.agc, ["auto", *CURVES]))
        if self.polarity not in get_args(Polarity):
            raise InputError(unknown_name("polarity", self.polarity, get_args(Polarity)))
        if self.window is not None and not 0 <= self.window[0] < self.window[1] < COUNTS:
            raise InputError(f"window {self.window[0]}-{self.window[1]} is not LOW-HIGH within 0-65535")

    @classmethod
    def from_options(cls, options: Mapping[str, str]) -> "ThermalConfig":
        """Read `agc`, `polarity` and `window` (`LOW-HIGH`) from texts.

        Raises:
            InputError: a text that cannot be read, or a value out of range.
        """
        values: dict[str, Any] = dict(options)
        if "window" in values:
            low, _, high = values["window"].partition("-")
            if not (low.isdecimal() and high.isdecimal()):
                raise InputError(f"window {values['window']!r} is not LOW-HIGH in counts, such as 7000-9000")
            values["window"] = (int(low), int(high))
        return cls(**values)


def linear_curve(histogram: NDArray[Any], first: int) -> Curve:
    """Return the straight line between the low and the high tail of a histogram.

    Args:
        histogram: pixels of each count, from count `first` on, `[N]`; not all 0.
        first: count of the first bin.

    Returns:
        Grey level of every count, float32 `[65536]` in 0..255, rising by at most `MAX_GAIN` per count.
    """
    low, high = (first + edge for edge in _tails(histogram))
    gain = min(255.0 / max(high - low, 1), MAX_GAIN)
    line = (np.arange(COUNTS, dtype=np.float32) - (low + high) / 2) * gain + 127.5
    return np.clip(line, 0, 255, out=line)


def plateau_curve(histogram: NDArray[Any], first: int) -> Curve:
    """Return the curve that gives each temperature room by its share of the picture, up to a plateau.

    Arguments and result are those of `linear_curve`.
    """
    low, high = _tails(histogram)
    inside = histogram[low : high + 1]
    bins = min(256, len(inside))
    edges = np.linspace(0, len(inside), bins + 1)
    below = np.concatenate(([0.0], np.cumsum(inside, dtype=np.float64)))
    counts = np.diff(np.interp(edges, np.arange(len(below)), below))
    mean = counts.mean()
    room = np.clip(counts, 0.1 * mean, PLATEAU * mean)
    steps = np.minimum(room / room.sum() * 255.0, MAX_GAIN * np.diff(edges))
    greys = np.concatenate(([0.0], np.cumsum(steps)))
    greys += (255.0 - greys[-1]) / 2
    curve = np.empty(COUNTS, np.float32)
    start, stop = first + low, first + high + 1
    curve[:start] = greys[0]
    curve[start:stop] = np.interp(np.arange(len(inside)) + 0.5, edges, greys)
    curve[stop:] = greys[-1]
    return curve


CURVES: dict[str, Callable[[NDArray[Any], int], Curve]] = {"linear": linear_curve, "plateau": plateau_curve}
"""Name of the AGC → (histogram, its first count) → the curve that it proposes."""


def _tails(histogram: NDArray[Any]) -> tuple[int, int]:
    """Return the bins in which the lower and the upper tail end."""
    below = np.cumsum(histogram)
    tail = TAIL * below[-1]
    return int(np.searchsorted(below, tail, "right")), int(np.searchsorted(below, below[-1] - tail))


class ThermalAgc:
    """Turns the infrared frames of one camera into 8-bit ones, one after the other.

    Args:
        config: which curve and polarity.
    """

    def __init__(self, config: ThermalConfig | None = None) -> None:
        self.config = config or ThermalConfig()
        self.still = StillDetector()
        """Whether the frames stand still, as behind a shutter."""
        self._curve: Curve | None = None
        self._goal: Curve | None = None
        self._table = np.zeros(COUNTS, np.uint8)
        if self.config.window is not None:
            low, high = self.config.window
            line = (np.arange(COUNTS) - low) * (255.0 / (high - low))
            self._use(np.clip(line, 0, 255).astype(np.float32))

    def __call__(self, image: NDArray[Any], timestamp: float) -> Image:
        """Convert one frame.

        Args:
            image: uint8 or uint16, `[H, W]`, or `[H, W, 3]` BGR, whose luma is taken.
            timestamp: of its capture, in seconds; only differences count.

        Returns:
            uint8 `[H, W]`, white = hot.

        Raises:
            InputError: another pixel type or shape.
        """
        image = luma(plain(image))
        seconds, repeated = self.still.update(image, timestamp)
        if image.dtype == np.uint8 and self.config.agc == "auto" and self.config.window is None:
            return cv2.bitwise_not(image) if self.config.polarity == "black" else image
        # Behind the shutter there is nothing to learn about the scene: the curve is held.
        if not repeated and self.config.window is None:
            self._adapt(image, seconds)
        return _look_up(self._table, image)

    def _adapt(self, image: NDArray[Any], seconds: float) -> None:
        """Move the curve towards the one that this frame proposes."""
        step = max(1, math.isqrt(image.size // SAMPLES))
        samples = np.ascontiguousarray(image[::step, ::step]).ravel()
        first = int(samples.min())
        histogram = np.bincount(samples - samples.dtype.type(first))
        proposed = CURVES["linear" if self.config.agc == "auto" else self.config.agc](histogram, first)
        if self._curve is None or self._goal is None:
            self._goal = proposed
            self._use(proposed)
            return
        scene = slice(first, first + len(histogram))
        if np.abs(proposed[scene] - self._goal[scene]).max() > DEAD_BAND:
            self._goal = proposed
        if self._curve is self._goal:
            return
        change = self._goal - self._curve
        if np.abs(change[scene]).max() < 0.5 and np.abs(change).max() <= MAX_STEP:
            self._use(self._goal)
            return
        change *= 1.0 - math.exp(-seconds / SMOOTHING_SECONDS)
        self._use(self._curve + np.clip(change, -MAX_STEP, MAX_STEP, out=change))

    def _use(self, curve: Curve) -> None:
        self._curve = curve
        self._table = cv2.convertScaleAbs(curve).ravel()
        if self.config.polarity == "black":
            self._table = 255 - self._table


def _look_up(table: NDArray[np.uint8], image: NDArray[Any]) -> Image:
    if image.dtype == np.uint8:
        return cv2.LUT(image, table[:256])
    if WIDE_TABLES:
        return cv2.LUT(image, table)
    return table.take(image)


def _has_wide_tables() -> bool:
    """Whether this OpenCV looks 16-bit images up, as from version 5 on, 2.5 times as fast as numpy."""
    try:
        probe = cv2.LUT(np.full((1, 2), 40_000, np.uint16), np.full(COUNTS, 7, np.uint8))
    except cv2.error:
        return False
    return probe.dtype == np.uint8 and bool((probe == 7).all())


WIDE_TABLES = _has_wide_tables()
