"""Moving bodies as sprites for both cameras, drawn when first needed, once per pose and size."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import cv2
import numpy as np

from edgefuse.images import Image
from edgefuse.sim.figures import Limb, Look, Point, Wire, cyclist, dog, person
from edgefuse.sim.optics import AIR, CODES, COLDEST_CODE
from edgefuse.sim.surfaces import Colour, Floats

__all__ = ["Figure", "Sprite"]

PHASES = 14  # poses of one stride
DENSEST, COARSEST = 180.0, 6.0  # pixels per metre


class Kind(NamedTuple):
    """How a kind of body is made, and the width and height in metres that it stays within."""

    limbs: Callable[[Look, float], list[Limb | Wire]]
    box: tuple[float, float]


KINDS = {
    "person": Kind(person, (1.3, 2.05)),
    "dog": Kind(dog, (1.4, 0.95)),
    "cyclist": Kind(cyclist, (2.2, 2.0)),
}


class Sprite(NamedTuple):
    """A drawn body, and the metres that it extends to the right of and above the place where it stands.

    `visible` is uint8 [h, w, 4]: B, G, R and alpha; `warmth` [h, w, 2]: a temperature's code and
    alpha. Colours and codes are multiplied by alpha, so that both can be resized and warped.
    """

    visible: Image
    warmth: Image
    left: float
    bottom: float
    width: float
    height: float


@dataclass
class Figure:
    """A body seen from one side.

    Attributes:
        kind: a name in `KINDS`.
        look: what it wears.
        yaw: where it faces: 0 to the right, pi / 2 away from the viewer.
    """

    kind: str
    look: Look
    yaw: float
    _sprites: dict[tuple[int, int], Sprite] = field(default_factory=dict, repr=False)

    def sprite(self, stride: float, density: float) -> Sprite:
        """Return it at a place in the stride (1 = a whole one), with `density` pixels per metre or more."""
        phase = math.floor(stride * PHASES) % PHASES
        # Sizes in steps of a factor 1.5: what is drawn is hardly ever more than that from what is shown.
        step = math.ceil(math.log(min(max(density, COARSEST), DENSEST), 1.5))
        if (phase, step) not in self._sprites:
            limbs = KINDS[self.kind].limbs(self.look, phase / PHASES)
            sprite = _draw(limbs, self.yaw, KINDS[self.kind].box, 1.5**step, self.look.stripe)
            self._sprites[phase, step] = sprite
        return self._sprites[phase, step]


def _draw(
    parts: list[Limb | Wire], yaw: float, box: tuple[float, float], density: float, stripe: Colour | None
) -> Sprite:
    columns, rows = math.ceil(box[0] * density), math.ceil(box[1] * density)
    planes = np.zeros((5, rows, columns), np.float32)  # B, G, R, temperature, all times alpha, and alpha
    c, s = math.cos(yaw), math.sin(yaw)

    def turned(p: Point) -> tuple[float, float, float]:
        """Pixel x, pixel y and the distance behind the figure's middle."""
        x, y, z = p
        return (x * c - z * s) * density + columns / 2, rows - 1 - y * density, x * s + z * c

    placed = []
    for part in parts:
        points = [turned(p) for p in (part.points if isinstance(part, Wire) else (part.a, part.b))]
        placed.append((sum(p[2] for p in points) / len(points), points, part))
    for _, points, part in sorted(placed, key=lambda item: -item[0]):
        if isinstance(part, Wire):
            _add_wire(planes, points, part, density)
        else:
            _add_limb(planes, points, part, density, stripe)
    return _cut(planes, box[0], density)


