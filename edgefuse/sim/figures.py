"""Walking people, a dog and a cyclist: limbs as tapered capsules, drawn once per phase of the stride."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from edgefuse.images import Image
from edgefuse.sim.optics import AIR, CODES, COLDEST_CODE
from edgefuse.sim.surfaces import Colour, Floats

__all__ = ["PHASES", "Figure", "Look", "Pose", "Sprite"]

PHASES = 16
"""Drawn poses of one stride."""

Point = tuple[float, float, float]


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
    """A capsule between two joints; x forward, y up, z to the figure's left, in metres."""

    a: Point
    b: Point
    radius_a: float
    radius_b: float
    bgr: Colour
    celsius: float


class Sprite(NamedTuple):
    """A drawn body, as the visible camera sees it and as the infrared one does.

    `visible` is uint8 [h, w, 4]: B, G, R and alpha; `warmth` [h, w, 2]: a temperature's code and
    alpha. Colours and codes are multiplied by alpha, so that both can be resized and warped.
    """

    visible: Image
    warmth: Image


class Pose(NamedTuple):
    """A sprite at full, half, quarter … size, and where it is: metres right of and above the body's place."""

    levels: list[Sprite]
    left: float
    bottom: float
    width: float
    height: float


@dataclass
class Figure:
    """A moving body seen from one side, drawn pose by pose when first needed.

    Attributes:
        kind: "person", "dog" or "cyclist".
        yaw: the direction it faces, radians from the picture's right towards the viewer's back.
        density: pixels per metre of its sprites.
    """

    kind: str
    look: Look
    yaw: float
    density: float
    _poses: dict[int, Pose] = field(default_factory=dict, repr=False)

    @property
    def box(self) -> tuple[float, float]:
        """Width and height of its sprites in metres; the figure stands in the middle of the lower edge."""
        return {"person": (1.3, 2.05), "dog": (1.3, 0.95), "cyclist": (2.2, 2.1)}[self.kind]

    def pose(self, stride: float) -> Pose:
        """Return the sprite at a place in the stride (1 = a whole one), drawn when first asked for."""
        phase = math.floor(stride * PHASES) % PHASES
        if phase not in self._poses:
            limbs = _LIMBS[self.kind](self.look, phase / PHASES)
            sprite = _draw(limbs, self.yaw, self.box, self.density, self.look.stripe)
            self._poses[phase] = _cut(sprite, self.box[0], self.density)
        return self._poses[phase]


def _bend(root: Point, angle: float, length: float, side: float = 0.0) -> Point:
    """Return the end of a limb that hangs from `root`, swung forward by `angle`."""
    return (root[0] + length * math.sin(angle), root[1] - length * math.cos(angle), root[2] + side)


