"""What lights the street and warms it, at night and by day: where it falls, and what it does to paint."""

from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from edgefuse.sim.street import Street
from edgefuse.sim.surfaces import CAMERA, GARDEN, LEFT_WALL, SKYLIGHT, WHITE, Floats, Surface, smooth_noise

Warmth = TypeVar("Warmth", float, Floats)

TO_SUN = np.array([-0.33, 0.80, -0.50])  # behind the camera, over the houses on the left
SLANT = -TO_SUN / TO_SUN[1]  # how far a metre of height throws its shadow
SUN = np.array([1.06, 1.22, 1.30], np.float32)  # B, G, R on what faces it
SKY = np.array([0.50, 0.44, 0.40], np.float32)  # in the shade
HAZE = np.array([0.80, 0.74, 0.66], np.float32)
CLEAR = 330.0  # m at which haze takes 63 % of the contrast
RISE, GAIN = 3.5, 11.0  # °C that the air is warmer than at night, and black in the sun than the air
COLD, WARM = 12.0, 26.0  # °C: what is colder at night follows the air, what is warmer has its own heat


class Night:
    """Lamps and the glow of the clouds."""

    warmer = 0.0

    def __init__(self, street: Street) -> None:
        self._lights = street.lights
        self._at = np.array([light.at for light in street.lights])
        self._bgr = np.array([light.bgr for light in street.lights]) * WHITE

    def radiance(self, surface: Surface) -> Floats:
        """Return the light that leaves a surface, `[h, w, 3]`, linear, 1 = white in the picture."""
        return surface.radiance(self._lights)

    def celsius(self, surface: Surface) -> Floats:
        """Return how warm a surface is, `[h, w]`."""
        return surface.celsius

    def at(self, x: float, height: float, z: float) -> Floats:
        """Return the light on a body, B, G, R, linear up to `WHITE`."""
        garden = x < LEFT_WALL and GARDEN[0] < z < GARDEN[1]
        square = ((self._at - (x, height, z)) ** 2).sum(axis=1)
        light = (0.55 / (square + 0.6)) @ self._bgr * (0.12 if garden else 1.0) + SKYLIGHT * WHITE
        return light.astype(np.float32)


