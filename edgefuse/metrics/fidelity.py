"""Visual information fidelity in the pixel domain (VIF).

Reference: Sheikh and Bovik, IEEE TIP 15(2), 2006, and its pixel-domain form `vifp_mscale`: four scales with
Gaussian windows of 17, 9, 5 and 3 taps, σ = taps / 5, noise variance 2, valid borders.
For a window of the source with variance v, of the image with variance w, and covariance c ≥ 0, the
explained part is e = c² / v, and the published ratio is Σ log((w + 2) / (w − e + 2)) / Σ log(1 + v / 2).
In this form a logarithm over all pixels is needed once per image and once per pair of images.
"""

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from edgefuse.images import Image
from edgefuse.metrics.bands import Banded, at_least_zero
from edgefuse.metrics.windows import gaussian

__all__ = ["Moments", "explained", "scales_of", "vif"]

TAPS = (17, 9, 5, 3)
NOISE = np.float32(2)
SMALLEST = 41  # the smallest side for which all four scales have a window
# Variances do not depend on a constant offset, their rounding errors do. One constant for all images: where
# the fused image equals the source, the explained part must equal the variance to the last bit.
OFFSET = np.float32(64)
# Relative rounding error of E[x²] − E[x]²; a variance below it is that of a flat window.
FLAT_32, FLAT_64 = 1e-6, 1e-14
TINY = np.float32(1e-20)  # for windows of zeros, whose covariances are exactly 0

Floats: TypeAlias = NDArray[np.floating]


class Moments(NamedTuple):
    """What VIF needs of some rows of windows of an image at one scale; all but the first of one shape."""

    values: Floats
    """The values under the windows."""
    mean: Floats
    variance: Floats
    inverse: Floats
    """1 / variance; in flat windows less, so that no rounding error is taken for information."""
    information: float
    """Σ log(variance + 2) over the windows, nats."""


def vif(source: Image, image: Image) -> float:
    """Return the share of the source's visual information that the image still carries.

    Args:
        source: uint8 `[H, W]`. Below 41 pixels a side is first extended by mirroring to 41.
        image: uint8 `[H, W]`, the image to judge.

    Returns:
        0 (nothing left) to 1 (equal), above 1 for a contrast-enhanced source; 1 for a constant source,
        of which nothing can be lost. Not symmetric.
    """
    return explained(scales_of(image), [scales_of(source)])[0]


def scales_of(image: Image, keep: bool = False) -> list[Banded[Moments]]:
    """Return the part of `vif` that depends on one image only, finest scale first."""
    missing = [max(0, SMALLEST - side) for side in image.shape]
    if any(missing):
        image = cv2.copyMakeBorder(image, 0, missing[0], 0, missing[1], cv2.BORDER_REFLECT_101)
    scales = [_banded(image, TAPS[0], keep)]
    values: Floats = _centred(image)
    for taps in TAPS[1:]:
        # A quarter of the pixels, of a fraction of the variance: here float64 is cheap, and needed.
        values = gaussian(values, taps, step=2).astype(np.float64, copy=False)
        scales.append(_banded(values, taps, keep))
    return scales


def _banded(values: Image | Floats, taps: int, keep: bool) -> Banded[Moments]:
    height, width = (side - taps + 1 for side in values.shape)
    return Banded(height, width, lambda rows: _moments(values[rows.start : rows.stop + taps - 1], taps), keep)


def _moments(values: Image | Floats, taps: int) -> Moments:
    x = _centred(values)
    mean, variance = gaussian(x, taps), gaussian(x * x, taps)
    floor = variance * (FLAT_32 if x.dtype == np.float32 else FLAT_64)
    floor += TINY
    variance -= mean * mean
    variance *= variance > floor
    information = _log_sum(variance + NOISE)
    np.maximum(variance, floor, out=floor)
    return Moments(x, mean, variance, np.divide(1, floor, out=floor), information)


def _centred(values: Image | Floats) -> Floats:
    """Pixels as float32 around 0; the values of coarser scales are already."""
    if values.dtype != np.uint8:
        return cast(Floats, values)
    return np.subtract(values, OFFSET, dtype=np.float32)


def explained(image: Sequence[Banded[Moments]], sources: Sequence[Sequence[Banded[Moments]]]) -> list[float]:
    """Return the VIF of an image for each source."""
    kept, there = [0.0] * len(sources), [0.0] * len(sources)
    for level, taps in enumerate(TAPS):
        for band in range(len(image[level])):
            w = image[level][band]
            for k, source in enumerate(sources):
                v = source[level][band]
                kept[k] += w.information - _left_over(v, w, taps)
                there[k] += v.information - v.mean.size * float(np.log(NOISE))
    return [max(0.0, k / t) if t > 1e-6 else 1.0 for k, t in zip(kept, there, strict=True)]


def _left_over(source: Moments, image: Moments, taps: int) -> float:
    """Σ log(w − e + 2): the information in the image that the source does not explain."""
    part = gaussian(source.values * image.values, taps)
    part -= source.mean * image.mean
    at_least_zero(part)
    part *= part
    part *= source.inverse
    np.minimum(part, image.variance, out=part)  # Cauchy–Schwarz; only rounding can break it
    np.subtract(image.variance, part, out=part)
    part += NOISE
    return _log_sum(part)


def _log_sum(values: Floats) -> float:
    return cv2.sumElems(cv2.log(values))[0]
