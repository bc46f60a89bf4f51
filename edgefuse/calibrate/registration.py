"""The map from infrared to visible pixels, estimated from pictures of both, with what it is worth."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone

import numpy as np

from edgefuse.align import ASPECT_TOLERANCE, MOST
from edgefuse.calibrate.features import Picture
from edgefuse.calibrate.scenes import CalibrationError, Scenes, refuse_unusable, why_not
from edgefuse.calibrate.search import (
    Level,
    ModelName,
    Surfaces,
    bent_by,
    disagreement,
    improve,
    search,
    shifted,
    surfaces,
)
from edgefuse.errors import InputError
from edgefuse.images import Image, luma
from edgefuse.rig import Matrix, Rig, overlap_of, rows, scale_of, scaling

LEAST_Z = 7.0
"""Below, chance could have made the agreement: docs/calibration.md shows what unrelated pictures reach."""
LEAST_Z_SMALL = 8.0
"""The same for visible pictures of less than 300 pixels, in which chance agrees more easily."""
ONE_CAMERA = 0.9
"""Share of agreeing edges that two cameras of different light never reach (a real pair and `sim`: 0.4 to
0.6); one camera's picture moved, inverted or blurred has more than 0.95."""
LEAST_SHARE = 0.06
"""Part of all edges that must agree: a ramp or stripes agree somewhere, but with little."""
RIVAL_Z, RIVAL_PART = 5.5, 0.55
"""z of the best map that is clearly another one, and its part of z, from which on both could be right: a
lattice or a tiled wall agrees in many places. Chance stays below the first; streets of real pairs reach half
of z."""
RIVAL_APART = 0.04
"""Widths of the visible picture that a corner must lie elsewhere for that."""
HINT_Z, BETTER_Z = 0.2, 0.8
"""By how much z must rise before a model of more parameters is tried on the largest pictures, and there
before it is believed: the depths of real scenes make it rise by half of that."""
SCENES_FOR_MORE = 3
"""Scenes from which on more than a similarity is tried: on one scene it fits the depths in it."""
HOPELESS = 0.35
"""Part of the best guess's z below which a guess is neither the map nor a rival of it."""
SHIFT_REACH = 0.05
"""Widths of the picture within which the shift of one scene is found."""
LENS_ROUNDS = 3
"""Most steps to the distortion of a lens on pictures of half the size."""
MOST_IN_SEARCH = 3
GUESSES = 6
SIDES = (160, 320, 640)
"""Longer side of the visible picture at each level."""
FLIPS: dict[str, int | None] = {"": None, "upside down": -1, "mirrored": 1, "mirrored and upside down": 0}

Pairs = Sequence[tuple[Picture, Picture]]


@dataclass(frozen=True)
class Estimate:
    """A map from infrared to visible pixels, and how far to trust it."""

    matrix: Matrix
    """3×3: infrared pixel (x, y, 1) to visible pixel, pixel centres at integers."""
    model: ModelName
    z: float
    """Agreement of the edges in standard deviations from chance."""
    share: float
    """Agreement of the edges against what it would be if all of them agreed, 0..1."""
    residual_px: float
    """How far apart the same thing in both pictures is after mapping, root mean square over parts of the
    picture, in visible pixels: depth, lens distortion and what the estimate is off."""
    scenes: int
    """Number of different scenes in the pictures that were used."""
    pairs: int
    """Number of pairs that were used."""
    rival_z: float = 0.0
    """z of the best map that is clearly another one, on the pictures that were searched."""
    ir_distortion: float = 0.0
    """k of the infrared lens, see `edgefuse.align`; `matrix` maps pixels that are made straight."""
    vis_distortion: float = 0.0
    flip: str = ""
    """How the infrared picture is turned over, for people: empty, "mirrored", "upside down" or both."""

    @property
    def confidence(self) -> float:
        """How sure it is that the map is not one that chance made, 0..1."""
        return 1 - math.exp(-max(self.z - LEAST_Z + 1, 0) / 2.5)

    def moves(self, ir_size: tuple[int, int], vis_size: tuple[int, int]) -> tuple[float, float, float, float]:
        """Return the map in words: scale, turn in degrees (`flip` undone before), and the pixels that
        its centre lies right and down."""
        x, y, w = self.matrix @ ((ir_size[0] - 1) / 2, (ir_size[1] - 1) / 2, 1)
        upright = self.matrix @ _flip_matrix(ir_size[::-1], FLIPS[self.flip])
        turn = math.degrees(math.atan2(upright[1, 0], upright[0, 0]))
        right, down = x / w - (vis_size[0] - 1) / 2, y / w - (vis_size[1] - 1) / 2
        return scale_of(self.matrix, ir_size[::-1]), turn, right, down


