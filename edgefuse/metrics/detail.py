"""Detail kept: how much of a source's fine detail the fused image still shows, where it is easily lost.

Our own measure. A fusion that takes the brighter of two pixels loses what the darker source shows there, and
the sums over both sources (MI, VIF, Qabf) hardly notice. So the detail of each source is looked at where the
other one is brighter, and elsewhere, each by itself.
"""

from typing import NamedTuple, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from edgefuse.images import Image

__all__ = ["DetailKept", "Layers", "detail_kept", "layers"]

FINE = 3.0
"""Detail is what a Gaussian of this standard deviation, pixels, takes out of an image."""
COARSE = 5.0
"""Brightness is compared after smoothing with a Gaussian of this standard deviation, pixels."""
BRIGHTER = 10.0
"""Grey levels by which a source is brighter."""
SMALLEST_AREA = 1e-3
"""With a smaller share of the picture there is nothing to measure."""
FAINTEST = 0.5
"""RMS of the source's detail, grey levels, below which it is only what rounding leaves."""

Floats: TypeAlias = NDArray[np.float32]
Mask: TypeAlias = NDArray[np.bool_]


class Layers(NamedTuple):
    """A grey image in two layers."""

    detail: Floats
    """Image minus its Gaussian mean (σ = 3), grey levels, float32 `[H, W]`."""
    brightness: Floats
    """Gaussian mean (σ = 5), float32 `[H, W]`."""


class DetailKept(NamedTuple):
    """Detail of one source that is kept. None where it is undefined."""

    dimmed: float | None
    """Where the other source is brighter: slope of the fused detail on the source's, 1 = all of it, 0 = none,
    below 0 = inverted, above 1 = amplified."""
    elsewhere: float | None
    """The same in the rest of the picture."""
    area: float
    """Share of the picture where the other source is brighter, 0 to 1."""


def layers(image: Image) -> Layers:
    """Split an image uint8 `[H, W]` into what the measure needs."""
    values = image.astype(np.float32)
    return Layers(values - _smooth(values, FINE), _smooth(values, COARSE))


def detail_kept(fused: Layers, source: Layers, other: Layers) -> DetailKept:
    """Return how much of a source's detail is in the fused image.

    Args:
        fused: of the fused image.
        source: of the source whose detail is looked for.
        other: of the other source.
    """
    dimmed = other.brightness > source.brightness + np.float32(BRIGHTER)
    there, rest = (_slope(fused.detail[m], source.detail[m], dimmed.size) for m in (dimmed, ~dimmed))
    return DetailKept(there, rest, float(dimmed.mean()))


def _slope(fused: Floats, source: Floats, pixels: int) -> float | None:
    """Least-squares slope through the origin; both have a mean of about 0."""
    power = float(np.dot(source, source))
    if source.size < SMALLEST_AREA * pixels or power < FAINTEST**2 * source.size:
        return None
    return float(np.dot(fused, source)) / power


def _smooth(values: Floats, sigma: float) -> Floats:
    return cv2.GaussianBlur(values, (0, 0), sigma)
