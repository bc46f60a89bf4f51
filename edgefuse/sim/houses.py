"""The fronts of the houses: walls, windows, shops, posters and pipes."""

import math

import numpy as np

from edgefuse.sim.site import GARDEN, LEFT_WALL, RIGHT_WALL, Site
from edgefuse.sim.surfaces import Colour, Light, Surface, smooth_noise

__all__ = ["brick_wall", "build_houses"]

WALLS: list[Colour] = [
    (0.22, 0.27, 0.42),
    (0.34, 0.42, 0.50),
    (0.18, 0.22, 0.33),
    (0.42, 0.42, 0.40),
    (0.26, 0.36, 0.42),
    (0.38, 0.34, 0.28),
]
NEON: list[Colour] = [(0.15, 0.12, 1.6), (1.5, 0.7, 0.12), (0.25, 1.2, 0.3), (1.1, 0.2, 1.3), (0.1, 0.9, 1.5)]
SHOPS = ["BAKERY", "CAFE LUNA", "BOOKS", "PIZZA", "HOTEL", "PHARMACY", "NOODLES", "RECORDS", "OPTIK"]
BLADES = ["BAR", "24h", "TAXI", "CAFE", "APO"]
POSTERS = ["JAZZ", "OPEN", "CIRCO", "SALE", "FILM", "1984", "EXPO"]


def build_houses(site: Site) -> None:
    """Line both sides of the street, but for the garden, with houses; shops light the pavement."""
    z = 4.0
    while z < 112:  # right: shops
        width = float(site.rng.uniform(9, 14))
        _facade(site, RIGHT_WALL, z, width, shop=True)
        z += width
    _facade(site, LEFT_WALL, 4.0, GARDEN[0] - 4.0, shop=False)
    z = GARDEN[1]
    while z < 112:
        width = float(site.rng.uniform(9, 14))
        _facade(site, LEFT_WALL, z, width, shop=bool(site.rng.random() < 0.4))
        z += width


def brick_wall(site: Site, s: Surface, bgr: Colour, brick: bool = True) -> None:
    """Draw bricks, or plaster; in infrared a wall is nearly even."""
    rng, shape = site.rng, s.alpha.shape
    stains = smooth_noise(rng, shape, (6, 9))
    tone = 1 + 0.10 * stains + 0.04 * rng.standard_normal(shape, np.float32)
    if brick:
        rows, columns = int(s.size[1] / 0.14), int(s.size[0] / 0.36)
        y = np.arange(shape[0]) / shape[0] * rows
        x = np.arange(shape[1]) / shape[1] * columns
        row = y.astype(int)[:, None]
        column = x[None, :] + 0.5 * (row % 2)
        tint = rng.uniform(0.7, 1.25, (rows + 1, columns + 2)).astype(np.float32)
        tone = tone * tint[row, column.astype(int)]
        joint = ((y % 1)[:, None] > 0.8) | ((column % 1) > 0.92)
        tone = np.where(joint, 1.5, tone)
    s.albedo[:] = tone[..., None] * np.array(bgr, np.float32)
    up = np.linspace(1, 0, shape[0], dtype=np.float32)[:, None]
    s.celsius[:] = 10.6 - 2.4 * up + 0.9 * stains


def _facade(site: Site, x: float, z: float, width: float, shop: bool) -> None:
    rng = site.rng
    height = float(rng.uniform(9.5, 15.5))
    far = z > 30
    s = site.add((x, 0, z), "zy", (width, height), (12, 18) if far else (30, 44))
    brick_wall(site, s, WALLS[rng.integers(len(WALLS))], brick=bool(rng.random() < 0.7))
    s.box(0, height - 0.5, width, 0.5, bgr=(0.3, 0.3, 0.3), celsius=7.5)
    columns = int(width / 2.3)
    for floor in range(1, int((height - 1.2) / 3.1)):
        for i in range(columns):
            _window(site, s, (i + 0.5) * width / columns - 0.6, floor * 3.1 + 1.0)
    s.box(0, 3.55, width, 0.18, bgr=(0.4, 0.4, 0.4), celsius=9.0)
    if shop:
        _shop(site, s, width, x, z)
    else:
        _plain_floor(site, s, width)