def estimate(
    pairs: Sequence[tuple[Image, Image]],
    model: ModelName | None = None,
    distortion: tuple[float, float] | None = None,
) -> Estimate:
    """Estimate the map from infrared to visible pixels.

    Args:
        pairs: (infrared, visible), uint8, taken at the same moments; all infrared pictures of one size and
            all visible ones of one size. Pictures of different scenes tell most.
        model: to use; without one, a similarity, and more only if the scenes ask for it.
        distortion: k of the infrared and of the visible lens, if known. Without them, that of the infrared
            lens is estimated if three scenes ask for it; a visible lens that bends as much hides it.

    Raises:
        CalibrationError: the pictures do not determine it; the message says why, and what to do.
        InputError: no pairs, or pictures of several sizes.
    """
    kept = Scenes()
    for ir, vis in pairs:
        kept.offer(ir, vis)
    if not kept.pairs:
        raise InputError("there are no pairs of pictures to calibrate from")
    refuse_unusable(kept.pairs)
    ir, vis = kept.pairs[0]
    used = _pictures(kept.pairs, distortion or (0.0, 0.0))
    least = _least_z(used[0][1])
    best: tuple[Estimate, Matrix] | None = None
    for name, code in FLIPS.items():
        flipped = [(ir.flipped(code), vis) for ir, vis in used]
        for stretch in _stretches(ir.shape, vis.shape):
            stretched = [(ir.widened(stretch), vis) for ir, vis in flipped]
            found = replace(_estimate(stretched, kept.count, model, distortion is None), flip=name)
            if stretch != 1 and found.model == "similarity":
                found = replace(found, model="affine")
            if best is None or found.z > best[0].z:
                before = scaling(used[0][0].grey.shape, stretched[0][0].grey.shape)
                best = found, before @ _flip_matrix(used[0][0].grey.shape, code)
        if best is not None and _accepted(best[0], least):
            break
    assert best is not None
    found, before = best
    if found.z >= least and _ambiguous(found):
        raise CalibrationError(
            f"two different maps agree nearly as well (z {found.z:.1f} and {found.rival_z:.1f}), as on a "
            "lattice or a tiled wall: turn the rig to scenes in which nothing repeats"
        )
    if not _accepted(found, least):
        raise CalibrationError(why_not(used, found.z, found.share, kept.count, least))
    if found.share > ONE_CAMERA:
        raise CalibrationError(
            f"{found.share:.0%} of all edges agree, as only those of two pictures of one camera do: give "
            "the infrared camera to --ir and the visible one to --vis"
        )
    to_working, from_working = Picture.working(ir.shape), np.linalg.inv(Picture.working(vis.shape))
    whole = from_working @ found.matrix @ before @ to_working
    residual = found.residual_px * from_working[0, 0]
    if distortion is not None:
        found = replace(found, ir_distortion=distortion[0], vis_distortion=distortion[1])
    return replace(found, matrix=whole / whole[2, 2], residual_px=residual)


def refine_from(
    pairs: Sequence[tuple[Image, Image]],
    matrix: Matrix,
    model: ModelName = "similarity",
    scenes: int = 1,
    distortion: tuple[float, float] = (0.0, 0.0),
) -> Estimate:
    """Improve a map that was set by hand, by the edges of both pictures near where it puts them.

    Args:
        pairs: as for `estimate`.
        matrix: from infrared to visible pixels; off by 2 % of the visible width at most.
        model: kind of the map.
        scenes: number of different scenes in the pairs, for the record.
        distortion: k of the infrared and of the visible lens; `matrix` maps pixels that are made straight.

    Raises:
        CalibrationError: the edges do not agree near that map; the message says why.
    """
    refuse_unusable(pairs)
    to_ir, to_vis = (Picture.working(image.shape) for image in pairs[0])
    found = nearby(_pictures(pairs, distortion), to_vis @ matrix @ np.linalg.inv(to_ir), model, scenes)
    whole = np.linalg.inv(to_vis) @ found.matrix @ to_ir
    found = replace(found, ir_distortion=distortion[0], vis_distortion=distortion[1])
    return replace(found, matrix=whole / whole[2, 2], residual_px=found.residual_px / to_vis[0, 0])


