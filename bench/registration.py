"""How well `edgefuse calibrate` finds known maps: real pairs, simulated rigs, and other methods beside it.

    python -m bench.registration DATA [--rows single,…] [--trials 60] [--jobs 2] --json docs/registration.json

DATA holds folders with `ir/` and `vis/` below them (any depth) of aligned pairs. Every infrared picture is
moved by a random map (scale 0.7–1.4, rotation ±6°, shift ±60 px at 640×480), blurred and given noise. The
error is the mean distance of the four corners of the infrared picture, at 640×480, from where the random map
puts them: the sets' own misalignment is in it, and stands beside it as the floor (random map: the identity).

Each trial depends on its row and number alone. `--log FILE` notes each one when it is done: a run that is
repeated with the same file goes on where it ended.
"""

import argparse
import json
import math
import multiprocessing
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import cv2
import numpy as np

from edgefuse.align import covered
from edgefuse.calibrate import CalibrationError, estimate, features, make_rig, search
from edgefuse.calibrate.registration import residual_at
from edgefuse.errors import counted
from edgefuse.images import luma, read_visible
from edgefuse.metrics import score
from edgefuse.pairs import pair_folders
from edgefuse.rig import Rig as RigFile
from edgefuse.rig import rows as matrix_rows
from edgefuse.runtime.engines.fuser import Fuser
from edgefuse.sim import Rig, RigConfig
from edgefuse.thermal import read_infrared

Result = dict[str, Any]
Pairs = list[tuple[np.ndarray, np.ndarray]]

SIZE = (640, 480)
CENTRE = np.array([[1, 0, -(SIZE[0] - 1) / 2], [0, 1, -(SIZE[1] - 1) / 2], [0, 0, 1]])
LOST = 12.0
"""Pixels of error from which on a map is called wrong, and not inexact."""
QUALITY = ("VIF", "Qabf", "SSIM")
OFF = (0, 1, 2, 3, 4, 6)
"""Visible pixels by which a map is moved to see whether its residual says so."""


@dataclass(frozen=True)
class Row:
    """A line of a table: so many trials, each from its own random numbers."""

    group: str
    name: str
    trials: int
    trial: Callable[[np.random.Generator, int], Result]

    @property
    def key(self) -> str:
        return f"{self.group}: {self.name}"

    def run(self, index: int) -> Result:
        rng = np.random.default_rng([zlib.crc32(self.key.encode()), index])
        return {"row": self.key, "index": index} | self.trial(rng, index)


# --- pictures with a known map


def load(folder: Path) -> Pairs:
    pairs = pair_folders(folder / "ir", folder / "vis").pairs
    images = [(read_infrared(ir), luma(read_visible(vis))) for _, ir, vis in pairs]
    return [tuple(cv2.resize(image, SIZE, interpolation=cv2.INTER_AREA) for image in pair) for pair in images]


def groups(data: Path) -> dict[str, list[Pairs]]:
    """Return the pairs of each set: `{"m3svd": [[pair, …] of each folder], …}`."""
    found: dict[str, list[Pairs]] = {}
    for folder in sorted(path.parent for path in data.rglob("vis") if path.is_dir()):
        if (folder / "ir").is_dir():
            found.setdefault(folder.relative_to(data).parts[0], []).append(load(folder))
    return found


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
    noisy = picture + rng.normal(0, rng.uniform(0, 3), picture.shape)
    return np.clip(np.rint(noisy), 0, 255).astype(np.uint8)


