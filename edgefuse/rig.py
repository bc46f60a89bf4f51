"""Where one camera's pixels lie in the other one's: the rig file, and the warp that follows from it."""

import codecs
import json
import logging
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import cv2
import msgspec
import numpy as np
from numpy.typing import NDArray

from edgefuse.align import (
    ASPECT_TOLERANCE,
    Align,
    Aligned,
    check_distortion,
    covered,
    distort,
    overlap,
    undistort,
)
from edgefuse.errors import InputError, listed
from edgefuse.files import replace_file
from edgefuse.images import MIN_SIDE, Image
from edgefuse.stored import MAX_SIDE

logger = logging.getLogger(__name__)

Matrix = NDArray[np.float64]
"""3×3, maps (x, y, 1) of one picture to another one; pixel centres are at integers."""

VERSION = 1
MOST_BYTES = 65_536
"""Far above any rig file: what is larger is something else, or meant to hurt."""
SOFT = 0.01
"""Width of the soft edge around the infrared picture, in widths of the visible one."""

Rows = tuple[tuple[float, float, float], tuple[float, float, float], tuple[float, float, float]]


@dataclass(frozen=True)
class Rig:
    """Two cameras in fixed positions to each other.

    Raises:
        InputError: values that no rig can have.
    """

    matrix: Rows
    """3×3: infrared pixel (x, y, 1) to visible pixel, pixel centres at integers."""
    ir_size: tuple[int, int]
    """Width and height of the infrared camera's pictures."""
    vis_size: tuple[int, int]
    ir_camera: str = ""
    """The name of the infrared source at the time of calibration."""
    vis_camera: str = ""
    model: str = "similarity"
    """similarity, affine, homography; points, board or nudged if set by hand."""
    residual_px: float = 0.0
    """How far apart the same thing in both pictures is to be expected, in visible pixels."""
    confidence: float = 1.0
    """0..1."""
    overlap: float = 1.0
    """Part of the visible picture that infrared covers, 0..1."""
    scenes: int = 0
    date: str = ""
    """ISO 8601, UTC."""
    distance: float | None = None
    """Metres at which `matrix` holds; None: unknown, or so far away that it does not matter."""
    parallax: tuple[float, float, float] | None = None
    """The visible camera's image of the infrared camera's centre, pixels × metres: at Z metres the last
    column of `matrix` moves by `parallax` · (1/Z − 1/`distance`)."""
    ir_distortion: float = 0.0
    """k of the infrared lens, see `edgefuse.align`; `matrix` maps pixels that are made straight."""
    vis_distortion: float = 0.0
    """Likewise, of the visible lens."""
    version: int = VERSION

    def __post_init__(self) -> None:
        if self.version != VERSION:
            raise InputError(f"it has version {self.version}, this edgefuse reads version {VERSION}")
        for what, size in (("ir_size", self.ir_size), ("vis_size", self.vis_size)):
            if not all(MIN_SIDE <= side <= MAX_SIDE for side in size):
                allowed = f"from {MIN_SIDE}x{MIN_SIDE} to {MAX_SIDE}x{MAX_SIDE}"
                raise InputError(f"{what} is {size[0]}x{size[1]}, it must be {allowed}")
        if not 0 <= self.confidence <= 1 or not 0 <= self.overlap <= 1:
            raise InputError(f"confidence {self.confidence} and overlap {self.overlap} must be in 0..1")
        if not 0 <= self.residual_px < 1e5:
            raise InputError(f"residual_px is {self.residual_px}, a number of pixels from 0 on is needed")
        if self.distance is not None and not 0 < self.distance < 1e9:
            raise InputError(f"distance is {self.distance:g}, metres over 0 and below 1e9 are needed")
        if self.scenes < 0:
            raise InputError(f"scenes is {self.scenes}, a number from 0 on is needed")
        if not all(abs(value) < 1e9 for value in self.parallax or ()):
            raise InputError("parallax has numbers that are not finite, or far too large")
        check_distortion("ir_distortion", self.ir_distortion)
        check_distortion("vis_distortion", self.vis_distortion)
        _check_matrix(np.array(self.matrix), self.ir_size, self.vis_size)

    @classmethod
    def load(cls, path: str | Path) -> "Rig":
        """Read a rig file.

        Raises:
            InputError: missing, too large, not JSON, or with values that no rig can have.
        """
        path = Path(path)
        try:
            with path.open("rb") as file:
                data = file.read(MOST_BYTES + 1)
        except OSError as error:
            raise InputError(f"cannot read the rig file {path}: {error.strerror or error}") from None
        if len(data) > MOST_BYTES:
            raise InputError(f"{path} is not a rig file: it has more than {MOST_BYTES} bytes")
        try:
            data = data.removeprefix(codecs.BOM_UTF8)  # which Windows' editor writes
            rig = msgspec.json.decode(data, type=cls)
            unknown = msgspec.json.decode(data).keys() - {field.name for field in fields(cls)}
            if unknown:  # of a later version, or misspelled by hand
                logger.warning(
                    "%s has entries that are not known and ignored: %s", path, listed(sorted(unknown))
                )
            return rig
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
            raise InputError(f"{path} is not a usable rig file: {reason}") from None
        except InputError as error:
            raise InputError(f"{path} is not a usable rig file: {error}") from None

    def save(self, path: str | Path) -> None:
        """Write the rig file; a half-written one never has the final name.

        Raises:
            InputError: the disk refuses.
        """
        values = {"version": self.version} | asdict(self)
        lines = ",\n".join(f'  "{name}": {json.dumps(value)}' for name, value in values.items())
        replace_file(Path(path), lambda partial: partial.write_text(f"{{\n{lines}\n}}\n", encoding="utf-8"))

    def at(self, distance: float) -> "Rig":
        """Return the rig with the matrix for things at another distance, in metres.

        Raises:
            InputError: the rig does not know how its map changes with distance.
        """
        if self.parallax is None:
            raise InputError(
                "the rig file has no parallax, so it is the same at all distances: calibrate with --baseline "
                "and --focal"
            )
        if not distance > 0:
            raise InputError(f"the distance is {distance:g} m, it must be over 0")
        inverse = 1 / distance - (1 / self.distance if self.distance else 0.0)
        matrix = np.array(self.matrix)
        matrix[:, 2] += np.array(self.parallax) * inverse
        return replace(self, matrix=rows(matrix), distance=distance)

    def moved(self, change: Matrix, vis_shape: tuple[int, ...] | None = None) -> "Rig":
        """Return the rig with infrared moved by a 3×3 map of visible pixels.

        Args:
            change: the map.
            vis_shape: of the pictures that it is meant for, `[H, W]`; None: the rig's own.

        Raises:
            InputError: nothing of infrared is left in the visible picture.
        """
        if vis_shape is not None:
            scale = scaling(vis_shape, (self.vis_size[1], self.vis_size[0]))
            change = scale @ change @ np.linalg.inv(scale)
        right, down, forward = (float(part) for part in change @ np.array(self.parallax or (0, 0, 0)))
        parallax = None if self.parallax is None else (right, down, forward)
        return replace(self, matrix=rows(change @ np.array(self.matrix)), parallax=parallax)

    def matrix_for(self, ir_shape: tuple[int, ...], vis_shape: tuple[int, ...]) -> Matrix:
        """Return the matrix for pictures of other sizes, `[H, W]`, of the same proportions.

        Raises:
            InputError: the proportions differ: the picture was cropped or is of another camera.
        """
        sizes = ("infrared", ir_shape, self.ir_size), ("visible", vis_shape, self.vis_size)
        for what, shape, (width, height) in sizes:
            if abs((shape[1] / shape[0]) / (width / height) - 1) > ASPECT_TOLERANCE:
                raise InputError(
                    f"the {what} picture is {shape[1]}x{shape[0]}, the rig file was made for "
                    f"{width}x{height}: the proportions differ, so it is another camera, or another crop; "
                    "calibrate again"
                )
        to_known = scaling(ir_shape, self.ir_size[::-1])
        return scaling(self.vis_size[::-1], vis_shape) @ np.array(self.matrix) @ to_known

    def align(self) -> "RigAlign":
        """Return what brings infrared pictures onto the visible camera's pixels."""
        return RigAlign(self)


