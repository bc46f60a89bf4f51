"""The scene at time t, as the light or the warmth that reaches each pixel of a camera."""

from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from edgefuse.images import Image
from edgefuse.sim.figures import Sprite
from edgefuse.sim.light import SLANT, Day, Night, shadow_plane
from edgefuse.sim.street import Street
from edgefuse.sim.surfaces import (
    CODES,
    COLDEST_CODE,
    WHITE,
    Floats,
    Projection,
    Surface,
    focal_length,
    paint,
    projection,
    warp_patch,
)
from edgefuse.sim.traffic import HEADLIGHTS, TAILLIGHTS, Drive, Step, Traffic, car_shadow, draw_car

SUPERSAMPLED = 900_000  # pictures of up to so many pixels are painted at twice their size
Layer: TypeAlias = tuple[Surface, Floats, Floats]
BEAM = np.array([1.0, 0.97, 0.86], np.float32) * np.float32(WHITE)
BRAKE = np.array([0.03, 0.04, 1.0], np.float32) * np.float32(WHITE)


class Scene:
    """One street, seen by two cameras: `celsius(t)` and `radiance(t)` give new float32 arrays."""

    def __init__(
        self,
        seed: int,
        vis_size: tuple[int, int],
        ir_size: tuple[int, int],
        ir_to_vis: NDArray[np.float64],
        baseline: tuple[float, float] = (0.0, 0.0),
        day: bool = False,
    ) -> None:
        self._vis_view, self._vis_size, self._ir_size = projection(vis_size), vis_size, ir_size
        # The same lens as the visible camera, a little beside it, its picture moved by the rig's homography.
        self._ir_view = np.linalg.inv(ir_to_vis) @ self._vis_view
        right, down = baseline
        self._ir_view[:, 3] -= self._ir_view[:, :3] @ (right, -down, 0)
        self._focal = focal_length(vis_size)
        street = Street(seed, vis_size)
        self._hour = hour = Day(street) if day else Night(street)
        self._traffic = Traffic(seed, day)
        self._glare, self._pool = _glare_texture(), _pool_texture()
        ground = [s for s in street.surfaces if s.v[2] > 0.5]
        still, hides = street.surfaces, [s for s in street.surfaces if s.hides]
        self._light = _still(self._vis_view, vis_size, [(s, hour.radiance(s), s.alpha) for s in still], 3)
        self._paint = _still(self._vis_view, vis_size, [(s, s.albedo, s.alpha) for s in ground], 3, 1)
        self._before = _still(self._vis_view, vis_size, [(s, _nearness(s), s.alpha) for s in hides], 1)
        warmth = [(s, hour.celsius(s), _warm_alpha(s)) for s in still]
        self._warmth = _still(self._ir_view, ir_size, warmth, 1)
        self._warm_before = _still(
            self._ir_view, ir_size, [(s, _nearness(s), _warm_alpha(s)) for s in hides], 1
        )
        if isinstance(hour, Night):
            self._light += _bloom(self._light)
        self._light *= np.float32(WHITE)
        self._sunlight: Floats | None = None  # what a shadow takes away
        if isinstance(hour, Day):
            lit = [(s, hour.sunlight(s), s.alpha) for s in still]
            self._sunlight = _still(self._vis_view, vis_size, lit, 3, 1) * np.float32(WHITE)
        for drive in sorted(self._traffic.parked, key=lambda d: -d.z):
            self._add_shadow(self._light, drive)
            self._add_car(self._light, drive, None)
            self._add_car(self._warmth, drive, None)
            if self._sunlight is not None:
                self._add_car(self._sunlight, drive, None, dark=True)

    def celsius(self, time: float) -> Floats:
        """Return the infrared camera's picture at a time, `[H, W]` in °C."""
        picture = self._warmth.copy()
        for body in self._bodies(time):
            if isinstance(body, Drive):
                self._add_car(picture, body, self._warm_before)
            else:
                self._add_figure(picture, body)
        return cv2.GaussianBlur(picture, (3, 3), 0.7, dst=picture)  # the lens is soft

    def radiance(self, time: float) -> Floats:
        """Return the visible camera's picture at a time, `[H, W, 3]` BGR, linear up to `WHITE`."""
        picture = self._light.copy()
        bodies = self._bodies(time)
        for body in bodies:
            self._add_shadow(picture, body)
            if isinstance(body, Drive) and body.lights:
                self._add_pool(picture, body)
        for body in bodies:
            if isinstance(body, Drive):
                self._add_car(picture, body, self._before)
                if body.lights:
                    self._add_glare(picture, body)
            else:
                self._add_figure(picture, body)
        return picture

    def _bodies(self, time: float) -> list[Step | Drive]:
        """All that moves, the farthest first."""
        bodies: list[Step | Drive] = [*self._traffic.steps(time), *self._traffic.drives(time)]
        return sorted(bodies, key=lambda body: -body.z)

    def _add_figure(self, picture: Floats, step: Step) -> None:
        warm = picture.ndim == 2
        view, size = (self._ir_view, self._ir_size) if warm else (self._vis_view, self._vis_size)
        sprite = step.figure.sprite(step.stride, self._focal / step.z)
        texture = sprite.warmth if warm else sprite.visible
        patch = warp_patch(texture, view @ _plane(sprite, step), size)
        if patch is None:
            return
        light = None if warm else self._hour.at(step.x, 1.0, step.z)
        before = self._warm_before if warm else self._before
        _over(picture, *patch, light, before, step.z, self._hour.warmer)

    def _add_shadow(self, picture: Floats, body: Step | Drive) -> None:
        """Take the sun away where a body stands in its way, on the ground."""
        if self._sunlight is None:
            return
        if isinstance(body, Drive):
            patch = car_shadow(body, SLANT, self._vis_view, self._vis_size)
        else:
            sprite = body.figure.sprite(body.stride, self._focal / body.z)
            ground = shadow_plane(_plane(sprite, body), body.z)
            patch = warp_patch(
                sprite.visible[..., 3].astype(np.float32) / 255, self._vis_view @ ground, self._vis_size
            )
        if patch is None:
            return
        shade, x, y = patch
        place = np.s_[y : y + shade.shape[0], x : x + shade.shape[1]]
        picture[place] -= self._sunlight[place] * shade[..., None]

    def _add_car(self, picture: Floats, drive: Drive, before: Floats | None, dark: bool = False) -> None:
        warm = picture.ndim == 2
        view, size = (self._ir_view, self._ir_size) if warm else (self._vis_view, self._vis_size)
        patch = draw_car(drive.mesh, (drive.x, drive.z), drive.heading, view, size, warm)
        if patch is None:
            return
        light = None if warm else self._hour.at(drive.x, 1.2, drive.z) * np.float32(not dark)
        _over(picture, *patch, light, before, max(drive.z, 0.5))

    def _add_pool(self, picture: Floats, drive: Drive) -> None:
        """Headlights on the road before the car: paint times light, so that markings show in it."""
        rows, columns = self._pool.shape
        length, width = 20.0, 7.0
        start = drive.z + drive.heading * 2.2
        z0, z1 = max(start, 1.5), max(start + drive.heading * length, 1.5)
        if z0 == z1:
            return
        texture = self._pool[:, : max(2, int(columns * abs(z1 - z0) / length))]
        du, dv = (z1 - z0) / texture.shape[1], width / rows
        plane = np.array([[0, -dv, drive.x + width / 2], [0, 0, 0.0], [du, 0, z0 + du / 2], [0, 0, 1]])
        patch = warp_patch(texture, self._vis_view @ plane, self._vis_size)
        if patch is None:
            return
        beam, x, y = patch
        place = np.s_[y : y + beam.shape[0], x : x + beam.shape[1]]
        beam *= self._before[place] < 1 / max(drive.z, 1)
        light = cv2.merge([beam * c for c in BEAM])
        cv2.multiply(light, self._paint[place], dst=light)
        cv2.add(picture[place], light, dst=picture[place])

    def _add_glare(self, picture: Floats, drive: Drive) -> None:
        """The halo that a lamp in sight makes in the lens, brighter and wider the nearer it is."""
        towards = drive.heading < 0
        for forward, left, up in HEADLIGHTS if towards else TAILLIGHTS:
            z = drive.z + forward * drive.heading
            if z < 1.0:
                continue
            px, py, w = self._vis_view @ (drive.x - left * drive.heading, up, z, 1)
            x, y = px / w, py / w
            if (
                0 <= x < self._vis_size[0]
                and 0 <= y < self._vis_size[1]
                and self._before[int(y), int(x)] > 1 / z
            ):
                continue
            reach = self._focal * (0.11 + 1.5 / (z + 4)) * (1.0 if towards else 0.32)
            scale = 2 * reach / self._glare.shape[0]
            matrix = np.array([[scale, 0, x - reach], [0, scale, y - reach], [0, 0, 1]])
            patch = warp_patch(self._glare, matrix, self._vis_size)
            if patch is None:
                continue
            halo, x0, y0 = patch
            halo *= np.float32((3.0 if towards else 0.8) * min(1.0, 45.0 / (z + 12)))
            place = picture[y0 : y0 + halo.shape[0], x0 : x0 + halo.shape[1]]
            cv2.add(place, cv2.merge([halo * c for c in (BEAM if towards else BRAKE)]), dst=place)


