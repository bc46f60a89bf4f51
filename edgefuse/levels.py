"""How bright both pictures are as a whole: what a network may take beside the pictures themselves.

How bright infrared is depends on the gain that the camera happens to choose. A network that knows median and
spread of both pictures can tell that apart from the scene. Both come from histograms, so they are the same
for every engine and cost a fraction of a millisecond.
"""

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from edgefuse.images import Image, luma

__all__ = ["LEVELS", "SmoothLevels", "measure_levels"]

LEVELS = ("infrared median", "infrared spread", "visible median", "visible spread")
"""What the four numbers are, in this order."""
GREYS = np.arange(256, dtype=np.float64)


SMOOTHING_SECONDS = 0.5
"""Time constant: shorter than a change of the light, longer than the flicker of a camera's gain."""
RESET_SECONDS = 2.0
"""After a gap of this length the scene may be another one."""


class SmoothLevels:
    """Smooths the levels of one video over time, so that the fused picture does not flicker with them."""

    def __init__(self) -> None:
        self._levels: NDArray[np.float32] | None = None
        self._at = 0.0

    def update(self, levels: NDArray[np.float32], at: float) -> NDArray[np.float32]:
        """Take the levels of the next pair, taken at `at` seconds, and return the smoothed ones.

        The first pair's, and those after a gap or a step back in time, are taken as they are.
        """
        seconds, self._at = at - self._at, at
        if self._levels is None or not 0 <= seconds <= RESET_SECONDS:
            self._levels = levels
        else:
            share = np.float32(1 - math.exp(-seconds / SMOOTHING_SECONDS))
            self._levels = self._levels + share * (levels - self._levels)
        return self._levels


def measure_levels(ir: Image, vis: Image, valid: Image | None = None) -> NDArray[np.float32]:
    """Measure median and spread of a pair.

    Args:
        ir: infrared, uint8 `[H, W]`.
        vis: visible, uint8 `[H, W]`, or `[H, W, 3]` BGR, of which the luma counts; of the same size.
        valid: weights uint8 `[H, W]`: pixels of 128 or more count, in both pictures. None, or nowhere as
            much: all pixels count.

    Returns:
        float32 `[4]` in [0, 1]: `LEVELS`. The median is the lowest grey level that at least half of the
        pixels do not exceed; the spread is the mean absolute deviation from it.
    """
    mask = None if valid is None else cv2.compare(valid, 128, cv2.CMP_GE)
    if mask is not None and cv2.countNonZero(mask) == 0:
        mask = None
    measured = []
    for image in (ir, luma(vis)):
        counts = cv2.calcHist([image], [0], mask, [256], [0, 256]).ravel().astype(np.float64)
        total = counts.sum()
        median = int(np.searchsorted(np.cumsum(counts), total / 2))
        measured += [median, float(counts @ np.abs(GREYS - median) / total)]
    return np.asarray(measured, np.float32) / np.float32(255)
