"""Edges that look the same in infrared and visible light, whichever side of them is the brighter one."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from edgefuse.align import straightened
from edgefuse.images import Image
from edgefuse.rig import Matrix, scaling

Floats = NDArray[np.float32]


WORKING_SIDE = 640
"""Longer side, about, of the pictures that are worked on: more tells nothing more."""

FLAT = 3
"""Grey levels that neighbours may differ by in an empty border: compression leaves ripples."""


@dataclass(frozen=True)
class Picture:
    """A grey picture and where it holds a picture at all."""

    grey: Image
    """uint8 `[H, W]`."""
    valid: Image
    """uint8 `[H, W]`, 255 where there is a picture, 0 where a warp or a letterbox left nothing."""

    @classmethod
    def of(cls, grey: Image) -> "Picture":
        """Return the picture with its valid area found, and made small enough to work on.

        A few rows and columns at the end are left out, so that both sides shrink by exactly the same factor
        now and can be halved twice later.
        """
        halves = max(round(2 * max(grey.shape) / WORKING_SIDE), 2)
        height, width = (side - side % (2 * halves) for side in grey.shape)
        size = (width * 2 // halves, height * 2 // halves)
        grey = np.ascontiguousarray(grey[:height, :width])
        if halves > 2:
            grey = cv2.resize(grey, size, interpolation=cv2.INTER_AREA)
        return cls(grey, valid_area(grey))

    @staticmethod
    def working(shape: tuple[int, ...]) -> Matrix:
        """Return the matrix from pixels of a picture of `shape` to those of `Picture.of` it."""
        halves = max(round(2 * max(shape) / WORKING_SIDE), 2)
        return scaling((halves, halves), (2, 2))

    def flipped(self, code: int | None) -> "Picture":
        """Return the picture turned over as `cv2.flip` does it; None leaves it."""
        return self if code is None else Picture(cv2.flip(self.grey, code), cv2.flip(self.valid, code))

    def straightened(self, k: float) -> "Picture":
        """Return the picture without the distortion of a lens, see `edgefuse.align`."""
        if not k:
            return self
        valid = straightened(self.valid, k, cv2.BORDER_CONSTANT)
        return Picture(straightened(self.grey, k), np.where(valid == 255, valid, 0).astype(np.uint8))

    def widened(self, stretch: float) -> "Picture":
        """Return the picture so many times wider."""
        height, width = self.grey.shape
        return self if stretch == 1 else self.resized((height, round(width * stretch)))

    def scaled(self, factor: float) -> "Picture":
        """Return the picture at another size, its edges softened first where it shrinks."""
        height, width = self.grey.shape
        return self.resized((max(round(height * factor), 8), max(round(width * factor), 8)))

    def resized(self, shape: tuple[int, int]) -> "Picture":
        """Return the picture with this height and width; a pixel is valid if all of it was."""
        if shape == self.grey.shape:
            return self
        how = cv2.INTER_AREA if shape[0] < self.grey.shape[0] else cv2.INTER_LINEAR
        grey, valid = (cv2.resize(image, shape[::-1], interpolation=how) for image in (self.grey, self.valid))
        return Picture(grey, np.where(valid == 255, valid, 0).astype(np.uint8))


def valid_area(grey: Image) -> Image:
    """Return a mask, 255 where the picture is, 0 in flat borders that a warp or a letterbox left.

    What is flat and touches the border is left out beyond the convex hull of everything else: the borders
    of a warped picture are, and a saturated sky only where it has no skyline to lose.
    """
    everything = np.full(grey.shape, 255, np.uint8)
    steps = cv2.morphologyEx(grey, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8))
    count, labels, stats, _ = cv2.connectedComponentsWithStats(
        (steps <= FLAT).astype(np.uint8), connectivity=4
    )
    border = np.unique(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]))
    large = [i for i in border if i and i < count and stats[i, cv2.CC_STAT_AREA] > 0.002 * grey.size]
    if not large:
        return everything
    # The ring of pixels around a flat part is not flat itself, its outer half belongs to the border.
    outside = cv2.dilate(np.isin(labels, large).astype(np.uint8), np.ones((3, 3), np.uint8))
    shown = outside == 0
    if shown.sum() < 0.02 * grey.size:
        return everything
    ys = np.flatnonzero(shown.any(axis=1))  # the ends of each row have the hull of all
    left, right = shown[ys].argmax(axis=1), grey.shape[1] - 1 - shown[ys, ::-1].argmax(axis=1)
    ends = np.stack([np.concatenate([left, right]), np.concatenate([ys, ys])], axis=1).astype(np.int32)
    hull = np.zeros_like(outside)
    cv2.fillConvexPoly(hull, cv2.convexHull(ends), 255)
    return hull


def edge_field(picture: Picture, sigma: float = 1.0) -> Floats:
    """Return the edges of a picture as a field of doubled angles.

    Each vector's length is the gradient against its surroundings, saturated, 0..1; its angle is twice that
    of the gradient, so that an edge from dark to bright and one from bright to dark are the same.

    Args:
        picture: to look at.
        sigma: of the smoothing before, in pixels.

    Returns:
        float32 `[H, W, 2]`, (cos 2θ, sin 2θ) times the strength; 0 outside the valid area.
    """
    grey = cv2.GaussianBlur(picture.grey.astype(np.float32), (0, 0), sigma)
    gx = cv2.Scharr(grey, cv2.CV_32F, 1, 0, scale=1 / 16)
    gy = cv2.Scharr(grey, cv2.CV_32F, 0, 1, scale=1 / 16)
    margin = 2 * round(sigma) + 3
    inside = cv2.erode(
        picture.valid, np.ones((margin, margin), np.uint8), borderType=cv2.BORDER_CONSTANT, borderValue=0
    )
    mask = (inside > 0).astype(np.float32)
    size = cv2.multiply(cv2.magnitude(gx, gy), mask)
    side = max(picture.grey.shape[1] // 12, 7) | 1
    weight = cv2.blur(mask, (side, side)) + 1e-3
    mean = cv2.blur(size, (side, side)) / weight
    whole = float(size.sum() / max(mask.sum(), 1.0))
    strength = size / (2 * mean + 0.5 * whole + 0.25)
    strength = np.minimum(strength, 1.0) / (size * size + 1e-6)
    field = np.dstack([(gx * gx - gy * gy) * strength, 2 * gx * gy * strength]) * mask[:, :, None]
    # What is the same everywhere, such as a street's horizontal lines, tells no position.
    wide = max(picture.grey.shape[1] // 5, 9) | 1
    return (
        field
        - cv2.blur(field, (wide, wide)) / (cv2.blur(mask, (wide, wide)) + 1e-3)[:, :, None] * mask[:, :, None]
    )