def _plane(sprite: Sprite, step: Step) -> NDArray[np.float64]:
    """Return where a figure stands: `[4, 3]`, from its sprite's pixels to world points."""
    rows, columns = sprite.visible.shape[:2]
    du, dv = sprite.width / columns, sprite.height / rows
    left, top = step.x + sprite.left, sprite.bottom + sprite.height
    return np.array([[du, 0, left + du / 2], [0, -dv, top - dv / 2], [0, 0, step.z], [0, 0, 1]])


def _over(
    picture: Floats,
    patch: Image,
    x: int,
    y: int,
    light: Floats | None,
    before: Floats | None,
    z: float,
    warmer: float = 0.0,
) -> None:
    """Blend a sprite, `warmer` °C warmer, into a picture, but not over what stands in front of it."""
    place = np.s_[y : y + patch.shape[0], x : x + patch.shape[1]]
    if before is not None:
        hidden = before[place] >= np.float32(1 / z)
        if hidden.any():
            patch[hidden] = 0
    # cv2.transform mixes the channels of a pixel several times faster than numpy does.
    sprite, under = patch.astype(np.float32), picture[place]
    if light is None:
        over = cv2.transform(sprite, _WARMTH + np.array([[0, warmer / 255]]))
    else:
        over = cv2.transform(sprite, np.diag([*light / 255, 0])[:3])
    keep = cv2.transform(sprite, _KEEP[: 1 if light is None else 3, -sprite.shape[2] - 1 :])
    cv2.multiply(under, keep, dst=under)
    cv2.add(under, over, dst=under)


