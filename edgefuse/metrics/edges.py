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
from edgefuse.metrics.bands import at_most, bands

__all__ = ["Edges", "edges_of", "kept_edges", "qabf"]

HALF_PI = np.float32(np.pi / 2)
GAMMA = 0.9994 * 0.9879
# exp(-15·(4 - 0.5)) is already below float32's resolution next to 1.
RATIO_LIMIT = 4.0
TINY = np.float32(1e-6)  # for 0 / 0; such a pixel has no weight

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
    framed = cv2.copyMakeBorder(image, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    gx, gy = (gradient[1:-1, 1:-1] for gradient in cv2.spatialGradient(framed))
    strength, direction = np.empty(image.shape, np.float32), np.empty(image.shape, np.float32)
    total = 0.0
    for rows in bands(*image.shape):
        x, y = np.negative(gx[rows], dtype=np.float32), gy[rows].astype(np.float32)
        # Not cv2.magnitude, whose last bit depends on the pixel's place: equal gradients must be equal here.
        # The sum of squares is an exact integer, and a square root is rounded the same everywhere.
        squares = x * x
        squares += y * y
        total += cv2.sumElems(np.sqrt(squares, out=strength[rows]))[0]
        upright = x == 0
        x += upright
        y /= x
        np.arctan(y, out=direction[rows])
        _set_where(upright, np.full_like(x, HALF_PI), direction[rows])
    return Edges(strength, direction, total)


def kept_edges(source: Edges, fused: Edges) -> float:
    """Return Σ Q·strength over the source's pixels, Q being the share kept; below `source.total`."""
    kept = 0.0
    for rows in bands(*source.strength.shape):
        strength, other = source.strength[rows], fused.strength[rows]
        ratio, larger = np.minimum(strength, other), np.maximum(strength, other)
        equal = ratio == larger
        larger += TINY
        ratio /= larger
        _set_where(equal, at_most(RATIO_LIMIT, strength), ratio)
        turned = np.subtract(source.direction[rows], fused.direction[rows], out=larger)
        np.abs(turned, out=turned)
        # Q = Γg·Γα / ((1 + exp(−15·(ratio − 0.5))) · (1 + exp(−22·(1 − turned/(π/2) − 0.8))))
        below = _one_plus_exp(ratio, np.float32(-15), np.float32(15 * 0.5))
        below *= _one_plus_exp(turned, np.float32(22) / HALF_PI, np.float32(-22 * 0.2))
        kept += cv2.sumElems(np.divide(strength, below, out=below))[0]
    return GAMMA * kept


def _set_where(mask: NDArray[np.bool_], values: Floats, out: Floats) -> None:
    """np.copyto(out, values, where=mask), seven times as fast."""
    cv2.copyTo(values, mask.view(np.uint8), out)


def _one_plus_exp(values: Floats, factor: np.float32, offset: np.float32) -> Floats:
    """1 + exp(factor·values + offset), in place."""
    values *= factor
    values += offset
    cv2.exp(values, values)
    values += np.float32(1)
    return values
