"""The bodies of people, a dog and a cyclist, as limbs between joints at a phase of their stride.

They and other moving things are sprites for both cameras, drawn when first needed, once per pose and size.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import cv2
import numpy as np

from edgefuse.images import Image
from edgefuse.sim.surfaces import AIR, CODES, COLDEST_CODE, Colour, Floats

Point = tuple[float, float, float]
"""x forward, y up, z to the figure's left, in metres."""


class Look(NamedTuple):
    """What a person wears: paint, 0..1 in B, G, R, and how warm the coat lets the outside be."""

    coat: Colour
    trousers: Colour
    skin: Colour = (0.30, 0.42, 0.62)
    hair: Colour = (0.04, 0.05, 0.07)
    stripe: Colour | None = None
    coat_celsius: float = 23.0
    height: float = 1.75


class Limb(NamedTuple):
    """A capsule between two joints, with its radius in metres at either, its paint and temperature."""

    a: Point
    b: Point
    radius_a: float
    radius_b: float
    bgr: Colour
    celsius: float


class Wire(NamedTuple):
    """A bent tube, too thin to be shaded."""

    points: list[Point]
    radius: float
    bgr: Colour
    celsius: float


def _bend(root: Point, angle: float, length: float, side: float = 0.0) -> Point:
    """Return the end of a limb that hangs from `root`, swung forward by `angle`."""
    return (root[0] + length * math.sin(angle), root[1] - length * math.cos(angle), root[2] + side)


def _polar(x: float, radius: float, angle: float) -> Point:
    """Return a point on a wheel whose hub is at x."""
    return (x + radius * math.cos(angle), 0.34 + radius * math.sin(angle), 0.0)


def person(look: Look, phase: float) -> list[Limb | Wire]:
    """Return a walking person at a phase (0 to 1) of the stride."""
    k = look.height / 1.75
    bob = 0.02 * math.cos(4 * math.pi * phase)
    hip_y, shoulder_y = (0.90 + bob) * k, (1.43 + bob) * k
    limbs = _walking_limbs(look, phase, k, hip_y, shoulder_y)
    lean = 0.03 * math.sin(2 * math.pi * phase)
    waist, chest = (0.0, hip_y + 0.04), (0.03, shoulder_y - 0.16)
    for z in (-0.075, 0.0, 0.075):
        ends = (*waist, z), (*chest, z * 1.3)
        limbs.append(Limb(*ends, 0.125, 0.145, look.coat, look.coat_celsius + 1.0))
    across = (0, shoulder_y - 0.03, -0.13), (0, shoulder_y - 0.03, 0.13)
    limbs.append(Limb(*across, 0.075, 0.075, look.coat, look.coat_celsius + 1.5))
    neck, head = (0.02, shoulder_y + 0.02, 0.0), (0.035 + lean * 0.3, shoulder_y + 0.20 * k, 0.0)
    face = (head[0] + 0.025, head[1] - 0.05, 0), (head[0] + 0.02, head[1] + 0.03, 0)
    hair = (head[0] - 0.035, head[1] + 0.01, 0), (head[0] - 0.01, head[1] + 0.065, 0)
    limbs.append(Limb(neck, head, 0.06, 0.06, look.skin, 32.5))
    limbs.append(Limb(*face, 0.085, 0.095, look.skin, 33.5))
    limbs.append(Limb(*hair, 0.097, 0.092, look.hair, 25.0))
    return limbs


def _walking_limbs(look: Look, phase: float, k: float, hip_y: float, shoulder_y: float) -> list[Limb | Wire]:
    """Return legs, feet, arms and hands of a person whose height is k times the usual one."""
    limbs: list[Limb | Wire] = []
    for side, sign in ((0.09, 1.0), (-0.09, -1.0)):
        turn = 2 * math.pi * phase + (0 if sign > 0 else math.pi)
        thigh = 0.42 * math.sin(turn)
        knee_bend = 0.12 + 0.75 * max(0.0, math.cos(turn)) ** 1.5
        hip = (0.0, hip_y, side)
        knee = _bend(hip, thigh, 0.43 * k)
        ankle = _bend(knee, thigh - knee_bend, 0.41 * k)
        toes = (ankle[0] + 0.13, ankle[1] - 0.03 + 0.05 * max(0.0, math.cos(turn)), side)
        limbs += [
            Limb(hip, knee, 0.092, 0.068, look.trousers, 24.5),
            Limb(knee, ankle, 0.066, 0.048, look.trousers, 22.5),
            Limb(ankle, toes, 0.05, 0.04, (0.05, 0.05, 0.06), 15.5),
        ]
        reach = -0.45 * math.sin(turn)
        shoulder = (0.0, shoulder_y - 0.02, side * 2.25)
        elbow = _bend(shoulder, reach, 0.29 * k, 0.02 * sign)
        wrist = _bend(elbow, reach + 0.35, 0.25 * k)
        limbs += [
            Limb(shoulder, elbow, 0.064, 0.052, look.coat, look.coat_celsius),
            Limb(elbow, wrist, 0.052, 0.042, look.coat, look.coat_celsius - 1),
            Limb(wrist, _bend(wrist, reach + 0.4, 0.09), 0.04, 0.034, look.skin, 30.0),
        ]
    return limbs


