"""Who is where at time t: people on their ways and cars that give way to them; how cars look."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from edgefuse.images import Image
from edgefuse.sim.figures import Figure, Look
from edgefuse.sim.surfaces import CAMERA, Colour, Floats, Projection, to_code

HEADLIGHTS = np.array([[2.12, 0.62, 0.68], [2.12, -0.62, 0.68]])
"""Forward, left, up from the middle of the car on the road, in metres."""
TAILLIGHTS = np.array([[-2.14, 0.66, 0.82], [-2.14, -0.66, 0.82]])

# Forward, half the width, height: around the car from the front bumper over the roof to the rear.
PROFILE = np.array([
    [2.08, 0.78, 0.24], [2.16, 0.84, 0.52], [2.04, 0.84, 0.80], [0.98, 0.84, 0.98], [0.28, 0.62, 1.42],
    [-0.95, 0.62, 1.42], [-1.68, 0.78, 1.02], [-2.06, 0.82, 0.96], [-2.16, 0.84, 0.58], [-2.08, 0.80, 0.26],
])  # fmt: skip
GLASS: Colour = (0.035, 0.03, 0.025)
NEAR = 0.5  # m before the camera: nothing nearer is drawn
FINER = 2  # drawn so many times larger, then averaged


class Face(NamedTuple):
    """A polygon `[n, 3]` (forward, left, up), its paint and temperature.

    It counts as nearer by `bias` metres when the faces are drawn in order.
    """

    points: NDArray[np.float64]
    bgr: Colour
    celsius: float
    bias: float = 0.0


class Mesh(NamedTuple):
    """A car's faces with all their points in one array; face i has those from starts[i] on."""

    points: NDArray[np.float64]
    starts: NDArray[np.int64]
    faces: Sequence[Face]


