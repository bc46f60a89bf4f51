"""Fusions without any network. What cannot beat them has no claim to quality."""

from collections.abc import Callable
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from edgefuse.images import Image

__all__ = ["BASELINES", "UNROUNDED", "average", "copy_ir", "copy_vis", "laplacian", "maximum", "ratio"]

LEVELS = 4

Floats: TypeAlias = NDArray[np.float32]


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
    return np.rint(_ratio(ir, vis)).astype(np.uint8)


def _ratio(ir: Image, vis: Image) -> Floats:
    a, b = ir.astype(np.float32), vis.astype(np.float32)
    return (a * a + b * b) / np.maximum(a + b, np.float32(1))


def laplacian(ir: Image, vis: Image) -> Image:
    """Blend Laplacian pyramids: the larger coefficient of four detail levels, the mean of the rest.

    References: Burt and Adelson, IEEE Trans. Commun. 31(4), 1983; Toet, Pattern Recognition Letters 9(4),
    1989.
    """
    return np.clip(np.rint(_laplacian(ir, vis)), 0, 255).astype(np.uint8)


def _laplacian(ir: Image, vis: Image) -> Floats:
    a, b = ir.astype(np.float32), vis.astype(np.float32)
    details = []
    for _ in range(LEVELS):
        if min(a.shape) < 2:
            break
        (a, detail_a), (b, detail_b) = _split(a), _split(b)
        details.append(np.where(np.abs(detail_a) >= np.abs(detail_b), detail_a, detail_b))
    fused: Floats = (a + b) * np.float32(0.5)
    for detail in reversed(details):
        fused = _enlarge(fused, detail) + detail
    return fused


def copy_ir(ir: Image, vis: Image) -> Image:  # noqa: ARG001
    """Return the infrared image."""
    return ir


def copy_vis(ir: Image, vis: Image) -> Image:  # noqa: ARG001
    """Return the visible image."""
    return vis


def _split(image: Floats) -> tuple[Floats, Floats]:
    smaller = cv2.pyrDown(image)
    return smaller, image - _enlarge(smaller, image)


def _enlarge(image: NDArray[np.float32], like: Floats) -> Floats:
    return cv2.pyrUp(image, dstsize=(like.shape[1], like.shape[0]))


BASELINES: dict[str, Callable[[Image, Image], Image]] = {
    "average": average,
    "maximum": maximum,
    "ratio": ratio,
    "laplacian": laplacian,
    "copy-ir": copy_ir,
    "copy-vis": copy_vis,
}

UNROUNDED: dict[str, Callable[[Image, Image], Floats]] = {
    "average": lambda ir, vis: cv2.add(ir, vis, dtype=cv2.CV_32F) * np.float32(0.5),
    "ratio": _ratio,
    "laplacian": _laplacian,
}
"""Those that have fractions of a grey level, as float32 `[H, W]` before rounding."""
