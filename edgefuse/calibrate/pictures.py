"""Pictures to judge a map by: a checkerboard of both cameras and the edges of both, before and after."""

import cv2
import numpy as np

from edgefuse.align import Aligned
from edgefuse.images import Image, fit_size, luma
from edgefuse.rig import Rig

LARGEST = 640
"""Longer side of each of the four pictures."""
TILES = 8
INFRARED, VISIBLE = (60, 120, 255), (255, 200, 60)  # B, G, R


def before_and_after(rig: Rig, ir: Image, vis: Image) -> Image:
    """Return four pictures in one: above resized only, below by the rig; left tiles, right edges.

    Args:
        rig: whose map to show.
        ir: infrared, uint8 `[H', W']`.
        vis: visible, uint8 `[H, W]` or BGR `[H, W, 3]`.

    Returns:
        uint8 BGR.
    """
    shape = (vis.shape[0], vis.shape[1])
    rows = []
    for label, aligned in (("before", Aligned(fit_size(ir, shape[::-1]))), ("after", rig.align()(ir, shape))):
        row = np.hstack([_shrunk(_checkerboard(aligned, vis)), _shrunk(edge_overlay(aligned, vis))])
        cv2.putText(row, label, (12, 30), cv2.FONT_HERSHEY_SIMPLEX, 0.8, (0, 0, 0), 4, cv2.LINE_AA)
        cv2.putText(row, label, (12, 30), cv2.FONT_HERSHEY_SIMPLEX, 0.8, (255, 255, 255), 1, cv2.LINE_AA)
        rows.append(row)
    return np.vstack(rows)


def _shrunk(image: Image) -> Image:
    factor = min(LARGEST / max(image.shape), 1.0)
    size = (round(image.shape[1] * factor), round(image.shape[0] * factor))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def _checkerboard(aligned: Aligned, vis: Image) -> Image:
    """Return tiles of both pictures in turn: lines must run on from tile to tile."""
    height, width = vis.shape[:2]
    side = max(width // TILES, 1)
    rows, columns = np.ogrid[0:height, 0:width]
    infrared = (rows // side + columns // side) % 2 == 1
    if aligned.valid is not None:
        infrared = infrared & (aligned.valid > 0)
    picture = cv2.cvtColor(luma(vis), cv2.COLOR_GRAY2BGR)
    picture[infrared] = cv2.cvtColor(_stretched(aligned.image), cv2.COLOR_GRAY2BGR)[infrared]
    return picture


def edge_overlay(aligned: Aligned, vis: Image) -> Image:
    """Return the edges of both, infrared in orange and visible in blue: where they meet, white."""
    infrared, visible = _strength(aligned.image), _strength(luma(vis))
    if aligned.valid is not None:
        infrared = infrared * (aligned.valid / np.float32(255))
    picture = infrared[:, :, None] * np.array(INFRARED, np.float32) + visible[:, :, None] * np.array(
        VISIBLE, np.float32
    )
    return np.clip(picture, 0, 255).astype(np.uint8)


def _strength(grey: Image) -> "np.ndarray[tuple[int, ...], np.dtype[np.float32]]":
    smooth = cv2.GaussianBlur(grey.astype(np.float32), (0, 0), 1.0)
    size = cv2.magnitude(cv2.Scharr(smooth, cv2.CV_32F, 1, 0), cv2.Scharr(smooth, cv2.CV_32F, 0, 1))
    mean = cv2.blur(size, (41, 41)) + 0.3 * size.mean() + 1e-3
    strength: np.ndarray[tuple[int, ...], np.dtype[np.float32]] = np.clip(size / mean / 3 - 0.25, 0, 1)
    return strength


def _stretched(grey: Image) -> Image:
    low, high = np.percentile(grey, (1, 99))
    return cv2.convertScaleAbs(np.clip(grey, low, high) - low, alpha=255 / max(high - low, 1.0))
