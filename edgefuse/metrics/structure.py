"""Structural similarity (SSIM) with a 7×7 uniform window.

Reference: Wang, Bovik, Sheikh, Simoncelli, IEEE TIP 13(4), 2004, in the form that the field's evaluators
call: sample covariance, windows that lie wholly inside the image, K1 = 0.01, K2 = 0.03.
With the data range of 2 that published figures carry, C2 is 0.0036, below what float32 leaves of a variance
next to a mean of 255². So the pixels are taken around the image's mean grey level: the sums of a window are
then integers that float32 holds exactly, and so are their products while the window's own mean is within 83
grey levels of it. Beyond that, 49·Σxy and Σx·Σy are rounded alike, so a flat window stays exactly flat.
"""

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from edgefuse.images import Image
from edgefuse.metrics.windows import Banded, uniform

SIDE = 7
COUNT = np.float32(SIDE * SIDE)
SCALE = COUNT * (COUNT - 1)  # sample variance = (COUNT·Σx² − (Σx)²) / SCALE


Floats: TypeAlias = NDArray[np.float32]


class WindowSums(NamedTuple):
    """What SSIM needs of some rows of windows of an image; arrays but the first are `[rows, W - 6]`."""

    values: Floats
    """The centred pixels under the windows, `[rows + 6, W]`."""
    centred: Floats
    """Their sum in each window."""
    total: Floats
    """Sum of the pixels themselves."""
    square: Floats
    """(Sum of the pixels)²."""
    variance: Floats
    """49·Σx² − (Σx)², of the centred pixels."""


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
    centre = np.float32(round(cv2.mean(image)[0]))
    height, width = (side - SIDE + 1 for side in image.shape)

    def make(rows: slice) -> WindowSums:
        return _window_sums(image[rows.start : rows.stop + SIDE - 1], centre)

    return Banded(height, width, make, keep)


def _window_sums(image: Image, centre: np.float32) -> WindowSums:
    values = image.astype(np.float32)
    values -= centre
    centred, variance = uniform(values, SIDE), uniform(np.square(values), SIDE)
    variance *= COUNT
    variance -= np.square(centred)
    total = centred + COUNT * centre
    return WindowSums(values, centred, total, np.square(total), variance)


def similarity(
    image: Banded[WindowSums], others: Sequence[Banded[WindowSums]], data_range: float
) -> list[float]:
    """Return the SSIM of an image with each of the others."""
    c1 = np.float32((0.01 * data_range) ** 2) * COUNT**2
    c2 = np.float32((0.03 * data_range) ** 2) * SCALE
    totals, windows = [0.0] * len(others), 0
    for band in range(len(image)):
        a = image[band]
        windows += a.total.size
        for k, other in enumerate(others):
            totals[k] += _similarity(a, other[band], c1, c2)
    return [total / windows for total in totals]


def _similarity(a: WindowSums, b: WindowSums, c1: np.float32, c2: np.float32) -> float:
    """Sum of the windows' SSIM."""
    half = np.float32(0.5)
    covariance = uniform(a.values * b.values, SIDE)
    covariance *= COUNT
    scratch = a.centred * b.centred
    covariance -= scratch
    covariance += c2 * half
    score = np.multiply(a.total, b.total, out=scratch)
    score += c1 * half
    score *= covariance
    below = np.add(a.square, b.square, out=covariance)
    below += c1
    score /= below
    below = np.add(a.variance, b.variance, out=below)
    below += c2
    score /= below
    return 4 * cv2.sumElems(score)[0]
