"""Fusions without any network. What cannot beat them has no claim to quality.

References: Burt and Adelson, IEEE Trans. Commun. 31(4), 1983; Toet, Pattern Recognition Letters 9(4), 1989
(Laplacian pyramids).
"""

from collections.abc import Callable
from functools import partial
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from edgefuse.images import Image, measure_levels

PYRAMID_LEVELS = 4

Floats: TypeAlias = NDArray[np.float32]


def maximum(ir: Image, vis: Image) -> Image:
    """Return the brighter of the two pixels; uint8 `[H, W]` in and out, as for all of this module."""
    return cv2.max(ir, vis)


def laplacian(ir: Image, vis: Image) -> Image:
    """Blend Laplacian pyramids: the larger coefficient of four detail levels, the mean of the rest."""
    return _rounded(_laplacian(ir, vis))


def match_levels(ir: Image, vis: Image) -> Image:
    """Return infrared shifted to the visible image's median and scaled to its spread, clipped to 0..255."""
    ir_median, ir_spread, vis_median, vis_spread = 255 * measure_levels(ir, vis)[:4].astype(np.float64)
    factor = vis_spread / ir_spread if ir_spread > 0 else 1.0
    return cv2.LUT(ir, _rounded((np.arange(256) - ir_median) * factor + vis_median))


def _average(ir: Image, vis: Image) -> Floats:
    return cv2.add(ir, vis, dtype=cv2.CV_32F) * np.float32(0.5)


def _ratio(ir: Image, vis: Image) -> Floats:
    """(ir² + vis²) / (ir + vis); 0 where both are 0.

    It minimises a least-squares intensity loss whose two weights are the sources' own intensities.
    """
    a, b = ir.astype(np.float32), vis.astype(np.float32)
    return (a * a + b * b) / np.maximum(a + b, np.float32(1))


def _laplacian(ir: Image, vis: Image, base: str = "mean") -> Floats:
    a, b = ir.astype(np.float32), vis.astype(np.float32)
    details = []
    for _ in range(PYRAMID_LEVELS):
        if min(a.shape) < 2:
            break
        (a, detail_a), (b, detail_b) = _split(a), _split(b)
        details.append(np.where(np.abs(detail_a) >= np.abs(detail_b), detail_a, detail_b))
    fused: Floats = {"mean": (a + b) * np.float32(0.5), "max": np.maximum(a, b), "vis": b}[base]
    for detail in reversed(details):
        fused = _enlarge(fused, detail) + detail
    return fused


def _split(image: Floats) -> tuple[Floats, Floats]:
    smaller = cv2.pyrDown(image)
    return smaller, image - _enlarge(smaller, image)


def _enlarge(image: Floats, like: Floats) -> Floats:
    return cv2.pyrUp(image, dstsize=(like.shape[1], like.shape[0]))


def _rounded(values: NDArray[np.floating]) -> Image:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def _matched(fusion: Callable[[Image, Image], Floats], ir: Image, vis: Image) -> Floats:
    return fusion(match_levels(ir, vis), vis)


def _then_rounded(fusion: Callable[[Image, Image], Floats], ir: Image, vis: Image) -> Image:
    return _rounded(fusion(ir, vis))


_PYRAMIDS: dict[str, Callable[[Image, Image], Floats]] = {
    "laplacian": _laplacian,
    "laplacian-max": partial(_laplacian, base="max"),
    "laplacian-vis": partial(_laplacian, base="vis"),
}
"""The larger coefficient of each detail level, on the mean, the brighter or the visible base."""

UNROUNDED: dict[str, Callable[[Image, Image], Floats]] = {
    "average": _average,
    "ratio": _ratio,
    **_PYRAMIDS,
    **{f"matched-{name}": partial(_matched, fusion) for name, fusion in _PYRAMIDS.items()},
}
"""Those that have fractions of a grey level, as float32 `[H, W]` before rounding."""

COPIES: dict[str, Callable[[Image, Image], Image]] = {
    "copy-ir": lambda ir, _vis: ir,
    "copy-vis": lambda _ir, vis: vis,
}
"""Not fusions: shown for scale, and never the best."""

BASELINES: dict[str, Callable[[Image, Image], Image]] = {
    "average": lambda ir, vis: ((ir.astype(np.uint16) + vis) // 2).astype(np.uint8),
    "maximum": maximum,
    **{name: partial(_then_rounded, fusion) for name, fusion in UNROUNDED.items() if name != "average"},
    **COPIES,
}
"""(infrared, visible), uint8 `[H, W]` → fused, uint8 `[H, W]`, by name."""