def _add_wire(planes: Floats, points: list[tuple[float, float, float]], wire: Wire, density: float) -> None:
    mask = np.zeros(planes.shape[1:], np.uint8)
    place = np.rint(np.array(points)[:, :2] * 16).astype(np.int32)
    cv2.polylines(mask, [place], False, 255, max(1, round(2 * wire.radius * density)), cv2.LINE_AA, 4)
    alpha = mask.astype(np.float32) * np.float32(min(1.0, 2 * wire.radius * density) / 255)
    keep = 1 - alpha
    for plane, value in zip(planes, (*wire.bgr, wire.celsius, 1.0), strict=True):
        plane *= keep
        plane += alpha * np.float32(value)


def _add_limb(
    planes: Floats,
    points: list[tuple[float, float, float]],
    limb: Limb,
    density: float,
    stripe: Colour | None,
) -> None:
    (ax, ay, _), (bx, by, _) = points
    rows, columns = planes.shape[1:]
    ra, rb = max(limb.radius_a * density, 0.6), max(limb.radius_b * density, 0.6)
    reach = max(ra, rb) + 1.5
    x0, x1 = max(int(min(ax, bx) - reach), 0), min(int(max(ax, bx) + reach) + 1, columns)
    y0, y1 = max(int(min(ay, by) - reach), 0), min(int(max(ay, by) + reach) + 1, rows)
    if x1 <= x0 or y1 <= y0:
        return
    # Small arrays: numpy's cost is per call, so there are few of them, and no np.clip.
    x = np.arange(x0, x1, dtype=np.float32)[None, :] - np.float32(ax)
    y = np.arange(y0, y1, dtype=np.float32)[:, None] - np.float32(ay)
    bx, by = bx - ax, by - ay
    square = max(bx * bx + by * by, 1e-6)
    along = np.minimum(np.maximum(x * (bx / square) + y * (by / square), 0), 1)
    # The offset from the limb's axis, in radii: 1 at the outline.
    radius = ra + (rb - ra) * along
    nx, ny = (x - along * bx) / radius, (y - along * by) / radius
    part = nx * nx + ny * ny
    alpha = np.minimum(np.maximum(radius - radius * np.sqrt(part) + 0.5, 0), 1)
    bulge = np.sqrt(np.maximum(1 - part, 0))  # how much the surface faces the viewer
    shade = np.maximum(0.42 + 0.5 * bulge - 0.28 * ny, 0.1) * alpha  # lit from above
    roi = planes[:, y0:y1, x0:x1]
    roi *= 1 - alpha
    bgr = np.array(limb.bgr, np.float32)[:, None, None]
    if stripe is not None and limb.radius_a > 0.12 and limb.celsius > 18:  # a pattern on the coat
        bands = ((rows - ay - y) / density * 9).astype(np.int32) % 2 == 0
        bgr = np.where(bands, np.array(stripe, np.float32)[:, None, None], bgr)
    roi[:3] += shade * bgr
    roi[3] += (AIR + (limb.celsius - AIR) * (0.72 + 0.28 * bulge)) * alpha
    roi[4] += alpha


def _cut(planes: Floats, width: float, density: float) -> Sprite:
    """Cut the empty border off and store it in 8 bits."""
    blue, green, red, celsius, alpha = planes
    opaque = alpha > 0
    x, y = np.flatnonzero(opaque.any(axis=0)), np.flatnonzero(opaque.any(axis=1))
    place = np.s_[int(y[0]) : int(y[-1]) + 1, int(x[0]) : int(x[-1]) + 1]
    code = (celsius - COLDEST_CODE * alpha) * CODES
    rows, columns = alpha[place].shape
    return Sprite(
        visible=_eight_bits([255 * plane[place] for plane in (blue, green, red, alpha)]),
        warmth=_eight_bits([code[place], 255 * alpha[place]]),
        left=int(x[0]) / density - width / 2,
        bottom=(len(alpha) - 1 - int(y[-1])) / density,
        width=columns / density,
        height=rows / density,
    )


def _eight_bits(planes: list[Floats]) -> Image:
    return np.clip(np.rint(np.dstack(planes)), 0, 255).astype(np.uint8)