class RigAlign(Align):
    """Warps infrared pictures by a rig's map, which is worked out once for each pair of sizes.

    Where the infrared camera sees nothing, its picture is continued as in a mirror, so that no network
    sees an edge there; `Aligned.valid` says where that is.
    """

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        """In use now."""
        self._lock = threading.Lock()
        self._key: tuple[tuple[int, ...], tuple[int, int], Rig] | None = None
        self._warp: _Warp | None = None

    def __call__(self, ir: Image, vis_shape: tuple[int, int]) -> Aligned:
        """Warp one picture.

        Raises:
            InputError: a picture's proportions are not those of the rig file.
        """
        rig = self.rig  # another thread may move it
        if self._warp is None or self._key != (ir.shape, vis_shape, rig):
            self._warp = _Warp(rig, ir.shape[:2], vis_shape)
            self._key = (ir.shape, vis_shape, rig)
        return self._warp(ir)

    def update(self, change: Callable[[Rig], Rig]) -> None:
        """Use what `change` makes of the rig, from the next picture on; any thread.

        Raises:
            InputError: no rig can be like that.
        """
        with self._lock:
            self.rig = change(self.rig)

    def overlap(self, vis_shape: tuple[int, ...]) -> tuple[slice, slice]:
        """Return the rows and columns of the visible picture that infrared covers."""
        return overlap(_valid(self.rig, vis_shape))