def dog(look: Look, phase: float) -> list[Limb | Wire]:
    """Return a trotting dog; `look.coat` is its fur, `look.trousers` its ears."""
    fur, warm = look.coat, look.coat_celsius
    limbs: list[Limb | Wire] = []
    for x, offset in ((0.27, 0.0), (-0.27, 0.5)):
        for side, half in ((0.07, 0.0), (-0.07, 0.5)):
            turn = 2 * math.pi * (2 * phase + offset + half)
            hip = (x, 0.40, side)
            knee = _bend(hip, 0.5 * math.sin(turn) + (0.15 if x > 0 else -0.2), 0.2)
            paw = _bend(knee, 0.5 * math.sin(turn) - 0.5 * max(0.0, math.cos(turn)), 0.2)
            limbs += [Limb(hip, knee, 0.065, 0.04, fur, warm), Limb(knee, paw, 0.035, 0.03, fur, warm + 2)]
    tail = 0.3 * math.sin(4 * math.pi * phase)
    limbs.append(Limb((-0.30, 0.47, 0), (0.30, 0.48, 0), 0.115, 0.135, fur, warm))
    limbs.append(Limb((0.30, 0.52, 0), (0.44, 0.66, 0), 0.09, 0.07, fur, warm))
    limbs.append(Limb((0.45, 0.69, 0), (0.50, 0.68, 0), 0.085, 0.075, fur, warm + 3))
    limbs.append(Limb((0.50, 0.67, 0), (0.62, 0.63, 0), 0.05, 0.038, fur, 29.0))
    limbs.append(Limb((0.42, 0.74, 0.05), (0.37, 0.63, 0.07), 0.03, 0.03, look.trousers, 27.0))
    limbs.append(Limb((-0.36, 0.52, 0), (-0.52, 0.66, tail * 0.3), 0.035, 0.02, fur, warm - 2))
    return limbs


def cyclist(look: Look, phase: float) -> list[Limb | Wire]:
    """Return somebody on a bicycle at a phase of the cranks."""
    steel, rubber = (0.10, 0.10, 0.45), (0.04, 0.04, 0.04)
    parts: list[Limb | Wire] = []
    for x in (-0.52, 0.52):
        rim = [_polar(x, 0.33, angle) for angle in np.linspace(0, 2 * math.pi, 25)]
        parts.append(Wire(rim, 0.022, rubber, 12.5))
        for spoke in range(3):
            angle = 2 * math.pi * (spoke / 6 - 2 * phase)
            ends = [_polar(x, 0.33, angle), _polar(x, 0.33, angle + math.pi)]
            parts.append(Wire(ends, 0.006, (0.25, 0.25, 0.25), AIR))
    crank, seat, head = (0.0, 0.32, 0.0), (-0.18, 0.88, 0.0), (0.36, 0.82, 0.0)
    rear, front, bar = (-0.52, 0.34, 0.0), (0.52, 0.34, 0.0), (0.40, 0.98, 0.0)
    parts.append(Wire([seat, crank, head, (-0.15, 0.78, 0.0), rear, crank], 0.02, steel, 9.5))
    parts.append(Wire([front, head, bar], 0.02, steel, 9.5))
    hip, shoulder = (-0.16, 0.98, 0.0), (0.16, 1.45, 0.0)
    for side, half in ((0.1, 0.0), (-0.1, 0.5)):
        turn = -2 * math.pi * (phase + half)
        foot = (0.17 * math.cos(turn), 0.32 + 0.17 * math.sin(turn), side)
        across = math.dist(hip[:2], foot[:2])
        bend = math.acos(min(1.0, across / 0.90))
        lead = math.atan2(foot[0] - hip[0], hip[1] - foot[1])
        knee = _bend((hip[0], hip[1], side), lead + bend, 0.45)
        parts += [
            Limb((hip[0], hip[1], side), knee, 0.09, 0.066, look.trousers, 25.5),
            Limb(knee, foot, 0.064, 0.045, look.trousers, 24.0),
            Limb(foot, (foot[0] + 0.1, foot[1] - 0.02, side), 0.04, 0.035, (0.05, 0.05, 0.05), 15.0),
            Limb(
                (shoulder[0], shoulder[1] - 0.04, side * 1.8),
                (0.30, 1.18, side * 2.1),
                0.06,
                0.05,
                look.coat,
                look.coat_celsius,
            ),
            Limb((0.30, 1.18, side * 2.1), (0.44, 1.04, side * 2), 0.048, 0.04, look.skin, 30.0),
        ]
    for z in (-0.07, 0.07):
        parts.append(
            Limb(
                (hip[0], hip[1], z),
                (shoulder[0], shoulder[1] - 0.05, z * 1.4),
                0.125,
                0.135,
                look.coat,
                look.coat_celsius + 1,
            )
        )
    parts.append(Limb((0.19, 1.5, 0), (0.25, 1.62, 0), 0.06, 0.09, look.skin, 33.5))
    parts.append(Limb((0.18, 1.70, 0), (0.27, 1.71, 0), 0.095, 0.085, (0.75, 0.75, 0.75), 13.0))  # a helmet
    return parts


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
