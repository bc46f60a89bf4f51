"""The two simulated cameras: frame n of either is a function of the configuration and n alone."""

from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from edgefuse.errors import InputError, unknown_name
from edgefuse.lens import remap_of
from edgefuse.rig import Rig as RigFile
from edgefuse.rig import overlap_of, rows
from edgefuse.sim.config import RigConfig
from edgefuse.sim.scene import Scene
from edgefuse.sim.surfaces import WHITE, NoiseTile, projection

__all__ = ["CameraName", "Rig"]

CameraName = Literal["ir", "vis"]

COLDEST, HOTTEST = 0.5, 34.5  # °C that 8-bit infrared shows as 0 and 255
THERMAL_NOISE = 0.22  # °C of grain
COLUMN_NOISE = 0.13  # °C that the columns of the sensor differ by
STRIP = 32  # rows
READ_NOISE, SHOT_NOISE = 0.0035, 0.016  # of white, in the light and in its square root


class Rig:
    """Two cameras on a mast over a street at night.

    >>> rig = Rig(RigConfig(seed=3))
    >>> ir, vis = rig.frame("ir", 0), rig.frame("vis", 0)  # [480, 640] and [480, 640, 3] BGR
    """

    def __init__(self, config: RigConfig | None = None) -> None:
        self.config = config = config or RigConfig()
        self._ir_size = config.ir_size or config.size
        self._lenses = {
            "ir": _Lens(self._ir_size, config.ir_distortion),
            "vis": _Lens(config.size, config.vis_distortion),
        }
        before, after = np.linalg.inv(self._lenses["ir"].straight), self._lenses["vis"].straight
        self.homography: NDArray[np.float64] = after @ config.homography @ before
        """`[3, 3]`, maps infrared pixels to visible ones far away, both made straight where lenses bend them:
        the truth a calibration should find."""
        right, down = config.baseline
        self.parallax: NDArray[np.float64] = after @ projection(config.size)[:, :3] @ (right, -down, 0)
        """`[3]`: at Z metres the last column of `homography` is larger by `parallax`/Z."""
        self._scene = Scene(config.seed, config.size, self._ir_size, config.homography, config.baseline)
        rng = np.random.default_rng([config.seed, 31])
        self._grain = NoiseTile(rng, self._ir_size, 1, THERMAL_NOISE * config.noise)
        # The visible picture is the square root of light: read noise is even in the light, shot noise
        # in the picture.
        self._shot = NoiseTile(rng, config.size, 3, 255 * SHOT_NOISE * config.noise)
        self._read = NoiseTile(rng, config.size, 3, WHITE * READ_NOISE * config.noise)
        columns = rng.standard_normal((1, self._ir_size[0])) + 0.35 * rng.standard_normal(self._ir_size[::-1])
        self._columns = (columns * (COLUMN_NOISE * config.noise)).astype(np.float32)

    def capture_time(self, camera: CameraName, n: int) -> float:
        """Return the true time of a camera's frame n in seconds."""
        return _index(n) / (self.config.ir_fps if _checked(camera) == "ir" else self.config.vis_fps)

    def timestamp(self, camera: CameraName, n: int) -> float:
        """Return the time of frame n in seconds by that camera's own clock."""
        time = self.capture_time(camera, n)
        if camera == "vis":
            return time
        return time * (1 + self.config.ir_clock_drift * 1e-6) + self.config.ir_clock_offset

    def frame(self, camera: CameraName, n: int) -> NDArray[Any]:
        """Return frame n (from 0) of a camera.

        Returns:
            "vis": uint8 `[H, W, 3]` BGR. "ir": uint8 `[H, W]`, white = hot, or uint16 counts of
            0.01 K with `ir_depth=16`. The array is the caller's own.

        Raises:
            InputError: another camera name, or a negative n.
        """
        time = self.capture_time(camera, n)
        lens = self._lenses[camera]
        if camera == "ir":
            return self._infrared(lens.bend(self._scene.celsius(time)), n)
        return self._visible(lens.bend(self._scene.radiance(time)), n)

    def calibration(self, distance: float | None = None) -> RigFile:
        """Return the rig file that a perfect calibration would write.

        Args:
            distance: metres at which its map holds; None: far away.
        """
        ir_size, vis_size = self._ir_size, self.config.size
        right, down, forward = self.parallax.tolist()
        rig = RigFile(
            *(rows(self.homography / self.homography[2, 2]), ir_size, vis_size),
            overlap=overlap_of(self.homography, ir_size, vis_size),
            parallax=(right, down, forward) if any(self.config.baseline) else None,
            ir_distortion=self.config.ir_distortion,
            vis_distortion=self.config.vis_distortion,
        )
        return rig if distance is None else rig.at(distance)

    def _infrared(self, celsius: NDArray[np.float32], n: int) -> NDArray[Any]:
        cv2.add(celsius, self._columns, dst=celsius)
        if self.config.noise > 0:
            grain = self._grain.window(*self._offsets(1, n, 2))
            cv2.add(celsius, grain, dst=celsius)
        if self.config.ir_depth == 16:
            counts = (celsius + np.float32(273.15)) * np.float32(100)
            return np.clip(np.rint(counts), 0, 65535).astype(np.uint16)
        scale = 255 / (HOTTEST - COLDEST)
        return cv2.addWeighted(celsius, scale, celsius, 0, -COLDEST * scale, dtype=cv2.CV_8U)

    def _visible(self, light: NDArray[np.float32], n: int) -> NDArray[Any]:
        noisy = self.config.noise > 0
        a, b, c, d = self._offsets(2, n, 4)
        read, shot = self._read.window(a, b), self._shot.window(c, d)
        picture = np.empty(light.shape, np.uint8)
        width = light.shape[1] * 3
        for top in range(0, len(light), STRIP):  # strip by strip, so that all steps stay in the cache
            rows = np.s_[top : top + STRIP]
            strip = light[rows]
            if noisy:
                cv2.add(strip, read[rows], dst=strip)
            flat = strip.reshape(-1, width)
            cv2.threshold(flat, 0, 0, cv2.THRESH_TOZERO, dst=flat)
            cv2.sqrt(strip, dst=strip)
            if noisy:
                cv2.add(strip, shot[rows], dst=strip)
            # Of a negative sum it takes the absolute value: noise about black either way.
            cv2.convertScaleAbs(strip, dst=picture[rows])
        return picture

    def _offsets(self, camera: int, n: int, count: int) -> list[int]:
        state = np.random.SeedSequence([self.config.seed, camera, n]).generate_state(count)
        return [int(value) for value in state]


class _Lens:
    """Bends a straight picture. A barrel shows more: for one, the picture is drawn smaller before."""

    def __init__(self, size: tuple[int, int], k: float) -> None:
        zoom = 1 + max(k, 0.0)
        x, y = (size[0] - 1) / 2, (size[1] - 1) / 2
        self.straight = np.array([[zoom, 0, x - zoom * x], [0, zoom, y - zoom * y], [0, 0, 1]])
        """From pixels of the drawn picture to those that the bent one has when made straight."""
        self._maps = remap_of(size[::-1], k, zoom) if k else None

    def bend(self, picture: NDArray[np.float32]) -> NDArray[np.float32]:
        if self._maps is None:
            return picture
        x, y = self._maps
        return cv2.remap(picture, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE).astype(np.float32)


def _checked(camera: str) -> str:
    if camera not in ("ir", "vis"):
        raise InputError(unknown_name("camera of the sim", str(camera), ["ir", "vis"]))
    return camera


def _index(n: int) -> int:
    if isinstance(n, bool) or not isinstance(n, int | np.integer) or n < 0:
        raise InputError(f"sim frame number {n!r} is not a whole number from 0 on")
    return int(n)
