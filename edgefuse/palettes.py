"""The palettes that infrared is coloured with for people: which one it is, and back to grey."""

from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from edgefuse.images import Image

PALETTES = {
    name: getattr(cv2, f"COLORMAP_{name.upper()}")
    for name in ("jet", "turbo", "hot", "inferno", "magma", "plasma", "viridis", "parula", "cool")
}
"""Palettes that are removed: OpenCV's, and matplotlib's of the same colours. Of each, low is cold."""
TABLES = PALETTES | {"rainbow": cv2.COLORMAP_RAINBOW}
"""Palettes that are compared with. A rainbow shows red for cold in some programs, for hot in others."""
COLOURED = 24
"""Levels by which a pixel's channels differ if it is coloured, …"""
COLOURED_SHARE = 0.2
"""… and the share of such pixels in a coloured picture: signs and scales that are burnt in are less."""
CLOSE = 12.0
"""Distance, in levels, of nine tenths of a picture's colours from those of its palette; JPEG shifts them."""
AS_CLOSE = 4.0
"""Levels by which another palette may be further away and be the right one all the same."""
SPAN = 24
"""Places of a palette that a picture must cover: a plain one lies close to several by chance."""
STEP = 4  # colours are looked up in steps of so many levels


def is_coloured(image: Image) -> bool:
    """Whether an image `[H, W, 3]` has colours, rather than grey in three channels."""
    return bool((np.ptp(_sample(image), axis=1) > COLOURED).mean() > COLOURED_SHARE)


def find_palette(image: Image) -> str | None:
    """Return the palette that an image uint8 `[H, W, 3]` BGR was made with.

    None: none of `PALETTES`, or so few colours that they may be of two, of which one is hot where the other
    is cold: from red to yellow it becomes hotter in `hot` and colder in `jet`.
    """
    sample, found = _close_palettes(image)
    if not found:
        return None
    # A few pixels, such as the white of `hot`, may tell two apart that have the rest in common.
    best = min(found, key=lambda name: sum(found[name]))
    places, distances = _nearest(sample, best)
    if best not in PALETTES or np.ptp(places[distances <= CLOSE]) < SPAN:
        return None
    rivals = [name for name in found if all(np.subtract(found[name], found[best]) <= AS_CLOSE)]
    away = places - places.mean()
    agree = all(float(away @ _nearest(sample, name)[0]) > 0 for name in rivals)
    return best if agree else None


def has_palette(image: Image) -> bool:
    """Whether the colours of an image uint8 `[H, W, 3]` are those of a palette, be it clear which or not."""
    return bool(_close_palettes(image)[1])


def _close_palettes(image: Image) -> tuple[Image, dict[str, tuple[float, float]]]:
    """Return a sample of an image's coloured pixels `[N, 3]`, and the distances of palettes close to them."""
    sample = _sample(image)
    sample = sample[np.ptp(sample, axis=1) > COLOURED]
    if not len(sample):
        return sample, {}
    found = {}
    for name in TABLES:
        most, nearly_all = np.quantile(_nearest(sample, name)[1], (0.9, 0.98))
        if most <= CLOSE:
            found[name] = float(most), float(nearly_all)
    return sample, found


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
    table = cv2.applyColorMap(np.arange(256, dtype=np.uint8)[None], TABLES[name])[0].astype(np.float32)
    values = colours.astype(np.float32)
    squares = (values**2).sum(1)[:, None] - 2 * values @ table.T + (table**2).sum(1)
    places = squares.argmin(1)
    return places, np.sqrt(np.maximum(squares[np.arange(len(places)), places], 0))
