"""How bright both pictures are as a whole: what a network may take beside the pictures themselves.

How bright infrared is depends on the gain that the camera happens to choose. A network that knows median and
spread of both pictures can tell that apart from the scene. Both come from histograms, so they are the same
for every engine and cost a fraction of a millisecond.

They are those of each pair, not smoothed over time: when a camera's gain moves, what follows it at once makes
a picture that stays still, and what follows slowly makes one that drifts.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from edgefuse.images import Image, luma

GREYS = np.arange(256, dtype=np.float64)
LARGE = 256
"""Rows from which on every second one is enough."""


def measure_levels(ir: Image, vis: Image, valid: Image | None = None) -> NDArray[np.float32]:
    """Measure median and spread of a pair.

    Args:
        ir: infrared, uint8 `[H, W]`.
        vis: visible, uint8 `[H, W]`, or `[H, W, 3]` BGR, of which the luma counts; of the same size.
        valid: weights uint8 `[H, W]`: pixels of 128 or more count, in both pictures. None, or nowhere as
            much: all pixels count.

    Returns:
        float32 `[5]` in [0, 1]: `LEVELS`. The median lies between grey levels, as if the pixels of
        one were spread evenly over it, so that it moves smoothly. The spread is the mean absolute deviation
        from it; what the brighter pixels contribute to that of infrared is the spread above the median,
        half of it where both sides are alike.
    """
    mask = None if valid is None else cv2.compare(valid, 128, cv2.CMP_GE)
    if mask is not None and cv2.countNonZero(mask) == 0:
        mask = None
    # Every second row: a picture's neighbours say nearly the same.
    rows = slice(None, None, 2 if len(ir) >= LARGE else 1)
    mask = None if mask is None else mask[rows]
    counts = [cv2.calcHist([image[rows]], [0], mask, [256], [0, 256]).ravel() for image in (ir, luma(vis))]
    return levels_of_counts(np.asarray(counts, np.float64))


def levels_of_counts(counts: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return the levels float32 `[5]` of pictures whose grey levels have the counts `[2, 256]`."""
    measured: list[float] = []
    for of_picture in counts:
        total = of_picture.sum()
        below = np.cumsum(of_picture)
        at = int(np.searchsorted(below, total / 2))
        median = at + 0.5 - (below[at] - total / 2) / of_picture[at]
        away = of_picture * np.abs(GREYS - median)
        measured += [median, away.sum() / total]
        if len(measured) == 2:
            above = away[median < GREYS].sum() / total
    return np.asarray([*measured, above], np.float32) / np.float32(255)
