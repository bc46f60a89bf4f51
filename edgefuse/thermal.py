"""Infrared pixels of any kind to 8 bits for fusion: an automatic gain control (AGC) that does not flicker.

Infrared that was coloured for people goes back to grey first, if its palette is known.

An AGC for a display spreads the scene over the whole scale. That harms fusion: a cold sky takes the lower
half of the scale, the ground comes out light grey and covers the visible picture. The curve here puts the
ground at a fixed dark grey. What is hotter rises from there, steeply at first and then by the logarithm, so
a chimney does not take the scale from a person; what is colder sinks towards black. Ground and spread are
robust statistics that a hot or cold object cannot move.

Each frame proposes a curve, one grey level for each of the 65,536 counts. The curve in use follows smoothly,
and by at most `MAX_STEP` grey levels a frame at any count: a pixel that keeps its temperature never jumps,
and noise alone does not change the curve at all. A single image is the first frame of a camera.
"""

import math
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from edgefuse.images import Image, luma, plain, read_image, warn_once
from edgefuse.palettes import find_palette, is_coloured, remove_palette
from edgefuse.thermal_config import ThermalConfig

Curve: TypeAlias = NDArray[np.float32]

COUNTS = 65536
GROUND = 40.0
"""Grey level of the ground: darker than a lit road at night, so that the visible picture prevails there."""
KNEE = 6.0
"""Up to about here, in spreads above the ground, the curve is a line; above, a logarithm."""
WHITE_AT = (8.0, 40.0)
"""Spreads above the ground that become white: where the hottest of the scene is, within these limits."""
MAX_GAIN = 1.0
"""Grey levels per count, at most: a flat scene is not stretched until its noise fills the scale."""
MAX_STEP = 16.0
"""Most grey levels that the curve moves at any count from one frame to the next."""
DEAD_BAND = 4.0
"""Grey levels that a proposed curve must differ by before it is followed: noise differs by less."""
SMOOTHING_SECONDS = 0.5
"""Time constant of the curve."""
WHITE_SECONDS = 5.0
"""Time constant of the white end and of the ground's spread: slow, so that what comes into view does not
change the ground's contrast."""
NEAR_GROUND = 5.0
"""The ground is looked for within so many spreads of where it was, …"""
GROUND_SHARE = 0.15
"""… as long as this share of the picture is there, …"""
LOST_SECONDS = 3.0
"""… or until the median of the picture has been elsewhere for so long."""
TAIL = 0.002
"""Share of the hottest pixels that may saturate; with `linear` 0.005 at either end."""
TELEMETRY_ROWS = 8
"""Rows at the top and at the bottom that may hold a camera's telemetry instead of pixels."""
SAMPLES = 20_000
"""Pixels that are looked at, about."""


class Ground(NamedTuple):
    """What a picture's curve follows from, in counts."""

    level: float
    """Median of the ground."""
    spread: float
    """Median absolute deviation from it."""
    hottest: float
    """What all but `TAIL` of the pixels stay below."""


