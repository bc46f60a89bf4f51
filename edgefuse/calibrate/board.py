"""Maps from a board of known layout: a chessboard or a grid of circles, heated or cut out."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import cv2
import numpy as np

from edgefuse.errors import InputError
from edgefuse.images import Image, luma
from edgefuse.rig import Matrix

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
