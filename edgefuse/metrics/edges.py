"""Edge transfer (Qabf): how much of the sources' gradients, in strength and direction, is kept.

Reference: Xydeas and Petrović, Electronics Letters 36(4), 2000, with the constants and quirks of the
evaluators in use: Γg = 0.9994, κg = −15, σg = 0.5, Γα = 0.9879, κα = −22, σα = 0.8; Sobel with zero borders;
the difference of two directions is not wrapped at ±90°; and where both strengths are equal, the strength
itself stands for their ratio.
"""

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from edgefuse.images import Image
from edgefuse.metrics.windows import Banded

GAMMA = 0.9994 * 0.9879
# exp(-15·(4 - 0.5)) is already below float32's resolution next to 1, and smaller ones are slow.
RATIO_LIMIT = 4.0
TINY = np.float32(1e-20)  # instead of a division by 0, as the arcus tangent of infinity is slow

Floats = NDArray[np.float32]


class Edges(NamedTuple):
    """Gradient of some rows of an image; arrays are `[rows, W]`."""

    strength: Floats
    """Magnitude of the 3×3 Sobel gradient, grey levels times 8 per pixel."""
    direction: Floats
    """atan(gy / gx), −π/2..π/2; −π/2 where gx is 0. Only differences of it are used."""
    total: float
    """Sum of the strength."""


def edges_of(image: Image, keep: bool = False) -> Banded[Edges]:
    """Return the part of `qabf` that depends on one image only."""
    framed = cv2.copyMakeBorder(image, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    height, width = image.shape
    return Banded(height, width, lambda rows: _edges(framed[rows.start : rows.stop + 2]), keep)


def _edges(framed: Image) -> Edges:
    gx, gy = (gradient[1:-1, 1:-1].astype(np.float32) for gradient in cv2.spatialGradient(framed))
    # Not cv2.magnitude, whose last bit depends on the pixel's place: equal gradients must be equal here.
    # The sum of squares is an exact integer, and a square root is rounded the same everywhere.
    strength = np.square(gx)
    cv2.accumulateSquare(gy, strength)
    np.sqrt(strength, out=strength)
    upright = np.equal(gx, 0).view(np.uint8)
    gx += TINY
    gy /= gx
    np.arctan(gy, out=gy)
    cv2.copyTo(_upright(gy.shape), upright, gy)
    return Edges(strength, gy, cv2.sumElems(strength)[0])


@cache
def _upright(shape: tuple[int, int]) -> Floats:
    return np.full(shape, -np.pi / 2, np.float32)


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
    equal = np.equal(ratio, larger).view(np.uint8)
    with np.errstate(invalid="ignore"):  # 0 / 0, which are equal
        ratio /= larger
    cv2.copyTo(source.strength, equal, ratio)
    cv2.threshold(ratio, RATIO_LIMIT, 0, cv2.THRESH_TRUNC, ratio)
    turned = cv2.absdiff(source.direction, fused.direction, larger)
    # Q = Γg·Γα / ((1 + exp(−15·(ratio − 0.5))) · (1 + exp(−22·(1 − turned/(π/2) − 0.8))))
    below = _one_plus_exp(ratio, np.float32(-15), np.float32(15 * 0.5))
    below *= _one_plus_exp(turned, np.float32(22 / (np.pi / 2)), np.float32(-22 * 0.2))
    return GAMMA * cv2.sumElems(np.divide(source.strength, below, out=below))[0]


def _one_plus_exp(values: Floats, factor: np.float32, offset: np.float32) -> Floats:
    """1 + exp(factor·values + offset), in place."""
    values *= factor
    values += offset
    cv2.exp(values, values)
    values += np.float32(1)
    return values
