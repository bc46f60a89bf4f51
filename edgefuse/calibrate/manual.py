"""Maps set by hand: by points, a board of known layout (a chessboard or circles), or a ruler (parallax)."""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product

import cv2
import numpy as np

from edgefuse.align import check_distortion, undistort
from edgefuse.calibrate.registration import SHIFT_REACH, Estimate, residual_at, shift_of
from edgefuse.calibrate.scenes import CalibrationError
from edgefuse.calibrate.search import ModelName
from edgefuse.errors import InputError, counted
from edgefuse.images import Image, luma
from edgefuse.rig import Matrix, Rig, scaling


def laid_on(ir: Image, vis: Image) -> Estimate:
    """Return the map that stretches infrared over the whole visible picture; nothing speaks for it."""
    matrix = scaling(ir.shape, vis.shape)
    return Estimate(matrix, "affine", 0.0, 0.0, residual_at([(ir, vis)], matrix), 0, 0)


POINT = re.compile(r"(-?[\d.]+),(-?[\d.]+):(-?[\d.]+),(-?[\d.]+)")


LEAST_PARALLAX = 0.002
"""Widths of the picture that the nearest scene must be displaced against things far away."""
BOARDS_FOR_MORE, WORTH_MORE = 3, 0.7
"""Places of a board from which on a homography is tried, and the part of the residual that it may leave."""


def parse_points(text: str) -> Matrix:
    """Read points such as `100,80:210,150 500,90:620,160`: x,y in infrared, then x,y in visible.

    Returns:
        float64 `[N, 4]`.

    Raises:
        InputError: not of that form, or fewer than two.
    """
    points = []
    for part in text.replace(";", " ").split():
        match = POINT.fullmatch(part)
        try:
            points.append([float(number) for number in match.groups()] if match else [])
        except ValueError:
            points.append([])
        if not points[-1]:
            raise InputError(f"point {part!r} is not X,Y:X,Y, infrared then visible, such as 100,80:210,150")
    if len(points) < 2:
        raise InputError(f"there is {len(points)} point: two or more are needed, best far apart")
    return np.array(points)


def parse_distortion(text: str) -> tuple[float, float]:
    """Read `0.08` or `0.08,-0.02`: k of the infrared and of the visible lens, see `edgefuse.align`.

    Raises:
        InputError: no such numbers.
    """
    try:
        ir, vis = (float(part) for part in [*text.split(","), "0"][: max(2, text.count(",") + 1)])
    except ValueError:
        raise InputError(f"distortion {text!r} is not K or K,K (infrared, visible), such as 0.08") from None
    check_distortion("distortion", ir)
    check_distortion("distortion", vis)
    return ir, vis