def nearby(pairs: Pairs, matrix: Matrix, model: ModelName = "similarity", scenes: int = 1) -> Estimate:
    """Return the map near a given one that suits the pictures best, all in their own pixels.

    Raises:
        CalibrationError: the edges do not agree near that map; the message says why.
    """
    found = _from_guess(pairs, matrix, scenes, model)
    if not is_evidence(found.z, found.share, pairs[0][1]):
        why = why_not(pairs, found.z, found.share, scenes or 1, _least_z(pairs[0][1]))
        raise CalibrationError(f"{why}; the map that was set by hand may be too far off to be refined")
    return found


def residual_of(pairs: Pairs, matrix: Matrix) -> float:
    """Return how far apart the same thing in both pictures is by a map, see `Estimate.residual_px`."""
    level = Level.of(pairs, SIDES[2], matrix)
    return disagreement(surfaces(level, matrix, 8)) / math.sqrt(abs(np.linalg.det(level.to_level)))


def residual_at(
    pairs: Sequence[tuple[Image, Image]], matrix: Matrix, distortion: tuple[float, float] = (0.0, 0.0)
) -> float:
    """Return the residual of a map in visible pixels, for whole pictures; arguments as for `refine_from`."""
    to_ir, to_vis = (Picture.working(image.shape) for image in pairs[0])
    working = to_vis @ matrix @ np.linalg.inv(to_ir)
    return residual_of(_pictures(pairs, distortion), working) / float(to_vis[0, 0])


def _pictures(
    pairs: Sequence[tuple[Image, Image]], distortion: tuple[float, float]
) -> list[tuple[Picture, Picture]]:
    ir_k, vis_k = distortion
    return [
        (Picture.of(luma(ir)).straightened(ir_k), Picture.of(luma(vis)).straightened(vis_k))
        for ir, vis in pairs
    ]


def _stretches(ir: tuple[int, ...], vis: tuple[int, ...]) -> list[float]:
    """Return the factors by which infrared pixels may be wider than high.

    Most cameras have square pixels; but one whose picture was resized to other proportions has not.
    """
    stretch = (vis[1] / vis[0]) / (ir[1] / ir[0])
    return [1.0] if abs(stretch - 1) < ASPECT_TOLERANCE else [1.0, stretch]


def make_rig(found: Estimate, pair: tuple[Image, Image], ir_camera: str, vis_camera: str) -> Rig:
    """Return what is written into the rig file.

    Args:
        found: the map.
        pair: an infrared and a visible picture, for their sizes.
        ir_camera: name of the infrared source.
        vis_camera: name of the visible source.
    """
    ir_size, vis_size = ((image.shape[1], image.shape[0]) for image in pair)
    return Rig(
        matrix=rows(found.matrix),
        ir_size=ir_size,
        vis_size=vis_size,
        ir_camera=ir_camera,
        vis_camera=vis_camera,
        model=found.model,
        residual_px=round(found.residual_px, 3),
        confidence=round(found.confidence, 4),
        overlap=round(overlap_of(found.matrix, ir_size, vis_size), 4),
        scenes=found.scenes,
        ir_distortion=found.ir_distortion,
        vis_distortion=found.vis_distortion,
        date=datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )


def weigh(pairs: Pairs, matrix: Matrix, radius: int = 8) -> tuple[Matrix, float, float]:
    """Return the similarity nearest to a map that suits the pictures best, its z, and its share."""
    level = Level.of(pairs, SIDES[1], matrix)
    return _weighed(level, matrix, "similarity", radius)


