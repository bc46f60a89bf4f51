"""How well `edgefuse calibrate` finds known maps: real pairs moved by random maps, simulated rigs, baselines.

    python bench/registration.py DATA [--trials 30] [--rows single,consecutive,scenes,…]

DATA holds folders with `ir/` and `vis/` below them (any depth) of aligned pairs. Every infrared picture is
moved by a random map (scale 0.7–1.4, rotation ±6°, shift ±60 px at 640×480), blurred and given noise. The
error is the mean distance of the four corners of the infrared picture, at 640×480, from where the random map
puts them: the sets' own misalignment is in it, and stands beside it as the floor (random map: the identity).
"""

import argparse
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import cv2
import numpy as np

from edgefuse.calibrate import CalibrationError, estimate, features, refine, search
from edgefuse.images import luma, read_visible
from edgefuse.pairs import pair_folders
from edgefuse.sim import Rig, RigConfig
from edgefuse.thermal import read_infrared

SIZE = (640, 480)
CENTRE = np.array([[1, 0, -(SIZE[0] - 1) / 2], [0, 1, -(SIZE[1] - 1) / 2], [0, 0, 1]])
LOST = 12.0
"""Pixels of error from which on a map is called wrong, and not inexact."""


def load(folder: Path) -> list:
    pairs = pair_folders(folder / "ir", folder / "vis").pairs
    images = [(read_infrared(ir), luma(read_visible(vis))) for _, ir, vis in pairs]
    return [tuple(cv2.resize(image, SIZE, interpolation=cv2.INTER_AREA) for image in pair) for pair in images]


def random_map(rng: np.random.Generator, perspective: float = 0.0) -> np.ndarray:
    scale, turn = math.exp(rng.uniform(math.log(0.7), math.log(1.4))), math.radians(rng.uniform(-6, 6))
    right, down = rng.uniform(-60, 60, 2)
    a, b = scale * math.cos(turn), scale * math.sin(turn)
    tilt = np.eye(3)
    tilt[2, :2] = rng.uniform(-perspective, perspective, 2)
    matrix = np.linalg.inv(CENTRE) @ tilt @ np.array([[a, -b, right], [b, a, down], [0, 0, 1]]) @ CENTRE
    return matrix / matrix[2, 2]