_WARMTH = np.array([[1 / CODES, COLDEST_CODE / 255]])
_KEEP = np.array([[0, 0, 0, -1 / 255, 1]] * 3)  # one minus alpha


def _bloom(light: Floats) -> Floats:
    """Return the haze that what is too bright for the sensor spreads around itself."""
    height, width = light.shape[:2]
    small = cv2.resize(np.maximum(light - 0.55, 0), (max(width // 4, 1), max(height // 4, 1)),
                       interpolation=cv2.INTER_AREA)  # fmt: skip
    sigma = max(height / 4 * 0.035, 0.5)
    haze = 0.30 * cv2.GaussianBlur(small, (0, 0), sigma) + 0.35 * cv2.GaussianBlur(small, (0, 0), sigma / 3.5)
    return cv2.resize(haze, (width, height), interpolation=cv2.INTER_LINEAR)


def _warm_alpha(surface: Surface) -> Floats:
    return surface.alpha if surface.warm_alpha is None else surface.warm_alpha


def _nearness(surface: Surface) -> Floats:
    """One over the depth of each texel: 0 far away, so that soft edges err on the transparent side."""
    rows, columns = surface.alpha.shape
    return np.float32(1) / surface.points(columns, rows)[..., 2]


def _glare_texture() -> Floats:
    """Return the halo of a point of light, `[129, 129]`: a core, a wide skirt and faint rays."""
    y, x = np.mgrid[-1:1:129j, -1:1:129j].astype(np.float32)
    r = np.sqrt(x * x + y * y)
    rays = 0.6 + 0.4 * np.cos(6 * np.arctan2(y, x)) ** 8
    halo = np.exp(-((r / 0.055) ** 2)) * 1.6 + 0.0045 * rays / (r * r + 0.012) + 0.05 * np.exp(-r * 4)
    return (halo * np.clip(1 - r, 0, 1) ** 1.5).astype(np.float32)


def _pool_texture() -> Floats:
    """Return the light of two beams on the road, `[56, 160]`: across, and along from the car on."""
    along = np.linspace(0, 1, 160, dtype=np.float32)[None, :]
    across = np.linspace(-3.5, 3.5, 56, dtype=np.float32)[:, None]
    width = 0.7 + 2.0 * along
    beams = np.exp(-(((across - 0.6) / width) ** 2)) + np.exp(-(((across + 0.6) / width) ** 2))
    fade = np.clip(1 - along, 0, 1) ** 1.5 * np.clip(along * 14, 0, 1)
    return (1.5 * beams * fade * np.clip((3.5 - np.abs(across)) / 1.0, 0, 1)).astype(np.float32)


def _still(view: Projection, size: tuple[int, int], layers: list[Layer], channels: int, k: int = 2) -> Floats:
    """Paint what never moves, from far to near, `k` times finer unless the picture is large."""
    k = k if size[0] * size[1] <= SUPERSAMPLED else 1
    finer = np.array([[k, 0, (k - 1) / 2], [0, k, (k - 1) / 2], [0, 0, 1]]) @ view
    shape = (size[1] * k, size[0] * k)
    canvas = np.zeros(shape if channels == 1 else (*shape, channels), np.float32)
    for surface, layer, alpha in layers:
        paint(canvas, finer, surface, layer, alpha)
    return cv2.resize(canvas, size, interpolation=cv2.INTER_AREA) if k > 1 else canvas