def shift_of(pair: tuple[Image, Image], found: Estimate) -> tuple[float, float] | None:
    """Return by how many visible pixels, right and down, one pair asks a map to be moved; None: unclear."""
    used = _pictures([pair], (found.ir_distortion, found.vis_distortion))
    to_ir, to_vis = (Picture.working(image.shape) for image in pair)
    matrix = to_vis @ found.matrix @ np.linalg.inv(to_ir)
    z = share = 0.0
    for side in SIDES[:2]:
        level = Level.of(used, side, matrix)
        found_here = surfaces(level, matrix, 8)
        change, value, z = shifted(found_here, level.shape)
        matrix, share = _moved(level, matrix, change), value / max(found_here.energy, 1e-9)
    if not is_evidence(z, share, used[0][1]):
        return None
    moved = np.linalg.inv(to_vis) @ matrix @ to_ir @ np.linalg.inv(found.matrix)
    middle = np.array([(pair[1].shape[1] - 1) / 2, (pair[1].shape[0] - 1) / 2, 1])
    place = moved @ middle
    right, down = place[:2] / place[2] - middle[:2]
    return float(right), float(down)


def is_evidence(z: float, share: float, vis: Picture) -> bool:
    """Tell whether `weigh` found more than chance does."""
    return z >= _least_z(vis) and share >= LEAST_SHARE


def confirms(pairs: Pairs, matrix: Matrix, tolerance: float) -> bool:
    """Tell whether a calibration from these pictures alone would be accepted, and come to this map.

    Args:
        pairs: all of one size.
        matrix: from infrared to visible pixels of these pictures.
        tolerance: mean distance of the corners in visible pixels.
    """
    found = _estimate(pairs, 1, "similarity")
    if not _accepted(found, _least_z(pairs[0][1])):
        return False
    height, width = pairs[0][0].grey.shape
    corners = np.array([[0, 0, 1], [width, 0, 1], [0, height, 1], [width, height, 1]]).T
    apart = ((found.matrix - matrix) @ corners)[:2]  # of similarities
    return float(np.linalg.norm(apart, axis=0).mean()) < tolerance


def _least_z(vis: Picture) -> float:
    return LEAST_Z if max(vis.grey.shape) >= 300 else LEAST_Z_SMALL


def _accepted(found: Estimate, least: float) -> bool:
    return found.z >= least and found.share >= LEAST_SHARE and not _ambiguous(found)


def _ambiguous(found: Estimate) -> bool:
    return found.rival_z >= max(RIVAL_Z, RIVAL_PART * found.z)


def _rival(results: Sequence[tuple[Matrix, float, float]], best: Matrix, pairs: Pairs) -> float:
    """Return the largest z of the maps that put the infrared picture clearly elsewhere than the best one."""
    (height, width), vis = pairs[0][0].grey.shape, pairs[0][1].grey.shape
    corners = np.array([[0, 0, 1], [width, 0, 1], [0, height, 1], [width, height, 1]]).T
    apart = [np.abs((matrix - best)[:2] @ corners).max() for matrix, _, _ in results]  # similarities
    far = RIVAL_APART * max(vis)
    return max((z for (_, z, _), off in zip(results, apart, strict=True) if off > far), default=0.0)


def _estimate(pairs: Pairs, scenes: int, model: ModelName | None, lens: bool = False) -> Estimate:
    """Search, refine and weigh the map; nothing is refused here."""
    few = pairs[:MOST_IN_SEARCH]
    guesses = []
    for guess in search(few, GUESSES):
        level, matrix, z = Level.of(few, SIDES[0], guess.matrix), guess.matrix, 0.0
        for _ in range(2):
            matrix, z = _step(level, matrix, 5, "similarity")
        guesses.append((z, matrix))
    guesses.sort(key=lambda guess: -guess[0])
    results = []
    for z, matrix in guesses:
        if z < HOPELESS * guesses[0][0]:
            break
        level = Level.of(few, SIDES[1], matrix)
        results.append(_weighed(level, _step(level, matrix, 4, "similarity")[0], "similarity"))
    matrix = max(results, key=lambda result: result[1])[0]
    return _from_guess(pairs, matrix, scenes, model, _rival(results, matrix, few), lens)


