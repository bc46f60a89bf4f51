"""The still part of the world: sky, road, houses, garden, lamps, signs and trees, drawn from a seed."""

import math

import numpy as np

from edgefuse.sim.surfaces import (
    GARDEN,
    LEFT_WALL,
    RIGHT_WALL,
    Colour,
    House,
    Light,
    Site,
    Surface,
    Tree,
    smooth_noise,
)

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
    site.houses.append(House(x, z, width, height))
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


ROAD = (-3.2, 3.2)  # x of its kerbs; parked cars stand right of it, to 5.3
CROSSING = (14.2, 17.4)
SODIUM: Colour = (0.30, 0.66, 1.0)
LED: Colour = (0.95, 0.95, 0.88)


class Street(Site):
    """What stands still: `surfaces` from far to near, and the `lights` above them."""

    def __init__(self, seed: int, size: tuple[int, int]) -> None:
        super().__init__(seed, size)
        self.seed = seed
        self._sky()
        self._ground(22.0, 115.0, (26, 11))
        self._ground(2.6, 22.2, (46, 36))
        self._garden()
        build_houses(self)
        self._lamps()
        near_last = [s for s in self.surfaces if not s.hides]
        self.surfaces = near_last + sorted((s for s in self.surfaces if s.hides), key=lambda s: -s.origin[2])

    def _sky(self) -> None:
        self.sky = sky = self.add((-900, -20, 600), "xy", (1800, 700), (0.12, 0.3))
        rows, columns = sky.alpha.shape
        up = np.linspace(1, 0, rows, dtype=np.float32)[:, None]
        clouds = smooth_noise(self.rng, (rows, columns), (14, 10)) + 0.5 * smooth_noise(
            self.rng, (rows, columns), (40, 28)
        )
        haze = np.exp(-up * 5)[..., None] * np.array([0.030, 0.034, 0.052], np.float32)
        night = (0.55 + 0.25 * clouds[..., None]) * np.array([0.034, 0.021, 0.016], np.float32)
        sky.albedo[:] = 0
        sky.glow[:] = haze + night
        sky.celsius[:] = -16 + 13 * np.exp(-up * 6) + 2.0 * clouds
        skyline = self.add((-70, 0, 120), "xy", (140, 30), (4, 4), bgr=(0.05, 0.05, 0.06), solid=False)
        for u in np.arange(0, 140, 6.5):
            width, height = self.rng.uniform(5, 10), self.rng.uniform(6, 19)
            skyline.box(u, 0, width, height, alpha=1, celsius=6.5 + self.rng.uniform(-1, 1.5))
            for _ in range(int(height * 0.9)):
                at = (u + self.rng.uniform(0.4, width - 1), self.rng.uniform(1, height - 1.2))
                warm = self.rng.uniform(0.1, 0.5)
                skyline.box(*at, 0.6, 0.8, glow=(warm * 0.45, warm * 0.8, warm), celsius=8.5)

    def _ground(self, near: float, far: float, density: tuple[float, float]) -> None:
        rng, left = self.rng, -19.0
        g = self.add((left, 0, near), "xz", (31, far - near), density, celsius=12.0)
        shape = g.alpha.shape
        grain = rng.standard_normal(shape, np.float32)
        broad = smooth_noise(rng, shape, (int(far - near), 18))
        g.albedo[:] = (0.105 + 0.016 * grain + 0.020 * broad)[..., None] * np.array([1.02, 1, 0.98])
        g.celsius[:] += 0.7 * broad + 0.12 * grain
        for _ in range(5):  # repaired asphalt
            x, z = rng.uniform(-3, 1.5) - left, rng.uniform(0, far - near)
            a, b = int(x * g.density[0]), int((far - near - z) * g.density[1])
            c, d = int(rng.uniform(0.6, 2) * g.density[0]), int(rng.uniform(1, 3) * g.density[1])
            g.albedo[max(b - d, 0) : b, a : a + c] *= 0.62
        for x in (-2.5, -1.05, 1.05, 2.5):  # where the wheels run
            g.box(x - left - 0.16, 0, 0.32, far - near, celsius=12.9)
        length = far - near

        def across(x0: float, x1: float, bgr: Colour, celsius: float, rough: float) -> None:
            a, b = int((x0 - left) * g.density[0]), int((x1 - left) * g.density[0])
            tone = 1 + rough * grain[:, a:b] + 0.12 * broad[:, a:b]
            g.albedo[:, a:b] = tone[..., None] * np.array(bgr, np.float32)
            g.celsius[:, a:b] = celsius + 0.25 * broad[:, a:b] + 0.1 * grain[:, a:b]

        across(left, LEFT_WALL, (0.045, 0.085, 0.06), 6.4, 0.35)  # grass
        for x0, x1 in ((LEFT_WALL, ROAD[0]), (5.3, RIGHT_WALL + 4)):  # paved
            across(x0, x1, (0.22, 0.235, 0.25), 10.4, 0.10)
            for v in np.arange(math.ceil(near / 0.6) * 0.6, far if far < 40 else 60, 0.6):
                g.box(x0 - left, v - near, x1 - x0, 0.035, bgr=(0.11, 0.11, 0.11), celsius=9.9)
            for u in np.arange(x0, x1, 0.6):
                g.box(u - left, 0, 0.035, length, bgr=(0.11, 0.11, 0.11), celsius=9.9)
        for x in (ROAD[0] - 0.16, 5.3):
            g.box(x - left, 0, 0.16, length, bgr=(0.36, 0.37, 0.38), celsius=11.2)
        self._markings(g, near, far, left)

    def _markings(self, g: Surface, near: float, far: float, left: float) -> None:
        white: Colour = (0.62, 0.66, 0.68)
        for z in np.arange(-1.0, 115, 6.0):
            if not CROSSING[0] - 3 < z < CROSSING[1]:
                g.box(-0.06 - left, z - near, 0.12, 2.6, bgr=white, celsius=11.9)
        g.box(3.2 - left, 0, 0.10, far - near, bgr=white, celsius=11.9)
        for x in np.arange(-3.0, 3.0, 1.0):
            g.box(x - left, CROSSING[0] - near, 0.52, CROSSING[1] - CROSSING[0], bgr=white, celsius=11.85)
        g.box(0.15 - left, CROSSING[0] - 1.3 - near, 3.0, 0.3, bgr=white, celsius=11.85)
        g.text("SLOW", 0.5 - left, 9.0 - near, 2.3, 3.2, white)
        for x, z in ((-1.75, 10.2), (1.5, 19.6), (-1.2, 36.0), (0.9, 58.0)):  # sewers are warm below
            for radius, warm in ((0.62, 14.0), (0.48, 18.0), (0.36, 24.0)):
                g.disc(x - left, z - near, radius, celsius=warm)
            g.disc(x - left, z - near, 0.36, bgr=(0.07, 0.07, 0.075))
            g.disc(x - left, z - near, 0.29, bgr=(0.11, 0.11, 0.115))

    def _garden(self) -> None:
        rng = self.rng
        far = self.add((-19, 0, GARDEN[1]), "xy", (12.6, 9), (24, 24), shade=0.35)
        brick_wall(self, far, (0.30, 0.34, 0.38))
        hedge = self.add((LEFT_WALL, 0, 17.2), "zy", (4.4, 2.05), (40, 60), shade=0.7, hides=True)
        shape = hedge.alpha.shape
        leaves = smooth_noise(rng, shape, (int(2.05 * 16), int(4.4 * 13))) + 0.5 * rng.standard_normal(
            shape, np.float32
        )
        hedge.albedo[:] = np.clip(0.6 + 0.5 * leaves, 0.1, 2)[..., None] * np.array([0.05, 0.15, 0.09])
        top = 1.93 + 0.08 * smooth_noise(rng, (1, shape[1]), (2, 60))
        up = np.linspace(2.05, 0, shape[0], dtype=np.float32)[:, None]
        hedge.alpha[:] = up < top
        hedge.celsius[:] = 7.6 + 0.5 * leaves
        # Infrared looks through the gaps between leaves at whatever is warm behind.
        gaps = smooth_noise(rng, shape, (int(2.05 * 11), int(4.4 * 9)))
        hedge.warm_alpha = hedge.alpha * (gaps < 0.12)
        self._tree(-9.2, 27.8, 5.5)
        self._tree(-4.3, 32.0, 6.5)
        self._tree(6.3, 33.0, 7.0)

    def _tree(self, x: float, z: float, height: float) -> None:
        rng = self.rng
        self.trees.append(Tree(x, z, height))
        tree = self.add((x - 2, 0, z), "xy", (4, height), (26, 26), solid=False, hides=True, shade=0.8)
        shape = tree.alpha.shape
        tree.polygon(
            [(1.85, 0), (2.15, 0), (2.06, height - 2), (1.94, height - 2)],
            bgr=(0.12, 0.16, 0.2),
            celsius=9.6,
            alpha=1,
        )
        noise = smooth_noise(rng, shape, (int(height * 5), 20))
        noise += smooth_noise(rng, shape, (int(height * 2), 8))
        v = np.linspace(height, 0, shape[0])[:, None] - (height - 2.1)
        u = np.linspace(-2, 2, shape[1])[None, :]
        crown = (u / 1.7) ** 2 + (v / 1.9) ** 2 + 0.35 * noise < 0.85
        leaf = crown & (smooth_noise(rng, shape, (int(height * 9), 36)) > -0.35)
        tone = np.clip(0.7 + 0.4 * noise + 0.25 * v, 0.15, 1.6)
        tree.albedo[leaf] = (tone[..., None] * np.array([0.05, 0.17, 0.11]))[leaf]
        tree.celsius[leaf] = (7.8 + 0.4 * noise)[leaf]
        tree.alpha[leaf] = 1

    def _lamps(self) -> None:
        places = [(-3.75, 6.4), (-3.75, 40.0), (-3.75, 62.0), (-3.75, 88.0)]
        places += [(5.75, 22.0), (5.75, 46.0), (5.75, 74.0)]
        for i, (x, z) in enumerate(places):
            tint = LED if self.rng.random() < 0.3 else SODIUM
            side = -math.copysign(1.0, x)
            head = (x + side * 1.5, 6.3, z)
            left = min(x, head[0]) - 0.35
            post = self.add(
                (left, 0, z),
                "xy",
                (2.2, 6.6),
                (40, 30),
                solid=False,
                hides=True,
                bgr=(0.13, 0.14, 0.13),
                celsius=8.6,
            )
            self.posts.append((x, z))
            at = x - left
            post.box(at - 0.07, 0, 0.14, 6.45, alpha=1)
            post.box(min(at, at + side * 1.3), 6.36, 1.3, 0.08, alpha=1)
            post.box(
                at + side * 1.5 - 0.32,
                6.26,
                0.64,
                0.16,
                alpha=1,
                celsius=30.0,
                glow=tuple(3.0 * c for c in tint),
            )
            strength = 30.0 if i else 34.0
            self.lights.append(Light(head, tuple(strength * c for c in tint)))  # type: ignore[arg-type]
        sign = self.add((5.42, 0, 13.4), "xy", (0.7, 3.0), (90, 90), solid=False, hides=True, celsius=8.4)
        sign.box(0.32, 0, 0.06, 2.4, alpha=1, bgr=(0.35, 0.35, 0.35))
        sign.box(0.02, 2.3, 0.66, 0.66, alpha=1, bgr=(0.75, 0.28, 0.08))
        sign.polygon([(0.1, 2.38), (0.6, 2.38), (0.35, 2.88)], bgr=(0.95, 0.95, 0.95))
        sign.box(0.33, 2.45, 0.05, 0.28, bgr=(0.05, 0.05, 0.05))
        sign.disc(0.355, 2.76, 0.04, bgr=(0.05, 0.05, 0.05))
        can = self.add((-3.75, 0, 20.3), "xy", (0.5, 0.9), (40, 40), hides=True, bgr=(0.1, 0.16, 0.1))
        can.box(0, 0.7, 0.5, 0.1, bgr=(0.3, 0.3, 0.3))
