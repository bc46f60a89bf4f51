"""Visual information fidelity in the pixel domain (VIF).

Reference: Sheikh and Bovik, IEEE TIP 15(2), 2006, and its pixel-domain form `vifp_mscale`: four scales with
Gaussian windows of 17, 9, 5 and 3 taps, σ = taps / 5, noise variance 2, valid borders.
For a window of the source with variance v, of the image with variance w, and covariance c ≥ 0, the
explained part is e = c² / v, and the published ratio is Σ log((w + 2) / (w − e + 2)) / Σ log(1 + v / 2).
In this form a logarithm over all pixels is needed once per image and once per pair of images.
Variances and covariances are kept with the opposite sign, mean·mean − E[x·y], which OpenCV's accumulating
functions give in one pass.
"""

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from edgefuse.images import Image
from edgefuse.metrics.windows import Banded, gaussian

TAPS = (17, 9, 5, 3)
NOISE = np.float32(2)
SMALLEST = 41  # the smallest side for which all four scales have a window
# Relative rounding error of E[x²] − E[x]²; a variance below it is that of a flat window.
FLAT = np.float32(1e-6)

LEAST = float(np.log(1 + 1 / 24))
"""Nats per window, the information in a variance of 1/12: what rounding to whole grey levels alone would add.
A source with less on average is as good as constant, and the ratio to so little would say nothing."""

Floats: TypeAlias = NDArray[np.float32]


class Moments(NamedTuple):
    """What VIF needs of some rows of windows of an image at one scale; all but the first of one shape."""

    values: Floats
    """The values under the windows."""
    minus_mean: Floats
    minus_variance: Floats
    """0 in flat windows."""
    minus_divisor: Floats
    """The same; in flat windows so far below 0 that no rounding error is taken for information."""
    spread: Floats
    """Variance + 2."""
    information: float
    """Σ log(variance + 2) over the windows, nats."""


def vif(source: Image, image: Image) -> float:
    """Return the share of the source's visual information that the image still carries.

    Args:
        source: uint8 `[H, W]`. Below 41 pixels a side is first extended by mirroring to 41.
        image: uint8 `[H, W]`, the image to judge.

    Returns:
        0 (nothing left) to 1 (equal), above 1 for a contrast-enhanced source; at most the information of the
        image by that of the source. Undefined, and 0, for a source that has hardly any (`LEAST`).
        Not symmetric.
    """
    return explained(scales_of(image), [scales_of(source)])[0]


def scales_of(image: Image, keep: bool = False) -> list[Banded[Moments]]:
    """Return the part of `vif` that depends on one image only, finest scale first."""
    missing = [max(0, SMALLEST - side) for side in image.shape]
    if any(missing):
        image = cv2.copyMakeBorder(image, 0, missing[0], 0, missing[1], cv2.BORDER_REFLECT_101)
    values = _centred(image)
    scales: list[Banded[Moments]] = []
    for taps in TAPS:
        if scales:
            values = gaussian(values, taps, step=2)
        scales.append(_banded(values, taps, keep))
    return scales


def _centred(image: Image) -> Floats:
    """Pixels around 0, which no variance depends on but its rounding error does.

    The half keeps every mean square above 0.
    """
    values = image.astype(np.float32)
    values -= np.float32(round(cv2.mean(image)[0]) + 0.5)
    return values


def _banded(values: Floats, taps: int, keep: bool) -> Banded[Moments]:
    height, width = (side - taps + 1 for side in values.shape)
    return Banded(height, width, lambda rows: _moments(values[rows.start : rows.stop + taps - 1], taps), keep)


def _moments(x: Floats, taps: int) -> Moments:
    mean, minus = gaussian(x, taps, sign=-1), gaussian(np.square(x), taps, sign=-1)
    divisor = minus * FLAT
    cv2.accumulateSquare(mean, minus)
    minus = cv2.copyTo(minus, np.less(minus, divisor).view(np.uint8))  # 0 elsewhere
    np.minimum(minus, divisor, out=divisor)
    spread = NOISE - minus
    return Moments(x, mean, minus, divisor, spread, _log_sum(spread))


def explained(image: Sequence[Banded[Moments]], sources: Sequence[Sequence[Banded[Moments]]]) -> list[float]:
    """Return the VIF of an image for each source."""
    kept, there, windows = [0.0] * len(sources), [0.0] * len(sources), 0
    for level, taps in enumerate(TAPS):
        for band in range(len(image[level])):
            w = image[level][band]
            windows += w.spread.size
            for k, source in enumerate(sources):
                v = source[level][band]
                kept[k] += w.information - _left_over(v, w, taps)
                there[k] += v.information
    there = [t - windows * float(np.log(NOISE)) for t in there]
    return [max(0.0, k / t) if t >= LEAST * windows else 0.0 for k, t in zip(kept, there, strict=True)]


def _left_over(source: Moments, image: Moments, taps: int) -> float:
    """Σ log(w − e + 2): the information in the image that the source does not explain."""
    part = gaussian(source.values * image.values, taps, sign=-1)
    cv2.accumulateProduct(source.minus_mean, image.minus_mean, part)
    cv2.threshold(part, 0, 0, cv2.THRESH_TRUNC, part)
    np.square(part, out=part)
    part /= source.minus_divisor
    np.maximum(part, image.minus_variance, out=part)  # Cauchy–Schwarz; only rounding can break it
    part += image.spread
    return _log_sum(part)


def _log_sum(values: Floats) -> float:
    """Σ log of values of 2 to 2¹⁴, the largest variance of 8 bits. A product of eight is still a float32."""
    rows = len(values) // 8
    products = np.multiply.reduce(values[: 8 * rows].reshape(8, rows, values.shape[1]), axis=0)
    return sum(cv2.sumElems(cv2.log(part))[0] for part in (products, values[8 * rows :]) if part.size)
