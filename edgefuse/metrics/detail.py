"""What is easily lost: fine detail of the darker source, and the contrast of thermal targets.

Our own measures. A fusion that takes the brighter of two pixels loses what the darker source shows there, and
the sums over both sources (MI, VIF, Qabf) hardly notice. So the detail of each source is looked at where the
other one is brighter, and elsewhere, each by itself. Nor do they notice when a pedestrian of 200 pixels
vanishes; the target measure looks at nothing else.
"""

from typing import NamedTuple, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from edgefuse.images import Image

FINE = 3.0
"""Detail is what a Gaussian of this standard deviation, pixels, takes out of an image."""
COARSE = 5.0
"""Brightness is compared after smoothing with a Gaussian of this standard deviation, pixels."""
BRIGHTER = 10.0
"""Grey levels by which a source is brighter."""
LEAST_SHARE = 1e-3
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
    if source.size < LEAST_SHARE * pixels or power < FAINTEST**2 * source.size:
        return None
    return float(np.dot(fused, source)) / power


def _smooth(values: Floats, sigma: float) -> Floats:
    return cv2.GaussianBlur(values, (0, 0), sigma)


# --- thermal targets

PERCENTILE = 98.0
SMALLEST_AREA = 25
RING = 15


class Target(NamedTuple):
    """A warm component and its surroundings, inside a window of the image."""

    window: tuple[slice, slice]
    inside: NDArray[np.uint8]
    """Mask of the component within the window, 0 or 255."""
    ring: NDArray[np.uint8]
    """Mask of what is at most 15 pixels away from it and in no target."""
    contrast: float
    """Mean inside minus mean of the ring in the infrared image, grey levels; above 0."""


def find_targets(ir: Image) -> list[Target]:
    """Find connected components of at least 25 pixels at or above the 98th percentile.

    Args:
        ir: clean infrared, uint8 `[H, W]`, white = hot.

    Returns:
        The targets that are brighter than their surroundings, in no particular order.
    """
    hot = (ir >= np.percentile(ir, PERCENTILE)).astype(np.uint8)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(hot, connectivity=8)
    large = np.flatnonzero(stats[:, cv2.CC_STAT_AREA] >= SMALLEST_AREA)
    large = large[large != 0]
    any_target = np.isin(labels, large)
    targets = []
    for label in large:
        x, y, width, height = stats[label, :4]
        window = (slice(max(0, y - RING), y + height + RING), slice(max(0, x - RING), x + width + RING))
        inside = labels[window] == label
        distance = cv2.distanceTransform((~inside).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        # OpenCV 4 says 15.000001 for 15, and not always; the next larger distance is 15.03.
        ring = (distance < RING + 0.01) & ~any_target[window]
        if not ring.any():
            continue
        masks = inside.astype(np.uint8) * 255, ring.astype(np.uint8) * 255
        contrast = _contrast(ir[window], *masks)
        if contrast > 0:
            targets.append(Target(window, *masks, contrast))
    return targets


def kept_contrast(targets: list[Target], fused: Image) -> float | None:
    """Return the share of the targets' contrast that the fused image keeps.

    0 (gone or inverted) to 1 (at least as strong as in the infrared), the mean over the targets; None if
    there is no target.
    """
    if not targets:
        return None
    shares = [_contrast(fused[t.window], t.inside, t.ring) / t.contrast for t in targets]
    return float(np.clip(shares, 0, 1).mean())


def _contrast(image: Image, inside: NDArray[np.uint8], ring: NDArray[np.uint8]) -> float:
    return float(cv2.mean(image, inside)[0] - cv2.mean(image, ring)[0])
