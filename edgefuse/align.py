"""Bringing the infrared image onto the visible image's pixels, and what is shown where it has none.

Also the one parameter k of a lens: straight lines are bent, the more the farther from the middle. What
stands at r half diagonals from the middle would stand at r·(1 + k·r²) with a lens that keeps lines straight.
k > 0 is a barrel, as wide lenses make it, k < 0 a pincushion.
"""

import logging
from dataclasses import dataclass
from typing import Protocol, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from edgefuse.errors import InputError, unknown_name
from edgefuse.images import Image, fit_size
from edgefuse.spec import Aspect

logger = logging.getLogger(__name__)

SOFT_EDGE = 17
"""Pixels over which the edge of infrared is averaged; half of them fade."""
ASPECT_TOLERANCE = 0.02
"""Relative difference of two aspect ratios that rounding to whole pixels explains."""


@dataclass(frozen=True, slots=True)
class Aligned:
    """An infrared image on the visible image's pixels."""

    image: Image
    """uint8 `[H, W]`; any value where `valid` is 0."""
    valid: Image | None = None
    """uint8 `[H, W]`: 255 where infrared covers the visible image, 0 where it does not, falling off softly
    in between. None: it covers the whole image."""


class Align(Protocol):
    """Maps infrared images onto the visible one, which a function does too. One thread calls it."""

    def __call__(self, ir: Image, vis_shape: tuple[int, int]) -> Aligned:
        """Align one image.

        Args:
            ir: uint8 `[H', W']`.
            vis_shape: height and width of the visible image.
        """


class Resize(Align):
    """Two cameras that look from one place in one direction: the infrared image is only resized.

    An image that has the size already is returned as it is, without a copy. A resize is logged once for
    each pair of sizes, with a warning if the proportions differ and nothing was said about it.

    Args:
        aspect: what to do where the proportions differ. `stretch`: both show the same field of view.
            `fit`: infrared shows less to the sides and keeps its whole height (or the other way round); the
            visible image shows beside it. `crop`: infrared shows more, what overhangs is cut off.

    Raises:
        InputError: another `aspect`.
    """

    def __init__(self, aspect: Aspect = "stretch") -> None:
        if aspect not in get_args(Aspect):
            raise InputError(unknown_name("aspect", aspect, get_args(Aspect)))
        self._aspect = aspect
        self._logged: set[tuple[tuple[int, ...], tuple[int, int]]] = set()

    def __call__(self, ir: Image, vis_shape: tuple[int, int]) -> Aligned:
        """Resize one image: area averages down, bilinear up."""
        if ir.shape == vis_shape:
            return Aligned(ir)
        stretch = abs((vis_shape[1] / vis_shape[0]) / (ir.shape[1] / ir.shape[0]) - 1)
        kept = self._aspect != "stretch" and stretch > ASPECT_TOLERANCE
        if (ir.shape, vis_shape) not in self._logged:
            self._logged.add((ir.shape, vis_shape))
            logger.warning(
                "infrared is resized from %dx%d to the visible camera's %dx%d%s",
                *(ir.shape[1], ir.shape[0], vis_shape[1], vis_shape[0]),
                f"; the proportions differ by {stretch:.0%}, so objects will not line up: align the cameras "
                "(edgefuse calibrate), or set aspect to fit or crop where it can be set"
                if stretch > ASPECT_TOLERANCE and not kept
                else "",
            )
        if kept:
            return _keep_proportions(ir, vis_shape, self._aspect == "crop")
        return Aligned(fit_size(ir, (vis_shape[1], vis_shape[0])))


