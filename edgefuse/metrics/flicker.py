"""Flicker of fused video: frame-to-frame change beyond that of the sources, where nothing moves.

Our own measure. A fusion whose output changes by no more than the larger change of its two inputs, as every
weighted mean with constant weights and the pixel-wise maximum do, scores 0.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from edgefuse.images import Image

__all__ = ["flicker", "static_regions"]

NEIGHBOURHOOD = (9, 9)


def flicker(fused: tuple[Image, Image], ir: tuple[Image, Image], vis: tuple[Image, Image]) -> float:
    """Return the mean change of the fused frames beyond that of the sources, over static regions.

    Args:
        fused: two consecutive frames, uint8 `[H, W]`.
        ir: the infrared frames they were made of.
        vis: the visible frames they were made of.

    Returns:
        Grey levels per frame, 0 (best) to 255: the mean over the static pixels of
        max(0, |ΔF| − max(|ΔI|, |ΔV|)).
    """
    ir_change, vis_change = cv2.absdiff(*ir), cv2.absdiff(*vis)
    excess = cv2.subtract(cv2.absdiff(*fused), cv2.max(ir_change, vis_change))  # saturates at 0
    return float(cv2.mean(excess, static_regions(ir_change, vis_change))[0])


def static_regions(ir_change: Image, vis_change: Image) -> NDArray[np.uint8]:
    """Return a mask `[H, W]`, 255 where neither source changes by more than its noise does.

    A pixel is static if the mean absolute change around it (9×9) is at most 1 grey level above twice the
    frame's median of that mean, in both sources; at least a part of every frame is.
    """
    static = np.full(ir_change.shape, 255, np.uint8)
    for change in (ir_change, vis_change):
        local = cv2.blur(change.astype(np.float32), NEIGHBOURHOOD)
        static[local > 2 * np.median(local) + 1] = 0
    return static if static.any() else np.full_like(static, 255)