@dataclass(frozen=True)
class Car:
    """A car's paint, how warm it has run (0: parked since long, 1: driving) and how high it is built."""

    bgr: Colour
    warm: float = 1.0
    lights: bool = True
    tall: float = 1.0
    day: bool = False

    def mesh(self) -> Mesh:
        """Return all polygons, in the car's own metres."""
        faces = [*self._shell(), *self._sides(), *self._ends()]
        points = np.concatenate([face.points for face in faces]) * (1, 1, self.tall)
        return Mesh(points, np.cumsum([0, *(len(face.points) for face in faces)]), faces)

    def _heat(self, celsius: float) -> float:
        if self.day:  # the sun warms it, and the air is warmer
            return 19.0 + (celsius - 8.0) * 0.6 * self.warm
        return 8.0 + (celsius - 8.0) * self.warm

    def _shell(self) -> list[Face]:
        under = [(2.1, 0.86, 0.03), (2.1, -0.86, 0.03), (-2.1, -0.86, 0.03), (-2.1, 0.86, 0.03)]
        faces = [Face(np.array(under), (0.01, 0.01, 0.01), self._heat(15.0), -4.0)]
        paint = [0.55, 0.7, 1.0, 0, 1.0, 0, 0.95, 0.7, 0.55]
        heat = [15.0, 22.0, 27.0, 12.0, 6.5, 10.0, 9.0, 11.0, 15.0]
        for i, (a, b) in enumerate(pairwise(PROFILE)):
            quad = [[a[0], a[1], a[2]], [a[0], -a[1], a[2]], [b[0], -b[1], b[2]], [b[0], b[1], b[2]]]
            bgr = _dimmed(self.bgr, paint[i]) if paint[i] else GLASS
            warm = heat[i] if i == 4 and not self.day else self._heat(heat[i])  # a roof under a clear night
            faces.append(Face(np.array(quad), bgr, warm))
        return faces

    def _sides(self) -> list[Face]:
        faces = []
        for side in (1.0, -1.0):
            body = [(2.08, 0.3), (2.14, 0.55), (2.02, 0.80), (0.98, 0.97), (-1.68, 1.01), (-2.06, 0.95),
                    (-2.15, 0.58), (-2.08, 0.3)]  # fmt: skip
            cabin = [(0.98, 0.97, 0.84), (0.28, 1.42, 0.62), (-0.95, 1.42, 0.62), (-1.68, 1.01, 0.80)]
            pane = [(0.74, 1.01, 0.83), (0.22, 1.36, 0.655), (-0.28, 1.36, 0.655), (-0.28, 1.02, 0.83)]
            pane2 = [(-0.38, 1.02, 0.83), (-0.38, 1.36, 0.655), (-0.9, 1.36, 0.655), (-1.42, 1.03, 0.82)]
            dim = _dimmed(self.bgr, 0.62)
            faces.append(Face(np.array([(x, 0.85 * side, y) for x, y in body]), dim, self._heat(12.5), 0.1))
            faces.append(Face(np.array([(x, w * side, y) for x, y, w in cabin]), dim, self._heat(10.5), 0.15))
            for glass in (pane, pane2):
                points = np.array([(x, (w + 0.01) * side, y) for x, y, w in glass])
                faces.append(Face(points, GLASS, self._heat(11.5), 0.3))
            door = np.array([(-0.32, 0.86 * side, y) for y in (0.32, 1.0)])
            line = np.concatenate([door, door[::-1] + np.array([0.03, 0, 0])])
            faces.append(Face(line, _dimmed(self.bgr, 0.3), self._heat(11.5), 0.3))
            angle = np.linspace(0, 2 * np.pi, 16, endpoint=False)
            for axle in (1.32, -1.34):
                for radius, bgr, celsius in ((0.38, (0.01,) * 3, 14.0), (0.33, (0.03,) * 3, 24.0),
                                             (0.19, (0.30,) * 3, 33.0)):  # fmt: skip
                    ring = np.stack([axle + radius * np.cos(angle), np.full(16, 0.87 * side),
                                     0.33 + radius * np.sin(angle)], 1)  # fmt: skip
                    faces.append(Face(ring, bgr, self._heat(celsius), 0.5))
        return faces

    def _ends(self) -> list[Face]:
        def plate(x: float, y0: float, y1: float, z0: float, z1: float) -> NDArray[np.float64]:
            return np.array([(x, y0, z0), (x, y1, z0), (x, y1, z1), (x, y0, z1)])

        hot = self._heat
        faces = [
            Face(plate(2.17, -0.45, 0.45, 0.50, 0.74), (0.02, 0.02, 0.02), hot(42.0), 0.6),
            Face(plate(2.17, -0.6, 0.6, 0.30, 0.42), (0.03, 0.03, 0.03), hot(36.0), 0.6),
            Face(plate(2.19, -0.26, 0.26, 0.42, 0.53), (0.7, 0.72, 0.72), hot(20.0), 0.8),
            Face(plate(-2.18, -0.26, 0.26, 0.62, 0.74), (0.25, 0.6, 0.68), hot(10.0), 0.8),
            Face(plate(-2.19, 0.36, 0.56, 0.27, 0.37), (0.03, 0.03, 0.03), hot(43.0), 0.8),
            Face(plate(-2.19, -0.8, 0.8, 0.28, 0.40), (0.04, 0.04, 0.04), hot(18.0), 0.6),
        ]
        on = 1.0 if self.lights else 0.25
        for side in (1.0, -1.0):
            low, high = sorted((0.46 * side, 0.80 * side))
            faces.append(Face(plate(2.15, low, high, 0.60, 0.76), (on, on, on), hot(23.0), 0.8))
            low, high = sorted((0.52 * side, 0.82 * side))
            faces.append(
                Face(plate(-2.18, low, high, 0.72, 0.92), (0.04 * on, 0.05 * on, 0.85 * on), hot(13), 0.8)
            )
        return faces


def _dimmed(bgr: Colour, factor: float) -> Colour:
    return bgr[0] * factor, bgr[1] * factor, bgr[2] * factor


