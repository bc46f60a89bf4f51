"""What every benchmark shares: frames, the machine's description, and a table of percentiles.

`make bench` runs all of them, prints p50, p95 and p99 of each case and writes bench.json.
"""

import math
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import pytest
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from edgefuse.images import Image
from edgefuse.machine import describe_machine
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
    machine_info["edgefuse"] = asdict(describe_machine())


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
    table = Table(title=describe_machine().sentence(), title_justify="left")
    table.add_column("case", no_wrap=True)
    for column in ("p50 ms", "p95 ms", "p99 ms", "FPS", "count"):
        table.add_column(column, justify="right", no_wrap=True)
    for benchmark in measured:
        for case, *times, fps, count in rows(benchmark):
            rate = "" if fps is None else f"{fps:.1f}"
            table.add_row(escape(case), *(f"{1000 * t:.2f}" for t in times), rate, str(count))
    console = Console(width=max(100, terminalreporter._tw.fullwidth), highlight=False)
    console.print(table)
