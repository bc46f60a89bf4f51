"""Bringing the infrared image onto the visible image's pixels, and what is shown where it has none."""

import logging
from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np

from edgefuse.images import Image, fit_size

__all__ = ["Align", "Aligned", "Resize", "overlap", "show_visible_outside"]

logger = logging.getLogger(__name__)

ASPECT_TOLERANCE = 0.02
"""Relative difference of two aspect ratios that rounding to whole pixels explains."""


@dataclass(frozen=True, slots=True)
class Aligned:
    """An infrared image on the visible image's pixels."""

    image: Image
    """uint8 `[H, W]`; any value where `valid` is 0."""
    valid: Image | None = None
    """uint8 `[H, W]`: 255 where infrared covers the visible image, 0 where it does not, falling off softly
    in between. None: it covers the whole image."""


class Align(Protocol):
    """Maps infrared images onto the visible one, which a function does too. One thread calls it."""

    def __call__(self, ir: Image, vis_shape: tuple[int, int]) -> Aligned:
        """Align one image.

        Args:
            ir: uint8 `[H', W']`.
            vis_shape: height and width of the visible image.
        """


class Resize(Align):
    """Two cameras with the same field of view: the infrared image is only resized.

    An image that has the size already is returned as it is, without a copy. A resize is logged once for
    each pair of sizes, with a warning if the proportions differ.
    """

    def __init__(self) -> None:
        self._logged: set[tuple[tuple[int, ...], tuple[int, int]]] = set()

    def __call__(self, ir: Image, vis_shape: tuple[int, int]) -> Aligned:
        """Resize one image: area averages down, bilinear up."""
        if ir.shape == vis_shape:
            return Aligned(ir)
        if (ir.shape, vis_shape) not in self._logged:
            self._logged.add((ir.shape, vis_shape))
            _log_resize(ir.shape[:2], vis_shape)
        return Aligned(fit_size(ir, (vis_shape[1], vis_shape[0])))


def _log_resize(ir: tuple[int, ...], vis: tuple[int, int]) -> None:
    stretch = abs((vis[1] / vis[0]) / (ir[1] / ir[0]) - 1)
    logger.warning(
        "infrared is resized from %dx%d to the visible camera's %dx%d%s",
        *(ir[1], ir[0], vis[1], vis[0]),
        f"; the proportions differ by {stretch:.0%}, so objects will not line up"
        if stretch > ASPECT_TOLERANCE
        else "",
    )


def show_visible_outside(fused: Image, vis: Image, valid: Image | None) -> Image:
    """Return the fused image where infrared covers it, and the visible one elsewhere, mixed by `valid`.

    Args:
        fused: uint8, of the shape of `vis`.
        vis: uint8 `[H, W]` or `[H, W, 3]`.
        valid: weight of `fused`, uint8 `[H, W]`; None: `fused` is returned as it is.
    """
    if valid is None:
        return fused
    weight = valid.astype(np.float32)
    return cv2.blendLinear(fused, vis, weight, 255 - weight)


def overlap(valid: Image | None) -> tuple[slice, slice]:
    """Return the rows and columns of the smallest rectangle around all that infrared covers fully."""
    if valid is None:
        return slice(None), slice(None)
    x, y, width, height = cv2.boundingRect(cv2.compare(valid, 255, cv2.CMP_EQ))
    return slice(y, y + height), slice(x, x + width)
