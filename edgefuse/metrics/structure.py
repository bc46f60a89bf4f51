"""Structural similarity (SSIM) with a 7×7 uniform window.

Reference: Wang, Bovik, Sheikh, Simoncelli, IEEE TIP 13(4), 2004, in the form that the field's evaluators
call: sample covariance, windows that lie wholly inside the image, K1 = 0.01, K2 = 0.03.
The sums of a window are exact integers here. With the data range of 2 that published figures carry,
C2 is 0.0036, below what float32 leaves of a variance next to a mean of 255².
"""

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from edgefuse.images import Image
from edgefuse.metrics.bands import Banded

__all__ = ["WindowSums", "similarity", "ssim", "window_sums"]

SIDE = 7
COUNT = SIDE * SIDE
SCALE = COUNT * (COUNT - 1)  # sample variance = (COUNT·Σx² − (Σx)²) / SCALE


class WindowSums(NamedTuple):
    """What SSIM needs of some rows of windows of an image; arrays but the first are `[rows, W - 6]`."""

    image: Image
    """The pixels under the windows, `[rows + 6, W]`."""
    total: NDArray[np.int32]
    """Σx of each window."""
    square: NDArray[np.int32]
    """(Σx)²."""
    variance: NDArray[np.float32]
    """49·Σx² − (Σx)², exact up to the final rounding."""


def ssim(a: Image, b: Image, data_range: float = 2.0) -> float:
    """Return the mean structural similarity of two images.

    Args:
        a: uint8 `[H, W]`, at least 7×7.
        b: uint8 `[H, W]`.
        data_range: L of C1 = (0.01·L)² and C2 = (0.03·L)². 2 is the accident of published figures
            (values in 0..255, constants for -1..1), 255 is what the definition asks for.

    Returns:
        -1 to 1, 1 only for equal images; symmetric.
    """
    return similarity(window_sums(a), [window_sums(b)], data_range)[0]


def window_sums(image: Image, keep: bool = False) -> Banded[WindowSums]:
    """Return the part of `ssim` that depends on one image only."""
    height, width = (side - SIDE + 1 for side in image.shape)
    return Banded(height, width, lambda rows: _window_sums(image[rows.start : rows.stop + SIDE - 1]), keep)


def _window_sums(image: Image) -> WindowSums:
    total = np.ascontiguousarray(_sums(image))
    square = total * total
    variance = _sums(np.multiply(image, image, dtype=np.uint16)) * np.int32(COUNT)
    variance -= square
    return WindowSums(image, total, square, variance.astype(np.float32))


def similarity(
    image: Banded[WindowSums], others: Sequence[Banded[WindowSums]], data_range: float
) -> list[float]:
    """Return the SSIM of an image with each of the others."""
    c1 = np.float32((0.01 * data_range) ** 2 * COUNT**2)
    c2 = np.float32((0.03 * data_range) ** 2 * SCALE)
    totals, windows = [0.0] * len(others), 0
    for band in range(len(image)):
        a = image[band]
        windows += a.total.size
        for k, other in enumerate(others):
            totals[k] += _similarity(a, other[band], c1, c2)
    return [total / windows for total in totals]


def _similarity(a: WindowSums, b: WindowSums, c1: np.float32, c2: np.float32) -> float:
    """Sum of the windows' SSIM."""
    means = a.total * b.total
    covariance = _sums(np.multiply(a.image, b.image, dtype=np.uint16)) * np.int32(COUNT)
    covariance -= means
    score = _twice_plus(means, c1)
    score *= _twice_plus(covariance, c2)
    below = np.add(a.square, b.square, out=means).astype(np.float32)
    below += c1
    variances = a.variance + b.variance
    variances += c2
    below *= variances
    score /= below
    return cv2.sumElems(score)[0]


def _sums(values: NDArray[np.uint8] | NDArray[np.uint16]) -> NDArray[np.int32]:
    """Sum of every window that lies wholly inside."""
    inside = slice(SIDE // 2, -(SIDE // 2))
    return cv2.boxFilter(values, cv2.CV_32S, (SIDE, SIDE), normalize=False)[inside, inside]


def _twice_plus(values: NDArray[np.int32], constant: np.float32) -> NDArray[np.float32]:
    result = values.astype(np.float32)
    result *= np.float32(2)
    result += constant
    return result
