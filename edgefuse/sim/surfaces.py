"""Textured planes in the world, drawn in metres, lit by lamps and painted into a camera's picture.

Also the pinhole view of a camera, and the noise of its sensor.

World coordinates are metres: x to the right, y up from the road, z along the street.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

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


LEFT_WALL, RIGHT_WALL = -6.4, 7.6  # x of the houses' fronts
GARDEN = (17.0, 29.0)  # z of the gap between the houses on the left

AXES = {"x": (1.0, 0.0, 0.0), "y": (0.0, 1.0, 0.0), "z": (0.0, 0.0, 1.0)}


Floats = NDArray[np.float32]
Colour = tuple[float, float, float]


@dataclass(frozen=True)
class Light:
    """A lamp: where it is, in metres, and its strength in B, G, R (1 lights white paint at 1 m fully)."""

    at: tuple[float, float, float]
    bgr: Colour


SKYLIGHT = np.array([0.020, 0.014, 0.012], np.float32)  # B, G, R: the glow of the clouds


def irradiance(points: Floats, lights: Sequence[Light], normal: NDArray[np.float64]) -> Floats:
    """Return the light that falls on points `[..., 3]` of a plane, as `[..., 3]` in B, G, R."""
    flat = points.reshape(-1, 3)
    at = np.array([light.at for light in lights], np.float32)
    bgr = np.array([light.bgr for light in lights], np.float32)
    square = (flat**2).sum(axis=1)[:, None] + (at**2).sum(axis=1) - 2 * flat @ at.T
    square = np.maximum(square, 0) + np.float32(0.6)  # a lamp has a size: no pole where it touches
    along = normal.astype(np.float32)
    facing = np.maximum((at @ along) - (flat @ along)[:, None], 0)
    return (facing / (square * np.sqrt(square)) @ bgr + SKYLIGHT).reshape(points.shape)


def smooth_noise(rng: np.random.Generator, shape: tuple[int, int], cells: tuple[int, int]) -> Floats:
    """Return noise of `shape` that varies over rows × columns `cells`, about -1 to 1."""
    grid = rng.uniform(-1, 1, (max(cells[0], 2), max(cells[1], 2))).astype(np.float32)
    return cv2.resize(grid, (shape[1], shape[0]), interpolation=cv2.INTER_CUBIC)


class Surface:
    """A rectangle in the world with what each camera sees of it.

    Args:
        origin: its lower left corner, seen from the camera's side.
        u, v: unit directions to the right and up on it.
        size: width and height in metres.
        density: texels per metre along u and v.
        bgr: its paint, 0..1.
        celsius: its temperature.
        shade: how much of the lamps' light reaches it.
        solid: False: transparent until something is drawn.
        hides: it can stand in front of moving bodies.
    """

    def __init__(
        self,
        origin: tuple[float, float, float],
        u: tuple[float, float, float],
        v: tuple[float, float, float],
        size: tuple[float, float],
        density: tuple[float, float],
        bgr: Colour = (0.2, 0.2, 0.2),
        celsius: float = AIR,
        shade: float = 1.0,
        solid: bool = True,
        hides: bool = False,
    ) -> None:
        self.origin, self.u, self.v = (np.array(a, np.float64) for a in (origin, u, v))
        self.size, self.shade, self.solid, self.hides = size, shade, solid and not hides, hides
        columns, rows = (max(2, round(s * d)) for s, d in zip(size, density, strict=True))
        self.density = (columns / size[0], rows / size[1])
        self.albedo = np.full((rows, columns, 3), bgr, np.float32)
        self.celsius = np.full((rows, columns), celsius, np.float32)
        self.glow = np.zeros((rows, columns, 3), np.float32)
        self.alpha = np.full((rows, columns), float(solid), np.float32)
        self.warm_alpha: Floats | None = None  # opacity in infrared where it differs

    def texels(self, points: Sequence[tuple[float, float]]) -> NDArray[np.int32]:
        """Map (u, v) in metres to texture x, y in sixteenths of a texel."""
        (du, dv), top = self.density, self.size[1]
        place = [(16 * (u * du - 0.5), 16 * ((top - v) * dv - 0.5)) for u, v in points]
        return np.rint(np.array(place)).astype(np.int32)

    def polygon(
        self,
        points: Sequence[tuple[float, float]],
        bgr: Colour | None = None,
        celsius: float | None = None,
        glow: Colour | None = None,
        alpha: float | None = None,
    ) -> None:
        """Fill a polygon of (u, v) in metres in those of the layers that are given."""
        place = [self.texels(points)]
        for layer, value in ((self.albedo, bgr), (self.glow, glow)):
            if value is not None:
                cv2.fillPoly(layer, place, value, shift=4)
        for plane, number in ((self.celsius, celsius), (self.alpha, alpha)):
            if number is not None:
                cv2.fillPoly(plane, place, (number,), shift=4)

    def box(self, u: float, v: float, width: float, height: float, **paint: Any) -> None:
        """Fill a rectangle from (u, v), in metres."""
        self.polygon([(u, v), (u + width, v), (u + width, v + height), (u, v + height)], **paint)

    def disc(self, u: float, v: float, radius: float, **paint: Any) -> None:
        """Fill a disc about (u, v), in metres."""
        angle = np.linspace(0, 2 * np.pi, 24, endpoint=False)
        self.polygon(list(zip(u + radius * np.cos(angle), v + radius * np.sin(angle), strict=True)), **paint)

    def text(
        self,
        words: str,
        u: float,
        v: float,
        width: float,
        height: float,
        bgr: Colour,
        glow: bool = False,
        mirror: bool = False,
    ) -> None:
        """Write words into a rectangle, in metres; only the visible camera sees them.

        On a wall on the right, z runs to the left in the picture: there words are mirrored.
        """
        (w, h), base = cv2.getTextSize(words, cv2.FONT_HERSHEY_DUPLEX, 2.0, 5)
        mask = np.zeros((h + base + 8, w + 8), np.uint8)
        cv2.putText(mask, words, (4, h + 4), cv2.FONT_HERSHEY_DUPLEX, 2.0, 255, 5, cv2.LINE_AA)
        mask = mask[:, ::-1] if mirror else mask
        x0, y1 = (self.texels([(u, v)])[0] + 8) // 16
        x1, y0 = (self.texels([(u + width, v + height)])[0] + 8) // 16
        layer = self.glow if glow else self.albedo
        patch = layer[max(y0, 0) : y1, max(x0, 0) : x1]
        if patch.size == 0:
            return
        ink = cv2.resize(mask, (patch.shape[1], patch.shape[0]), interpolation=cv2.INTER_AREA)
        weight = ink.astype(np.float32)[..., None] / 255
        patch[:] = patch * (1 - weight) + np.asarray(bgr, np.float32) * weight

    def points(self, columns: int, rows: int) -> Floats:
        """Return the world points of a grid over the surface, `[rows, columns, 3]`."""
        a = (np.arange(columns) + 0.5) / columns * self.size[0]
        b = self.size[1] - (np.arange(rows) + 0.5) / rows * self.size[1]
        grid = self.origin + a[None, :, None] * self.u + b[:, None, None] * self.v
        return grid.astype(np.float32)

    def radiance(self, lights: Sequence[Light]) -> Floats:
        """Return the light that leaves it, `[h, w, 3]`, linear, 1 = white in the picture."""
        rows, columns = self.alpha.shape
        normal = np.cross(self.u, self.v)
        normal *= np.sign(normal @ (CAMERA - self.origin)) or 1.0
        coarse = self.points(min(columns, int(self.size[0] * 2) + 2), min(rows, int(self.size[1] * 2) + 2))
        light = irradiance(coarse, lights, normal) * np.float32(self.shade)
        lit = cv2.resize(light, (columns, rows), interpolation=cv2.INTER_LINEAR) * self.albedo
        return lit + self.glow

    def homography(self, view: Projection) -> NDArray[np.float64]:
        """Return the matrix from its texture's pixels to the picture's."""
        du, dv = 1 / self.density[0], 1 / self.density[1]
        corner = self.origin + self.v * self.size[1]
        texture = np.zeros((4, 3))
        texture[:3, 0], texture[:3, 1] = self.u * du, -self.v * dv
        texture[:3, 2] = corner + self.u * du / 2 - self.v * dv / 2
        texture[3, 2] = 1
        return view @ texture


def warp_patch(
    texture: NDArray[Any], matrix: NDArray[np.float64], size: tuple[int, int]
) -> tuple[NDArray[Any], int, int] | None:
    """Warp a texture into the part of a picture that it covers: the patch and its left and top, or None."""
    rows, columns = texture.shape[:2]
    corners = matrix @ np.array([[-1, columns, columns, -1], [-1, -1, rows, rows], [1, 1, 1, 1]], np.float64)
    if (corners[2] * np.sign(matrix[2, 2] or 1) <= 1e-9).any():
        return None
    x, y = corners[0] / corners[2], corners[1] / corners[2]
    x0, y0 = max(int(np.floor(x.min())), 0), max(int(np.floor(y.min())), 0)
    x1, y1 = min(int(np.ceil(x.max())) + 1, size[0]), min(int(np.ceil(y.max())) + 1, size[1])
    if x1 <= x0 or y1 <= y0:
        return None
    moved = np.array([[1, 0, -x0], [0, 1, -y0], [0, 0, 1]]) @ matrix
    return cv2.warpPerspective(texture, moved, (x1 - x0, y1 - y0), flags=cv2.INTER_LINEAR), x0, y0


def _shrink(texture: Floats, matrix: NDArray[np.float64]) -> tuple[Floats, NDArray[np.float64]]:
    """Average texels together where the picture would skip some of them."""
    rows, columns = texture.shape[:2]
    cx, cy = columns / 2, rows / 2
    ends = matrix @ np.array([[cx, cx + 1, cx], [cy, cy, cy + 1], [1, 1, 1]])
    ends = ends[:2] / ends[2]
    steps = [max(float(np.hypot(*(ends[:, i] - ends[:, 0]))), 1e-3) for i in (1, 2)]
    width, height = (
        max(1, round(n / max(1.0, 1 / step))) for n, step in zip((columns, rows), steps, strict=True)
    )
    if (width, height) == (columns, rows):
        return texture, matrix
    kx, ky = columns / width, rows / height
    small = cv2.resize(texture, (width, height), interpolation=cv2.INTER_AREA)
    return small, matrix @ np.array([[kx, 0, (kx - 1) / 2], [0, ky, (ky - 1) / 2], [0, 0, 1]])


def paint(canvas: Floats, view: Projection, surface: Surface, layer: Floats, alpha: Floats) -> None:
    """Draw `layer` of a surface, `[h, w]` or `[h, w, 3]`, over the canvas of the same channels."""
    stack = np.empty((*alpha.shape, 2 if layer.ndim == 2 else 4), np.float32)
    stack[..., :-1] = layer.reshape(*alpha.shape, -1)
    if not surface.solid:
        stack[..., :-1] *= alpha[..., None]
    stack[..., -1] = alpha
    matrix = surface.homography(view)
    rows, columns = alpha.shape
    # Long surfaces go in slices, as their far end needs far fewer texels than the near one.
    tall = abs(surface.v[2]) > 0.5
    length = rows if tall else columns
    deep = max(abs(surface.u[2]) * surface.size[0], abs(surface.v[2]) * surface.size[1])
    cuts = np.linspace(0, length, max(1, min(12, int(deep / 6))) + 1).astype(int)
    for a, end in pairwise(cuts):
        b = min(end + 2, length)  # an overlap hides the seam
        part = stack[a:b] if tall else stack[:, a:b]
        offset = np.array([[1, 0, 0 if tall else a], [0, 1, a if tall else 0], [0, 0, 1]], np.float64)
        patch = warp_patch(*_shrink(part, matrix @ offset), (canvas.shape[1], canvas.shape[0]))
        if patch is None:
            continue
        drawn, x, y = patch
        under = canvas[y : y + drawn.shape[0], x : x + drawn.shape[1]]
        keep = 1 - drawn[..., -1]
        over = drawn[..., :-1] if layer.ndim == 3 else drawn[..., 0]
        under *= keep[..., None] if layer.ndim == 3 else keep
        under += over


class House(NamedTuple):
    """The front of a house, in metres: where it stands, from z to z + width."""

    x: float
    z: float
    width: float
    height: float


class Tree(NamedTuple):
    """A tree, in metres."""

    x: float
    z: float
    height: float


class Site:
    """Surfaces from far to near, lights, and the random numbers that all is drawn from.

    What throws a shadow by day is noted in `houses`, `trees` and `posts` (x, z).
    """

    def __init__(self, seed: int, size: tuple[int, int]) -> None:
        self.rng = np.random.default_rng([seed, 11])
        self.detail = float(np.clip(focal_length(size) / 560, 0.25, 1.6))  # texels needed, 1 at 640x480
        self.lights: list[Light] = []
        self.surfaces: list[Surface] = []
        self.houses: list[House] = []
        self.trees: list[Tree] = []
        self.posts: list[tuple[float, float]] = []

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