def car_shadow(
    drive: "Drive", slant: Sequence[float], view: Projection, size: tuple[int, int]
) -> tuple[Floats, int, int] | None:
    """Return a car's shadow on the road, `[h, w]` from 0 to 1, with its left and top; None out of sight.

    Args:
        drive: the car.
        slant: `[3]`, how far a metre of height throws its shadow.
        view: of the camera.
        size: width and height of its picture.
    """
    forward, left, up = drive.mesh.points.T
    x, z = drive.x - left * drive.heading + slant[0] * up, drive.z + forward * drive.heading + slant[2] * up
    hull = cv2.convexHull(np.stack([x, z], 1).astype(np.float32))[:, 0].astype(np.float64)
    ground = _clip(np.insert(hull, 1, 0.0, axis=1))
    if not len(ground):
        return None
    pixels, (x0, y0), (x1, y1) = _project(ground, view, size)
    if x1 <= x0 or y1 <= y0:
        return None
    mask = np.zeros((y1 - y0, x1 - x0), np.uint8)
    place = (pixels - (x0, y0)).clip(-1e4, 1e5)
    cv2.fillPoly(mask, [np.rint(place * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
    return mask.astype(np.float32) / np.float32(255), x0, y0


def draw_car(
    car: Mesh,
    at: tuple[float, float],
    heading: float,
    view: Projection,
    size: tuple[int, int],
    warm: bool,
) -> tuple[Image, int, int] | None:
    """Draw a car at (x, z) that drives along z in direction `heading`, 1 or -1.

    Returns:
        a patch as in a sprite, warm or visible, `[h, w, 2 or 4]`, and its left and top; None out of sight.
    """
    forward, left, up = car.points.T
    world = np.stack([at[0] - left * heading, up, at[1] + forward * heading], 1)
    faces = car.faces
    counts = np.diff(car.starts)
    if (world[:, 2] < NEAR).any():
        clipped = [_clip(part) for part in np.split(world, car.starts[1:-1])]
        faces = [face for face, part in zip(faces, clipped, strict=True) if len(part)]
        clipped = [part for part in clipped if len(part)]
        if not clipped:
            return None
        world, counts = np.concatenate(clipped), np.array([len(part) for part in clipped])
    pixels, (x0, y0), (x1, y1) = _project(world, view, size)
    if x1 <= x0 or y1 <= y0:
        return None
    starts = np.concatenate([[0], np.cumsum(counts)])
    middles = np.add.reduceat(world, starts[:-1]) / counts[:, None]
    order = np.argsort(
        [face.bias for face in faces] - np.linalg.norm(middles - CAMERA, axis=1), kind="stable"
    )
    place = ((pixels - (x0, y0) + 0.5) * FINER - 0.5).clip(-1e4, 1e5)
    place = np.rint(place * 16).astype(np.int32)
    canvas = np.zeros(((y1 - y0) * FINER, (x1 - x0) * FINER, 2 if warm else 4), np.uint8)
    for i in order:
        face = faces[i]
        ink = (to_code(face.celsius), 255.0) if warm else (*(255 * c for c in face.bgr), 255.0)
        cv2.fillPoly(canvas, [place[starts[i] : starts[i + 1]]], ink, cv2.LINE_AA, 4)
    patch = cv2.resize(canvas, (x1 - x0, y1 - y0), interpolation=cv2.INTER_AREA)
    return patch, x0, y0


def _project(
    world: NDArray[np.float64], view: Projection, size: tuple[int, int]
) -> tuple[NDArray[np.float64], list[int], list[int]]:
    """Return the pixels `[n, 2]` of world points, and the corners of what they cover of the picture."""
    pixels = world @ view[:, :3].T + view[:, 3]
    pixels = pixels[:, :2] / pixels[:, 2:]
    first = np.maximum(np.floor(pixels.min(axis=0)).astype(int) - 1, 0)
    end = np.minimum(np.ceil(pixels.max(axis=0)).astype(int) + 2, size)
    return pixels, first.tolist(), end.tolist()


def _clip(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cut off what is nearer than `NEAR`."""
    if (points[:, 2] >= NEAR).all():
        return points
    kept = []
    for a, b in zip(points, np.roll(points, -1, axis=0), strict=True):
        if a[2] >= NEAR:
            kept.append(a)
        if (a[2] >= NEAR) != (b[2] >= NEAR):
            kept.append(a + (b - a) * (NEAR - a[2]) / (b[2] - a[2]))
    return np.array(kept).reshape(-1, 3)


PACING = ((-8.6, 27.6), (-6.9, 26.2), (-8.6, 27.6))  # m, beyond the lamps
CYCLE = 20.0  # s after which the crossing sees the same again

COATS: list[Colour] = [
    (0.45, 0.18, 0.12), (0.12, 0.14, 0.50), (0.08, 0.08, 0.09), (0.55, 0.58, 0.60), (0.16, 0.34, 0.16),
    (0.10, 0.42, 0.62), (0.30, 0.12, 0.32), (0.30, 0.30, 0.30),
]  # fmt: skip
SKINS: list[Colour] = [(0.36, 0.48, 0.68), (0.18, 0.27, 0.42), (0.08, 0.13, 0.22)]
PAINTS: list[Colour] = [
    (0.5, 0.5, 0.5),
    (0.06, 0.05, 0.32),
    (0.28, 0.14, 0.06),
    (0.05, 0.05, 0.05),
    (0.6, 0.62, 0.6),
]


class Step(NamedTuple):
    """A figure at (x, z) in metres, at a place in its stride."""

    figure: Figure
    x: float
    z: float
    stride: float


class Drive(NamedTuple):
    """A car at (x, z) in metres, heading away from the camera (1) or towards it (-1)."""

    mesh: Mesh
    x: float
    z: float
    heading: float
    lights: bool


@dataclass(frozen=True)
class Walk:
    """A way as corners (x, z), walked at `speed` m/s from `start` s on, again every `every` s."""

    kind: str
    look: Look
    corners: tuple[tuple[float, float], ...]
    speed: float
    start: float
    every: float
    stride: float = 1.45  # m

    def lengths(self) -> list[float]:
        """Return the metres between the corners."""
        return [math.dist(a, b) for a, b in pairwise(self.corners)]


class Traffic:
    """All that moves, as a function of time: `steps(t)` and `drives(t)`; `parked` stands still."""

    def __init__(self, seed: int, day: bool = False) -> None:
        rng = np.random.default_rng([seed, 21])
        self._day = day
        self._offset = float(rng.uniform(-1.2, 1.2))
        self._walks = _walks(rng)
        self._figures: dict[tuple[int, int], Figure] = {}
        order = rng.permutation(len(PAINTS))
        cars = [
            Car(PAINTS[i], lights=not day, tall=float(rng.choice([1.0, 1.0, 1.18])), day=day) for i in order
        ]
        self._drives: list[tuple[Mesh, float, float, list[tuple[float, float]]]] = [
            # Towards the camera; stops before the crossing while people are on it.
            (
                cars[0].mesh(),
                -1.7,
                -1.0,
                [(-6.5, 110), (1.5, 27), (3.2, 21.6), (8.6, 21.6), (10.2, 17), (12.6, -4)],
            ),
            (cars[1].mesh(), 1.7, 1.0, [(10.6, -4), (13, 14), (21.5, 112)]),
            (cars[2].mesh(), -1.7, -1.0, [(9.5, 112), (18.0, 22), (20.2, -4)]),
        ]
        just = replace(cars[3], warm=0.75, lights=False, tall=1.0)
        long = replace(cars[4], warm=0.0, lights=False, tall=1.15)
        self.parked = [
            Drive(just.mesh(), 4.25, 21.5, 1.0, False),
            Drive(long.mesh(), 4.25, 28.0, 1.0, False),
            Drive(long.mesh(), 4.25, 41.0, 1.0, False),
        ]

    def drives(self, time: float) -> list[Drive]:
        """Return the driving cars that can be in sight."""
        found = []
        for mesh, x, heading, keys in self._drives:
            times, places = [at for at, _ in keys], [z for _, z in keys]
            for cycle in (-1, 0, 1):
                now = (time + self._offset) % CYCLE + cycle * CYCLE
                if not times[0] <= now <= times[-1]:
                    continue
                # The mean over a second rounds off the changes of speed between the keys.
                z = float(np.mean(np.interp(now + np.linspace(-0.6, 0.6, 7), times, places)))
                if z > -1.5:
                    found.append(Drive(mesh, x, z, heading, not self._day))
        return found

    def steps(self, time: float) -> list[Step]:
        """Return the figures that are on their way."""
        found = []
        for index, walk in enumerate(self._walks):
            lengths = walk.lengths()
            if not lengths:
                x, z = walk.corners[0]
                found.append(Step(self._figure(index, walk, 0.3), x, z, 0.05))
                continue
            way = ((time + self._offset - walk.start) % walk.every) * walk.speed
            stride = way / walk.stride
            for ((ax, az), (bx, bz)), length in zip(pairwise(walk.corners), lengths, strict=True):
                if way < length:
                    part = way / length
                    figure = self._figure(index, walk, math.atan2(bz - az, bx - ax))
                    found.append(Step(figure, ax + part * (bx - ax), az + part * (bz - az), stride))
                    break
                way -= length
        return found

    def _figure(self, index: int, walk: Walk, yaw: float) -> Figure:
        key = (index, round(yaw * 16))
        if key not in self._figures:
            self._figures[key] = Figure(walk.kind, walk.look, yaw)
        return self._figures[key]


def _look(rng: np.random.Generator, stripe: bool = False) -> Look:
    coat = COATS[rng.integers(len(COATS))]
    return Look(
        coat=coat,
        trousers=COATS[rng.integers(3)],
        skin=SKINS[rng.integers(len(SKINS))],
        hair=(0.03, 0.04, 0.06) if rng.random() < 0.7 else (0.15, 0.3, 0.42),
        stripe=(0.75, 0.78, 0.8) if stripe else None,
        coat_celsius=float(rng.uniform(20.5, 25.5)),
        height=float(rng.uniform(1.62, 1.86)),
    )


def _walks(rng: np.random.Generator) -> list[Walk]:
    over, back = ((-4.7, 7.0), (-4.7, 15.2), (6.2, 15.2), (6.2, 7.0)), ((6.0, 7.0), (6.0, 16.5), (-4.3, 16.5))
    walks = [
        # Over the crossing, to the right and to the left; every other time the second has a dog.
        Walk("person", _look(rng, True), over, 1.38, -5.2, CYCLE),
        Walk("person", _look(rng), (*back, (-4.3, 40.0)), 1.32, -6.6, CYCLE * 2),
        Walk("person", _look(rng), (*back, (-4.3, 40.0)), 1.32, 13.4, CYCLE * 2),
        Walk("dog", Look((0.13, 0.22, 0.36), (0.05, 0.09, 0.16), coat_celsius=22.0),
             ((5.2, 7.0), (5.2, 15.9), (-4.9, 15.9), (-4.9, 40.0)), 1.32, -6.6, CYCLE * 2, 0.9),
        Walk("cyclist", _look(rng), ((-4.0, 9.0), (-3.9, 17.2), (14.0, 17.2)), 4.2, 5.8, CYCLE, 4.5),
        # In the dark of the garden: one behind the hedge, one pacing where no lamp reaches.
        Walk("person", _look(rng), ((-7.35, 20.4),), 0.0, 0.0, CYCLE),
        Walk("person", Look((0.03, 0.03, 0.03), (0.03, 0.03, 0.03), (0.12, 0.17, 0.25)),
             PACING, 0.9, 0.0, 2 * math.dist(*PACING[:2]) / 0.9),
    ]  # fmt: skip
    for x, near, far in (
        (-5.6, 9.0, 46.0),
        (-4.2, 8.0, 52.0),
        (6.9, 8.0, 44.0),
        (6.4, 8.0, 58.0),
        (7.1, 8.0, 36.0),
    ):
        ends = ((x, near), (x, far)) if rng.random() < 0.5 else ((x, far), (x, near))
        speed = float(rng.uniform(1.1, 1.5))
        every = (far - near) / speed
        walks.append(
            Walk(
                "person",
                _look(rng, bool(rng.random() < 0.3)),
                ends,
                speed,
                float(rng.uniform(0, every)),
                every,
            )
        )
    return walks
