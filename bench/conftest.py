"""What every benchmark shares: frames, the machine's description, and a table of percentiles.

`make bench` runs all of them, prints p50, p95 and p99 of each case and writes bench.json.
"""

import importlib.metadata
import math
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import pytest
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from edgefuse.images import Image
from edgefuse.runtime.timing import percentiles
from edgefuse.sim import Rig, RigConfig

SECONDS = 3.0  # of measuring, per case
MOST_ROUNDS = 300


@pytest.fixture
def measure(benchmark: Any) -> Callable[[Callable[[], Any]], None]:
    """Return what times one frame's work: as often as fits into `SECONDS`, after an uncounted warm-up."""

    def measure(work: Callable[[], Any]) -> None:
        once = math.inf
        for _ in range(3):
            start = time.perf_counter()
            work()
            once = min(once, time.perf_counter() - start)
            if once > SECONDS / 3:
                break
        rounds = max(3, min(MOST_ROUNDS, int(SECONDS / max(once, 1e-6))))
        benchmark.pedantic(work, rounds=rounds, iterations=1)

    return measure


@pytest.fixture(scope="session")
def rig() -> Rig:
    return Rig(RigConfig(size=(640, 480), seed=1))


@pytest.fixture(scope="session")
def pair(rig: Rig) -> tuple[Image, Image]:
    """One frame of both cameras at 640x480: infrared `[480, 640]`, visible `[480, 640, 3]`."""
    return rig.frame("ir", 100), rig.frame("vis", 100)


# --- the report


def pytest_configure(config: pytest.Config) -> None:
    config.option.benchmark_quiet = True  # the table below has what its own lacks: percentiles


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:
    del config
    machine_info["edgefuse"] = describe_machine()


def describe_machine() -> dict[str, Any]:
    """Return what a reader needs to judge the numbers."""
    versions = {}
    for package in ("edgefuse", "numpy", "opencv-python", "onnxruntime", "onnxruntime-gpu", "openvino"):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "usable_cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "ram_gb": ram_gb(),
        "os": platform.platform(),
        "python": platform.python_version(),
        "opencv_build": cv2.__version__,
        "versions": versions,
        "load_before": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
    }


def cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith(("model name", "Model")):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def ram_gb() -> float | None:
    if not hasattr(os, "sysconf"):
        return None
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)


def rows(benchmark: Any) -> list[tuple[str, float, float, float, float | None, int]]:
    """Return (case, p50, p95, p99 in seconds, frames per second, count) of one benchmark.

    A round of `extra_info["frames"]` frames is divided by them; `extra_info["stages"]` adds rows.
    """
    extra = benchmark.extra_info
    times = [t / extra.get("frames", 1) for t in benchmark.stats.data]
    p50, p95, p99 = percentiles(times)
    case = benchmark.fullname.rpartition("::")[2].removeprefix("test_")
    stages = [
        (f"  {name}", s["p50"], s["p95"], s["p99"], None, s["count"])
        for name, s in extra.get("stages", {}).items()
    ]
    return [(case, p50, p95, p99, 1 / p50, len(times)), *stages]


def pytest_benchmark_update_json(
    config: pytest.Config, benchmarks: list[Any], output_json: dict[str, Any]
) -> None:
    del config
    for benchmark, entry in zip(benchmarks, output_json["benchmarks"], strict=True):
        entry["percentiles"] = [
            {"case": case.strip(), "p50": p50, "p95": p95, "p99": p99, "fps": fps, "count": count}
            for case, p50, p95, p99, fps, count in rows(benchmark)
        ]


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    session = getattr(config, "_benchmarksession", None)
    measured = [b for b in session.benchmarks if b] if session else []
    if not measured:
        return
    machine = describe_machine()
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    table = Table(
        title=f"{machine['cpu']}, {machine['usable_cores']} cores, {machine['ram_gb']} GB, {machine['os']}, "
        f"Python {machine['python']}, {versions}",
        title_justify="left",
    )
    table.add_column("case", no_wrap=True)
    for column in ("p50 ms", "p95 ms", "p99 ms", "FPS", "count"):
        table.add_column(column, justify="right", no_wrap=True)
    for benchmark in measured:
        for case, *times, fps, count in rows(benchmark):
            rate = "" if fps is None else f"{fps:.1f}"
            table.add_row(escape(case), *(f"{1000 * t:.2f}" for t in times), rate, str(count))
    console = Console(width=max(100, terminalreporter._tw.fullwidth), highlight=False)
    console.print(table)
