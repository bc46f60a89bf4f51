"""Thermal-target measure: the share of the warm targets' contrast that survives fusion.

Our own measure. The sums and correlations of the other metrics hardly notice when a pedestrian
of 200 pixels vanishes; this one looks at nothing else.
"""

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from edgefuse.images import Image

__all__ = ["Target", "find_targets", "kept_contrast", "target_contrast"]

PERCENTILE = 98.0
SMALLEST_AREA = 25
RING = 15


class Target(NamedTuple):
    """A warm component and its surroundings, inside a window of the image."""

    window: tuple[slice, slice]
    inside: NDArray[np.uint8]
    """Mask of the component within the window, 0 or 255."""
    ring: NDArray[np.uint8]
    """Mask of what is at most 15 pixels away from it and in no target."""
    contrast: float
    """Mean inside minus mean of the ring in the infrared image, grey levels; above 0."""


def target_contrast(fused: Image, ir: Image) -> float | None:
    """Return the share of the targets' contrast that the fused image keeps.

    Args:
        fused: uint8 `[H, W]`.
        ir: clean infrared, uint8 `[H, W]`, white = hot.

    Returns:
        0 (gone or inverted) to 1 (at least as strong as in the infrared), the mean over the targets;
        None if there is no target.
    """
    return kept_contrast(find_targets(ir), fused)


def find_targets(ir: Image) -> list[Target]:
    """Find connected components of at least 25 pixels at or above the 98th percentile.

    Args:
        ir: clean infrared, uint8 `[H, W]`, white = hot.

    Returns:
        The targets that are brighter than their surroundings, in no particular order.
    """
    hot = (ir >= np.percentile(ir, PERCENTILE)).astype(np.uint8)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(hot, connectivity=8)
    large = np.flatnonzero(stats[:, cv2.CC_STAT_AREA] >= SMALLEST_AREA)
    large = large[large != 0]
    any_target = np.isin(labels, large)
    targets = []
    for label in large:
        x, y, width, height = stats[label, :4]
        window = (slice(max(0, y - RING), y + height + RING), slice(max(0, x - RING), x + width + RING))
        inside = labels[window] == label
        distance = cv2.distanceTransform((~inside).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        ring = (distance <= RING) & ~any_target[window]
        if not ring.any():
            continue
        masks = inside.astype(np.uint8) * 255, ring.astype(np.uint8) * 255
        contrast = _contrast(ir[window], *masks)
        if contrast > 0:
            targets.append(Target(window, *masks, contrast))
    return targets


def kept_contrast(targets: list[Target], fused: Image) -> float | None:
    """Return the mean over the targets of their contrast in `fused` by that in the infrared, each in 0..1."""
    if not targets:
        return None
    shares = [_contrast(fused[t.window], t.inside, t.ring) / t.contrast for t in targets]
    return float(np.clip(shares, 0, 1).mean())


def _contrast(image: Image, inside: NDArray[np.uint8], ring: NDArray[np.uint8]) -> float:
    return float(cv2.mean(image, inside)[0] - cv2.mean(image, ring)[0])
