"""Pictures made of several, labels on them, pictures brought to a given size or to the full range of grey."""

import cv2
import numpy as np

from edgefuse.images import Image, luma

LABELS = ("infrared", "visible", "fused")


def side_by_side(ir: Image | None, vis: Image | None, fused: Image) -> Image:
    """Return infrared | visible | fused as one BGR image `[H, 3 W, 3]`, each labelled in its corner.

    Args:
        ir: uint8 `[H, W]`; None: black.
        vis: uint8 `[H, W]` or `[H, W, 3]` BGR; None: black.
        fused: as `vis`.
    """
    height, width = fused.shape[:2]
    canvas = np.empty((height, 3 * width, 3), np.uint8)
    for column, (label, image) in enumerate(zip(LABELS, (ir, vis, fused), strict=True)):
        panel = canvas[:, column * width : (column + 1) * width]
        if image is None:
            panel[:] = 0
        else:
            panel[:] = image if image.ndim == 3 else cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
        _label(panel, label)
    return canvas


def with_label(image: Image, text: str) -> Image:
    """Return a copy of an image, grey or BGR, with a text in its upper left corner."""
    image = image.copy()
    _label(image, text, top=True)
    return image


def letterbox(image: Image, shape: tuple[int, ...]) -> Image:
    """Bring an image to a shape: `[H, W]` or `[H, W, 3]`, proportions kept, black bars around it."""
    height, width = shape[:2]
    if image.ndim != len(shape):
        image = cv2.cvtColor(image, cv2.COLOR_GRAY2BGR if image.ndim == 2 else cv2.COLOR_BGR2GRAY)
    if image.shape == shape:
        return image
    scale = min(height / image.shape[0], width / image.shape[1])
    size = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
    inside = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    canvas = np.zeros(shape, np.uint8)
    top, left = (height - size[1]) // 2, (width - size[0]) // 2
    canvas[top : top + size[1], left : left + size[0]] = inside
    return canvas


def _label(panel: Image, text: str, top: bool = False) -> None:
    """Write a label into a left corner, readable on any ground; too small a panel gets none."""
    scale = panel.shape[0] / 700
    thickness = max(1, round(2 * scale))
    (width, rise), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, thickness)
    margin = round(16 * scale)
    if scale < 0.15 or width + 2 * margin > panel.shape[1]:
        return
    x, y = margin, margin + rise if top else panel.shape[0] - margin
    # The dark rim is the same text moved about: a thicker text would be wider too.
    for dx, dy in ((-1, 0), (1, 0), (0, -1), (0, 1), (0, 0)):
        colour = (255, 255, 255) if dx == dy == 0 else (0, 0, 0)
        corner = (x + dx * thickness, y + dy * thickness)
        cv2.putText(panel, text, corner, cv2.FONT_HERSHEY_SIMPLEX, scale, colour, thickness, cv2.LINE_AA)


TAIL = 0.5
"""Percent of the pixels at either end that may saturate."""
FRAMES = 15
"""Frames in which the ends cover two thirds of the way to where the scene has them."""
MAX_GAIN = 2.0
"""A picture without contrast is not stretched until its noise fills the scale."""
STRIDE = 4
"""Only every fourth pixel is measured, across and down."""


class Contrast:
    """Stretches the frames of one video to the full range of grey, one after the other, without flicker.

    Stretching each by its own darkest and brightest pixel, as is usual for single images, makes a video pump:
    one hot spot or passing lamp changes the whole picture. Here the ends are percentiles, which are taken as
    they are in the first frame and then follow the scene slowly.
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
