"""Fusions without any network. What cannot beat them has no claim to quality."""

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from edgefuse.images import Image

__all__ = ["TRIVIAL", "average", "copy_ir", "copy_vis", "laplacian", "maximum", "ratio"]

LEVELS = 4


def average(ir: Image, vis: Image) -> Image:
    """Return (ir + vis) / 2, rounded down; uint8 `[H, W]` in and out, as for all of this module."""
    return ((ir.astype(np.uint16) + vis) // 2).astype(np.uint8)


def maximum(ir: Image, vis: Image) -> Image:
    """Return the brighter of the two pixels."""
    return cv2.max(ir, vis)


def ratio(ir: Image, vis: Image) -> Image:
    """Return (ir² + vis²) / (ir + vis), rounded; 0 where both are 0.

    The minimiser of a least-squares intensity loss whose two weights are the sources' own intensities.
    """
    a, b = ir.astype(np.float32), vis.astype(np.float32)
    return np.rint((a * a + b * b) / np.maximum(a + b, 1)).astype(np.uint8)


def laplacian(ir: Image, vis: Image) -> Image:
    """Blend Laplacian pyramids: the larger coefficient of four detail levels, the mean of the rest.

    References: Burt and Adelson, IEEE Trans. Commun. 31(4), 1983; Toet, Pattern Recognition Letters 9(4),
    1989.
    """
    a, b = ir.astype(np.float32), vis.astype(np.float32)
    details = []
    for _ in range(LEVELS):
        if min(a.shape) < 2:
            break
        (a, detail_a), (b, detail_b) = _split(a), _split(b)
        details.append(np.where(np.abs(detail_a) >= np.abs(detail_b), detail_a, detail_b))
    fused: NDArray[np.float32] = (a + b) * np.float32(0.5)
    for detail in reversed(details):
        fused = _enlarge(fused, detail) + detail
    return np.clip(np.rint(fused), 0, 255).astype(np.uint8)


def copy_ir(ir: Image, vis: Image) -> Image:  # noqa: ARG001
    """Return the infrared image."""
    return ir


def copy_vis(ir: Image, vis: Image) -> Image:  # noqa: ARG001
    """Return the visible image."""
    return vis


def _split(image: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    smaller = cv2.pyrDown(image)
    return smaller, image - _enlarge(smaller, image)


def _enlarge(image: NDArray[np.float32], like: NDArray[np.float32]) -> NDArray[np.float32]:
    return cv2.pyrUp(image, dstsize=(like.shape[1], like.shape[0]))


TRIVIAL: dict[str, Callable[[Image, Image], Image]] = {
    "average": average,
    "maximum": maximum,
    "ratio": ratio,
    "laplacian": laplacian,
    "copy-ir": copy_ir,
    "copy-vis": copy_vis,
}
