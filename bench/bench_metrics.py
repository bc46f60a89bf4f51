"""The five metrics of a 640×480 triple on one core, beside a plain version of them with scipy.

`python -m bench.bench_metrics` takes both in turns in one process, so that whatever else the machine does
falls on both, and prints processor time and memory. With pytest each case is timed by itself.
"""

import ctypes
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any, TypeAlias

import cv2
import numpy as np
import pytest

from bench.plain_metrics import five_metrics
from edgefuse.images import Image
from edgefuse.metrics import CORE_METRICS, METRICS, FusionScorer, grey, score
from edgefuse.sim import Rig, RigConfig

Measure: TypeAlias = Callable[[Callable[[], Any]], None]
Triple: TypeAlias = tuple[Image, Image, Image]


@pytest.fixture(scope="session")
def triple(pair: tuple[Image, Image]) -> Triple:
    """Fused (the brighter pixel), infrared and visible, grey."""
    return _triple(*pair)


@pytest.fixture(autouse=True)
def one_core() -> Iterator[None]:
    before = cv2.getNumThreads()
    _hold_to_one_core()
    yield
    cv2.setNumThreads(before)


@pytest.mark.parametrize("name", METRICS)
def test_metric(measure: Measure, triple: Triple, name: str) -> None:
    measure(lambda: score(*triple, metrics=[name]))


def test_metrics_five(measure: Measure, triple: Triple) -> None:
    measure(lambda: score(*triple, metrics=CORE_METRICS))


def test_metrics_all(measure: Measure, triple: Triple) -> None:
    measure(lambda: score(*triple))


def test_metrics_five_of_one_more_candidate(measure: Measure, triple: Triple) -> None:
    """What a further fused image of the same pair costs."""
    fused, ir, vis = triple
    scorer = FusionScorer(ir, vis)
    measure(lambda: scorer.score(fused, CORE_METRICS))


def test_metrics_five_plain_scipy(measure: Measure, triple: Triple) -> None:
    """The yardstick; both must agree."""
    assert five_metrics(*triple) == pytest.approx(score(*triple, metrics=CORE_METRICS), abs=1e-4)
    measure(lambda: five_metrics(*triple))


def _triple(ir: Image, vis: Image) -> Triple:
    return np.maximum(ir, grey(vis)), ir, grey(vis)


def _hold_to_one_core() -> None:
    """Tell OpenCV and each OpenBLAS that is loaded (numpy's and scipy's own); another BLAS is an error."""
    cv2.setNumThreads(1)
    loaded = set(re.findall(r"(/\S*openblas\S*)", Path("/proc/self/maps").read_text()))
    functions = [_set_threads(ctypes.CDLL(path)) for path in loaded]
    if not functions:
        raise RuntimeError("numpy is not linked to OpenBLAS: hold its BLAS to one thread by its own means")
    for function in functions:
        function(1)


def _set_threads(library: ctypes.CDLL) -> Callable[[int], Any]:
    for prefix in ("scipy_", ""):
        for suffix in ("64_", ""):
            function = getattr(library, f"{prefix}openblas_set_num_threads{suffix}", None)
            if function is not None:
                return function
    raise RuntimeError(f"{library} lacks openblas_set_num_threads")


def _milliseconds(work: Callable[[], Any]) -> float:
    """Processor time of all threads, so that a core too many would show."""
    start = time.process_time()
    work()
    return 1000 * (time.process_time() - start)


def _peak_kilobytes(forget: bool = False) -> int:
    """The most memory that this process has had, since the last time that it was forgotten."""
    if forget:
        Path("/proc/self/clear_refs").write_text("5")
    peak = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(peak[1]) if peak else 0


def main() -> None:
    _hold_to_one_core()
    rig = Rig(RigConfig(size=(640, 480), seed=1))
    fused, ir, vis = triple = _triple(rig.frame("ir", 100), rig.frame("vis", 100))
    before = _peak_kilobytes(forget=True)
    for _ in range(20):
        score(*triple, metrics=CORE_METRICS)
    grown = _peak_kilobytes() - before
    scorer = FusionScorer(ir, vis)
    cases: dict[str, tuple[Callable[[], Any], int]] = {
        "five metrics": (lambda: score(*triple, metrics=CORE_METRICS), 15),
        "five metrics, one more candidate": (lambda: scorer.score(fused, CORE_METRICS), 15),
        "all metrics": (lambda: score(*triple), 5),
        "five metrics, plain scipy": (lambda: five_metrics(*triple), 1),
    }
    times: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(8):
        for name, (work, often) in cases.items():
            times[name] += [_milliseconds(work) for _ in range(often)]
    print("processor time, ms, 640x480, one core      least   median")
    for name, taken in times.items():
        print(f"{name:38s} {min(taken):9.1f} {median(taken):8.1f}")
    print(f"memory that scoring adds at its peak: {grown / 1024:.1f} MB")


if __name__ == "__main__":
    main()