def _from_guess(
    pairs: Pairs,
    matrix: Matrix,
    scenes: int,
    model: ModelName | None,
    rival: float = 0.0,
    lens: bool = False,
) -> Estimate:
    """Choose the kind of map, refine and weigh it, from a guess that is a few pixels off at most."""
    level, fine = (Level.of(pairs, side, matrix) for side in SIDES[1:])
    around = surfaces(level, matrix, 8)
    tried: tuple[ModelName, ...] = (model or "similarity",)
    if model is None and scenes >= SCENES_FOR_MORE:
        tried = ("similarity", "affine", "homography")
    coarse = {name: improve(around, name, level.shape) for name in tried}
    best: tuple[Estimate, float] | None = None
    for name, (change, value, z) in coarse.items():
        smaller, larger = coarse[tried[0]][2], coarse[tried[-1]][2]
        if best is not None and (z < smaller + HINT_Z or z < larger - HINT_Z):
            continue  # no better than the simplest, or clearly worse than the one that comes next
        moved, fine_z, residual = _refined(fine, _moved(level, matrix, change), name)
        if best is None or fine_z > best[1] + BETTER_Z:
            share = value / max(around.energy, 1e-9)
            best = Estimate(moved, name, z, share, residual, scenes, len(pairs), rival), fine_z
    assert best is not None
    if lens and model is None and scenes >= SCENES_FOR_MORE:
        name, ir_shape = best[0].model, pairs[0][0].grey.shape
        _, z = bent_by(around, name, level.shape, level.to_level @ matrix, ir_shape)
        if z > coarse[name][2] + HINT_Z:
            return _with_lens(pairs, *best)
    return best[0]


def _with_lens(pairs: Pairs, found: Estimate, best_z: float) -> Estimate:
    """Return the estimate with the distortion of the infrared lens, if the pictures ask for one."""
    ir_shape = pairs[0][0].grey.shape
    straight, matrix, total = pairs, found.matrix, 0.0
    for side in (*[SIDES[1]] * LENS_ROUNDS, SIDES[2]):  # the largest pictures make it exact
        level = Level.of(straight, side, matrix)
        around = surfaces(level, matrix, 8)
        k, _ = bent_by(around, found.model, level.shape, level.to_level @ matrix, ir_shape)
        if side == SIDES[1] and abs(k) < 0.003:
            continue
        total = min(max(total + k, -MOST), MOST)
        straight = [(ir.straightened(total), vis) for ir, vis in pairs]
        level = replace(level, pairs=straight)
        matrix = _step(level, matrix, 8, found.model)[0]
    level = Level.of(straight, SIDES[2], matrix)
    matrix, fine_z, residual = _refined(level, matrix, found.model)
    if fine_z < best_z + BETTER_Z:
        return found
    return replace(found, matrix=matrix, residual_px=residual, ir_distortion=round(total, 5))


def _refined(level: Level, matrix: Matrix, model: ModelName) -> tuple[Matrix, float, float]:
    """Return the map improved on the largest pictures, its z there, and the residual in visible pixels."""
    matrix, _ = _step(level, matrix, 4 if model == "similarity" else 6, model)
    found = surfaces(level, matrix, 8)
    change, _, z = improve(found, model, level.shape)
    residual = disagreement(found) / math.sqrt(abs(np.linalg.det(level.to_level)))
    return _moved(level, matrix, change), z, residual


def _step(level: Level, matrix: Matrix, radius: int, model: ModelName) -> tuple[Matrix, float]:
    change, _, z = improve(surfaces(level, matrix, radius), model, level.shape)
    return _moved(level, matrix, change), z


def _weighed(level: Level, matrix: Matrix, model: ModelName, radius: int = 8) -> tuple[Matrix, float, float]:
    """Return the map improved once more, its z against wide surroundings, and the share of agreeing edges."""
    found: Surfaces = surfaces(level, matrix, radius)
    change, value, z = improve(found, model, level.shape)
    return _moved(level, matrix, change), z, value / max(found.energy, 1e-9)


def _moved(level: Level, matrix: Matrix, change: Matrix) -> Matrix:
    moved: Matrix = np.linalg.inv(level.to_level) @ change @ level.to_level @ matrix
    return moved


def _flip_matrix(shape: tuple[int, ...], code: int | None) -> Matrix:
    height, width = shape[:2]
    matrix = np.eye(3)
    if code in (1, -1):
        matrix[0] = (-1, 0, width - 1)
    if code in (0, -1):
        matrix[1] = (0, -1, height - 1)
    return matrix