def straight_points(points: Matrix, pair: tuple[Image, Image], distortion: tuple[float, float]) -> Matrix:
    """Return points, `[N, 4]`, where they would be without the distortion of both lenses."""
    ir, vis = (
        np.stack(undistort(points[:, i], points[:, i + 1], pair[i // 2].shape, distortion[i // 2]), axis=1)
        for i in (0, 2)
    )
    return np.hstack([ir, vis])


CONTRADICT = 0.05
"""Of what points extend over: by more than that they are off only if one of them is wrong."""


def from_points(points: Matrix, model: ModelName = "similarity") -> Estimate:
    """Return the map that suits points best, by least squares.

    Args:
        points: `[N, 4]`, infrared x, y and visible x, y; 2 or more for a similarity, 3 for an affine map,
            4 for a homography.
        model: kind of the map.

    Raises:
        InputError: too few points, all of them in one place or on one line, or points that contradict
            each other.
    """
    ir, vis = points[:, :2], points[:, 2:]
    needed = {"similarity": 2, "affine": 3, "homography": 4}[model]
    if len(points) < needed:
        raise InputError(f"there are {len(points)} points, a map of the kind {model} needs at least {needed}")
    zero, one = np.zeros(len(ir)), np.ones(len(ir))
    x, y = ir[:, 0], ir[:, 1]
    if model == "similarity":
        system = np.concatenate([np.stack([x, -y, one, zero], 1), np.stack([y, x, zero, one], 1)])
        solution, _, rank, _ = np.linalg.lstsq(system, np.concatenate([vis[:, 0], vis[:, 1]]), rcond=1e-6)
        a, b, right, down = solution
        matrix = np.array([[a, -b, right], [b, a, down], [0, 0, 1]])
        full = rank == 4
    elif model == "affine":
        solution, _, rank, _ = np.linalg.lstsq(np.stack([x, y, one], 1), vis, rcond=1e-6)
        matrix, full = np.vstack([solution.T, [0, 0, 1]]), rank == 3
    else:
        found, _ = cv2.findHomography(ir, vis, 0)
        matrix, full = (np.eye(3), False) if found is None else (found.astype(np.float64), True)
    if not full or abs(np.linalg.det(matrix[:2, :2])) < 1e-6:
        raise InputError("the points lie in one place or on one line: choose points far apart")
    placed = np.stack([x, y, one], 1) @ matrix.T
    apart = placed[:, :2] / placed[:, 2:] - vis
    residual = float(np.sqrt((apart**2).sum(axis=1).mean()))
    if residual > max(CONTRADICT * float(np.ptp(vis, axis=0).max()), 3.0):
        raise InputError(
            f"the points contradict each other: in the best {model} they are off by {residual:.1f} pixels; "
            "check their order, which is infrared x,y:visible x,y, and each point"
        )
    return Estimate(matrix, model, 0.0, 0.0, residual, 0, 0)


def from_boards(points: Matrix, views: int, model: ModelName | None = None) -> Estimate:
    """Return the map from a board that both cameras see: a similarity, or more if several views ask for it.

    Args:
        points: of all views, `[N, 4]`.
        views: their number.
        model: kind of the map; None: chosen.
    """
    found = from_points(points, model or "similarity")
    if model is None and views >= BOARDS_FOR_MORE:
        bigger = from_points(points, "homography")
        found = bigger if bigger.residual_px < found.residual_px * WORTH_MORE else found
    return replace(found, scenes=views, pairs=views)


def parallax_of(baseline: str, focal: float) -> tuple[float, float, float]:
    """Return the parallax of a rig file, pixels × metres.

    Args:
        baseline: metres that the infrared camera is right of the visible one, or `RIGHT,DOWN`.
        focal: focal length of the visible camera in pixels.

    Raises:
        InputError: no such numbers.
    """
    try:
        right, down = (float(part) for part in ([*baseline.split(","), "0"][:2]))
    except ValueError:
        raise InputError(
            f"baseline {baseline!r} is not METRES or RIGHT,DOWN, such as 0.1 or 0,-0.08"
        ) from None
    if not (abs(right) <= 10 and abs(down) <= 10 and 0 < focal < 1e6):
        raise InputError(f"baseline {baseline} m and focal length {focal:g} px: at most 10 m, and over 0 px")
    return focal * right, focal * down, 0.0


def parse_distances(text: str, pairs: int) -> list[float]:
    """Read `4,10,40`: metres that the scenes are away, one for each pair of pictures.

    Raises:
        InputError: not numbers over 0, not as many as pairs, or too alike to learn from.
    """
    try:
        metres = [float(part) for part in text.split(",")]
    except ValueError:
        metres = []
    if not metres or not all(0 < each < 1e6 for each in metres):
        raise InputError(f"distances {text!r} are not metres, one for each scene, such as 4,10,40")
    if len(metres) != pairs:
        raise InputError(
            f"there are {len(metres)} distances and {counted(pairs, 'pair')} of different scenes: give one "
            "picture of each camera for each distance, in the order of their names"
        )
    if max(metres) < 2 * min(metres):
        raise InputError(
            f"distances {text}: parallax is learned from scenes of which one is twice as far as another"
        )
    return metres


def learn_parallax(
    pairs: Sequence[tuple[Image, Image]], found: Estimate, metres: Sequence[float]
) -> tuple[Matrix, tuple[float, float, float]]:
    """Return the map for things far away, and the parallax, from scenes whose distances are known.

    Each scene moves the map by `parallax` / metres: a straight line through all of them, by least squares.

    Args:
        pairs: (infrared, visible), one of each scene.
        found: the map that suits all of them best.
        metres: how far away each scene is.

    Raises:
        CalibrationError: a scene does not show by how much it moves the map.
    """
    width = pairs[0][1].shape[1]
    shifts = [shift_of(pair, found) for pair in pairs]
    if unclear := [f"{distance:g}" for shift, distance in zip(shifts, metres, strict=True) if shift is None]:
        raise CalibrationError(
            f"the scenes at {', '.join(unclear)} m do not show how they lie: choose scenes with more edges "
            f"that are all about as far away, within {SHIFT_REACH:.0%} of the picture's width of each other"
        )
    system = np.stack([np.ones(len(metres)), 1 / np.array(metres)], axis=1)
    (right, down), (e_right, e_down) = np.linalg.lstsq(system, np.array(shifts), rcond=None)[0]
    if math.hypot(e_right, e_down) / min(metres) < LEAST_PARALLAX * width:
        raise CalibrationError(
            f"the scenes show no parallax: from far away to {min(metres):g} m the map moves by less than "
            f"{LEAST_PARALLAX * width:.1f} px; none is needed"
        )
    far = np.array([[1, 0, right], [0, 1, down], [0, 0, 1]]) @ found.matrix
    return far, (float(e_right), float(e_down), 0.0)


def parallax_table(rig: Rig, distances: Sequence[float] = (2, 5, 10, 20, 50, 100)) -> str:
    """Return how far off the map is at other distances: `2 m: 34.3 px, 5 m: …`."""
    size = float(np.hypot(*(rig.parallax or (0, 0, 0))[:2]))
    at = 1 / rig.distance if rig.distance else 0.0
    return ", ".join(f"{distance:g} m: {size * abs(1 / distance - at):.1f} px" for distance in distances)


LAYOUT = re.compile(r"(\d+)x(\d+)(?::(circles))?")
LEAST_SIDE, MOST_CORNERS = 3, 40
SMALL = 480
"""Longer side below which a picture is looked at enlarged: corners need some pixels around them."""
MOVED = 0.05
"""Widths of the picture that the board must have moved to be worth another look."""


@dataclass(frozen=True)
class Board:
    """The layout of a board: inner corners, or circles, by columns and rows."""

    columns: int
    rows: int
    circles: bool = False

    @classmethod
    def parse(cls, text: str) -> "Board":
        """Read `9x6`, the inner corners of a chessboard, or `7x5:circles`.

        Raises:
            InputError: not of that form, or a board that cannot be told from others.
        """
        match = LAYOUT.fullmatch(text)
        sides = [int(match[1]), int(match[2])] if match else [0, 0]
        if match is None or not all(LEAST_SIDE <= side <= MOST_CORNERS for side in sides):
            raise InputError(
                f"board {text!r} is not COLUMNSxROWS of inner corners, such as 9x6, or COLUMNSxROWS:circles; "
                f"{LEAST_SIDE} to {MOST_CORNERS} each"
            )
        return cls(sides[0], sides[1], match[3] is not None)

    def find(self, image: Image) -> Matrix | None:
        """Return where its corners or circles are, `[rows, columns, 2]`, in some order; None: not in sight.

        Polarity does not matter: the inverted picture is tried too.

        Args:
            image: uint8, grey or BGR.
        """
        grey = luma(image)
        low, high = np.percentile(grey, (1, 99))
        grey = cv2.convertScaleAbs(np.clip(grey, low, high) - low, alpha=255 / max(high - low, 1.0))
        enlarged = 2 if max(grey.shape) < SMALL else 1
        if enlarged > 1:
            grey = cv2.resize(grey, None, fx=enlarged, fy=enlarged, interpolation=cv2.INTER_CUBIC)
        for picture in (grey, 255 - grey):
            for size in {(self.columns, self.rows), (self.rows, self.columns)}:
                points = _circles(picture, size) if self.circles else _corners(picture, size)
                if points is not None:
                    grid = points.reshape(size[1], size[0], 2).astype(np.float64)
                    grid = (grid + 0.5) / enlarged - 0.5  # as cv2.resize maps pixel centres
                    return grid if size == (self.columns, self.rows) else grid.transpose(1, 0, 2)
        return None

    def match(self, ir: Image, vis: Image) -> Matrix | None:
        """Return the board's points, `[N, 4]`: infrared x, y, visible x, y; None: not in sight of both.

        A board looks the same turned round, and a heated one may have dark and bright exchanged: of all ways
        to number its points, the one that turns infrared least is taken.
        """
        infrared, visible = self.find(ir), self.find(vis)
        if infrared is None or visible is None:
            return None
        turns = [(_turn(each, visible), index, each) for index, each in enumerate(self._orders(infrared))]
        best = min(turn for turn in turns if turn[0] is not None)[2]
        return np.concatenate([best.reshape(-1, 2), visible.reshape(-1, 2)], axis=1)

    def _orders(self, grid: Matrix) -> Iterator[Matrix]:
        for transposed, rows, columns in product((False, True), (1, -1), (1, -1)):
            if not transposed:
                yield grid[::rows, ::columns]
            elif self.rows == self.columns:
                yield grid.transpose(1, 0, 2)[::rows, ::columns]


class Boards:
    """Keeps pairs in which the board stands in different places, out of any number that are offered.

    Args:
        board: its layout.
        most: pairs to keep.
    """

    def __init__(self, board: Board, most: int = 30) -> None:
        self.board, self.most = board, most
        self.pairs: list[tuple[Image, Image]] = []
        self._points: list[Matrix] = []

    @property
    def count(self) -> int:
        """Number of different places."""
        return len(self.pairs)

    @property
    def points(self) -> Matrix:
        """All points, `[N, 4]`: infrared x, y, visible x, y.

        Raises:
            InputError: the board was in sight of both cameras in no pair.
        """
        if not self._points:
            kind = "circles" if self.board.circles else "inner corners"
            raise InputError(
                f"no picture pair shows the whole board of {self.board.columns}x{self.board.rows} {kind} "
                "to both cameras: hold it nearer and flat to them, warm it (lamp, sun), or check the numbers"
            )
        return np.concatenate(self._points)

    def offer(self, ir: Image, vis: Image) -> bool:
        """Keep a pair if both show the board, in a place of its own; tell whether it was kept."""
        if len(self.pairs) >= self.most:
            return False
        points = self.board.match(ir, vis)
        if points is None:
            return False
        near = MOVED * vis.shape[1]
        if any(np.linalg.norm(points[:, 2:] - other[:, 2:], axis=1).mean() < near for other in self._points):
            return False
        self.pairs.append((ir, vis))
        self._points.append(points)
        return True


def _corners(grey: Image, size: tuple[int, int]) -> Matrix | None:
    # Exhaustive: it bears noise and blur. Accuracy: to a small part of a pixel.
    flags = cv2.CALIB_CB_NORMALIZE_IMAGE | cv2.CALIB_CB_EXHAUSTIVE | cv2.CALIB_CB_ACCURACY
    found, points = cv2.findChessboardCornersSB(grey, size, flags=flags)
    return np.asarray(points, np.float64) if found else None


def _circles(grey: Image, size: tuple[int, int]) -> Matrix | None:
    found, points = cv2.findCirclesGrid(grey, size, flags=cv2.CALIB_CB_SYMMETRIC_GRID)
    return np.asarray(points, np.float64) if found else None


def _turn(ir: Matrix, vis: Matrix) -> float | None:
    """Return by how much infrared must be turned to look like visible, in radians; None: mirrored."""
    a = np.concatenate([ir.reshape(-1, 2), np.ones((ir.size // 2, 1))], axis=1)
    linear = np.linalg.lstsq(a, vis.reshape(-1, 2), rcond=None)[0][:2].T
    return None if np.linalg.det(linear) <= 0 else abs(float(np.arctan2(linear[1, 0], linear[0, 0])))
