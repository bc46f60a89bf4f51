"""Who is where at time t: people on their ways and cars that give way to them."""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from edgefuse.sim.cars import Car, Mesh
from edgefuse.sim.figures import Look
from edgefuse.sim.sprites import Figure
from edgefuse.sim.surfaces import Colour

__all__ = ["Drive", "Step", "Traffic"]

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

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng([seed, 21])
        self._offset = float(rng.uniform(-1.2, 1.2))
        self._walks = _walks(rng)
        self._figures: dict[tuple[int, int], Figure] = {}
        order = rng.permutation(len(PAINTS))
        cars = [Car(PAINTS[i], tall=float(rng.choice([1.0, 1.0, 1.18]))) for i in order]
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
        just, long = Car(cars[3].bgr, 0.75, lights=False), Car(cars[4].bgr, 0.0, lights=False, tall=1.15)
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
                    found.append(Drive(mesh, x, z, heading, True))
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
