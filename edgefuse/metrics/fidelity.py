"""Visual information fidelity in the pixel domain (VIF).

Reference: Sheikh and Bovik, IEEE TIP 15(2), 2006, and its pixel-domain form `vifp_mscale`: four scales with
Gaussian windows of 17, 9, 5 and 3 taps, σ = taps / 5, noise variance 2, valid borders.
For a window of the source with variance v, of the image with variance w, and covariance c ≥ 0, the
explained part is e = c² / v, and the published ratio is Σ log((w + 2) / (w − e + 2)) / Σ log(1 + v / 2).
In this form a logarithm over all pixels is needed once per image and once per pair of images.
"""

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from edgefuse.images import Image

__all__ = ["Scale", "explained", "scales_of", "vif"]

TAPS = (17, 9, 5, 3)
NOISE = 2.0
SMALLEST = 41  # the smallest side for which all four scales have a window
# Relative rounding error of E[x²] − E[x]² in float32; a variance below it is that of a flat window.
FLAT = np.float32(1e-6)

Floats = NDArray[np.float32]


class Scale(NamedTuple):
    """What VIF needs of one image at one scale."""

    values: Floats
    mean: Floats
    variance: Floats
    inverse: Floats
    """1 / variance, 0 in flat windows."""
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
    # Variances do not depend on a constant offset, their rounding errors do.
    values = image.astype(np.float32)
    values -= np.float32(round(cv2.mean(image)[0]))
    scales: list[Scale] = []
    for taps in TAPS:
        if scales:
            values = np.ascontiguousarray(_smooth(values, taps)[::2, ::2])
        mean = _smooth(values, taps)
        variance = _smooth(values * values, taps)
        floor = variance * FLAT
        variance -= mean * mean
        np.maximum(variance, 0, out=variance)
        inverse = np.zeros_like(variance)
        np.divide(1, variance, out=inverse, where=variance > floor)
        scales.append(Scale(values, mean, variance, inverse, _log_sum(variance + np.float32(NOISE))))
    return scales


def explained(source: list[Scale], image: list[Scale]) -> float:
    """Return the VIF of two prepared images."""
    kept = there = 0.0
    for taps, a, b in zip(TAPS, source, image, strict=True):
        part = _smooth(a.values * b.values, taps)
        part -= a.mean * b.mean
        np.maximum(part, 0, out=part)
        part *= part
        part *= a.inverse
        np.minimum(part, b.variance, out=part)  # Cauchy–Schwarz; only rounding can break it
        np.subtract(b.variance, part, out=part)
        part += np.float32(NOISE)
        kept += b.information - _log_sum(part)
        there += a.information - part.size * float(np.log(NOISE))
    return max(0.0, kept / there) if there > 1e-6 else 1.0


def _smooth(values: Floats, taps: int) -> Floats:
    """Gaussian mean of every window that lies wholly inside."""
    kernel = cv2.getGaussianKernel(taps, taps / 5, cv2.CV_32F)
    margin = taps // 2
    return cv2.sepFilter2D(values, cv2.CV_32F, kernel, kernel)[margin:-margin, margin:-margin]


def _log_sum(values: Floats) -> float:
    return cv2.sumElems(cv2.log(values))[0]