class Overlap:
    """Both pictures as far as infrared covers the visible one: what images are scored and trained on."""

    def __init__(self, rig: Rig) -> None:
        self._align = rig.align()
        self._areas: dict[tuple[int, ...], tuple[slice, slice]] = {}

    def infrared(self, ir: Image, vis_shape: tuple[int, ...]) -> Image:
        """Return an infrared picture on the pixels of what `visible` returns.

        Raises:
            InputError: as for `visible`, or its proportions are not those of the rig file.
        """
        return self._align(ir, (vis_shape[0], vis_shape[1])).image[self.area(vis_shape)]

    def visible(self, image: Image) -> Image:
        """Return the part of a visible or fused picture that infrared covers.

        Raises:
            InputError: its proportions are not those of the rig file, or nothing useful is covered.
        """
        return image[self.area(image.shape)]

    def area(self, vis_shape: tuple[int, ...]) -> tuple[slice, slice]:
        """Return the rows and columns of that part."""
        if vis_shape not in self._areas:
            rows, columns = covered(_valid(self._align.rig, vis_shape))
            height, width = (
                len(range(*part.indices(n))) for part, n in zip((rows, columns), vis_shape[:2], strict=True)
            )
            if min(height, width) < MIN_SIDE:
                raise InputError(
                    f"by the rig file infrared covers {width}x{height} pixels of the visible picture, at "
                    f"least {MIN_SIDE}x{MIN_SIDE} are needed"
                )
            self._areas[vis_shape] = rows, columns
        return self._areas[vis_shape]


class _Warp:
    def __init__(self, rig: Rig, ir_shape: tuple[int, ...], vis_shape: tuple[int, int]) -> None:
        height, width = vis_shape
        matrix = rig.matrix_for(ir_shape, vis_shape)
        # An infrared picture with more pixels than it has room for is shrunk first, or it would flicker.
        shrink = scale_of(matrix, ir_shape)
        self._size: tuple[int, int] | None = None
        if shrink < 0.7:
            self._size = max(round(ir_shape[1] * shrink), 2), max(round(ir_shape[0] * shrink), 2)
            smaller = (self._size[1], self._size[0])
            matrix = matrix @ scaling(smaller, ir_shape)
            ir_shape = smaller
        x, y = np.meshgrid(np.arange(width, dtype=np.float64), np.arange(height, dtype=np.float64))
        x, y = undistort(x, y, vis_shape, rig.vis_distortion)
        inverse = np.linalg.inv(matrix)
        u, v, w = (inverse[i, 0] * x + inverse[i, 1] * y + inverse[i, 2] for i in range(3))
        front = w * np.sign(np.linalg.det(inverse)) * np.sign(np.linalg.det(inverse[:2, :2])) > 1e-9
        w = np.where(np.abs(w) > 1e-9, w, 1e-9)
        u, v = distort(u / w, v / w, ir_shape, rig.ir_distortion)
        inside = front & (u >= 0) & (u <= ir_shape[1] - 1) & (v >= 0) & (v <= ir_shape[0] - 1)
        maps = (_mirrored(u, ir_shape[1]).astype(np.float32), _mirrored(v, ir_shape[0]).astype(np.float32))
        self._maps = cv2.convertMaps(*maps, cv2.CV_16SC2)
        self.valid = _soft_edge(inside.astype(np.uint8))

    def __call__(self, ir: Image) -> Aligned:
        if self._size is not None:
            ir = cv2.resize(ir, self._size, interpolation=cv2.INTER_AREA)
        # The border counts for pixels that are half outside by rounding alone.
        return Aligned(
            cv2.remap(ir, *self._maps, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE), self.valid
        )


def _valid(rig: Rig, vis_shape: tuple[int, ...]) -> Image | None:
    """Return where infrared is in a visible picture of this shape."""
    return _Warp(rig, rig.ir_size[::-1], (vis_shape[0], vis_shape[1])).valid


