"""A place to build: where surfaces and lamps are collected."""

import numpy as np

from edgefuse.sim.optics import focal_length
from edgefuse.sim.surfaces import Light, Surface

__all__ = ["GARDEN", "LEFT_WALL", "RIGHT_WALL", "Site"]

LEFT_WALL, RIGHT_WALL = -6.4, 7.6  # x of the houses' fronts
GARDEN = (17.0, 29.0)  # z of the gap between the houses on the left

AXES = {"x": (1.0, 0.0, 0.0), "y": (0.0, 1.0, 0.0), "z": (0.0, 0.0, 1.0)}


class Site:
    """Surfaces from far to near, lights, and the random numbers that all is drawn from."""

    def __init__(self, seed: int, size: tuple[int, int]) -> None:
        self.rng = np.random.default_rng([seed, 11])
        self.detail = float(np.clip(focal_length(size) / 560, 0.25, 1.6))  # texels needed, 1 at 640x480
        self.lights: list[Light] = []
        self.surfaces: list[Surface] = []

    def add(
        self,
        origin: tuple[float, float, float],
        axes: str,
        size: tuple[float, float],
        density: tuple[float, float],
        **options: object,
    ) -> Surface:
        """Add a surface along two axes, such as "zy" for a wall; `density` is what 640x480 needs."""
        fine = (density[0] * self.detail, density[1] * self.detail)
        surface = Surface(origin, AXES[axes[0]], AXES[axes[1]], size, fine, **options)  # type: ignore[arg-type]
        self.surfaces.append(surface)
        return surface
