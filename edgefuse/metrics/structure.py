"""Structural similarity (SSIM) with a 7×7 uniform window.

Reference: Wang, Bovik, Sheikh, Simoncelli, IEEE TIP 13(4), 2004, in the form that the field's evaluators
call: sample covariance, windows that lie wholly inside the image, K1 = 0.01, K2 = 0.03.
The sums of a window are exact integers here. With the data range of 2 that published figures carry,
C2 is 0.0036, below what float32 leaves of a variance next to a mean of 255².
"""

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from edgefuse.images import Image

__all__ = ["WindowSums", "similarity", "ssim", "window_sums"]

SIDE = 7
COUNT = SIDE * SIDE
SCALE = COUNT * (COUNT - 1)  # sample variance = (COUNT·Σx² − (Σx)²) / SCALE


class WindowSums(NamedTuple):
    """What SSIM needs of one image; all arrays are `[H - 6, W - 6]`."""

    image: Image
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
    return similarity(window_sums(a), window_sums(b), data_range)


def window_sums(image: Image) -> WindowSums:
    """Return the part of `ssim` that depends on one image only."""
    total = _inside(cv2.boxFilter(image, cv2.CV_32S, (SIDE, SIDE), normalize=False))
    squares = np.multiply(image, image, dtype=np.uint16)
    variance = _inside(cv2.boxFilter(squares, cv2.CV_32S, (SIDE, SIDE), normalize=False)) * np.int32(COUNT)
    square = total * total
    variance -= square
    return WindowSums(image, total, square, variance.astype(np.float32))


def similarity(a: WindowSums, b: WindowSums, data_range: float) -> float:
    """Return the SSIM of two prepared images."""
    c1 = np.float32((0.01 * data_range) ** 2 * COUNT**2)
    c2 = np.float32((0.03 * data_range) ** 2 * SCALE)
    products = np.multiply(a.image, b.image, dtype=np.uint16)
    covariance = _inside(cv2.boxFilter(products, cv2.CV_32S, (SIDE, SIDE), normalize=False)) * np.int32(COUNT)
    means = a.total * b.total
    covariance -= means
    score = _twice_plus(means, c1)
    score *= _twice_plus(covariance, c2)
    below = (a.square + b.square).astype(np.float32)
    below += c1
    score /= below
    np.add(a.variance, b.variance, out=below)
    below += c2
    score /= below
    return float(cv2.sumElems(score)[0] / score.size)


def _twice_plus(values: NDArray[np.int32], constant: np.float32) -> NDArray[np.float32]:
    result = values.astype(np.float32)
    result *= np.float32(2)
    result += constant
    return result


def _inside(sums: NDArray[np.int32]) -> NDArray[np.int32]:
    margin = SIDE // 2
    return sums[margin:-margin, margin:-margin]