def some(folder: Pairs, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    return folder[rng.integers(len(folder))]


def mixed(sets: dict, count: int, rng: np.random.Generator, first: int) -> Pairs:
    """Return pairs of as many scenes, from each set in turn."""
    folders = list(sets.values())
    chosen = [folders[(first + i) % len(sets)] for i in range(count)]
    return [some(each[(first + i) // len(sets) % len(each)], rng) for i, each in enumerate(chosen)]


def corner_error(matrix: np.ndarray, truth: np.ndarray, size: tuple[int, int] = SIZE) -> float:
    width, height = size[0] - 1, size[1] - 1
    corners = np.array([[[0, 0], [width, 0], [0, height], [width, height]]], np.float64)
    ends = [cv2.perspectiveTransform(corners, each) for each in (matrix, truth)]
    return float(np.linalg.norm(ends[0] - ends[1], axis=2).mean())


# --- one trial


def outcome(pairs: Pairs, truth: np.ndarray | None, **options: Any) -> Result:
    """Calibrate, and return how it went; `error` in pixels at 640 of width."""
    started = time.process_time()
    try:
        found = estimate(pairs, **options)
    except CalibrationError as refusal:
        return {"seconds": time.process_time() - started, "refused": str(refusal)[:60]}
    seconds = time.process_time() - started
    ir, vis = pairs[0]
    error = None
    if truth is not None:
        error = corner_error(found.matrix, truth, (ir.shape[1], ir.shape[0])) * SIZE[0] / vis.shape[1]
    values = {"z": found.z, "share": found.share, "residual": float(found.residual_px)}
    return {"seconds": seconds, "error": error, "model": found.model, "k": found.ir_distortion} | values


def known(pick: Callable, perspective: float, rng: np.random.Generator, index: int) -> Result:
    truth = random_map(rng, perspective)
    return outcome([(moved(ir, truth, rng), vis) for ir, vis in pick(rng, index)], truth)


def against_own(folders: list[Pairs], pick: Callable, rng: np.random.Generator, index: int) -> Result:
    """As `known` with perspective, but against the homography by which the set itself is off."""
    if not OWN:
        OWN.append(estimate([pair for folder in folders for pair in folder[::7]], "homography").matrix)
    truth = random_map(rng, 1e-4)
    return outcome([(moved(ir, truth, rng), vis) for ir, vis in pick(rng, index)], OWN[0] @ truth)


OWN: list[np.ndarray] = []


def against_unmoved(pick: Callable, rng: np.random.Generator, index: int) -> Result:
    """As `known`, but against the map that the same pair gives unmoved: by how much moving alone matters."""
    pairs, truth = pick(rng, index), random_map(rng)
    try:
        own = estimate(pairs).matrix
    except CalibrationError as refusal:
        return {"seconds": 0.0, "refused": str(refusal)[:60]}
    return outcome([(moved(ir, truth, rng), vis) for ir, vis in pairs], own @ truth)


def floor(pick: Callable, model: Any, rng: np.random.Generator, index: int) -> Result:
    return outcome(pick(rng, index), np.eye(3), model=model)


def unrelated(everything: Pairs, rng: np.random.Generator, _: int) -> Result:
    while True:
        a, b = rng.integers(len(everything), size=2)
        if abs(a - b) > 40:
            return outcome([(moved(everything[a][0], random_map(rng), rng), everything[b][1])], None)


def simulated(options: dict, views: int, rng: np.random.Generator, _: int) -> Result:
    """Calibrate a simulated rig; several views are the same street turned over, with a map that stays."""
    rig, pairs = simulated_pairs(options, views, rng)
    model = "homography" if "perspective" in options else None
    return outcome(pairs, np.array(rig.calibration(options.get("distance")).matrix), model=model)


def simulated_pairs(options: dict, views: int, rng: np.random.Generator) -> tuple[Rig, Pairs]:
    size = options.get("size", SIZE)
    free = {"rotation": rng.uniform(-6, 6), "shift": tuple(rng.uniform(-60, 60, 2) * size[0] / 640)}
    if most := options.get("perspective"):
        tilt = np.eye(3)
        tilt[2, :2] = rng.uniform(-most, most, 2)
        free["misalignment"] = np.linalg.inv(CENTRE) @ tilt @ CENTRE
    values = {"seed": int(rng.integers(1000)), "scale": rng.uniform(0.7, 1.4)} | (free if views == 1 else {})
    rig = Rig(RigConfig(**values | {key: value for key, value in options.items() if key not in EXTRA}))
    # An offset of the clocks shows as pictures of different moments: 40 ms are one frame.
    late = round(rig.config.ir_clock_offset * rig.config.ir_fps)
    pairs = []
    for code in (None, 1, 0, -1)[:views]:
        pair = rig.frame("ir", 40 + late), luma(rig.frame("vis", 40))
        pairs.append(pair if code is None else tuple(cv2.flip(image, code) for image in pair))
    return rig, pairs


def fused_quality(make: Callable, rng: np.random.Generator, index: int) -> Result:
    """Fuse by the true map, by the estimated one and without any; score all against the truly mapped pair."""
    pairs, truth = make(rng, index)
    ir, vis = pairs[0]
    result = outcome(pairs, np.array(truth.matrix))
    if "refused" in result:
        return result
    found = make_rig(estimate(pairs), pairs[0], "", "")
    true = truth.align()(ir, vis.shape[:2])
    area = covered(true.valid)
    resized = cv2.resize(ir, vis.shape[::-1], interpolation=cv2.INTER_AREA)
    aligned = {"true": true.image, "found": found.align()(ir, vis.shape[:2]).image, "none": resized}
    with Fuser("nano", threads=1) as fuse:
        for name, image in aligned.items():
            scores = score(fuse(image, vis)[area], true.image[area], vis[area], "field", QUALITY)
            result |= {f"{metric} {name}": float(value) for metric, value in scores.items()}
    return result


def told_residual(make: Callable, rng: np.random.Generator, index: int) -> Result:
    """Return the residual of the map found, and of the same one moved by known pixels."""
    pairs, truth = make(rng, index)
    result = outcome(pairs, np.array(truth.matrix))
    if "refused" in result:
        return result
    matrix, turn = estimate(pairs).matrix, rng.uniform(0, 2 * math.pi)
    for pixels in OFF:
        off = np.eye(3)
        off[:2, 2] = pixels * math.cos(turn), pixels * math.sin(turn)
        result[f"residual {pixels}"] = residual_at(pairs, off @ matrix)
    return result


def real_truth(pick: Callable, rng: np.random.Generator, index: int) -> tuple[Pairs, RigFile]:
    truth = random_map(rng)
    pairs = [(moved(ir, truth, rng), vis) for ir, vis in pick(rng, index)]
    return pairs, RigFile(matrix_rows(truth), SIZE, SIZE)


def simulated_truth(rng: np.random.Generator, _: int) -> tuple[Pairs, RigFile]:
    rig, pairs = simulated_pairs({}, 1, rng)
    return pairs, rig.calibration()


# --- other methods


def other(way: Callable, sets: dict, rng: np.random.Generator, index: int) -> Result:
    rng = np.random.default_rng(index)  # the same pictures for all ways
    folders = list(sets.values())[index % len(sets)]
    ir, vis = some(folders[index // len(sets) % len(folders)], rng)
    truth = random_map(rng)
    started = time.process_time()
    matrix = way(moved(ir, truth, rng), vis, truth)
    seconds = time.process_time() - started
    return {"seconds": seconds, "refused": "none"} if matrix is None else {
        "seconds": seconds, "error": min(corner_error(matrix, truth), 9999.0)
    }  # fmt: skip


def ours(ir: np.ndarray, vis: np.ndarray, *_: Any) -> np.ndarray | None:
    try:
        return estimate([(ir, vis)]).matrix
    except CalibrationError:
        return None


def undirected(ir: np.ndarray, vis: np.ndarray, *_: Any) -> np.ndarray | None:
    def magnitude(picture: Any, sigma: float = 1.0) -> np.ndarray:
        size = np.linalg.norm(original(picture, sigma), axis=2)
        size = size - cv2.blur(size, (101, 101))
        return np.dstack([size * (picture.valid > 0), np.zeros_like(size)]).astype(np.float32)

    original = features.edge_field
    with (
        mock.patch.object(search, "edge_field", magnitude),
    ):
        return ours(ir, vis)


def by_field_of_view(truth: np.ndarray) -> np.ndarray:
    scale = math.sqrt(np.linalg.det(truth[:2, :2]))
    return np.linalg.inv(CENTRE) @ np.diag([scale, scale, 1.0]) @ CENTRE


def gradient(grey: np.ndarray) -> np.ndarray:
    smooth = cv2.GaussianBlur(grey.astype(np.float32), (0, 0), 2)
    size = cv2.magnitude(cv2.Scharr(smooth, cv2.CV_32F, 1, 0), cv2.Scharr(smooth, cv2.CV_32F, 0, 1))
    return cv2.normalize(np.sqrt(size), None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)


def ecc(ir: np.ndarray, vis: np.ndarray, truth: np.ndarray) -> np.ndarray | None:
    """Return what ECC makes of the true scale, centred: more than `edgefuse calibrate` is told."""
    start = np.linalg.inv(by_field_of_view(truth))[:2].astype(np.float32)
    criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 100, 1e-4)
    try:
        _, warp = cv2.findTransformECC(vis, ir, start, cv2.MOTION_AFFINE, criteria, None, 5)
        return np.linalg.inv(np.vstack([warp, [0, 0, 1]]))
    except (cv2.error, np.linalg.LinAlgError):
        return None


def sift(ir: np.ndarray, vis: np.ndarray, *_: Any) -> np.ndarray | None:
    detector = cv2.SIFT.create(2000)
    (points, told), (others, tellings) = (detector.detectAndCompute(image, None) for image in (ir, vis))
    if told is None or tellings is None or len(told) < 4 or len(tellings) < 4:
        return None
    matches = cv2.BFMatcher(cv2.NORM_L2, crossCheck=True).match(told, tellings)
    if len(matches) < 4:
        return None
    a = np.array([points[match.queryIdx].pt for match in matches], np.float32)
    b = np.array([others[match.trainIdx].pt for match in matches], np.float32)
    matrix, _ = cv2.estimateAffinePartial2D(a, b, method=cv2.RANSAC, ransacReprojThreshold=4)
    return None if matrix is None else np.vstack([matrix, [0, 0, 1]])


WAYS: dict[str, Callable] = {
    "none": lambda *_: np.eye(3),
    "centred, scaled by field of view": lambda *case: by_field_of_view(case[2]),
    "ECC on grey values": ecc,
    "ECC on gradient magnitude": lambda ir, vis, truth: ecc(gradient(ir), gradient(vis), truth),
    "SIFT and RANSAC": sift,
    "ours without the edges' direction": undirected,
    "ours": ours,
}


# --- the tables


def plan(sets: dict[str, list[Pairs]], trials: int) -> Iterator[Row]:
    """Yield all rows; `trials` is the number for single pairs."""

    def one(folders: list[Pairs], rng: np.random.Generator, index: int) -> Pairs:
        return [some(folders[index % len(folders)], rng)]

    def run_of(folders: list[Pairs], _: Any, index: int) -> Pairs:
        return folders[index % len(folders)]

    def nine(folders: list[Pairs], rng: np.random.Generator, _: int) -> Pairs:
        return [some(folders[i % len(folders)], rng) for i in range(9)]

    def of_all(count: int, rng: np.random.Generator, index: int) -> Pairs:
        return mixed(sets, count, rng, index)

    few = max(trials // 6, 1)
    for name, folders in sets.items():
        pick: Callable = partial(one, folders)
        yield Row("single", f"{name}, 1 pair, floor", trials // 3, partial(floor, pick, None))
        yield Row("single", f"{name}, 1 pair", trials, partial(known, pick, 0.0))
        row = f"{name}, 1 pair, against the map of the unmoved pair"
        yield Row("own", row, trials // 3, partial(against_unmoved, pick))
        if all(len(folder) == 20 for folder in folders):
            row = f"{name}, 20 consecutive frames"
            yield Row("consecutive", row, trials // 2, partial(known, partial(run_of, folders), 0.0))
        if len(folders) >= 3:
            row, pick = f"{name}, 9 frames of {len(folders)} scenes", partial(nine, folders)
            for model in ("similarity", "homography"):
                yield Row("scenes", f"{row}, floor, {model}", few, partial(floor, pick, model))
            for perspective, tilt in ((0.0, ""), (1e-4, ", perspective")):
                yield Row("scenes", row + tilt, trials // 2, partial(known, pick, perspective))
            row += ", perspective, against the set's own homography"
            yield Row("scenes", row, trials // 3, partial(against_own, folders, pick))
    for perspective, tilt in ((0.0, ""), (1e-4, ", perspective")):
        for count in (3, 5, 9) if perspective else (1, 3, 5, 9):
            row, pick = f"{counted(count, 'scene')} of all sets{tilt}", partial(of_all, count)
            group, number = ("tilted", trials // 3) if perspective else ("all", trials * 3 // 5)
            yield Row(group, row, number, partial(known, pick, perspective))
    for name, folders in sets.items():
        make = partial(real_truth, partial(one, folders))
        yield Row("residual", f"{name}, 1 pair", few, partial(told_residual, make))
    yield Row("residual", "sim, 1 pair", few, partial(told_residual, simulated_truth))
    everything = [pair for folders in sets.values() for folder in folders for pair in folder[:20]]
    yield Row("unrelated", "unrelated pairs", 200, partial(unrelated, everything))
    for name, options, views in SIMULATED:
        number = trials // 4 if views == 1 else few
        yield Row("sim", f"sim, {name}", number, partial(simulated, options, views))
    if "m3svd" in sets:
        make = partial(real_truth, partial(nine, sets["m3svd"]))
        yield Row("quality", "m3svd, 9 frames of 3 scenes", few, partial(fused_quality, make))
        make = partial(real_truth, partial(one, sets["m3svd"]))
        yield Row("quality", "m3svd, 1 pair", few, partial(fused_quality, make))
    yield Row("quality", "sim, 1 pair", few, partial(fused_quality, simulated_truth))
    for name, way in WAYS.items():
        yield Row("baselines", name, trials // 2, partial(other, way, sets))


EXTRA = ("distance", "perspective")
"""Keys of SIMULATED that are no options of the simulated rig."""
SIMULATED: list[tuple[str, dict[str, Any], int]] = [
    ("640×480 both", {}, 1),
    ("1280×1024, infrared 640×512", {"size": (1280, 1024), "ir_size": (640, 512)}, 1),
    ("1920×1080, infrared 640×512", {"size": (1920, 1080), "ir_size": (640, 512)}, 1),
    ("infrared sees half", {"scale": 0.5}, 1),
    ("infrared sees twice as much", {"scale": 2.0}, 1),
    ("perspective, asked for a homography", {"perspective": 1e-4}, 1),
    ("baseline 5 cm, against far away", {"baseline": (0.05, 0.0)}, 1),
    ("baseline 5 cm, against 15 m", {"baseline": (0.05, 0.0), "distance": 15.0}, 1),
    ("clocks 200 ms apart", {"ir_clock_offset": 0.2}, 1),
    ("4 views, k = 0", {}, 4),
    ("4 views, infrared lens k = 0.05", {"ir_distortion": 0.05}, 4),
    ("4 views, infrared lens k = 0.12", {"ir_distortion": 0.12}, 4),
    ("4 views, infrared lens k = -0.08", {"ir_distortion": -0.08}, 4),
]


def summary(row: Row, results: list[Result]) -> Result:
    """Return a line of the table from its trials."""
    accepted = [result for result in results if "refused" not in result]
    errors = [result["error"] for result in accepted if result.get("error") is not None]
    near = [error for error in errors if error < LOST]
    line: Result = {"group": row.group, "name": row.name, "trials": len(results), "accepted": len(accepted)}
    line |= {"wrong": len(errors) - len(near), "seconds": float(np.median([r["seconds"] for r in results]))}
    line["cpu_seconds"] = float(sum(result["seconds"] for result in results))
    if errors:
        line |= {f"p{part}": float(np.percentile(errors, part)) for part in (68, 95)}
        line["median"] = float(np.median(errors))
    if near:
        line["median_near"] = float(np.median(near))
    if accepted and "z" in accepted[0]:
        line |= {f"least_{key}": min(result[key] for result in accepted) for key in ("z", "share")}
        line["residual"] = float(np.median([result["residual"] for result in accepted]))
        line["more"] = sum(result["model"] != "similarity" for result in accepted)
        line["k"] = float(np.median([result["k"] for result in accepted]))
    means = [f"{metric} {name}" for metric in QUALITY for name in ("true", "found", "none")]
    for key in (*means, *(f"residual {pixels}" for pixels in OFF)):
        if accepted and key in accepted[0]:
            line[key] = float(np.mean([result[key] for result in accepted]))
    return line


PLAN: dict[str, Row] = {}
"""Set before the processes are forked."""


def run_one(task: tuple[str, int]) -> Result:
    cv2.setNumThreads(1)
    return PLAN[task[0]].run(task[1])


def measure(chosen: list[Row], jobs: int, log: Path | None) -> dict[str, list[Result]]:
    """Run all trials that the log has not, and return the results of all by the names of the rows."""
    PLAN.update({row.key: row for row in chosen})
    results: dict[str, list[Result]] = {row.key: [] for row in chosen}
    done = set()
    for line in log.read_text("utf-8").splitlines() if log is not None and log.exists() else ():
        result = json.loads(line)
        if result["row"] in results and result["index"] < PLAN[result["row"]].trials:
            done.add((result["row"], result["index"]))
            results[result["row"]].append(result)
    tasks = [(row.key, i) for row in chosen for i in range(row.trials) if (row.key, i) not in done]
    with multiprocessing.get_context("fork").Pool(jobs) as pool:
        for result in pool.imap(run_one, tasks):
            row = results[result["row"]]
            row.append(result)
            if log is not None:
                with log.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(result) + "\n")
            if len(row) == PLAN[result["row"]].trials:
                print(as_text(summary(PLAN[result["row"]], row)), flush=True)
    return results


def as_text(line: Result) -> str:
    cells = [f"{line['name']}: {line['accepted']} of {line['trials']} accepted, {line['wrong']} wrong"]
    cells += [f"{key} {value:.3f}" for key, value in line.items() if isinstance(value, float)]
    return ", ".join(cells)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--trials", type=int, default=60, help="Of single pairs; other rows follow from it.")
    parser.add_argument(
        "--rows", default="single,own,consecutive,scenes,all,tilted,residual,sim,quality,baselines,unrelated"
    )
    parser.add_argument("--jobs", type=int, default=2, help="Processes, of one thread each.")
    parser.add_argument("--log", type=Path, help="Notes of each trial, to go on from.")
    parser.add_argument("--json", type=Path, help="Where to write the lines of the tables.")
    options = parser.parse_args()
    wanted = options.rows.split(",")
    chosen = [row for row in plan(groups(options.data), options.trials) if row.group in wanted]
    results = measure(chosen, options.jobs, options.log)
    lines = [summary(row, results[row.key]) for row in chosen if results[row.key]]
    if options.json is not None:
        before = json.loads(options.json.read_text("utf-8")) if options.json.exists() else {"rows": []}
        kept = [line for line in before["rows"] if line["group"] not in wanted]
        command = f"python -m bench.registration DATA --trials {options.trials}"
        written = {"date": time.strftime("%Y-%m-%d"), "command": command, "rows": kept + lines}
        options.json.write_text(json.dumps(written, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