class Samples:
    """The pixels of a frame that the curve follows from: those that are measurements.

    Left out are 0 and the largest value (what registration and cameras put where there is no measurement) and
    rows of telemetry. Lower rows count more than upper ones: the sky is above.

    Args:
        image: uint8 or uint16, `[H, W]`.
    """

    def __init__(self, image: NDArray[Any]) -> None:
        top, bottom = _telemetry(image)
        step = max(1, math.isqrt(image.size // SAMPLES))
        picture = image[top : len(image) - bottom : step, ::step]
        valid = (picture != 0) & (picture != np.iinfo(image.dtype).max)
        if not valid.any():
            valid[:] = True
        values = picture[valid]
        self.first = int(values.min())
        """Count of the first bin."""
        bins = values - values.dtype.type(self.first)
        rows = np.broadcast_to(np.linspace(0.05, 1.0, len(picture))[:, None], picture.shape)
        self.pixels: NDArray[np.int64] = np.bincount(bins)
        """Pixels of each count from `first` on, `[N]`."""
        self.weights: NDArray[np.float64] = np.bincount(bins, rows[valid]).astype(np.float64)
        """The same, each pixel weighted by its row."""

    @property
    def scene(self) -> slice:
        """The counts that occur."""
        return slice(self.first, self.first + len(self.pixels))

    def ground(self) -> Ground:
        """Return the ground of the whole picture: its median, then the median of what is near that."""
        found = self.ground_near(None)
        assert found is not None
        for _ in range(2):
            found = self.ground_near(found) or found
        return found

    def ground_near(self, last: Ground | None) -> Ground | None:
        """Return the ground near where it was; None: too little of the picture is there."""
        weights, start = self.weights, 0
        if last is not None:
            reach = NEAR_GROUND * max(last.spread, 1.0)
            start = max(0, math.floor(last.level - reach) - self.first)
            weights = weights[start : max(0, math.ceil(last.level + reach) - self.first + 1)]
            if weights.sum() < GROUND_SHARE * self.weights.sum():
                return None
        median = _quantile(weights, 0.5)
        around = np.abs(np.arange(len(weights)) - median)
        spread = _quantile(np.bincount(around, weights), 0.5)
        hottest = _quantile(self.pixels, 1.0 - TAIL)
        return Ground(self.first + start + median, spread, self.first + hottest)


def _telemetry(image: NDArray[Any]) -> tuple[int, int]:
    """Return how many rows at the top and at the bottom differ from the picture as no scene does."""
    if len(image) < 8 * TELEMETRY_ROWS:
        return 0, 0
    middle = image[:: max(1, len(image) // 32)].astype(np.float32)
    usual = max(float(np.abs(np.diff(middle, axis=0)).mean()), 1.0)

    def rows(edge: NDArray[Any]) -> int:
        steps = np.abs(np.diff(edge.astype(np.float32), axis=0)).mean(axis=1)
        return int(np.flatnonzero(steps > 4 * usual).max(initial=-1)) + 1

    return rows(image[: TELEMETRY_ROWS + 1]), rows(image[: -TELEMETRY_ROWS - 2 : -1])


def _quantile(histogram: NDArray[Any], share: float) -> int:
    """Return the bin in which a share of the weight is reached."""
    below = np.cumsum(histogram)
    return min(int(np.searchsorted(below, share * below[-1])), len(below) - 1)


def fusion_curve(ground: Ground, white_at: float | None = None) -> Curve:
    """Return the curve that shows the ground at `GROUND`.

    Args:
        ground: of the picture.
        white_at: spreads above the ground that become white; None: where the hottest is, see `WHITE_AT`.

    Returns:
        Grey level of every count, float32 `[65536]` in 0..255, rising by at most `MAX_GAIN` per count.
    """
    spread = max(ground.spread, 1.0)
    white_at = white_at_of(ground) if white_at is None else white_at
    # asinh: a line up to about KNEE spreads, the logarithm above.
    rise = (255.0 - GROUND) / math.asinh(white_at / KNEE)
    slope = min(rise / (KNEE * spread), MAX_GAIN)
    away = np.arange(COUNTS, dtype=np.float32) - np.float32(ground.level)
    hotter = np.arcsinh(np.maximum(away, 0) * np.float32(slope / rise)) * np.float32(rise)
    colder = np.exp(np.minimum(away, 0) * np.float32(slope / GROUND)) * np.float32(GROUND)
    return np.minimum(hotter + colder, np.float32(255))


def white_at_of(ground: Ground) -> float:
    """Return how many spreads above the ground the hottest is, within `WHITE_AT`."""
    return min(max((ground.hottest - ground.level) / max(ground.spread, 1.0), WHITE_AT[0]), WHITE_AT[1])


def linear_curve(samples: Samples) -> Curve:
    """Return the straight line between the coldest and the hottest half percent; see `fusion_curve`."""
    low, high = (samples.first + _quantile(samples.pixels, share) for share in (0.005, 0.995))
    gain = min(255.0 / max(high - low, 1), MAX_GAIN)
    line = (np.arange(COUNTS, dtype=np.float32) - (low + high) / 2) * gain + 127.5
    return np.clip(line, 0, 255, out=line)


class ThermalAgc:
    """Turns the infrared frames of one camera into 8-bit ones, one after the other.

    Args:
        config: AGC, polarity and window.
        name: of the camera or folder, for warnings.
    """

    def __init__(self, config: ThermalConfig | None = None, name: str = "infrared") -> None:
        self.config = config or ThermalConfig()
        self._name = name
        self._palette: str | None = None  # None: no frame has shown it yet
        self._curve: Curve | None = None
        self._goal: Curve | None = None
        self._ground: Ground | None = None
        self._white_at = 0.0
        self._elsewhere = 0.0  # seconds for which the median of the picture has been off the ground
        self._table = np.zeros(COUNTS, np.uint8)

    def __call__(self, image: NDArray[Any], seconds: float = 0.0, *, hold: bool = False) -> Image:
        """Convert one frame.

        Args:
            image: uint8 or uint16, int16 or float32 (temperatures), `[H, W]`, or `[H, W, 3]` BGR, see `grey`.
            seconds: since the frame before.
            hold: use the curve as it is.

        Returns:
            uint8 `[H, W]`, white = hot.

        Raises:
            InputError: another pixel type or shape.
        """
        image = self.grey(image)
        if self.config.window is not None:
            grey = _through_window(image, self.config.window)
        elif image.dtype == np.uint8 and self.config.agc == "auto":
            grey = image
        else:
            counts = counts_of(image)
            if self.config.polarity == "black":
                counts = cv2.bitwise_not(counts)
            if not hold or self._curve is None:
                self._adapt(Samples(counts), seconds)
            return _look_up(self._table, counts)
        return cv2.bitwise_not(grey) if self.config.polarity == "black" else grey

    def grey(self, image: NDArray[Any]) -> NDArray[Any]:
        """Return one channel: of colours their place in the palette, where that is a known one, else luma.

        The first frame of which the palette is certain decides for all that follow: a cold one may be black.

        Raises:
            InputError: a pixel type or shape that is not supported.
        """
        image = plain(image, measured=True)
        if image.ndim == 2:
            return image
        if self._palette is None and image.dtype == np.uint8 and is_coloured(image):
            self._palette = find_palette(image)
            if self._palette is None:
                warn_once(
                    self._name,
                    "infrared is coloured with an unknown palette, or with colours that are hot in one "
                    "palette and cold in another: using its brightness, which is wrong where hot is not "
                    "bright. Set the camera or the export to white = hot; or are the cameras swapped?",
                )
        if self._palette is not None and image.dtype == np.uint8:
            warn_once(self._name, f"infrared is coloured: removing its palette {self._palette!r}")
            return remove_palette(image, self._palette)
        return luma(image)

    def _adapt(self, samples: Samples, seconds: float) -> None:
        """Move the curve towards the one that this frame proposes."""
        if self.config.agc == "linear":
            proposed = linear_curve(samples)
        else:
            ground = self._track(samples, seconds)
            white_at = white_at_of(ground)
            if self._curve is not None:
                white_at = self._white_at + (white_at - self._white_at) * _covered(seconds, WHITE_SECONDS)
            self._white_at = white_at
            proposed = fusion_curve(ground, white_at)
        if self._curve is None or self._goal is None:
            self._goal = proposed
            self._use(proposed)
            return
        scene = samples.scene
        if np.abs(proposed[scene] - self._goal[scene]).max() > DEAD_BAND:
            self._goal = proposed
        if self._curve is self._goal:
            return
        change = self._goal - self._curve
        if np.abs(change[scene]).max() < 0.5 and np.abs(change).max() <= MAX_STEP:
            self._use(self._goal)
            return
        change *= np.float32(_covered(seconds, SMOOTHING_SECONDS))
        self._use(self._curve + np.clip(change, -MAX_STEP, MAX_STEP, out=change))

    def _track(self, samples: Samples, seconds: float) -> Ground:
        """Return the ground: near where it was, whatever else comes into view; anew if it is lost."""
        whole = samples.ground()
        near = None if self._ground is None else samples.ground_near(self._ground)
        if near is not None and self._ground is not None:
            off = abs(whole.level - self._ground.level) > NEAR_GROUND * max(self._ground.spread, 1.0)
            self._elsewhere = self._elsewhere + seconds if off else 0.0
            # Slowly: evenly warm asphalt, for a moment alone in view, must not have its grain fill the scale.
            change = (near.spread - self._ground.spread) * _covered(seconds, WHITE_SECONDS)
            near = near._replace(spread=self._ground.spread + change)
        if near is None or self._elsewhere > LOST_SECONDS:
            near = whole
            self._elsewhere = 0.0
        self._ground = near
        return near

    def _use(self, curve: Curve) -> None:
        self._curve = curve
        self._table = cv2.convertScaleAbs(curve).ravel()


def as_infrared(image: NDArray[Any], config: ThermalConfig | None = None, name: str = "infrared") -> Image:
    """Return an infrared image of any pixel type that `ThermalAgc` takes as uint8 `[H, W]`, white = hot."""
    return ThermalAgc(config, name)(image)


def read_infrared(path: str | Path, config: ThermalConfig | None = None) -> Image:
    """Read an infrared image as uint8 `[H, W]`, white = hot; see `read_image` and `as_infrared`."""
    return as_infrared(read_image(path, "ir"), config, str(Path(path).parent))


def counts_of(image: NDArray[Any]) -> NDArray[Any]:
    """Return measured values as counts, where one count is the same difference everywhere.

    Args:
        image: `[H, W]`, uint8 or uint16 (returned as they are), int16, or int32 and floats: temperatures in
            °C or K, or any other values. NaN and what lies far outside are no measurement.

    Returns:
        uint8 or uint16; 0 where there is no measurement.
    """
    if image.dtype in (np.uint8, np.uint16):
        return image
    if image.dtype == np.int16:
        return (image.astype(np.int32) + 32768).astype(np.uint16)
    valid = np.isfinite(image) & (np.abs(image) < 1e6)
    # Many programs write -9999 or less where nothing was measured.
    valid &= (image > -1000) | (np.count_nonzero(image[valid] > -1000) * 2 < image.size)
    values = image[valid].astype(np.float64)
    counts = np.zeros(image.shape, np.uint16)
    if values.size:
        low, high = float(values.min()), float(values.max())
        if low >= 0.0 and high <= 1.0:
            values = 1.0 + values * 65000.0
        elif low >= -273.15 and high <= 3000.0:
            # Hundredths of a kelvin, as thermal cameras count; twentieths where those do not fit.
            values = (values + (273.15 if low < 150.0 else 0.0)) * (100.0 if high <= 380.0 else 20.0)
        elif low < 0.0 or high > 65535.0:
            values = 1.0 + (values - low) * (65000.0 / (high - low))
        counts[valid] = np.rint(np.clip(values, 0, 65535)).astype(np.uint16)
    return counts


def _through_window(image: NDArray[Any], window: tuple[float, float]) -> Image:
    low, high = window
    scale = 255.0 / (high - low)
    if image.dtype in (np.uint8, np.uint16):
        values = (np.arange(int(np.iinfo(image.dtype).max) + 1) - low) * scale
        return _look_up(np.rint(np.clip(values, 0, 255)).astype(np.uint8), image)
    return np.rint(np.clip((np.nan_to_num(image.astype(np.float32), nan=low) - low) * scale, 0, 255)).astype(
        np.uint8
    )


def _covered(seconds: float, constant: float) -> float:
    """Return the share of the way that is covered in a time, by a time constant."""
    return 1.0 - math.exp(-seconds / constant)


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
