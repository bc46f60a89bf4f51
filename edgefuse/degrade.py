"""Known ways to degrade an input: sensor noise, blur, misalignment, exposure, infrared level and polarity.

Pure functions on uint8 images; what is random follows from the seed alone. `DEGRADATIONS` has one setting of
each by name, for measuring how much of a fusion's quality survives.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from edgefuse.images import Image

COLUMNS: Final = 10.0
GRAIN: Final = 15.0
TONE: Final = 2 / 3
"""Measured on a recording of an uncooled 640x480 camera that there is with and without noise. Between the two
lies a tone curve, close to a power of 2/3 of the grey level, which lifts dark ground above much of the
visible image: of what the noisy frames cost the pixel-wise maximum in VIF, noise alone gives two thirds. The
rest is white noise across the columns (10 grey levels, the same in frames that follow each other) plus white
noise in every pixel (15, most of it new in each frame); Gaussian, about as strong in dark parts as in bright
ones."""

DIRECTIONS: Final = ((1, 0), (0, 1), (-1, 0), (0, -1))
PLATEAU: Final = 0.01


def sensor_noise(ir: Image, seed: int, columns: float = COLUMNS, grain: float = GRAIN) -> Image:
    """Add the noise of an uncooled infrared sensor: stripes, one level a column, and grain.

    Args:
        ir: uint8 `[H, W]`.
        seed: of the noise; equal seeds give equal noise for images of one size.
        columns: standard deviation of the stripes, grey levels.
        grain: standard deviation of the grain, grey levels.
    """
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal(ir.shape, np.float32) * np.float32(grain)
    noise += rng.standard_normal(ir.shape[1], np.float32) * np.float32(columns)
    return _to_uint8(noise + ir)


def tone(ir: Image, exponent: float = TONE) -> Image:
    """Apply a power of the grey level, of 0..1: below 1 lifts the dark parts. uint8 `[H, W]`."""
    return cv2.LUT(ir, _to_uint8(255 * (np.arange(256) / 255) ** exponent))


def blur(image: Image, sigma: float = 1.5) -> Image:
    """Blur by a Gaussian of `sigma` pixels: a lens out of focus. uint8 `[H, W]` or `[H, W, 3]`."""
    return cv2.GaussianBlur(image, (0, 0), sigma)


def shift(image: Image, right: int, down: int) -> Image:
    """Move the content by whole pixels, which adds no blur; the border is repeated into the gap.

    Args:
        image: uint8 `[H, W]` or `[H, W, 3]`.
        right: pixels to the right; negative: to the left.
        down: pixels down; negative: up.
    """
    height, width = image.shape[:2]
    rows = np.clip(np.arange(height) - down, 0, height - 1)
    columns = np.clip(np.arange(width) - right, 0, width - 1)
    return image[rows[:, None], columns]


def level(ir: Image, gain: float = 1.0, offset: float = 0.0, gamma: float = 1.0) -> Image:
    """Show the same infrared scene at another brightness, as another camera's gain control would.

    Args:
        ir: uint8 `[H, W]`.
        gain: factor of the grey level.
        offset: grey levels added afterwards.
        gamma: exponent of the grey level, of 0..1, before both.
    """
    return cv2.LUT(ir, _to_uint8(255 * (np.arange(256) / 255) ** gamma * gain + offset))


def exposure(vis: Image, stops: float) -> Image:
    """Expose differently: light times 2^stops, through a display curve with exponent 2.2, clipped at white.

    Args:
        vis: uint8 `[H, W]` or `[H, W, 3]`.
        stops: above 0 brighter, below 0 darker.
    """
    return cv2.LUT(vis, _to_uint8(np.arange(256) * 2 ** (stops / 2.2)))


def agc(ir: Image, plateau: float = PLATEAU) -> Image:
    """Apply the automatic gain of an infrared camera: histogram equalisation with limited slope.

    Each grey level counts for at most a share `plateau` of the pixels, so that a large uniform background
    cannot take all of the output range. Reference: Vickers, Optical Engineering 35(7), 1996.

    Args:
        ir: uint8 `[H, W]`.
        plateau: share of the pixels, above 0.
    """
    counts = np.minimum(np.bincount(ir.ravel(), minlength=256), max(1.0, plateau * ir.size))
    below = np.cumsum(counts)
    first = counts[ir.min()]  # the darkest level present becomes 0
    return cv2.LUT(ir, _to_uint8(255 * (below - first) / max(below[-1] - first, 1)))


def polarity(ir: Image) -> Image:
    """Turn white-hot into black-hot and back. uint8 `[H, W]`."""
    return cv2.bitwise_not(ir)


LEVEL_CHANGES: Final[dict[str, dict[str, float]]] = {
    "level+40": {"offset": 40},
    "level-40": {"offset": -40},
    "gain*0.5": {"gain": 0.5, "offset": 64},
    "gamma0.5": {"gamma": 0.5},
    "gamma2": {"gamma": 2},
}
"""Arguments of `level`, by name. They change how bright infrared happens to be, and nothing in the scene."""


@dataclass(frozen=True)
class Degradation:
    """A named way to degrade a pair."""

    name: str
    summary: str
    apply: Callable[[Image, Image, int], tuple[Image, Image]]
    """(infrared, visible, seed) → (infrared, visible); uint8 of the same sizes."""


def _shifted(ir: Image, vis: Image, seed: int) -> tuple[Image, Image]:
    right, down = DIRECTIONS[seed % len(DIRECTIONS)]
    return shift(ir, 2 * right, 2 * down), vis


def _levelled(ir: Image, vis: Image, _seed: int, change: dict[str, float]) -> tuple[Image, Image]:
    return level(ir, **change), vis


def _in_words(change: dict[str, float]) -> str:
    if gamma := change.get("gamma"):
        return f"infrared to the power of {gamma:g}"
    offset = f"{'plus' if change['offset'] > 0 else 'minus'} {abs(change['offset']):g} grey levels"
    return f"infrared times {change['gain']:g} {offset}" if "gain" in change else f"infrared {offset}"


DEGRADATIONS: dict[str, Degradation] = {
    degradation.name: degradation
    for degradation in (
        Degradation(
            "noise",
            "infrared as noisy as an uncooled sensor gives it, and as bright in the dark",
            lambda ir, vis, seed: (sensor_noise(tone(ir), seed), vis),
        ),
        Degradation(
            "blur", "both cameras out of focus by 1.5 pixels", lambda ir, vis, _: (blur(ir), blur(vis))
        ),
        Degradation("shift", "infrared 2 pixels off, to one of four sides", _shifted),
        Degradation("dark", "visible exposed 2 stops less", lambda ir, vis, _: (ir, exposure(vis, -2))),
        Degradation("bright", "visible exposed 2 stops more", lambda ir, vis, _: (ir, exposure(vis, 2))),
        Degradation("agc", "infrared after another automatic gain", lambda ir, vis, _: (agc(ir), vis)),
        *(
            Degradation(name, _in_words(change), partial(_levelled, change=change))
            for name, change in LEVEL_CHANGES.items()
        ),
        Degradation("polarity", "infrared black-hot", lambda ir, vis, _: (polarity(ir), vis)),
    )
}


def _to_uint8(values: NDArray[Any]) -> Image:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)