class Day:
    """Sun and sky over the same street."""

    warmer = 4.0
    """°C that the outside of people is warmer than at night."""

    def __init__(self, street: Street) -> None:
        self._street = street

    def radiance(self, surface: Surface) -> Floats:
        """Return the light that leaves a surface, `[h, w, 3]`, linear, 1 = white in the picture."""
        if surface is self._street.sky:
            return self._sky(surface)
        # What shines at night shows its colour by day: signs, blinds, goods.
        paint = np.maximum(surface.albedo, np.minimum(surface.glow, 0.62))
        light = paint * (SKY * np.float32(surface.shade) + self._direct(surface)[..., None] * SUN)
        deep = surface.points(*surface.alpha.shape[::-1])[..., 2:]
        haze = 1 - np.exp(-deep / np.float32(CLEAR))
        return light + (HAZE - light) * haze

    def sunlight(self, surface: Surface) -> Floats:
        """Return the part of its radiance that a shadow takes away; only what lies on the ground has any."""
        if surface.v[2] < 0.5:
            return np.zeros_like(surface.albedo)
        return surface.albedo * self._direct(surface)[..., None] * SUN

    def celsius(self, surface: Surface) -> Floats:
        """Return how warm a surface is, `[h, w]`: dark paint in the sun is the warmest."""
        if surface is self._street.sky:
            return surface.celsius
        absorbed = self._direct(surface) * (1 - surface.albedo.mean(axis=2).clip(0, 1))
        if surface.v[2] > 0.5:  # the ground is worn and damp in places
            cells = round(surface.size[1] / 1.5), round(surface.size[0] / 1.5)
            rng = np.random.default_rng([self._street.seed, 41])
            absorbed *= 1 + np.float32(0.15) * smooth_noise(rng, surface.alpha.shape, cells)
        return warmed(surface.celsius, absorbed)

    def at(self, x: float, height: float, z: float) -> Floats:
        """Return the light on a body, B, G, R, linear up to `WHITE`."""
        point = np.array([[[x, height, z]]], np.float32)
        return (SKY + SUN * np.float32(0.75 * self._unshaded(point)[0, 0])) * np.float32(WHITE)

    def _sky(self, sky: Surface) -> Floats:
        rows, columns = sky.alpha.shape
        up = np.linspace(1, 0, rows, dtype=np.float32)[:, None, None]
        blue = np.array([0.86, 0.55, 0.32], np.float32)
        clear = blue + (HAZE * 1.1 - blue) * np.exp(-up * 6)
        rng = np.random.default_rng(self._street.seed)
        puffs = smooth_noise(rng, (rows, columns), (26, 18)) + 0.6 * smooth_noise(
            rng, (rows, columns), (70, 44)
        )
        cover = np.clip(puffs * 1.1 - 0.25, 0, 0.8)[..., None] ** 1.3
        return clear + (np.float32(1.0) - clear) * cover

    def _direct(self, surface: Surface) -> Floats:
        """Return how much of the sun falls on each texel, 0 to 1."""
        normal = np.cross(surface.u, surface.v)
        normal *= np.sign(normal @ (CAMERA - surface.origin)) or 1.0
        facing = max(0.0, float(normal @ TO_SUN)) * surface.shade
        rows, columns = surface.alpha.shape
        if not facing or surface.v[2] < 0.5:
            return np.full((rows, columns), facing, np.float32)
        lit = self._unshaded(surface.points(columns, rows))
        return cv2.GaussianBlur(lit, (0, 0), 1.2) * np.float32(facing)

    def _unshaded(self, points: Floats) -> Floats:
        """Return 1 where the sun shines on points `[h, w, 3]`, 0 in the shade of houses, trees and lamps."""
        x, y, z = (points[..., i] for i in range(3))
        lit = np.ones(x.shape, np.float32)
        # Back along the ray of light, to the fronts on the left.
        way = (x - LEFT_WALL) / -TO_SUN[0]
        height, front = y + way * TO_SUN[1], z + way * TO_SUN[2]
        for house in self._street.houses:
            if house.x == LEFT_WALL:
                lit[(front > house.z) & (front < house.z + house.width) & (height < house.height)] = 0
        for tree in self._street.trees:
            middle = tree.height - 2.0
            across, along = x - tree.x - SLANT[0] * middle, z - tree.z - SLANT[2] * middle
            lit[
                (across / 1.7) ** 2 + (along / 2.0) ** 2 < 1 - 0.25 * np.sin(9 * across) * np.sin(7 * along)
            ] = 0
        for post_x, post_z in self._street.posts:
            up = (z - post_z) / SLANT[2]  # of the post, whose shadow falls there
            lit[(np.abs(x - post_x - SLANT[0] * up) < 0.06) & (up > 0) & (up < 6.4)] = 0
        return lit


def warmed(celsius: Warmth, absorbed: Warmth) -> Warmth:
    """Return how warm something is by day: what has its own heat changes less.

    Args:
        celsius: how warm it is at night.
        absorbed: the share of the sun's light that it takes in, 0 to 1.
    """
    follows = np.clip((WARM - celsius) / (WARM - COLD), 0, 1)
    return celsius + follows * (RISE + GAIN * absorbed)


def shadow_plane(sprite_plane: NDArray[np.float64], z: float) -> NDArray[np.float64]:
    """Return where the shadow of a sprite falls: the matrix from its pixels to world points of the ground.

    Args:
        sprite_plane: `[4, 3]`, from its pixels to the upright plane at depth `z`.
        z: where it stands.
    """
    shadow = sprite_plane.copy()
    shadow[0] += SLANT[0] * sprite_plane[1]
    shadow[1] = 0
    shadow[2] = z * sprite_plane[3] + SLANT[2] * sprite_plane[1]
    return shadow