def moved(ir: np.ndarray, truth: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the picture of an infrared camera that `truth` maps back; its border is black or smeared."""
    border = cv2.BORDER_CONSTANT if rng.integers(2) else cv2.BORDER_REPLICATE
    picture = cv2.warpPerspective(ir, np.linalg.inv(truth), SIZE, borderMode=border)
    picture = cv2.GaussianBlur(picture, (0, 0), rng.uniform(0.3, 1.2)).astype(np.float32)
    return np.clip(np.rint(picture + rng.normal(0, rng.uniform(0, 3), picture.shape)), 0, 255).astype(
        np.uint8
    )


def corner_error(matrix: np.ndarray, truth: np.ndarray, size: tuple[int, int] = SIZE) -> float:
    width, height = size[0] - 1, size[1] - 1
    corners = np.array([[[0, 0], [width, 0], [0, height], [width, height]]], np.float64)
    ends = [cv2.perspectiveTransform(corners, each) for each in (matrix, truth)]
    return float(np.linalg.norm(ends[0] - ends[1], axis=2).mean())


class Row:
    """The trials of one line of the table."""

    def __init__(self, name: str) -> None:
        self.name, self.refused = name, 0
        self.trials: list[tuple] = []
        self.seconds: list[float] = []

    def add(self, pairs: list, truth: np.ndarray | None, size: tuple[int, int] = SIZE, **options) -> None:
        started = time.process_time()
        try:
            found = estimate(pairs, **options)
        except CalibrationError:
            self.refused += 1
        else:
            error = math.nan if truth is None else corner_error(found.matrix, truth, size)
            error *= SIZE[0] / pairs[0][1].shape[1]
            self.trials.append((error, found.z, found.share, found.residual_px, found.model))
        self.seconds.append(time.process_time() - started)

    def line(self) -> str:
        total = len(self.trials) + self.refused
        values = np.array([trial[:4] for trial in self.trials]).reshape(-1, 4)
        errors = values[:, 0]
        known = errors[np.isfinite(errors)]
        cells = [self.name, str(total), f"{100 * len(self.trials) / max(total, 1):.0f} %"]
        cells += [f"{np.percentile(known, p):.2f}" if len(known) else "–" for p in (50, 95)]
        cells += [str(int((known > LOST).sum())), f"{np.median(self.seconds or [0]):.1f}"]
        cells += [f"{values[:, i].min():.2f}" if len(values) else "–" for i in (1, 2)]
        cells += [f"{np.median(values[:, 3]):.2f}" if len(values) else "–"]
        more = sum(trial[4] != "similarity" for trial in self.trials)
        return "| " + " | ".join([*cells, str(more)]) + " |"


HEADER = """| frames | trials | accepted | median px | p95 px | wrong | s | z | share | residual | more |
|---|---|---|---|---|---|---|---|---|---|---|"""
"""wrong: maps more than 12 px off; s: median of CPU seconds; residual: its median; more: not similarities."""


def groups(data: Path) -> dict[str, list]:
    """Return the pairs of each set: `{"m3svd": [[pair, …] of each folder], …}`."""
    found: dict[str, list] = {}
    for folder in sorted(path.parent for path in data.rglob("vis") if path.is_dir()):
        if (folder / "ir").is_dir():
            found.setdefault(folder.relative_to(data).parts[0], []).append(load(folder))
    return found


def rows(sets: dict, trials: int, rng: np.random.Generator, wanted: set[str]) -> Iterator[Row]:
    for name, folders in sets.items() if "single" in wanted else ():
        floor, row = Row(f"{name}, 1 pair, floor"), Row(f"{name}, 1 pair")
        for index in range(trials):
            folder = folders[index % len(folders)]
            ir, vis = folder[rng.integers(len(folder))]
            truth = random_map(rng)
            row.add([(moved(ir, truth, rng), vis)], truth)
            if index < trials // 3:
                floor.add([(ir, vis)], np.eye(3))
        yield from (floor, row)
    for name, folders in sets.items() if "consecutive" in wanted else ():
        if all(len(folder) == 20 for folder in folders):
            row = Row(f"{name}, 20 consecutive")
            for index in range(trials // 2):
                truth = random_map(rng)
                row.add([(moved(ir, truth, rng), vis) for ir, vis in folders[index % len(folders)]], truth)
            yield row
    for name, folders in sets.items() if "scenes" in wanted else ():
        for perspective in (0.0, 1e-4) if len(folders) >= 3 else ():
            row = Row(f"{name}, 9 frames of {len(folders)} scenes{tilted(perspective)}")
            for _ in range(trials // 2):
                truth = random_map(rng, perspective)
                pairs = [
                    folders[i % len(folders)][rng.integers(len(folders[i % len(folders)]))] for i in range(9)
                ]
                row.add([(moved(ir, truth, rng), vis) for ir, vis in pairs], truth)
            yield row
    if "scenes" in wanted:
        for perspective in (0.0, 1e-4):
            for count in (3, 5, 9):
                row = Row(f"{count} scenes of all sets{tilted(perspective)}")
                for _ in range(trials // 2):
                    truth = random_map(rng, perspective)
                    row.add([(moved(ir, truth, rng), vis) for ir, vis in mixed(sets, count, rng)], truth)
                yield row
    if "unrelated" in wanted:
        row = Row("unrelated")
        everything = [pair for folders in sets.values() for folder in folders for pair in folder[:20]]
        while row.refused + len(row.trials) < 5 * trials:
            a, b = rng.integers(len(everything), size=2)
            ir, vis = everything[a][0], everything[b][1]
            if abs(a - b) > 40:
                row.add([(moved(ir, random_map(rng), rng), vis)], None)
        yield row
    if "sim" in wanted:
        yield from simulated(trials // 3, rng)


def tilted(perspective: float) -> str:
    return f", perspective to {perspective:g}" if perspective else ""


def mixed(sets: dict, count: int, rng: np.random.Generator) -> list:
    """Return pairs of as many scenes, from each set in turn."""
    names = list(sets)
    folders = [
        sets[names[i % len(names)]][i // len(names) % len(sets[names[i % len(names)]])] for i in range(count)
    ]
    return [folder[rng.integers(len(folder))] for folder in folders]


def simulated(trials: int, rng: np.random.Generator) -> Iterator[Row]:
    for size, ir_size in (((640, 480), (640, 480)), ((1280, 1024), (640, 512)), ((1920, 1080), (640, 512))):
        row = Row(f"sim, {size[0]}×{size[1]} with infrared {ir_size[0]}×{ir_size[1]}, 1 pair")
        for _ in range(trials):
            factor = size[0] / 640
            config = RigConfig(
                size=size,
                ir_size=ir_size,
                seed=int(rng.integers(1000)),
                scale=rng.uniform(0.7, 1.4),
                rotation=rng.uniform(-6, 6),
                shift=tuple(rng.uniform(-60, 60, 2) * factor),
            )
            rig = Rig(config)
            row.add([(rig.frame("ir", 40), luma(rig.frame("vis", 40)))], rig.homography, ir_size)
        yield row


def baselines(sets: dict, trials: int, rng: np.random.Generator) -> Iterator[str]:
    """Yield lines of the table of other ways, on single pairs."""
    ways: dict[str, Callable] = {
        "none": lambda *_: np.eye(3),
        "centre, and scale by field of view": lambda *case: _by_field_of_view(case[2]),
        "ECC on grey values": _ecc,
        "ECC on gradient magnitude": lambda ir, vis, truth: _ecc(_gradient(ir), _gradient(vis), truth),
        "SIFT and RANSAC": _sift,
        "ours without direction": _undirected,
        "ours": _ours,
    }
    cases = []
    for index in range(trials):
        folders = list(sets.values())[index % len(sets)]
        folder = folders[index // len(sets) % len(folders)]
        ir, vis = folder[rng.integers(len(folder))]
        truth = random_map(rng)
        cases.append((moved(ir, truth, rng), vis, truth))
    yield "| way | trials | within 12 px | median px of these | median px of all |\n|---|---|---|---|---|"
    for name, way in ways.items():
        errors = []
        for ir, vis, truth in cases:
            matrix = way(ir, vis, truth)
            errors.append(math.inf if matrix is None else corner_error(matrix, truth))
        near = [error for error in errors if error < LOST]
        yield (
            f"| {name} | {len(errors)} | {100 * len(near) / len(errors):.0f} % | "
            f"{np.median(near) if near else math.nan:.2f} | {np.median(errors):.1f} |"
        )


def _ours(ir: np.ndarray, vis: np.ndarray, *_) -> np.ndarray | None:
    try:
        return estimate([(ir, vis)]).matrix
    except CalibrationError:
        return None


def _undirected(ir: np.ndarray, vis: np.ndarray, *_) -> np.ndarray | None:
    def magnitude(picture, sigma=1.0):
        size = np.linalg.norm(original(picture, sigma), axis=2)
        size = size - cv2.blur(size, (101, 101))
        return np.dstack([size * (picture.valid > 0), np.zeros_like(size)]).astype(np.float32)

    original = features.edge_field
    with (
        mock.patch.object(search, "edge_field", magnitude),
        mock.patch.object(refine, "edge_field", magnitude),
    ):
        return _ours(ir, vis)


def _by_field_of_view(truth: np.ndarray) -> np.ndarray:
    scale = math.sqrt(np.linalg.det(truth[:2, :2]))
    return np.linalg.inv(CENTRE) @ np.diag([scale, scale, 1.0]) @ CENTRE


def _gradient(grey: np.ndarray) -> np.ndarray:
    smooth = cv2.GaussianBlur(grey.astype(np.float32), (0, 0), 2)
    size = cv2.magnitude(cv2.Scharr(smooth, cv2.CV_32F, 1, 0), cv2.Scharr(smooth, cv2.CV_32F, 0, 1))
    return cv2.normalize(np.sqrt(size), None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)


def _ecc(ir: np.ndarray, vis: np.ndarray, truth: np.ndarray) -> np.ndarray | None:
    """Return what ECC makes of the true scale, centred: more than `edgefuse calibrate` is told."""
    start = np.linalg.inv(_by_field_of_view(truth))[:2].astype(np.float32)
    criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 100, 1e-4)
    try:
        _, warp = cv2.findTransformECC(vis, ir, start, cv2.MOTION_AFFINE, criteria, None, 5)
        return np.linalg.inv(np.vstack([warp, [0, 0, 1]]))
    except (cv2.error, np.linalg.LinAlgError):
        return None


def _sift(ir: np.ndarray, vis: np.ndarray, *_) -> np.ndarray | None:
    sift = cv2.SIFT.create(2000)
    (points, told), (others, tellings) = (sift.detectAndCompute(image, None) for image in (ir, vis))
    if told is None or tellings is None or len(told) < 4 or len(tellings) < 4:
        return None
    matches = cv2.BFMatcher(cv2.NORM_L2, crossCheck=True).match(told, tellings)
    if len(matches) < 4:
        return None
    a = np.array([points[match.queryIdx].pt for match in matches], np.float32)
    b = np.array([others[match.trainIdx].pt for match in matches], np.float32)
    matrix, _ = cv2.estimateAffinePartial2D(a, b, method=cv2.RANSAC, ransacReprojThreshold=4)
    return None if matrix is None else np.vstack([matrix, [0, 0, 1]])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument(
        "--trials", type=int, default=40, help="Of single pairs; unrelated: five times as many."
    )
    parser.add_argument("--rows", default="single,consecutive,scenes,sim,baselines,unrelated")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    cv2.setNumThreads(1)
    wanted, rng = set(options.rows.split(",")), np.random.default_rng(options.seed)
    sets = groups(options.data)
    print(HEADER, flush=True)
    for row in rows(sets, options.trials, rng, wanted):
        print(row.line(), flush=True)
    if "baselines" in wanted:
        print()
        for line in baselines(sets, options.trials, rng):
            print(line, flush=True)


if __name__ == "__main__":
    main()
