"""The pinhole view of a camera and the noise of its sensor.

World coordinates are metres: x to the right, y up from the road, z along the street.
"""

import math

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "AIR",
    "CAMERA",
    "CODES",
    "COLDEST_CODE",
    "WHITE",
    "NoiseTile",
    "Projection",
    "focal_length",
    "projection",
    "to_code",
]

Projection = NDArray[np.float64]
"""`[3, 4]`: homogeneous world point to homogeneous pixel; the third value is the depth in metres."""

CAMERA = np.array([0.9, 3.1, 0.0])  # on a mast, a little right of the road's middle
PITCH = math.radians(4.5)  # downwards
AIR = 9.0  # °C
WHITE = 255.0**2  # light that is just white: its square root is the picture
COLDEST_CODE, CODES = -20.0, 4.0  # sprites keep temperatures in steps of 0.25 °C from -20 °C on


def focal_length(size: tuple[int, int]) -> float:
    """Return the focal length in pixels: 60° across a 4:3 image, the same along the diagonal for others."""
    return 0.7 * math.hypot(*size)


def projection(size: tuple[int, int], to_visible: NDArray[np.float64] | None = None) -> Projection:
    """Return the projection of the visible camera, or of one whose pixels `to_visible` maps to its pixels."""
    f = focal_length(size)
    intrinsic = np.array([[f, 0, (size[0] - 1) / 2], [0, -f, (size[1] - 1) / 2], [0, 0, 1]])
    c, s = math.cos(PITCH), math.sin(PITCH)
    rotation = np.array([[1, 0, 0], [0, c, s], [0, -s, c]])
    view = intrinsic @ rotation @ np.column_stack([np.eye(3), -CAMERA])
    if to_visible is None:
        return view
    return np.linalg.inv(to_visible) @ view


def to_code(celsius: float) -> float:
    """Return the number, 0 to 255, that stands for a temperature in a sprite."""
    return float(np.clip((celsius - COLDEST_CODE) * CODES, 0, 255))


class NoiseTile:
    """White noise, drawn once; a frame's noise is a window at a random offset.

    Args:
        rng: where it is drawn from.
        size: width and height of a frame.
        channels: 1, or 3 for colour noise of which a part is shared by the channels.
        sigma: its standard deviation.
    """

    MARGIN = 97

    def __init__(self, rng: np.random.Generator, size: tuple[int, int], channels: int, sigma: float) -> None:
        shape = (size[1] + self.MARGIN, size[0] + self.MARGIN)
        self._size = size
        self._tile: NDArray[np.float32]
        if channels == 1:
            self._tile = rng.standard_normal(shape, np.float32)
        else:
            grey = rng.standard_normal((*shape, 1), np.float32)
            colour = rng.standard_normal((*shape, channels), np.float32)
            # Demosaicing spreads a pixel's noise over its neighbours: average two in a row.
            grey = (grey + np.roll(grey, 1, axis=1)) * np.float32(0.55)
            self._tile = grey + colour * np.float32(0.62)
        self._tile *= np.float32(sigma)

    def window(self, a: int, b: int) -> NDArray[np.float32]:
        """Return the window that two random numbers choose, `[H, W]` or `[H, W, C]`."""
        x, y = a % self.MARGIN, b % self.MARGIN
        return self._tile[y : y + self._size[1], x : x + self._size[0]]
