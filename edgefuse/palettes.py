"""Infrared that was coloured for people: finding its palette, and back to grey with white = hot."""

from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from edgefuse.images import Image

PALETTES = {
    name: getattr(cv2, f"COLORMAP_{name.upper()}")
    for name in ("jet", "rainbow", "turbo", "hot", "inferno", "magma", "plasma", "viridis", "parula", "cool")
}
"""Palettes that are recognised: those of OpenCV and matplotlib. Of each, low is cold."""
COLOURED = 24
"""Levels by which a pixel's channels differ if it is coloured, …"""
COLOURED_SHARE = 0.2
"""… and the share of such pixels in a coloured picture: signs and scales that are burnt in are less."""
CLOSE = 12.0
"""Median distance, in levels, of a picture's colours from those of its palette; JPEG shifts them."""
STEP = 4  # colours are looked up in steps of so many levels


def is_coloured(image: Image) -> bool:
    """Whether an image `[H, W, 3]` has colours, rather than grey in three channels."""
    return bool((np.ptp(_sample(image), axis=1) > COLOURED).mean() > COLOURED_SHARE)


def find_palette(image: Image) -> str | None:
    """Return the palette that an image uint8 `[H, W, 3]` BGR was made with; None: none of `PALETTES`."""
    sample = _sample(image)
    sample = sample[np.ptp(sample, axis=1) > COLOURED]
    if not len(sample):
        return None
    distances = {name: float(np.median(_nearest(sample, name)[1])) for name in PALETTES}
    best = min(distances, key=distances.__getitem__)
    return best if distances[best] <= CLOSE else None


def remove_palette(image: Image, name: str) -> Image:
    """Return the place of each pixel's colour in a palette, 0 (cold) to 255 (hot), uint8 `[H, W]`."""
    blue, green, red = (image[:, :, channel] // STEP for channel in range(3))
    return _inverse(name)[blue, green, red]


def _sample(image: Image) -> Image:
    return image[:: max(1, image.shape[0] // 32), :: max(1, image.shape[1] // 32)].reshape(-1, 3)


@lru_cache(maxsize=2)
def _inverse(name: str) -> Image:
    levels = np.arange(STEP // 2, 256, STEP, dtype=np.float32)
    grid = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), -1).reshape(-1, 3)
    places = np.concatenate([_nearest(part, name)[0] for part in np.array_split(grid, 16)])
    return places.astype(np.uint8).reshape((len(levels),) * 3)


def _nearest(colours: NDArray[np.generic], name: str) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Return the nearest place in a palette for each colour `[N, 3]`, and its distance."""
    table = cv2.applyColorMap(np.arange(256, dtype=np.uint8)[None], PALETTES[name])[0].astype(np.float32)
    values = colours.astype(np.float32)
    squares = (values**2).sum(1)[:, None] - 2 * values @ table.T + (table**2).sum(1)
    places = squares.argmin(1)
    return places, np.sqrt(np.maximum(squares[np.arange(len(places)), places], 0))
