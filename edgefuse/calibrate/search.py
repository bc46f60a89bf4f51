"""The first guess: where the infrared pictures lie in the visible ones, out of all scales and turns."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from edgefuse.calibrate.features import Floats, Picture, edge_field
from edgefuse.rig import Matrix, scaling

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
