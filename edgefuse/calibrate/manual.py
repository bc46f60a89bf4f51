"""Maps set by hand: by points, a board, or a ruler (parallax), with pictures to judge them by."""

import math
import re
from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np

from edgefuse.align import Aligned
from edgefuse.calibrate.refine import ModelName
from edgefuse.calibrate.registration import SHIFT_REACH, Estimate, residual_at, shift_of
from edgefuse.calibrate.scenes import CalibrationError
from edgefuse.errors import InputError, counted
from edgefuse.images import Image, fit_size, luma
from edgefuse.lens import check_distortion, undistort
from edgefuse.rig import Matrix, Rig, scaling

LARGEST = 640
"""Longer side of each of the four pictures."""
TILES = 8
TINT = (0.7, 0.88, 1.0)  # B, G, R
INFRARED, VISIBLE = (60, 120, 255), (255, 200, 60)  # B, G, R


def before_and_after(rig: Rig, ir: Image, vis: Image) -> Image:
    """Return four pictures in one: above resized only, below by the rig; left tiles, right edges.

    Args:
        rig: whose map to show.
        ir: infrared, uint8 `[H', W']`.
        vis: visible, uint8 `[H, W]` or BGR `[H, W, 3]`.

    Returns:
        uint8 BGR.
    """
    shape = (vis.shape[0], vis.shape[1])
    rows = []
    for label, aligned in (("before", Aligned(fit_size(ir, shape[::-1]))), ("after", rig.align()(ir, shape))):
        row = np.hstack([_shrunk(_checkerboard(aligned, vis)), _shrunk(edge_overlay(aligned, vis))])
        cv2.putText(row, label, (12, 30), cv2.FONT_HERSHEY_SIMPLEX, 0.8, (0, 0, 0), 4, cv2.LINE_AA)
        cv2.putText(row, label, (12, 30), cv2.FONT_HERSHEY_SIMPLEX, 0.8, (255, 255, 255), 1, cv2.LINE_AA)
        rows.append(row)
    return np.vstack(rows)


def _shrunk(image: Image) -> Image:
    factor = min(LARGEST / max(image.shape), 1.0)
    size = (round(image.shape[1] * factor), round(image.shape[0] * factor))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def _checkerboard(aligned: Aligned, vis: Image) -> Image:
    """Return tiles of both pictures in turn, infrared tinted orange: lines must run on from tile to tile.

    Contrast is evened out in both, or nothing would be seen at night.
    """
    height, width = vis.shape[:2]
    side = max(width // TILES, 1)
    rows, columns = np.ogrid[0:height, 0:width]
    infrared = (rows // side + columns // side) % 2 == 1
    if aligned.valid is not None:
        infrared = infrared & (aligned.valid > 0)
    picture = cv2.merge([_evened(luma(vis))] * 3)
    warm = cv2.merge([cv2.convertScaleAbs(_evened(aligned.image), alpha=tint) for tint in TINT])
    picture[infrared] = warm[infrared]
    return picture


def edge_overlay(aligned: Aligned, vis: Image) -> Image:
    """Return the edges of both, infrared in orange and visible in blue: where they meet, white."""
    infrared, visible = _strength(aligned.image), _strength(luma(vis))
    if aligned.valid is not None:
        infrared = infrared * (aligned.valid / np.float32(255))
    picture = infrared[:, :, None] * np.array(INFRARED, np.float32) + visible[:, :, None] * np.array(
        VISIBLE, np.float32
    )
    return np.clip(picture, 0, 255).astype(np.uint8)


def _strength(grey: Image) -> "np.ndarray[tuple[int, ...], np.dtype[np.float32]]":
    smooth = cv2.GaussianBlur(grey.astype(np.float32), (0, 0), 1.0)
    size = cv2.magnitude(cv2.Scharr(smooth, cv2.CV_32F, 1, 0), cv2.Scharr(smooth, cv2.CV_32F, 0, 1))
    mean = cv2.blur(size, (41, 41)) + 0.3 * size.mean() + 1e-3
    strength: np.ndarray[tuple[int, ...], np.dtype[np.float32]] = np.clip(size / mean / 3 - 0.25, 0, 1)
    return strength


def _evened(grey: Image) -> Image:
    low, high = np.percentile(grey, (1, 99))
    stretched = cv2.convertScaleAbs(np.clip(grey, low, high) - low, alpha=255 / max(high - low, 1.0))
    return cv2.createCLAHE(clipLimit=2.0, tileGridSize=(8, 8)).apply(stretched)


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
    """Read `0.08` or `0.08,-0.02`: k of the infrared and of the visible lens, see `edgefuse.lens`.

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