def _person(look: Look, phase: float) -> list[Limb]:
    k = look.height / 1.75
    limbs: list[Limb] = []
    swing = math.sin(2 * math.pi * phase)
    bob = 0.02 * math.cos(4 * math.pi * phase)
    hip_y, shoulder_y = (0.90 + bob) * k, (1.43 + bob) * k
    for side, sign in ((0.09, 1.0), (-0.09, -1.0)):
        turn = 2 * math.pi * phase + (0 if sign > 0 else math.pi)
        thigh = 0.42 * math.sin(turn)
        knee_bend = 0.12 + 0.75 * max(0.0, math.cos(turn)) ** 1.5
        hip = (0.0, hip_y, side)
        knee = _bend(hip, thigh, 0.43 * k)
        ankle = _bend(knee, thigh - knee_bend, 0.41 * k)
        lift = 0.05 * max(0.0, math.cos(turn))
        limbs += [
            Limb(hip, knee, 0.092, 0.068, look.trousers, 24.5),
            Limb(knee, ankle, 0.066, 0.048, look.trousers, 22.5),
            Limb(
                ankle, (ankle[0] + 0.13, ankle[1] - 0.03 + lift, side), 0.05, 0.04, (0.05, 0.05, 0.06), 15.5
            ),
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
    lean = 0.03 * swing
    waist, chest = (0.0, hip_y + 0.04, 0.0), (0.03, shoulder_y - 0.16, 0.0)
    for z in (-0.075, 0.0, 0.075):
        limbs.append(
            Limb(
                (waist[0], waist[1], z),
                (chest[0], chest[1], z * 1.3),
                0.125,
                0.145,
                look.coat,
                look.coat_celsius + 1.0,
            )
        )
    limbs.append(
        Limb(
            (0, shoulder_y - 0.03, -0.13),
            (0, shoulder_y - 0.03, 0.13),
            0.075,
            0.075,
            look.coat,
            look.coat_celsius + 1.5,
        )
    )
    neck, head = (0.02, shoulder_y + 0.02, 0.0), (0.035 + lean * 0.3, shoulder_y + 0.20 * k, 0.0)
    limbs.append(Limb(neck, head, 0.06, 0.06, look.skin, 32.5))
    limbs.append(
        Limb(
            (head[0] + 0.025, head[1] - 0.05, 0),
            (head[0] + 0.02, head[1] + 0.03, 0),
            0.085,
            0.095,
            look.skin,
            33.5,
        )
    )
    limbs.append(
        Limb(
            (head[0] - 0.035, head[1] + 0.01, 0),
            (head[0] - 0.01, head[1] + 0.065, 0),
            0.097,
            0.092,
            look.hair,
            25.0,
        )
    )
    return limbs


def _dog(look: Look, phase: float) -> list[Limb]:
    fur, warm = look.coat, look.coat_celsius
    limbs: list[Limb] = []
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


def _cyclist(look: Look, phase: float) -> list[Limb]:
    steel, rubber = (0.10, 0.10, 0.45), (0.04, 0.04, 0.04)
    limbs: list[Limb] = []
    for x in (-0.52, 0.52):
        ring = [
            (x + 0.33 * math.cos(a), 0.34 + 0.33 * math.sin(a), 0.0) for a in np.linspace(0, 2 * math.pi, 21)
        ]
        limbs += [Limb(a, b, 0.022, 0.022, rubber, 12.5) for a, b in pairwise(ring)]
        limbs += [
            Limb((x, 0.34, 0), ring[i], 0.006, 0.006, (0.3, 0.3, 0.3), AIR)
            for i in (int(phase * 5) % 5, int(phase * 5) % 5 + 5, int(phase * 5) % 5 + 10)
        ]
    crank, seat, bar = (0.0, 0.32, 0.0), (-0.18, 0.88, 0.0), (0.40, 0.98, 0.0)
    for a, b in (
        (crank, seat),
        (crank, (0.36, 0.80, 0)),
        ((-0.15, 0.78, 0), (0.36, 0.82, 0)),
        ((-0.52, 0.34, 0), crank),
        ((-0.52, 0.34, 0), (-0.15, 0.78, 0)),
        ((0.52, 0.34, 0), bar),
    ):
        limbs.append(Limb(a, b, 0.02, 0.02, steel, 9.5))
    hip, shoulder = (-0.16, 0.98, 0.0), (0.16, 1.45, 0.0)
    for side, half in ((0.1, 0.0), (-0.1, 0.5)):
        turn = -2 * math.pi * (phase + half)
        foot = (0.17 * math.cos(turn), 0.32 + 0.17 * math.sin(turn), side)
        across = math.dist(hip[:2], foot[:2])
        bend = math.acos(min(1.0, across / 0.90))
        lead = math.atan2(foot[0] - hip[0], hip[1] - foot[1])
        knee = _bend((hip[0], hip[1], side), lead + bend, 0.45)
        limbs += [
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
        limbs.append(
            Limb(
                (hip[0], hip[1], z),
                (shoulder[0], shoulder[1] - 0.05, z * 1.4),
                0.125,
                0.135,
                look.coat,
                look.coat_celsius + 1,
            )
        )
    limbs.append(Limb((0.19, 1.5, 0), (0.25, 1.62, 0), 0.06, 0.09, look.skin, 33.5))
    limbs.append(Limb((0.18, 1.70, 0), (0.27, 1.71, 0), 0.095, 0.085, (0.75, 0.75, 0.75), 13.0))  # a helmet
    return limbs


def _draw(
    limbs: Sequence[Limb], yaw: float, box: tuple[float, float], density: float, stripe: Colour | None
) -> Sprite:
    columns, rows = math.ceil(box[0] * density), math.ceil(box[1] * density)
    visible, warmth = np.zeros((rows, columns, 4), np.float32), np.zeros((rows, columns, 2), np.float32)
    c, s = math.cos(yaw), math.sin(yaw)

    def turned(p: Point) -> NDArray[np.float64]:
        """Pixel x, pixel y and the distance behind the figure's middle."""
        x, y, z = p
        return np.array([(x * c - z * s) * density + columns / 2, rows - 1 - y * density, x * s + z * c])

    placed = [(turned(limb.a), turned(limb.b), limb) for limb in limbs]
    for a, b, limb in sorted(placed, key=lambda item: -(item[0][2] + item[1][2])):
        _capsule(visible, warmth, a, b, limb, density, stripe)
    weighed = np.rint((warmth[..., 0] - COLDEST_CODE * warmth[..., 1]) * CODES)
    warm = np.dstack([weighed, np.rint(warmth[..., 1] * 255)])
    return Sprite(
        np.rint(np.clip(visible, 0, 1) * 255).astype(np.uint8), np.clip(warm, 0, 255).astype(np.uint8)
    )


def _capsule(
    visible: Floats,
    warmth: Floats,
    a: NDArray[np.float64],
    b: NDArray[np.float64],
    limb: Limb,
    density: float,
    stripe: Colour | None,
) -> None:
    ra, rb = max(limb.radius_a * density, 0.6), max(limb.radius_b * density, 0.6)
    reach = max(ra, rb) + 1.5
    x0, x1 = max(int(min(a[0], b[0]) - reach), 0), min(int(max(a[0], b[0]) + reach) + 1, visible.shape[1])
    y0, y1 = max(int(min(a[1], b[1]) - reach), 0), min(int(max(a[1], b[1]) + reach) + 1, visible.shape[0])
    if x1 <= x0 or y1 <= y0:
        return
    x = np.arange(x0, x1, dtype=np.float32)[None, :]
    y = np.arange(y0, y1, dtype=np.float32)[:, None]
    ax, ay, bx, by = float(a[0]), float(a[1]), float(b[0] - a[0]), float(b[1] - a[1])
    x -= ax
    y -= ay
    along = np.clip((x * bx + y * by) * (1 / max(bx * bx + by * by, 1e-6)), 0, 1)
    nx, ny = x - along * bx, y - along * by
    radius = ra + (rb - ra) * along
    distance = np.sqrt(nx * nx + ny * ny)
    alpha = np.clip(radius - distance + 0.5, 0, 1).astype(np.float32)
    bulge = np.sqrt(np.clip(1 - (distance / radius) ** 2, 0, 1))  # 1 in the middle, 0 at the outline
    shade = 0.42 + 0.5 * bulge - 0.28 * ny / radius
    bgr = np.broadcast_to(np.array(limb.bgr, np.float32), (*alpha.shape, 3))
    if stripe is not None and limb.radius_a > 0.12 and limb.celsius > 18:  # a pattern on the coat
        bands = (((visible.shape[0] - ay - y) / density * 9).astype(int) % 2 == 0)[..., None]
        bgr = np.where(bands, np.array(stripe, np.float32), bgr)
    colour = np.dstack([bgr * np.clip(shade, 0.1, 1.3)[..., None], np.ones_like(alpha)]) * alpha[..., None]
    warm = AIR + (limb.celsius - AIR) * (0.72 + 0.28 * bulge)
    keep = (1 - alpha)[..., None]
    visible[y0:y1, x0:x1] = visible[y0:y1, x0:x1] * keep + colour
    warmth[y0:y1, x0:x1] = warmth[y0:y1, x0:x1] * keep + np.dstack([warm * alpha, alpha])


def _cut(sprite: Sprite, width: float, density: float) -> Pose:
    """Cut the empty border off, and make the smaller sizes."""
    opaque = sprite.visible[..., 3] > 0
    x, y = np.flatnonzero(opaque.any(axis=0)), np.flatnonzero(opaque.any(axis=1))
    x0, x1, y0, y1 = int(x[0]), int(x[-1]) + 1, int(y[0]), int(y[-1]) + 1
    levels = [Sprite(sprite.visible[y0:y1, x0:x1].copy(), sprite.warmth[y0:y1, x0:x1].copy())]
    while min(levels[-1].visible.shape[:2]) >= 8:
        rows, columns = levels[-1].visible.shape[:2]
        size = (columns // 2, rows // 2)
        levels.append(Sprite(*(cv2.resize(part, size, interpolation=cv2.INTER_AREA) for part in levels[-1])))
    left = x0 / density - width / 2
    return Pose(levels, left, (len(opaque) - y1) / density, (x1 - x0) / density, (y1 - y0) / density)


_LIMBS = {"person": _person, "dog": _dog, "cyclist": _cyclist}