def _mirrored(at: Matrix, length: int) -> Matrix:
    """Fold coordinates back into 0..length - 1, as between two mirrors."""
    period = 2.0 * (length - 1)
    at = np.mod(np.clip(at, -1e9, 1e9), period)
    return np.minimum(at, period - at)


def _soft_edge(inside: Image) -> Image | None:
    """Return weights that fall to 0 at the infrared picture's edge; None if the edge is not in sight."""
    if inside.all():
        return None
    wide = max(SOFT * inside.shape[1], 2.0)
    # The margin is no edge: infrared goes on there, outside the visible picture.
    padded = cv2.copyMakeBorder(inside, 1, 1, 1, 1, cv2.BORDER_REPLICATE)
    distance = cv2.distanceTransform(padded, cv2.DIST_L2, 3)[1:-1, 1:-1]
    weights: Image = np.clip((distance - 1) * (255 / wide), 0, 255).astype(np.uint8)
    return weights


def scaling(before: tuple[int, ...], after: tuple[int, ...]) -> Matrix:
    """Return the matrix from pixels of a picture of shape `before` to those of it resized to `after`.

    `cv2.resize` keeps the corners of the outer pixels, not their centres.
    """
    fx, fy = after[1] / before[1], after[0] / before[0]
    return np.array([[fx, 0, (fx - 1) / 2], [0, fy, (fy - 1) / 2], [0, 0, 1]])


def scale_of(matrix: Matrix, shape: tuple[int, ...]) -> float:
    """Return by how much a map enlarges, in the middle of a picture of `shape`."""
    x, y = (shape[1] - 1) / 2, (shape[0] - 1) / 2
    w = float(matrix[2] @ (x, y, 1))
    u, v = (matrix[:2] @ (x, y, 1)) / w
    jacobian = (matrix[:2, :2] - np.outer((u, v), matrix[2, :2])) / w
    return float(np.sqrt(abs(np.linalg.det(jacobian))))


def overlap_of(matrix: Matrix, ir_size: tuple[int, int], vis_size: tuple[int, int]) -> float:
    """Return the part of the visible picture that infrared covers, 0..1."""
    outline = _outline(matrix, ir_size)
    frame = np.array([[0, 0], [vis_size[0], 0], list(vis_size), [0, vis_size[1]]], np.float32) - 0.5
    area, _ = cv2.intersectConvexConvex(cv2.convexHull(outline.astype(np.float32)), frame)
    return float(np.clip(area / (vis_size[0] * vis_size[1]), 0, 1))


def rows(matrix: Matrix) -> Rows:
    """Return a matrix as the rig file has it."""
    a, b, c = ((float(x), float(y), float(z)) for x, y, z in matrix)
    return a, b, c


def _outline(matrix: Matrix, ir_size: tuple[int, int]) -> Matrix:
    """Return where the corners of the infrared picture come to lie, `[4, 2]`."""
    width, height = ir_size
    corners = np.array(
        [[-0.5, -0.5, 1], [width - 0.5, -0.5, 1], [width - 0.5, height - 0.5, 1], [-0.5, height - 0.5, 1]]
    )
    placed = corners @ matrix.T
    outline: Matrix = placed[:, :2] / placed[:, 2:]
    return outline


def _check_matrix(matrix: Matrix, ir_size: tuple[int, int], vis_size: tuple[int, int]) -> None:
    if not np.isfinite(matrix).all() or np.abs(matrix).max() > 1e9:
        raise InputError("matrix has numbers that are not finite, or far too large")
    width, height = ir_size
    depths = np.array([[0, 0, 1], [width, 0, 1], [0, height, 1], [width, height, 1]]) @ matrix[2]
    if not (np.all(depths > 1e-9) or np.all(depths < -1e-9)):
        raise InputError("matrix puts a part of the infrared picture behind the camera")
    if abs(np.linalg.det(matrix / depths.mean())) < 1e-6:
        raise InputError("matrix puts the infrared picture on a line or a point")
    if overlap_of(matrix, ir_size, vis_size) <= 0:
        raise InputError("matrix puts the infrared picture outside the visible one")


def as_align(align: "Align | str | Path | None", distance: float | None = None) -> Align | None:
    """Return what a rig file says; anything else as it is.

    Args:
        align: the rig file's name, an `Align`, or None.
        distance: metres, of what is to be aligned; for rig files with parallax.

    Raises:
        InputError: a file that is no rig file, or a distance without a rig file that knows parallax.
    """
    if isinstance(align, str | Path):
        rig = Rig.load(align)
        return (rig if distance is None else rig.at(distance)).align()
    if distance is not None:
        raise InputError(f"a distance ({distance:g} m) needs a rig file: give --rig FILE too")
    return align
