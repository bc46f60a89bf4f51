"""How near `fuse` and `evaluate` on folders come to cores ÷ processor time per pair, here and on Ray.

    python -m bench.scale [--pairs 1000] [--ray] [--json docs/scale.json]

The processor time of a pair is that of one process with one thread. The steady rate leaves out what comes
before the first tenth of the results: starting processes, which an archive does not notice. Needs an idle
machine.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import msgspec

from edgefuse.batch import FuseConfig, fuse_files, plan
from edgefuse.evaluate import baseline, evaluate, model
from edgefuse.images import write_image
from edgefuse.machine import describe_machine, usable_cores
from edgefuse.sim import Rig, RigConfig
from edgefuse.workers import in_ray

DIFFERENT = 40
"""Pictures that are rendered; the pairs are these, again and again."""
ALONE = 60
"""Pairs that the processor time is measured on."""
RAMP = 0.1


def make_archive(folder: Path, pairs: int) -> dict[str, float]:
    """Write an archive of 640x480 PNG; return the mean bytes of its files."""
    rig, sizes = Rig(RigConfig(size=(640, 480))), {"ir": 0, "vis": 0}
    for role in ("ir", "vis"):
        (folder / role).mkdir()
        for number in range(pairs):
            path = folder / role / f"{number:06d}.png"
            if number < DIFFERENT:
                write_image(path, rig.frame("ir" if role == "ir" else "vis", 25 * number))
            else:
                os.link(folder / role / f"{number % DIFFERENT:06d}.png", path)
            sizes[role] += path.stat().st_size
    return {role: size / pairs for role, size in sizes.items()}


def rates(results: Iterable[Any], total: int) -> dict[str, float]:
    """Return pairs per second: of all, and after the first tenth."""
    start, ramp_end, ramp_count, count = time.perf_counter(), 0.0, 0, 0
    for count, _ in enumerate(results, 1):
        if not ramp_end and count >= RAMP * total:
            ramp_end, ramp_count = time.perf_counter(), count
    end = time.perf_counter()
    return {"rate": count / (end - start), "steady": (count - ramp_count) / (end - ramp_end)}


def measure(pairs: int, with_ray: bool) -> dict[str, Any]:
    cores = usable_cores()
    candidates = [model("nano"), baseline("maximum")]
    found: dict[str, Any] = {"measured": datetime.now(timezone.utc).isoformat(timespec="seconds")}
    found |= {"machine": msgspec.to_builtins(describe_machine()), "pairs": pairs, "cores": cores}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        found["bytes"] = make_archive(folder, pairs)
        jobs = plan(folder / "ir", folder / "vis", folder / "out")
        single = FuseConfig(threads=1)

        def scored(limit: int, jobs: int | None, distribute: Any = None) -> Iterable[int]:
            done: list[tuple[float, int]] = []
            evaluate(
                folder / "ir", folder / "vis", candidates, limit=limit, jobs=jobs, distribute=distribute,
                progress=lambda count, _: done.append((time.perf_counter(), count)),
            )  # fmt: skip
            found["evaluate_times"] = done
            return range(limit)

        few = plan(folder / "ir", folder / "vis", folder / "out")
        few.files[ALONE:] = []
        found["fuse_cpu_s"] = _cpu(lambda: list(fuse_files(few, single)), ALONE)
        found["evaluate_cpu_s"] = _cpu(lambda: scored(ALONE, 1), ALONE)
        found["bytes"]["fused"] = sum(f[2].stat().st_size for f in few.files) / ALONE
        ways = {"processes": None} | ({"ray": in_ray()} if with_ray else {})
        for way, distribute in ways.items():
            found[f"fuse_{way}"] = rates(fuse_files(jobs, single, cores, distribute), pairs)
            start = time.perf_counter()
            scored(pairs // 2, cores, distribute)
            done = found.pop("evaluate_times")
            at, count = next(each for each in done if each[1] >= RAMP * pairs / 2)
            end = done[-1][0]
            found[f"evaluate_{way}"] = {
                "rate": done[-1][1] / (end - start),
                "steady": (done[-1][1] - count) / (end - at),
            }
    return found


def _cpu(work: Callable[[], object], count: int) -> float:
    """Return the processor seconds of one pair, after a run that does not count."""
    work()
    before = time.process_time()
    work()
    return (time.process_time() - before) / count


def describe(found: dict[str, Any]) -> list[str]:
    lines = []
    for what in ("fuse", "evaluate"):
        each = found[f"{what}_cpu_s"]
        bound = found["cores"] / each
        lines.append(f"{what}: {1000 * each:.1f} ms of a core a pair, at best {bound:.1f} a second")
        for way in ("processes", "ray"):
            if (rate := found.get(f"{what}_{way}")) is not None:
                share = rate["steady"] / bound
                lines.append(
                    f"  {way}: {rate['rate']:.1f} a second, steady {rate['steady']:.1f} = {share:.0%}"
                )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--pairs", type=int, default=1000)
    parser.add_argument("--ray", action="store_true")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    found = measure(args.pairs, args.ray)
    print(*describe(found), sep="\n")
    if args.json:
        args.json.write_bytes(msgspec.json.format(msgspec.json.encode(found), indent=1) + b"\n")


if __name__ == "__main__":
    main()
