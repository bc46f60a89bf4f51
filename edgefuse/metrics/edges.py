"""Edge transfer (Qabf): how much of the sources' gradients, in strength and direction, is kept.

Reference: Xydeas and Petrović, Electronics Letters 36(4), 2000, with the constants and quirks of the
evaluators in use: Γg = 0.9994, κg = −15, σg = 0.5, Γα = 0.9879, κα = −22, σα = 0.8; Sobel with zero borders;
the difference of two directions is not wrapped at ±90°; and where both strengths are equal, the strength
itself stands for their ratio.
"""

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from edgefuse.images import Image

__all__ = ["Edges", "edges_of", "kept_edges", "qabf"]

HALF_PI = np.float32(np.pi / 2)
GAMMA = 0.9994 * 0.9879
# exp(-15·(4 - 0.5)) is already below float32's resolution next to 1.
RATIO_LIMIT = np.float32(4)

Floats = NDArray[np.float32]


class Edges(NamedTuple):
    """Gradient of one image; arrays are `[H, W]`."""

    strength: Floats
    """Magnitude of the 3×3 Sobel gradient, grey levels times 8 per pixel."""
    direction: Floats
    """atan(gy / −gx), −π/2..π/2; π/2 where gx is 0."""
    total: float
    """Sum of the strength over all pixels."""


def qabf(fused: Image, ir: Image, vis: Image) -> float:
    """Return the edge transfer of both sources, weighted by their gradients' strength.

    Args:
        fused: uint8 `[H, W]`.
        ir: uint8 `[H, W]`.
        vis: uint8 `[H, W]`.

    Returns:
        0 to 1, in practice to 0.98 for equal images; 1 if both sources are black, without any edge to lose.
    """
    f, a, b = edges_of(fused), edges_of(ir), edges_of(vis)
    weight = a.total + b.total
    return (kept_edges(a, f) + kept_edges(b, f)) / weight if weight else 1.0


def edges_of(image: Image) -> Edges:
    """Return the part of `qabf` that depends on one image only."""
    gx = cv2.Sobel(image, cv2.CV_32F, 1, 0, borderType=cv2.BORDER_CONSTANT)
    gy = cv2.Sobel(image, cv2.CV_32F, 0, 1, borderType=cv2.BORDER_CONSTANT)
    strength = cv2.magnitude(gx, gy)
    upright = gx == 0
    np.copyto(gx, np.float32(1), where=upright)
    direction = np.divide(gy, gx, out=gy)
    np.arctan(direction, out=direction)
    np.negative(direction, out=direction)
    np.copyto(direction, HALF_PI, where=upright)
    return Edges(strength, direction, cv2.sumElems(strength)[0])


def kept_edges(source: Edges, fused: Edges) -> float:
    """Return Σ Q·strength over the source's pixels, Q being the share kept; below `source.total`."""
    ratio = np.minimum(source.strength, fused.strength)
    larger = np.maximum(source.strength, fused.strength)
    equal = ratio == larger
    np.maximum(larger, np.float32(1e-6), out=larger)
    ratio /= larger
    np.copyto(ratio, np.minimum(fused.strength, RATIO_LIMIT), where=equal)
    ratio -= np.float32(0.5)
    ratio *= np.float32(-15)
    below = cv2.exp(ratio, ratio)
    below += np.float32(1)

    turned = np.subtract(source.direction, fused.direction, out=larger)
    np.abs(turned, out=turned)
    turned *= np.float32(22) / HALF_PI  # −22·(1 − |Δ|/(π/2) − 0.8)
    turned -= np.float32(22 * 0.2)
    cv2.exp(turned, turned)
    turned += np.float32(1)
    below *= turned
    return GAMMA * cv2.sumElems(np.divide(source.strength, below, out=below))[0]
