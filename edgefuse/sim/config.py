"""The settings of the simulated rig, from Python or from the options of a source such as `sim?seed=3`."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from edgefuse.errors import InputError, unknown_name
from edgefuse.images import MIN_SIDE, parse_size
from edgefuse.lens import MOST

__all__ = ["MAX_SIDE", "Matrix3", "RigConfig"]

Matrix3: TypeAlias = tuple[tuple[float, float, float], tuple[float, float, float], tuple[float, float, float]]

IDENTITY: Matrix3 = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
MAX_SIDE = 4096


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
    """k of the infrared lens, as in `edgefuse.lens`."""
    vis_distortion: float = 0.0
    """Likewise, of the visible lens."""
    noise: float = 1.0
    """Multiplies the sensor noise of both cameras; 0 is a clean image."""
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
    "ir_depth": _whole,
    "shift": _two,
    "baseline": _two,
    "misalignment": _matrix,
}
_READERS = {field.name: _SPECIAL.get(field.name, _number) for field in fields(RigConfig)}
