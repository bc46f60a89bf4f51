"""A stretch of the fused picture to the full range of grey, for video: it does not flicker.

Stretching every frame by its own darkest and brightest pixel, as is usual for single images, makes a video
pump: one hot spot or passing lamp changes the whole picture. Here the ends are percentiles, and follow the
scene slowly.
"""

import cv2
import numpy as np

from edgefuse.images import Image, luma

__all__ = ["Contrast"]

TAIL = 0.5
"""Percent of the pixels at either end that may saturate."""
FRAMES = 15
"""Frames in which the ends cover two thirds of the way to where the scene has them."""
MAX_GAIN = 2.0
"""A picture without contrast is not stretched until its noise fills the scale."""
STRIDE = 4
"""Only every fourth pixel is measured, across and down."""


class Contrast:
    """Stretches the frames of one video, one after the other.

    The first frame's ends are taken as they are.
    """

    def __init__(self) -> None:
        self._ends: tuple[float, float] | None = None

    def __call__(self, image: Image) -> Image:
        """Return a stretched copy of the next frame, uint8 `[H, W]` or `[H, W, 3]` BGR.

        Grey levels are mapped linearly, the three colours alike.
        """
        now = np.percentile(luma(np.ascontiguousarray(image[::STRIDE, ::STRIDE])), (TAIL, 100 - TAIL))
        if self._ends is None:
            self._ends = float(now[0]), float(now[1])
        low, high = (
            end + (float(aim) - end) / FRAMES for end, aim in zip(self._ends, now.tolist(), strict=True)
        )
        self._ends = low, high
        return cv2.LUT(image, curve(low, high))


def curve(low: float, high: float) -> Image:
    """Return the grey level for each of 0..255, uint8 `[256]`, that takes `low` to 0 and `high` to 255.

    Where that would take a gain above `MAX_GAIN`, it takes less, about the level that the stretch leaves
    where it is: so a dark picture stays dark and a bright one bright.

    Args:
        low: level of the dark end, 0..255.
        high: of the bright end, `low`..255.
    """
    missing = 255 - (high - low)
    if missing < 1:
        return np.arange(256, dtype=np.uint8)
    still = 255 * low / missing
    gain = min(MAX_GAIN, 255 / max(high - low, 1.0))
    levels = still + (np.arange(256) - still) * gain
    return np.clip(np.rint(levels), 0, 255).astype(np.uint8)
