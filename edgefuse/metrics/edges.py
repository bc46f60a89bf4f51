"""Edge transfer (Qabf): how much of the sources' gradients, in strength and direction, is kept.

Reference: Xydeas and Petrović, Electronics Letters 36(4), 2000, with the constants and quirks of the
evaluators in use: Γg = 0.9994, κg = −15, σg = 0.5, Γα = 0.9879, κα = −22, σα = 0.8; Sobel with zero borders;
the difference of two directions is not wrapped at ±90°; and where both strengths are equal, the strength
itself stands for their ratio.
"""

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from edgefuse.images import Image
from edgefuse.metrics.bands import Banded, at_most

__all__ = ["Edges", "edges_of", "kept_edges", "qabf"]

HALF_PI = np.float32(np.pi / 2)
GAMMA = 0.9994 * 0.9879
# exp(-15·(4 - 0.5)) is already below float32's resolution next to 1.
RATIO_LIMIT = 4.0
TINY = np.float32(1e-6)  # for 0 / 0; such a pixel has no weight

Floats = NDArray[np.float32]


class Edges(NamedTuple):
    """Gradient of some rows of an image; arrays are `[rows, W]`."""

    strength: Floats
    """Magnitude of the 3×3 Sobel gradient, grey levels times 8 per pixel."""
    direction: Floats
    """atan(gy / −gx), −π/2..π/2; π/2 where gx is 0."""
    total: float
    """Sum of the strength."""


def qabf(fused: Image, ir: Image, vis: Image) -> float:
    """Return the edge transfer of both sources, weighted by their gradients' strength.

    Args:
        fused: uint8 `[H, W]`.
        ir: uint8 `[H, W]`.
        vis: uint8 `[H, W]`.

    Returns:
        0 to 1, in practice to 0.98 for equal images; 1 if both sources are black, without any edge to lose.
    """
    kept = kept_edges(edges_of(fused), [edges_of(ir), edges_of(vis)])
    weight = sum(there for _, there in kept)
    return sum(share for share, _ in kept) / weight if weight else 1.0


def edges_of(image: Image, keep: bool = False) -> Banded[Edges]:
    """Return the part of `qabf` that depends on one image only."""
    framed = cv2.copyMakeBorder(image, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    height, width = image.shape
    return Banded(height, width, lambda rows: _edges(framed[rows.start : rows.stop + 2]), keep)


def _edges(framed: Image) -> Edges:
    gx, gy = (gradient[1:-1, 1:-1] for gradient in cv2.spatialGradient(framed))
    x, y = np.negative(gx, dtype=np.float32), gy.astype(np.float32)
    # Not cv2.magnitude, whose last bit depends on the pixel's place: equal gradients must be equal here.
    # The sum of squares is an exact integer, and a square root is rounded the same everywhere.
    strength = x * x
    strength += y * y
    np.sqrt(strength, out=strength)
    upright = x == 0
    x += upright
    y /= x
    np.arctan(y, out=y)
    _set_where(upright, np.full_like(x, HALF_PI), y)
    return Edges(strength, y, cv2.sumElems(strength)[0])


def kept_edges(fused: Banded[Edges], sources: Sequence[Banded[Edges]]) -> list[tuple[float, float]]:
    """Return, of each source, the sum of Q·strength, Q being the share kept, and the sum of the strength."""
    kept, there = [0.0] * len(sources), [0.0] * len(sources)
    for band in range(len(fused)):
        f = fused[band]
        for k, source in enumerate(sources):
            s = source[band]
            kept[k] += _kept(s, f)
            there[k] += s.total
    return list(zip(kept, there, strict=True))


def _kept(source: Edges, fused: Edges) -> float:
    ratio = np.minimum(source.strength, fused.strength)
    larger = np.maximum(source.strength, fused.strength)
    equal = ratio == larger
    larger += TINY
    ratio /= larger
    _set_where(equal, at_most(RATIO_LIMIT, source.strength), ratio)
    turned = np.subtract(source.direction, fused.direction, out=larger)
    np.abs(turned, out=turned)
    # Q = Γg·Γα / ((1 + exp(−15·(ratio − 0.5))) · (1 + exp(−22·(1 − turned/(π/2) − 0.8))))
    below = _one_plus_exp(ratio, np.float32(-15), np.float32(15 * 0.5))
    below *= _one_plus_exp(turned, np.float32(22) / HALF_PI, np.float32(-22 * 0.2))
    return GAMMA * cv2.sumElems(np.divide(source.strength, below, out=below))[0]


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
