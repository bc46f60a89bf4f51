"""The sampler that scores some of the fused frames in the background."""

import threading
import time
from typing import Any

import numpy as np
import pytest

from edgefuse.errors import InputError
from edgefuse.evaluate.baselines import maximum
from edgefuse.metrics import CORE_METRICS, score
from edgefuse.runtime.frames import FusedFrame
from edgefuse.runtime.live import background as module
from edgefuse.runtime.live.background import Quality
from tests.support.shots import both


def frame(number: int = 0) -> FusedFrame:
    rng = np.random.default_rng(number)
    ir, vis = (rng.integers(0, 256, (64, 80), dtype=np.uint8) for _ in range(2))
    return FusedFrame(ir, vis, maximum(ir, vis), number, 0.0)


def finish(quality: Quality) -> module.QualityReport:
    quality.close(30)
    return quality.snapshot()


def wait_until_idle(quality: Quality) -> None:
    deadline = time.monotonic() + 30
    while not quality._idle:
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_every_kth_frame_is_scored() -> None:
    quality = Quality(every=3, budget=1)
    quality.start()
    frames = [frame(k) for k in range(7)]
    for each in frames:
        wait_until_idle(quality)
        quality._free_at = 0  # rested
        quality.offer(each)
    report = finish(quality)
    assert (report.scored, report.skipped, report.protocol) == (3, 0, "field")
    scores = [score(f.fused, *both(f), metrics=CORE_METRICS) for f in frames[::3]]
    assert report.means == pytest.approx({name: np.mean([s[name] for s in scores]) for name in CORE_METRICS})


def test_only_the_metrics_that_are_wanted() -> None:
    quality = Quality(1, metrics=["en"])
    quality.start()
    quality.offer(frame())
    assert set(finish(quality).means) == {"EN"}


def test_the_thread_rests_after_what_it_has_used() -> None:
    quality = Quality(1, budget=1e-6)
    quality.start()
    quality.offer(frame())
    wait_until_idle(quality)
    quality.offer(frame())
    report = finish(quality)
    assert (report.scored, report.skipped) == (1, 1)


def test_waiting_for_a_core_uses_up_no_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    def waits(*_: object) -> dict[str, float]:
        time.sleep(0.3)
        return {"EN": 1.0}

    monkeypatch.setattr(module, "score", waits)
    quality = Quality(1, budget=0.5)
    quality.start()
    quality.offer(frame())
    wait_until_idle(quality)
    quality.offer(frame())  # after 0.3 s of which at most half may be processor time
    report = finish(quality)
    assert (report.scored, report.skipped) == (2, 0)


def test_offering_never_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    done = threading.Event()

    def waits(*_: object) -> dict[str, float]:
        done.wait(30)
        return {"EN": 1.0}

    monkeypatch.setattr(module, "score", waits)
    quality = Quality(1)
    quality.start()
    for _ in range(100):
        quality.offer(frame())
    assert not quality._idle  # the first is still in work
    done.set()
    report = finish(quality)
    assert (report.scored, report.skipped) == (1, 99)


def test_a_report_in_between_is_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """The report is wanted while the scores of a frame are being added up, as after Ctrl-C."""
    begun, go = threading.Event(), threading.Event()

    class Slow(dict[str, float]):
        def items(self) -> Any:
            yield "EN", self["EN"]
            begun.set()
            go.wait(10)

    monkeypatch.setattr(module, "score", lambda *_: Slow(EN=2.0))
    quality = Quality(1)
    quality.start()
    quality.offer(frame())
    assert begun.wait(10)
    threading.Timer(0.1, go.set).start()
    report = quality.snapshot()
    quality.close(10)
    assert (report.scored, report.means) == (1, {"EN": 2.0})


@pytest.mark.parametrize(
    ("error", "sentence"),
    [(InputError("too small"), "too small"), (MemoryError("no room"), "MemoryError('no room')")],
)
def test_a_frame_that_cannot_be_scored_is_counted_and_said_once(
    error: Exception, sentence: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    answers: list[Any] = [error, error, {"EN": 1.0}]

    def fails(*_: object) -> dict[str, float]:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return dict(answer)

    monkeypatch.setattr(module, "score", fails)
    quality = Quality(1)
    quality.start()
    for number in range(3):
        quality._free_at = 0
        quality.offer(frame(number))
        wait_until_idle(quality)
    report = finish(quality)
    assert (report.scored, report.failed, report.means) == (1, 2, {"EN": 1.0})
    assert caplog.messages == [f"quality failed (reported once): {sentence}"]
    assert bool(caplog.records[0].exc_info) is isinstance(error, MemoryError), "a bug shows where it is"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"every": 0}, "quality is 0"),
        ({"every": 1, "budget": 0}, "the budget of quality is 0"),
        ({"every": 1, "metrics": ["VIFF"]}, "unknown metric 'VIFF'"),
    ],
)
def test_wrong_values_are_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Quality(**options)  # type: ignore[arg-type]
