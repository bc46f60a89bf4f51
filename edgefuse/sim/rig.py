"""The two simulated cameras and their settings: frame n of either is a function of these and n alone."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from edgefuse.align import MOST, remap_of
from edgefuse.errors import InputError, unknown_name
from edgefuse.images import MIN_SIDE, parse_size
from edgefuse.rig import Rig as RigFile
from edgefuse.rig import overlap_of, rows
from edgefuse.sim.scene import Scene
from edgefuse.sim.surfaces import WHITE, NoiseTile, projection

Matrix3: TypeAlias = tuple[tuple[float, float, float], tuple[float, float, float], tuple[float, float, float]]

IDENTITY: Matrix3 = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
MAX_SIDE = 4096
TIMES = ("night", "day")


@dataclass(frozen=True)
class RigConfig:
    """What the two cameras of the simulated rig are like.

    The infrared camera is the visible one moved by `misalignment` after the similarity of
    `scale`, `rotation` and `shift`: a feature at pixel p of a perfectly aligned infrared image
    stands at `misalignment · similarity · p` in the visible one.

    Raises:
        InputError: a value out of its range.
    """

    size: tuple[int, int] = (640, 480)
    """Width and height of the visible image in pixels."""
    ir_size: tuple[int, int] | None = None
    """Width and height of the infrared image, which shows the same field of view; None: as `size`."""
    seed: int = 0
    """Which street, people and traffic; from 0 on."""
    ir_fps: float = 25.0
    vis_fps: float = 25.0
    ir_clock_offset: float = 0.0
    """Seconds that infrared timestamps run ahead of true time."""
    ir_clock_drift: float = 0.0
    """Parts per million that the infrared clock runs too fast."""
    shift: tuple[float, float] = (0.0, 0.0)
    """Visible pixels, right and down."""
    rotation: float = 0.0
    """Degrees about the centre of the visible image, clockwise as seen."""
    scale: float = 1.0
    """Magnification about the centre of the visible image."""
    misalignment: Matrix3 = IDENTITY
    """Any further homography in visible pixels; an array is taken too."""
    baseline: tuple[float, float] = (0.0, 0.0)
    """Metres that the infrared camera stands right of and below the visible one; what is near is seen
    displaced then, and `homography` holds far away."""
    ir_distortion: float = 0.0
    """k of the infrared lens, as in `edgefuse.align`."""
    vis_distortion: float = 0.0
    """Likewise, of the visible lens."""
    noise: float = 1.0
    """Multiplies the sensor noise of both cameras; 0 is a clean image."""
    time: str = "night"
    """`night`, or `day`: the same street under the sun."""
    ir_depth: int = 8
    """8: uint8, white = hot. 16: uint16 counts of a hundredth of a kelvin."""

    def __post_init__(self) -> None:
        for name in ("size", "ir_size"):
            if (size := getattr(self, name)) is not None:
                object.__setattr__(self, name, _checked_size(name, size))
        if not _is_int(self.seed) or not 0 <= self.seed < 2**63:
            raise InputError(f"sim seed {self.seed!r} is not a whole number from 0 on")
        for name, low, high in _RANGES:
            object.__setattr__(self, name, _checked_number(name, getattr(self, name), low, high))
        for name, most, unit in (("shift", MAX_SIDE, "pixels"), ("baseline", 2.0, "metres")):
            value = getattr(self, name)
            if not isinstance(value, tuple | list) or len(value) != 2:
                raise InputError(f"sim {name} {value!r} is not two numbers, right and down in {unit}")
            object.__setattr__(self, name, tuple(_checked_number(name, part, -most, most) for part in value))
        object.__setattr__(self, "misalignment", _checked_matrix(self.misalignment, self.size))
        if self.time not in TIMES:
            raise InputError(unknown_name("time of the sim", str(self.time), TIMES))
        if not _is_int(self.ir_depth) or self.ir_depth not in (8, 16):
            raise InputError(f"sim ir_depth {self.ir_depth!r} is not 8 or 16 bits")

    @property
    def homography(self) -> NDArray[np.float64]:
        """`[3, 3]`, maps infrared pixels (x, y, 1) to visible ones; pixel centres are at whole numbers."""
        (width, height), (ir_width, ir_height) = self.size, self.ir_size or self.size
        kx, ky = width / ir_width, height / ir_height  # as cv2.resize maps pixel centres
        resize = np.array([[kx, 0, (kx - 1) / 2], [0, ky, (ky - 1) / 2], [0, 0, 1]])
        cx, cy = (width - 1) / 2, (height - 1) / 2
        a = self.scale * math.cos(math.radians(self.rotation))
        b = self.scale * math.sin(math.radians(self.rotation))
        dx, dy = self.shift
        similarity = np.array(
            [[a, -b, cx - a * cx + b * cy + dx], [b, a, cy - b * cx - a * cy + dy], [0, 0, 1]]
        )
        matrix = np.array(self.misalignment) @ similarity @ resize
        return matrix / matrix[2, 2]

    @classmethod
    def from_options(cls, options: Mapping[str, str]) -> "RigConfig":
        """Read the options of a source, such as `{"size": "640x480", "ir_fps": "9", "shift": "4,-2"}`.

        The names are those of the fields; `fps` sets both rates, `misalignment` takes nine numbers
        by rows. Raises `InputError` for an unknown name or an unreadable value.
        """
        values: dict[str, Any] = {}
        if "fps" in options:
            values = {"ir_fps": _number("fps", options["fps"]), "vis_fps": _number("fps", options["fps"])}
        for name, text in options.items():
            if name == "fps":
                continue
            if name not in _READERS:
                raise InputError(unknown_name("sim option", name, [*_READERS, "fps"]))
            values[name] = _READERS[name](name, text)
        return cls(**values)


_RANGES: list[tuple[str, float, float]] = [
    ("ir_fps", 0.1, 1000.0),
    ("vis_fps", 0.1, 1000.0),
    ("ir_clock_offset", -1e6, 1e6),
    ("ir_clock_drift", -1e5, 1e5),
    ("rotation", -180.0, 180.0),
    ("scale", 0.2, 5.0),
    ("ir_distortion", -MOST, MOST),
    ("vis_distortion", -MOST, MOST),
    ("noise", 0.0, 20.0),
]


def _is_int(value: object) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _checked_size(name: str, size: Any) -> tuple[int, int]:
    if not isinstance(size, tuple | list) or len(size) != 2 or not all(_is_int(side) for side in size):
        raise InputError(f"sim {name} {size!r} is not (width, height) in pixels")
    if not all(MIN_SIDE <= side <= MAX_SIDE for side in size):
        raise InputError(
            f"sim {name} {size[0]}x{size[1]} is outside {MIN_SIDE}x{MIN_SIDE} to {MAX_SIDE}x{MAX_SIDE}"
        )
    return int(size[0]), int(size[1])


def _checked_number(name: str, value: Any, low: float, high: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not low <= value <= high:
        raise InputError(f"sim {name} {value!r} is not a number from {low:g} to {high:g}")
    return float(value)


def _checked_matrix(value: Any, size: tuple[int, int]) -> Matrix3:
    try:
        matrix = np.array(value, np.float64)
    except (TypeError, ValueError):
        matrix = np.zeros(0)
    if matrix.shape != (3, 3) or not np.isfinite(matrix).all():
        raise InputError(f"sim misalignment {value!r} is not a 3x3 matrix of numbers")
    width, height = size
    corners = matrix @ np.array([[0, width, width, 0], [0, 0, height, height], [1, 1, 1, 1]], np.float64)
    if abs(np.linalg.det(matrix)) < 1e-9 or not (corners[2] > 1e-6).all():
        raise InputError("sim misalignment cannot be inverted over the whole image; start from the identity")
    rows = [tuple(float(v) for v in row) for row in matrix]
    return rows[0], rows[1], rows[2]  # type: ignore[return-value]


def _number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InputError(f"sim option {name}={text!r} is not a number") from None


def _whole(name: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise InputError(f"sim option {name}={text!r} is not a whole number") from None


def _size(_: str, text: str) -> tuple[int, int]:
    return parse_size(text)


def _two(name: str, text: str) -> tuple[float, ...]:
    return tuple(_number(name, part) for part in text.split(","))


def _matrix(name: str, text: str) -> list[list[float]]:
    values = [_number(name, part) for part in text.split(",")]
    if len(values) != 9:
        raise InputError(f"sim option {name}={text!r} has {len(values)} numbers, nine are needed, by rows")
    return [values[0:3], values[3:6], values[6:9]]


_SPECIAL: dict[str, Callable[[str, str], Any]] = {
    "size": _size,
    "ir_size": _size,
    "seed": _whole,
    "time": lambda _, text: text,
    "ir_depth": _whole,
    "shift": _two,
    "baseline": _two,
    "misalignment": _matrix,
}
_READERS = {field.name: _SPECIAL.get(field.name, _number) for field in fields(RigConfig)}


CameraName = Literal["ir", "vis"]

COLDEST, HOTTEST = 0.5, 34.5  # °C that 8-bit infrared shows as 0 and 255
THERMAL_NOISE = 0.22  # °C of grain
COLUMN_NOISE = 0.13  # °C that the columns of the sensor differ by
STRIP = 32  # rows
READ_NOISE, SHOT_NOISE = 0.0035, 0.016  # of white, in the light and in its square root
DAY_NOISE = (
    0.45,
    0.3,
)  # of the infrared and of the visible one: what is warm radiates more, light is not amplified


class Rig:
    """Two cameras on a mast over a street, at night or by day.

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
        day = config.time == "day"
        self._scene = Scene(config.seed, config.size, self._ir_size, config.homography, config.baseline, day)
        rng = np.random.default_rng([config.seed, 31])
        thermal, visible = (k * config.noise for k in (DAY_NOISE if day else (1.0, 1.0)))
        self._grain = NoiseTile(rng, self._ir_size, 1, THERMAL_NOISE * thermal)
        # The visible picture is the square root of light: read noise is even in the light, shot noise
        # in the picture.
        self._shot = NoiseTile(rng, config.size, 3, 255 * SHOT_NOISE * visible)
        self._read = NoiseTile(rng, config.size, 3, WHITE * READ_NOISE * visible)
        columns = rng.standard_normal((1, self._ir_size[0])) + 0.35 * rng.standard_normal(self._ir_size[::-1])
        self._columns = (columns * (COLUMN_NOISE * thermal)).astype(np.float32)

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
