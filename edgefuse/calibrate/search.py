"""From pictures to the map: a guess out of all scales and turns, then the parameters that suit all blocks."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from typing import Literal, TypeAlias

import cv2
import numpy as np

from edgefuse.calibrate.features import Floats, Picture, edge_field
from edgefuse.rig import Matrix, scale_of, scaling

SIDE = 160
"""Longer side of the pictures that are searched."""
SCALES = np.exp(np.arange(math.log(0.4), math.log(2.5) + 0.02, 0.04))
"""Field of view of the infrared camera against the visible one."""
TURNS = np.radians(np.arange(-10, 10.1, 2.0))
ROOM = 1.5
"""Canvas against the picture: shifts of up to half a picture do not wrap round."""
LEAST_OVERLAP = 0.25
"""Part of the smaller picture that must lie in the other one."""


@dataclass(frozen=True)
class Candidate:
    """One guess."""

    matrix: Matrix
    score: float
    scale: float
    turn: float


def search(pairs: Sequence[tuple[Picture, Picture]], keep: int = 8) -> list[Candidate]:
    """Return the best guesses of the similarity from infrared to visible pixels, best first.

    For each scale and turn one correlation over all shifts, summed over the pairs.

    Args:
        pairs: (infrared, visible); all infrared pictures of one size, all visible ones of one size.
        keep: most guesses to return; they differ in scale, turn or position.
    """
    ir_shape, vis_shape = pairs[0][0].grey.shape, pairs[0][1].grey.shape
    nominal = math.sqrt(math.prod(vis_shape) / math.prod(ir_shape))
    base = SIDE / max(vis_shape)
    # Of large pictures, twice what is needed is made once: they are shrunk to dozens of sizes below.
    halved = [(ir.scaled(min(2 * nominal * base, 1.0)), vis.scaled(min(2 * base, 1.0))) for ir, vis in pairs]
    height, width = (cv2.getOptimalDFTSize(math.ceil(side * base * ROOM / 4)) * 4 for side in vis_shape)
    found: list[Candidate] = []
    shared_ir: list[list[_Spectrum]] = []
    shared_vis: list[_Spectrum] = []
    for scale in SCALES:
        vis_pictures = [vis.resized(_times(vis_shape, base / max(scale, 1.0))) for _, vis in halved]
        ir_pictures = [ir.resized(_times(ir_shape, nominal * base * min(scale, 1.0))) for ir, _ in halved]
        if scale > 1 or not shared_vis:
            shared_vis = _Spectrum.of([edge_field(vis) for vis in vis_pictures], 0.0, (height, width))
        if scale < 1 or not shared_ir:
            fields = [edge_field(ir) for ir in ir_pictures]
            shared_ir = [_Spectrum.of(fields, turn, (height, width)) for turn in TURNS]
        to_ir = scaling(ir_shape, ir_pictures[0].grey.shape)
        from_vis = np.linalg.inv(scaling(vis_shape, vis_pictures[0].grey.shape))
        least = LEAST_OVERLAP * min(ir_pictures[0].grey.size, vis_pictures[0].grey.size)
        for turn, irs in zip(TURNS, shared_ir, strict=True):
            score, dx, dy = _best_shift(irs, shared_vis, turn, least)
            placed = _about_centre(ir_pictures[0].grey.shape, turn, (height, width))
            placed[:2, 2] += (dx, dy)
            back = _about_centre(vis_pictures[0].grey.shape, 0.0, (height, width))
            matrix = _similarity(from_vis @ np.linalg.inv(back) @ placed @ to_ir, ir_shape)
            found.append(Candidate(matrix, score, scale, turn))
    return _different(sorted(found, key=lambda guess: -guess.score), vis_shape, ir_shape, keep)


@dataclass(frozen=True)
class _Spectrum:
    """A picture's edges in the middle of the canvas, transformed; and how much of them lies where."""

    edges: Floats
    energy: Floats
    area: Floats
    """The same for all pictures of one size."""

    @classmethod
    def of(cls, fields: Sequence[Floats], turn: float, canvas: tuple[int, int]) -> "list[_Spectrum]":
        size, quarter = (canvas[1], canvas[0]), (canvas[1] // 4, canvas[0] // 4)
        whole = cv2.DFT_COMPLEX_OUTPUT
        placed = _about_centre(fields[0].shape, turn, canvas)
        inside = cv2.warpAffine(np.ones(fields[0].shape[:2], np.float32), placed[:2], size)
        area = cv2.dft(cv2.resize(inside, quarter, interpolation=cv2.INTER_AREA), flags=whole)
        spectra = []
        for field in fields:
            edges = cv2.warpAffine(field, placed[:2], size, flags=cv2.INTER_LINEAR)
            squares = cv2.resize(cv2.multiply(edges, edges), quarter, interpolation=cv2.INTER_AREA)
            energy = cv2.transform(squares, np.ones((1, 2), np.float32))
            spectra.append(cls(cv2.dft(edges), cv2.dft(energy, flags=whole), area))
        return spectra


def _times(shape: tuple[int, ...], factor: float) -> tuple[int, int]:
    return max(round(shape[0] * factor), 8), max(round(shape[1] * factor), 8)


def _similarity(matrix: Matrix, shape: tuple[int, ...]) -> Matrix:
    """Return the similarity nearest to an affine map: sides that were rounded stretch it a little."""
    a, b = (matrix[0, 0] + matrix[1, 1]) / 2, (matrix[1, 0] - matrix[0, 1]) / 2
    linear = np.array([[a, -b], [b, a]])
    centre = np.array([(shape[1] - 1) / 2, (shape[0] - 1) / 2])
    shift = matrix[:2, :2] @ centre + matrix[:2, 2] - linear @ centre
    return np.block([[linear, shift[:, None]], [np.array([[0.0, 0.0, 1.0]])]])


def _about_centre(shape: tuple[int, ...], turn: float, canvas: tuple[int, int]) -> Matrix:
    """Return the matrix that puts the centre of a picture, turned, on that of the canvas."""
    cos, sin = math.cos(turn), math.sin(turn)
    x, y = (shape[1] - 1) / 2, (shape[0] - 1) / 2
    cx, cy = canvas[1] // 2, canvas[0] // 2
    return np.array([[cos, -sin, cx - cos * x + sin * y], [sin, cos, cy - sin * x - cos * y], [0, 0, 1]])


def _best_shift(
    irs: Sequence[_Spectrum], vises: Sequence[_Spectrum], turn: float, least: float
) -> tuple[float, int, int]:
    """Return score, x and y of the best shift: the correlation in standard deviations of chance."""
    pairs = list(zip(irs, vises, strict=True))
    product = sum(cv2.mulSpectrums(vis.edges, ir.edges, 0, conjB=True) for ir, vis in pairs)
    # conj(A·exp(2i·turn))·B, its real part
    both = cv2.idft(product, flags=cv2.DFT_SCALE)
    correlation = math.cos(2 * turn) * both[:, :, 0] + math.sin(2 * turn) * both[:, :, 1]
    energy = sum(cv2.mulSpectrums(vis.energy, ir.energy, 0, conjB=True) for ir, vis in pairs)
    area = cv2.mulSpectrums(vises[0].area, irs[0].area, 0, conjB=True)
    real = cv2.DFT_SCALE | cv2.DFT_REAL_OUTPUT
    chance, overlap = 8 * cv2.idft(energy, flags=real), 16 * cv2.idft(area, flags=real)
    floor = 0.05 * float(chance.max()) + 1e-6
    weight = np.where(overlap > least, 1 / np.sqrt(np.maximum(chance, floor)), 0).astype(np.float32)
    scores = correlation * np.repeat(np.repeat(weight, 4, axis=0), 4, axis=1)
    _, best, _, (x, y) = cv2.minMaxLoc(scores)
    height, width = scores.shape
    return best, x - width * (x > width // 2), y - height * (y > height // 2)


def _different(
    guesses: Sequence[Candidate], vis_shape: tuple[int, ...], ir_shape: tuple[int, ...], keep: int
) -> list[Candidate]:
    """Return the best guesses of which no two put the corners nearly in the same place."""
    height, width = ir_shape
    corners = np.array([[0, 0, 1], [width, 0, 1], [0, height, 1], [width, height, 1]]).T
    kept: list[Candidate] = []
    placed: list[Matrix] = []
    for guess in guesses:
        ends = (guess.matrix @ corners)[:2]
        apart = [np.abs(ends - other).max() for other in placed]
        if not apart or min(apart) > 0.04 * max(vis_shape):
            kept.append(guess)
            placed.append(ends)
            if len(kept) == keep:
                break
    return kept


ModelName: TypeAlias = Literal["similarity", "affine", "homography"]

BLOCKS = (6, 8)
"""Rows and columns of blocks over the visible picture."""
SAMPLES, ELITE, ROUNDS = 300, 30, 14
"""Of the search for the parameters."""
UNUSUAL = 0.01
"""Shear or perspective, in widths of the picture at its edge, that costs half a standard deviation: more
parameters than a similarity's follow noise and depth where nothing holds them."""
FINE = 4
"""Surfaces are looked up at a quarter of a pixel, and between by interpolation."""


@dataclass(frozen=True)
class Level:
    """The pictures at one size of the visible ones."""

    pairs: Sequence[tuple[Picture, Picture]]
    """As they are, (infrared, visible)."""
    shape: tuple[int, int]
    """Height and width of the visible pictures at this level."""
    fields: Sequence[Floats]
    """Edges of the visible pictures, `[h, w, 2]` each."""
    blur: float
    to_level: Matrix
    """From pixels of the visible picture to those at this level."""

    @classmethod
    def of(cls, pairs: Sequence[tuple[Picture, Picture]], side: int, matrix: Matrix) -> "Level":
        """Prepare pictures.

        Args:
            pairs: (infrared, visible).
            side: wanted longer side; the nearest of the whole, a half and a quarter is taken.
            matrix: the map, about: where it enlarges infrared pictures, they are blurred at this level, and
                the visible ones are then blurred as much.
        """
        height, width = pairs[0][1].grey.shape
        parts = min((1, 2, 4), key=lambda parts: abs(max(height, width) / parts - side))
        shape = (height // parts, width // parts)
        enlarged = scale_of(matrix, pairs[0][0].grey.shape) / parts
        blur = 1.0 if enlarged <= 1.5 else 0.67 * enlarged
        fields = [edge_field(vis.resized(shape), blur) for _, vis in pairs]
        return cls(pairs, shape, fields, blur, scaling((height, width), shape))


@dataclass(frozen=True)
class Surfaces:
    """How well each block agrees under each small shift."""

    values: Floats
    """`[blocks, 2r + 1, 2r + 1]`: correlation under the shift (dy, dx), summed over pairs."""
    centres: Matrix
    """`[blocks, 2]`: (x, y) of the blocks in -1..1 of the longer side."""
    energy: float
    """What the sum would be if all edges agreed."""


def surfaces(level: Level, matrix: Matrix, radius: int) -> Surfaces:
    """Correlate the infrared pictures, mapped by `matrix`, with the visible ones under shifts of `radius`."""
    rows, columns = BLOCKS
    side = 2 * radius + 1
    height, width = level.shape
    ys, xs = (
        [round(i * length / parts) for i in range(parts + 1)]
        for length, parts in ((height, rows), (width, columns))
    )
    total = np.zeros((rows * columns, side, side), np.float32)
    energy = 0.0
    for (ir, _), vis in zip(level.pairs, level.fields, strict=True):
        warped = edge_field(_warped(ir, level, matrix), level.blur)
        energy += float(np.sqrt((warped * warped).sum() * (vis * vis).sum()))
        padded = cv2.copyMakeBorder(warped, radius, radius, radius, radius, cv2.BORDER_CONSTANT)
        for block, (row, column) in enumerate(product(range(rows), range(columns))):
            top, bottom, left, right = ys[row], ys[row + 1], xs[column], xs[column + 1]
            around = padded[top : bottom + 2 * radius, left : right + 2 * radius]
            total[block] += cv2.matchTemplate(around, vis[top:bottom, left:right], cv2.TM_CCORR)
    # A shift of +1 moves the infrared picture to the right: its pixel x - 1 comes to x.
    values = np.ascontiguousarray(total[:, ::-1, ::-1])
    middles = [[(a + b) / 2 for a, b in pairwise(cuts)] for cuts in (ys, xs)]
    centres = [(2 * x / width - 1, (2 * y / height - 1) * height / width) for y, x in product(*middles)]
    return Surfaces(values, np.array(centres), energy)


def _warped(ir: Picture, level: Level, matrix: Matrix) -> Picture:
    whole = level.to_level @ matrix
    shrink = scale_of(whole, ir.grey.shape)
    small = ir.scaled(shrink) if shrink < 0.8 else ir
    whole = whole @ np.linalg.inv(scaling(ir.grey.shape, small.grey.shape))
    size = level.shape[::-1]
    grey = cv2.warpPerspective(
        small.grey, whole, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    valid = cv2.warpPerspective(small.valid, whole, size, flags=cv2.INTER_LINEAR)
    return Picture(grey, np.where(valid == 255, valid, 0))


def improve(
    found: Surfaces, model: ModelName, shape: tuple[int, int], seed: int = 0
) -> tuple[Matrix, float, float]:
    """Return the map on top of the one that the surfaces were made with.

    Returns:
        3×3 in pixels of the level, what the surfaces sum up to there, and z: that sum in standard deviations
        from what chance gives.
    """
    basis = _basis(found.centres, model)
    best, value, z = _best(found, basis, 4, shape, seed)
    return _as_matrix(best, model, shape), value, z


def shifted(found: Surfaces, shape: tuple[int, int]) -> tuple[Matrix, float, float]:
    """Return what `improve` does, with a map that only shifts."""
    best, value, z = _best(found, _basis(found.centres, "similarity")[:, :, :2], 2, shape, 0)
    return _as_matrix(best, "similarity", shape), value, z


def bent_by(
    found: Surfaces, model: ModelName, shape: tuple[int, int], matrix: Matrix, ir_shape: tuple[int, ...]
) -> tuple[float, float]:
    """Return the distortion of the infrared lens that suits the surfaces best, and z with it.

    Args:
        found: made with `matrix`.
        model: of the map that may change along with it.
        shape: of the level.
        matrix: from infrared pixels to those of the level.
        ir_shape: of the infrared picture.
    """
    half = shape[1] / 2
    middle = matrix @ ((ir_shape[1] - 1) / 2, (ir_shape[0] - 1) / 2, 1)
    middle = (middle[:2] / middle[2] - ((shape[1] - 1) / 2, (shape[0] - 1) / 2)) / half
    away = found.centres - middle
    # k·r² of infrared, r in its half diagonals, for places in halves of the level's width
    reach = scale_of(matrix, ir_shape) * float(np.hypot(ir_shape[0], ir_shape[1])) / 2 / half
    column = away * (away**2).sum(axis=1, keepdims=True) / reach**2
    basis = np.concatenate([column[:, :, None], _basis(found.centres, model)], axis=2)
    best, _, z = _best(found, basis, 5, shape, 0)
    return float(best[0]) / half, z


def _best(
    found: Surfaces, basis: Matrix, free: int, shape: tuple[int, int], seed: int
) -> tuple[Matrix, float, float]:
    """Return the parameters that suit the surfaces best, what these sum up to there, and z.

    Args:
        found: surfaces.
        basis: shifts of each block per unit of each parameter, `[blocks, 2, parameters]`.
        free: number of parameters of which no value is less usual than another.
        shape: of the level.
        seed: of the search.
    """
    radius = found.values.shape[1] // 2
    fine = np.stack([_upsampled(surface) for surface in found.values])
    count = basis.shape[-1]
    deviation = float(np.sqrt(found.values.var(axis=(1, 2)).sum())) + 1e-9
    doubt = np.zeros(count)
    doubt[free:] = deviation / 2 / (UNUSUAL * shape[1]) ** 2
    rng = np.random.default_rng(seed)
    # Cross-entropy search: the surfaces have many peaks, and a gradient sees the nearest alone.
    best, middle, spread, value = np.zeros(count), np.zeros(count), np.full(count, radius / 2.0), 0.0
    for _ in range(ROUNDS):
        tried = middle + rng.normal(size=(SAMPLES, count)) * spread
        tried[0] = best
        sums = _sums(fine, basis, tried, radius) - tried**2 @ doubt
        elite = tried[np.argsort(-sums)[:ELITE]]
        best, value = elite[0], float(sums.max())
        middle, spread = elite.mean(axis=0), np.maximum(elite.std(axis=0), 0.003)
    mean = float(found.values.mean(axis=(1, 2)).sum())
    return best, value, (value - mean) / deviation


def disagreement(found: Surfaces) -> float:
    """Return by how much parts of the picture differ from the map, root mean square in pixels of the level.

    Four blocks together have edges of several directions, and so a place of their own where they agree
    best; parts without a clear one count little.
    """
    rows, columns = BLOCKS
    side = found.values.shape[1]
    grid = found.values.reshape(rows // 2, 2, columns // 2, 2, side, side).sum(axis=(1, 3))
    weights, squares = 0.0, 0.0
    for surface in grid.reshape(-1, side, side):
        fine = _upsampled(surface)
        _, top, _, (x, y) = cv2.minMaxLoc(fine)
        clear = max((top - surface.mean()) / (surface.std() + 1e-9) - 2.0, 0.0) * float(surface.std())
        middle = (fine.shape[0] - 1) / 2
        weights += clear
        squares += clear * ((x - middle) ** 2 + (y - middle) ** 2) / FINE**2
    return float(np.sqrt(squares / weights)) if weights else side / 2


def _upsampled(surface: Floats) -> Floats:
    side = surface.shape[0]
    wide = (side - 1) * FINE + 1
    at = np.arange(wide, dtype=np.float32) / FINE
    xs, ys = np.meshgrid(at, at)
    return cv2.remap(surface, xs, ys, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)


def _basis(centres: Matrix, model: ModelName) -> Matrix:
    """Return `[blocks, 2, parameters]`: the shift of each block per unit of each parameter, in pixels."""
    x, y = centres[:, 0], centres[:, 1]
    one, zero = np.ones_like(x), np.zeros_like(x)
    columns = [(one, zero), (zero, one), (x, y), (-y, x)]
    if model != "similarity":
        columns += [(x, -y), (y, x)]
    if model == "homography":
        columns += [(x * x, x * y), (x * y, y * y)]
    return np.stack([np.stack(column, axis=-1) for column in columns], axis=-1)


def _sums(fine: Floats, basis: Matrix, tried: Matrix, radius: int) -> Matrix:
    at = (np.clip(np.einsum("bcp,np->nbc", basis, tried), -radius, radius - 1e-6) + radius) * FINE
    low = at.astype(np.intp)
    low = np.minimum(low, fine.shape[1] - 2)
    u, v = (at - low)[..., 0], (at - low)[..., 1]
    x, y, block = low[..., 0], low[..., 1], np.arange(len(fine))
    top = fine[block, y, x] * (1 - u) + fine[block, y, x + 1] * u
    bottom = fine[block, y + 1, x] * (1 - u) + fine[block, y + 1, x + 1] * u
    return (top * (1 - v) + bottom * v).sum(axis=1)


def _as_matrix(p: Matrix, model: ModelName, shape: tuple[int, int]) -> Matrix:
    """Return the map of level pixels whose shifts the parameters describe."""
    height, width = shape
    half = width / 2
    p = np.concatenate([p, np.zeros(8 - len(p))]) / half  # in units of the normalised picture
    # x' = x + shift: exact for the linear part, and for perspective up to second order
    linear = np.array(
        [[1 + p[2] + p[4], -p[3] + p[5], p[0]], [p[3] + p[5], 1 + p[2] - p[4], p[1]], [-p[6], -p[7], 1]]
    )
    if model != "homography":
        linear[2] = (0, 0, 1)
    to = np.array([[1 / half, 0, -(width - 1) / width], [0, 1 / half, -(height - 1) / width], [0, 0, 1]])
    return np.linalg.inv(to) @ linear @ to
