"""Visual information fidelity in the pixel domain (VIF).

Reference: Sheikh and Bovik, IEEE TIP 15(2), 2006, and its pixel-domain form `vifp_mscale`: four scales with
Gaussian windows of 17, 9, 5 and 3 taps, σ = taps / 5, noise variance 2, valid borders.
For a window of the source with variance v, of the image with variance w, and covariance c ≥ 0, the
explained part is e = c² / v, and the published ratio is Σ log((w + 2) / (w − e + 2)) / Σ log(1 + v / 2).
In this form a logarithm over all pixels is needed once per image and once per pair of images.
"""

from typing import NamedTuple, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from edgefuse.images import Image
from edgefuse.metrics.bands import at_least_zero, bands
from edgefuse.metrics.windows import gaussian

__all__ = ["Scale", "explained", "scales_of", "vif"]

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


class Scale(NamedTuple):
    """What VIF needs of one image at one scale."""

    values: Floats
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
    return explained(scales_of(source), scales_of(image))


def scales_of(image: Image) -> list[Scale]:
    """Return the part of `vif` that depends on one image only, finest scale first."""
    missing = [max(0, SMALLEST - side) for side in image.shape]
    if any(missing):
        image = cv2.copyMakeBorder(image, 0, missing[0], 0, missing[1], cv2.BORDER_REFLECT_101)
    values = image.astype(np.float32)
    values -= OFFSET
    scales: list[Scale] = []
    for taps in TAPS:
        if scales:
            # A quarter of the pixels, of a fraction of the variance: here float64 is cheap, and needed.
            values = gaussian(values, taps, step=2).astype(np.float64, copy=False)
        scales.append(_scale(values, taps))
    return scales


def _scale(values: Floats, taps: int) -> Scale:
    mean, variance = gaussian(values, taps), gaussian(values * values, taps)
    inverse = np.empty_like(mean)
    flat = FLAT_32 if values.dtype == np.float32 else FLAT_64
    information = 0.0
    for rows in bands(*mean.shape):
        v = variance[rows]
        floor = v * flat
        floor += TINY
        v -= mean[rows] * mean[rows]
        v *= v > floor
        np.divide(1, np.maximum(v, floor, out=floor), out=inverse[rows])
        information += _log_sum(v + NOISE)
    return Scale(values, mean, variance, inverse, information)


def explained(source: list[Scale], image: list[Scale]) -> float:
    """Return the VIF of two prepared images."""
    kept = there = 0.0
    for taps, a, b in zip(TAPS, source, image, strict=True):
        kept += b.information
        there += a.information - a.mean.size * float(np.log(NOISE))
        product = gaussian(a.values * b.values, taps)
        for rows in bands(*product.shape):
            part = product[rows]
            part -= a.mean[rows] * b.mean[rows]
            at_least_zero(part)
            part *= part
            part *= a.inverse[rows]
            np.minimum(part, b.variance[rows], out=part)  # Cauchy–Schwarz; only rounding can break it
            np.subtract(b.variance[rows], part, out=part)
            part += NOISE
            kept -= _log_sum(part)
    return max(0.0, kept / there) if there > 1e-6 else 1.0


def _log_sum(values: Floats) -> float:
    return cv2.sumElems(cv2.log(values))[0]
