"""The five metrics of a 640×480 triple on one core, beside a plain version of them with scipy.

BLAS keeps its own threads: run with `OPENBLAS_NUM_THREADS=1` to hold it to one core as well.
"""

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import cv2
import numpy as np
import pytest

from edgefuse.images import Image
from edgefuse.metrics import FIVE, METRICS, FusionScorer, grey, score

Measure: TypeAlias = Callable[[Callable[[], Any]], None]
Triple: TypeAlias = tuple[Image, Image, Image]


@pytest.fixture(scope="session")
def triple(pair: tuple[Image, Image]) -> Triple:
    """Fused (the brighter pixel), infrared and visible, grey."""
    ir, vis = pair[0], grey(pair[1])
    return np.maximum(ir, vis), ir, vis


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Hold OpenCV to one core."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    yield
    cv2.setNumThreads(before)


@pytest.mark.parametrize("name", METRICS)
def test_metric(measure: Measure, triple: Triple, name: str) -> None:
    measure(lambda: score(*triple, metrics=[name]))


def test_metrics_five(measure: Measure, triple: Triple) -> None:
    measure(lambda: score(*triple, metrics=FIVE))


def test_metrics_all(measure: Measure, triple: Triple) -> None:
    measure(lambda: score(*triple))


def test_metrics_five_of_one_more_candidate(measure: Measure, triple: Triple) -> None:
    """What a further fused image of the same pair costs."""
    fused, ir, vis = triple
    scorer = FusionScorer(ir, vis)
    measure(lambda: scorer.score(fused, FIVE))


def test_metrics_five_plain_scipy(measure: Measure, triple: Triple) -> None:
    """The yardstick, in the same run; both must agree."""
    pytest.importorskip("scipy")
    from bench.plain_metrics import five_metrics

    assert five_metrics(*triple) == pytest.approx(score(*triple, metrics=FIVE), abs=1e-4)
    measure(lambda: five_metrics(*triple))
