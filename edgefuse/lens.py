"""The one parameter of a lens: straight lines that are bent, the more the farther from the middle.

What stands at r half diagonals from the middle of the picture would stand at r·(1 + k·r²) with a lens that
keeps lines straight. k > 0 is a barrel, as wide lenses make it, k < 0 a pincushion.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from edgefuse.errors import InputError
from edgefuse.images import Image

Floats = NDArray[np.float64]

MOST = 0.3
"""Largest k either way: from -1/3 on, two places of the picture's corners would be one."""
ROUNDS = 8
"""Of Newton's method: the error is below a hundredth of a pixel after 4."""


def check_distortion(what: str, k: float) -> None:
    """Raise `InputError` for a k that no lens has."""
    if not abs(k) <= MOST:
        raise InputError(f"{what} is {k:g}, -{MOST:g} to {MOST:g} is possible")


def undistort(x: Floats, y: Floats, shape: tuple[int, ...], k: float) -> tuple[Floats, Floats]:
    """Return where pixels (x, y) of a picture of `shape` would be without the lens's distortion."""
    if not k:
        return x, y
    cx, cy = (shape[1] - 1) / 2, (shape[0] - 1) / 2
    factor = 1 + k * ((x - cx) ** 2 + (y - cy) ** 2) / (cx * cx + cy * cy)
    return cx + (x - cx) * factor, cy + (y - cy) * factor


def distort(x: Floats, y: Floats, shape: tuple[int, ...], k: float) -> tuple[Floats, Floats]:
    """Return the pixels at which places without distortion are seen: the inverse of `undistort`.

    Places that no pixel shows, because the lens folds them back, are put far outside.
    """
    if not k:
        return x, y
    cx, cy = (shape[1] - 1) / 2, (shape[0] - 1) / 2
    wanted = np.sqrt(((x - cx) ** 2 + (y - cy) ** 2) / (cx * cx + cy * cy))
    end = np.sqrt(-1 / (3 * k)) if k < 0 else np.inf
    folded = wanted > end * (1 + k * end * end) if k < 0 else np.zeros(wanted.shape, bool)
    r = np.minimum(wanted, min(end, 2.0))
    for _ in range(ROUNDS):
        r = np.clip(r - (r * (1 + k * r * r) - wanted) / np.maximum(1 + 3 * k * r * r, 1e-3), 0, end)
    factor = np.where(folded, 1e3, np.divide(r, wanted, out=np.ones_like(r), where=wanted > 1e-9))
    return cx + (x - cx) * factor, cy + (y - cy) * factor


def remap_of(
    shape: tuple[int, ...], k: float, zoom: float = 1.0
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the maps for `cv2.remap` that bend a straight picture of `shape` as the lens does.

    Args:
        shape: `[H, W]`, of both.
        k: of the lens.
        zoom: by which the straight picture is smaller than the lens has it in the middle.
    """
    x, y = undistort(*_pixels(shape), shape, k)
    cx, cy = (shape[1] - 1) / 2, (shape[0] - 1) / 2
    return (cx + (x - cx) / zoom).astype(np.float32), (cy + (y - cy) / zoom).astype(np.float32)


def straightened(image: Image, k: float, border: int = cv2.BORDER_REPLICATE) -> Image:
    """Return a picture as a lens without distortion would have it, of the same size."""
    if not k:
        return image
    x, y = (part.astype(np.float32) for part in distort(*_pixels(image.shape), image.shape, k))
    return cv2.remap(image, x, y, cv2.INTER_LINEAR, borderMode=border)


def _pixels(shape: tuple[int, ...]) -> tuple[Floats, Floats]:
    y, x = np.mgrid[0 : shape[0], 0 : shape[1]].astype(np.float64)
    return x, y