def _keep_proportions(ir: Image, vis_shape: tuple[int, int], crop: bool) -> Aligned:
    """Scale infrared to cover the visible image (`crop`), or to lie inside it, in the middle of it."""
    scales = vis_shape[0] / ir.shape[0], vis_shape[1] / ir.shape[1]
    scale = max(scales) if crop else min(scales)
    height, width = (max(1, round(side * scale)) for side in ir.shape[:2])
    resized = fit_size(ir, (width, height))
    top, left = (vis_shape[0] - height) // 2, (vis_shape[1] - width) // 2
    if crop:
        return Aligned(np.ascontiguousarray(resized[-top:, -left:][: vis_shape[0], : vis_shape[1]]))
    bars = (top, vis_shape[0] - height - top, left, vis_shape[1] - width - left)
    image = cv2.copyMakeBorder(resized, *bars, cv2.BORDER_REPLICATE)
    inside = np.full((height, width), 255, np.uint8)
    valid = cv2.copyMakeBorder(inside, *bars, cv2.BORDER_CONSTANT, value=0)
    # The edge fades over a few pixels within infrared, only on the sides that end inside the picture.
    soft = cv2.blur(valid, (SOFT_EDGE, SOFT_EDGE), borderType=cv2.BORDER_REPLICATE)
    fading = np.clip(2 * soft.astype(np.int16) - 255, 0, 255).astype(np.uint8)
    return Aligned(image, np.minimum(valid, fading))


def align_within(align: Align, ir: Image, valid: Image | None, vis_shape: tuple[int, int]) -> Aligned:
    """Align a picture that is none in some places.

    Args:
        align: the alignment.
        ir: uint8 `[H', W']`.
        valid: 255 where `ir` is a picture, 0 where it is none, `[H', W']`; None: everywhere.
        vis_shape: height and width of the visible image.
    """
    inside = None if valid is None else align(valid, vis_shape).image
    aligned = align(ir, vis_shape)
    if inside is None:
        return aligned
    return Aligned(aligned.image, inside if aligned.valid is None else np.minimum(inside, aligned.valid))


def show_visible_outside(fused: Image, vis: Image, valid: Image | None) -> Image:
    """Return the fused image where infrared covers it, and the visible one elsewhere, mixed by `valid`.

    Args:
        fused: uint8, of the shape of `vis`.
        vis: uint8 `[H, W]` or `[H, W, 3]`.
        valid: weight of `fused`, uint8 `[H, W]`; None: `fused` is returned as it is.
    """
    if valid is None:
        return fused
    weight = valid.astype(np.float32)
    return cv2.blendLinear(fused, vis, weight, 255 - weight)


def overlap(valid: Image | None) -> tuple[slice, slice]:
    """Return the rows and columns of the smallest rectangle around all that infrared covers fully."""
    if valid is None:
        return slice(None), slice(None)
    x, y, width, height = cv2.boundingRect(cv2.compare(valid, 255, cv2.CMP_EQ))
    return slice(y, y + height), slice(x, x + width)


def covered(valid: Image | None) -> tuple[slice, slice]:
    """Return the rows and columns of a large rectangle that infrared covers fully; empty if there is none."""
    rows, columns = overlap(valid)
    while valid is not None and rows.start < rows.stop and columns.start < columns.stop:
        part = valid[rows, columns] < 255
        bare = [part[0].mean(), part[-1].mean(), part[:, 0].mean(), part[:, -1].mean()]
        worst = int(np.argmax(bare))
        if not bare[worst] and not part.any():
            break
        if worst < 2:  # the side of which most is bare goes
            rows = slice(rows.start + (worst == 0), rows.stop - (worst == 1))
        else:
            columns = slice(columns.start + (worst == 2), columns.stop - (worst == 3))
    return rows, columns


Floats = NDArray[np.float64]

MOST = 0.3
"""Largest k either way: from -1/3 on, two places of the picture's corners would be one."""
ROUNDS = 8
"""Of Newton's method: the error is below a hundredth of a pixel after 4."""


def check_distortion(what: str, k: float) -> None:
    """Raise `InputError` for a k that no lens has."""
    if not abs(k) <= MOST:
        raise InputError(f"{what} is {k:g}, it must be from -{MOST:g} to {MOST:g}")


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
