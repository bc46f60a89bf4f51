"""Whether the stages of `stream` overlap: its rate on files against what the machine could do at best.

    make bench                                # among the others, or alone:
    python bench/bench_pipeline.py

On recordings of 640x480, without encoding. The bound is the smaller of two rates: that of the slowest stage
alone, with the threads that it gets in the pipeline, and cores ÷ processor time per frame, the rate at which
no core ever rests. The latency, from capture to an output, is taken with the recordings played at their rate.

Other programs take a share of the cores that nobody can tell from a stage that waits: it says what the
load was, and whether the goals are met, but does not fail if they are not.
"""

import os
import resource
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2

from edgefuse import Fuser
from edgefuse.runtime import live
from edgefuse.runtime.cameras.camera import ThermalPreprocess, connect
from edgefuse.runtime.frames import Role
from edgefuse.runtime.sinks import Callback
from edgefuse.runtime.sources import open_source
from edgefuse.sim import Rig, RigConfig

FRAMES, ROUNDS = 200, 5
GOAL = 0.9  # of the bound
MOST_SPREAD = 2.0  # p99 of the latency, in multiples of p50


@dataclass(frozen=True)
class Rates:
    """Frames per second."""

    stages: dict[str, float]
    """Of each stage alone."""
    pipeline: float
    cpu: float
    """Cores ÷ processor seconds per frame of the pipeline."""
    cores: int
    used: float
    """Cores in use while the pipeline ran, on average."""
    faults: float
    """Pages per frame that the system had to provide: memory that was not reused."""

    @property
    def bound(self) -> float:
        """The best that the pipeline could do."""
        return min(*self.stages.values(), self.cpu)

    @property
    def share(self) -> float:
        """Of the bound, that the pipeline reaches."""
        return self.pipeline / self.bound


def make_recordings(folder: Path) -> None:
    """Write the simulated rig as `ir.avi` and `vis.avi`, MJPEG."""
    rig = Rig(RigConfig(size=(640, 480)))
    for camera in ("ir", "vis"):
        writer = cv2.VideoWriter(
            str(folder / f"{camera}.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 25, (640, 480)
        )
        assert writer.isOpened()
        for n in range(FRAMES):
            image = rig.frame(camera, n)
            writer.write(image if image.ndim == 3 else image[:, :, None].repeat(3, axis=2))
        writer.release()


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def rate_of_capture(folder: Path, role: Role) -> float:
    """Return how many frames per second are decoded and made into 8 bits."""
    front_end, count, start = ThermalPreprocess(), 0, time.perf_counter()
    with open_source(f"{folder}/{role}.avi", role) as source:
        while (frame := source.read()) is not None:
            if role == "ir":
                front_end(frame.image, frame.timestamp)
            count += 1
    return count / (time.perf_counter() - start)


def rate_of_fusion(folder: Path, fuser: Fuser) -> float:
    """Return how many frames per second are fused, from memory."""
    pairs: list[tuple[Any, Any]] = []
    with open_source(f"{folder}/ir.avi", "ir") as ir, open_source(f"{folder}/vis.avi", "vis") as vis:
        while len(pairs) < 20 and (a := ir.read()) is not None and (b := vis.read()) is not None:
            pairs.append((a.image, b.image))
    start = time.perf_counter()
    for n in range(FRAMES):
        fuser(*pairs[n % len(pairs)])
    return FRAMES / (time.perf_counter() - start)


def run_pipeline(folder: Path, fuser: Fuser, realtime: bool = False) -> live.Report:
    with (
        connect(f"{folder}/ir.avi", "ir", realtime) as ir,
        connect(f"{folder}/vis.avi", "vis", realtime) as vis,
    ):
        report = live.run(ir, vis, fuser, [Callback(lambda _: None)])
    assert report.error is None, report.error
    assert realtime or report.frames == report.sinks[0].written == FRAMES, "recordings lose nothing"
    return report


def measure(folder: Path, fuser: Fuser) -> Rates:
    """Measure everything in turn, several times over, and keep the median of each."""
    run_pipeline(folder, fuser)  # warm-up
    stages: dict[str, list[float]] = {"capture_ir": [], "capture_vis": [], "fuse": []}
    reports, faults = [], []
    for _ in range(ROUNDS):
        stages["capture_ir"].append(rate_of_capture(folder, "ir"))
        stages["capture_vis"].append(rate_of_capture(folder, "vis"))
        stages["fuse"].append(rate_of_fusion(folder, fuser))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        reports.append(run_pipeline(folder, fuser))
        faults.append((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / FRAMES)
    report = sorted(reports, key=lambda report: report.fps)[ROUNDS // 2]
    return Rates(
        {name: sorted(rates)[ROUNDS // 2] for name, rates in stages.items()},
        report.fps,
        cores() * report.frames / report.cpu_seconds,
        cores(),
        report.cpu_seconds / report.seconds,
        sorted(faults)[ROUNDS // 2],
    )


def describe(rates: Rates, latency: live.Report) -> list[str]:
    """Return the lines to print."""
    slowest = min(rates.stages, key=lambda name: rates.stages[name])
    alone = ", ".join(f"{name} {rate:.1f}" for name, rate in rates.stages.items())
    output = latency.stages["output"]
    spread = output.p99 / output.p50
    return [
        f"each stage alone, frames per second: {alone}; the slowest is {slowest}",
        f"{rates.cores} cores ÷ processor time per frame: {rates.cpu:.1f} frames per second",
        f"pipeline: {rates.pipeline:.1f} frames per second = {rates.share:.0%} of the bound "
        f"{rates.bound:.1f}: the goal of {GOAL:.0%} is {'met' if rates.share >= GOAL else 'missed'}",
        f"{rates.used:.2f} of {rates.cores} cores in use; {rates.faults:.0f} page faults a frame",
        f"capture to output at 25 frames per second, ms: p50 {1000 * output.p50:.1f}, "
        f"p99 {1000 * output.p99:.1f} = {spread:.2f} x p50: "
        f"the goal of {MOST_SPREAD:g} is {'met' if spread <= MOST_SPREAD else 'missed'}; "
        f"load {os.getloadavg()[0]:.1f}",
    ]


def test_pipeline(benchmark: Any, tmp_path: Path, capsys: Any) -> None:
    """`edgefuse stream` on two recordings, without encoding, against its bound."""
    make_recordings(tmp_path)
    fuser = Fuser()
    benchmark.extra_info["frames"] = FRAMES
    benchmark.pedantic(run_pipeline, (tmp_path, fuser), rounds=ROUNDS, warmup_rounds=1)
    rates, latency = measure(tmp_path, fuser), run_pipeline(tmp_path, fuser, realtime=True)
    output = latency.stages["output"]
    benchmark.extra_info["pipeline"] = {
        **asdict(rates),
        "bound": rates.bound,
        "share": rates.share,
        "latency": {"p50": output.p50, "p99": output.p99},
        "load": os.getloadavg()[0],
    }
    with capsys.disabled():
        print("", *describe(rates, latency), sep="\n")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        make_recordings(Path(folder))
        fuser = Fuser()
        rates = measure(Path(folder), fuser)
        print(*describe(rates, run_pipeline(Path(folder), fuser, realtime=True)), sep="\n")


if __name__ == "__main__":
    main()
