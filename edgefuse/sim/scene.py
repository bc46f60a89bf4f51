"""The scene at time t, as the light or the warmth that reaches each pixel of a camera."""

import cv2
import numpy as np
from numpy.typing import NDArray

from edgefuse.sim.optics import Projection, projection
from edgefuse.sim.street import Street
from edgefuse.sim.surfaces import Floats, Surface, paint

__all__ = ["Scene"]

SUPERSAMPLED = 900_000  # pictures up to so many pixels are painted at twice their size
FAR = 1e6


class Scene:
    """One street, seen by two cameras: `celsius(t)` and `radiance(t)` give new float32 arrays."""

    def __init__(
        self,
        seed: int,
        vis_size: tuple[int, int],
        ir_size: tuple[int, int],
        ir_to_vis: NDArray[np.float64],
    ) -> None:
        self._vis_view = projection(vis_size)
        # The infrared view in the reference frame of the visible camera, moved by the rig's homography.
        self._ir_view = np.linalg.inv(ir_to_vis) @ self._vis_view
        street = Street(seed, vis_size)
        layers = [(s, s.radiance(street.lights), s.alpha) for s in street.surfaces]
        self._light = _still(self._vis_view, vis_size, layers, 3)
        warmth = [(s, s.celsius, s.alpha if s.warm_alpha is None else s.warm_alpha) for s in street.surfaces]
        self._warmth = _still(self._ir_view, ir_size, warmth, 1)

    def celsius(self, time: float) -> Floats:
        """Return the infrared camera's picture at a time, `[H, W]` in °C."""
        return self._warmth.copy()

    def radiance(self, time: float) -> Floats:
        """Return the visible camera's picture at a time, `[H, W, 3]` BGR, linear, 1 = white."""
        return self._light.copy()


def _still(view: Projection, size: tuple[int, int], layers: list[tuple[Surface, Floats, Floats]], channels: int) -> Floats:
    k = 2 if size[0] * size[1] <= SUPERSAMPLED else 1
    finer = np.array([[k, 0, (k - 1) / 2], [0, k, (k - 1) / 2], [0, 0, 1]]) @ view
    shape = (size[1] * k, size[0] * k)
    canvas = np.zeros(shape if channels == 1 else (*shape, channels), np.float32)
    for surface, layer, alpha in layers:
        paint(canvas, finer, surface, layer, alpha)
    return cv2.resize(canvas, size, interpolation=cv2.INTER_AREA) if k > 1 else canvas