def _window(site: Site, s: Surface, u: float, v: float) -> None:
    rng = site.rng
    lit = rng.random() < 0.3
    s.box(u - 0.1, v - 0.1, 1.4, 1.85, bgr=(0.42, 0.42, 0.42), celsius=9.2)
    s.box(u, v, 1.2, 1.65, bgr=(0.03, 0.025, 0.02), celsius=12.4 if lit else 8.2)
    if lit:
        level = rng.uniform(0.25, 0.75)
        hue = (0.42, 0.75, 1.0) if rng.random() < 0.7 else (1.0, 0.9, 0.75)
        s.box(u, v, 1.2, 1.65, glow=tuple(level * c for c in hue))
        side = rng.uniform(0.2, 0.5)
        s.box(u, v, side, 1.65, glow=tuple(0.45 * level * c for c in hue))  # a curtain
    s.box(u + 0.57, v, 0.06, 1.65, bgr=(0.4, 0.4, 0.4), celsius=9.4, glow=(0, 0, 0))
    s.box(u, v + 1.1, 1.2, 0.06, bgr=(0.4, 0.4, 0.4), celsius=9.4, glow=(0, 0, 0))
    if rng.random() < 0.5:  # a radiator below the sill warms the wall
        s.box(u + 0.1, v - 0.75, 1.0, 0.5, celsius=11.8)


def _shop(site: Site, s: Surface, width: float, x: float, z: float) -> None:
    rng = site.rng
    neon = NEON[rng.integers(len(NEON))]
    name = SHOPS[rng.integers(len(SHOPS))]
    open_late = rng.random() < 0.6
    s.box(0.6, 2.75, width - 1.2, 0.7, bgr=tuple(0.25 * c + 0.04 for c in neon), celsius=10.0)
    length = min(width - 2.4, 0.62 * len(name))
    s.text(name, width - 1.2 - length if x > 0 else 1.2, 2.82, length, 0.56, neon, glow=True, mirror=x > 0)
    for i in range(2):
        u = 0.7 + i * (width / 2 - 0.2)
        glass = width / 2 - 1.1
        s.box(u, 0.55, glass, 2.1, bgr=(0.05, 0.05, 0.05), celsius=14.5 if open_late else 9.0)
        if open_late:
            level = rng.uniform(0.35, 0.7)
            s.box(u, 0.55, glass, 2.1, glow=(0.62 * level, 0.86 * level, level))
            for k in np.arange(0.2, glass - 0.3, 0.55):  # goods
                tint = rng.uniform(0.05, 0.6, 3) * level
                tall = rng.uniform(0.3, 0.9)
                s.box(u + k, 0.6, 0.4, tall, glow=tuple(tint), celsius=13.2)
            site.lights.append(
                Light(
                    (x - math.copysign(0.7, x), 1.7, z + u + glass / 2),
                    (0.5 * level, 0.75 * level, 0.9 * level),
                )
            )
    s.box(width / 2 - 0.45, 0, 0.9, 2.5, bgr=(0.10, 0.10, 0.16), celsius=9.6)
    if rng.random() < 0.5:
        s.box(width - 0.5, 1.9, 0.35, 0.35, bgr=(0.25, 0.25, 0.25), celsius=24.0)  # warm vent
    if x > 0 and z < 60:  # a blade sign that faces the camera
        blade = site.add(
            (x - 1.35, 3.9, z + 1.0),
            "xy",
            (1.25, 0.85),
            (64, 64),
            hides=False,
            bgr=(0.03, 0.03, 0.03),
            celsius=11.0,
        )
        blade.box(0.05, 0.05, 1.15, 0.75, glow=tuple(0.10 * c for c in neon))
        word = BLADES[rng.integers(len(BLADES))]
        blade.text(word, 0.14, 0.2, 0.97, 0.46, neon, glow=True)


def _plain_floor(site: Site, s: Surface, width: float) -> None:
    rng = site.rng
    s.box(width - 1.6, 0, 1.0, 2.3, bgr=(0.16, 0.22, 0.12), celsius=9.2)
    for i in range(int((width - 2.0) / 1.5)):  # posters: paint only
        u, tint = 0.4 + i * 1.5, rng.uniform(0.1, 0.85, 3)
        s.box(u, 0.9, 1.15, 1.7, bgr=tuple(tint))
        s.disc(u + 0.57, 2.0, 0.36, bgr=tuple(1 - tint))
        s.text(POSTERS[rng.integers(len(POSTERS))], u + 0.1, 1.0, 0.95, 0.42, tuple(0.9 - 0.8 * tint))
    s.box(0, 2.95, width, 0.16, bgr=(0.22, 0.22, 0.22), celsius=27.0)  # a heating pipe
    for u in np.arange(0.8, width, 2.0):
        s.box(u, 2.9, 0.1, 0.26, bgr=(0.14, 0.14, 0.14), celsius=14.0)
