"""What a run says of itself at any moment, and who owns its threads."""

import subprocess
import sys
import threading
import time
from collections import deque
from dataclasses import replace

import numpy as np
import pytest

from edgefuse.errors import InputError, LostError
from edgefuse.images import Image
from edgefuse.runtime.cameras.camera import Camera
from edgefuse.runtime.frames import Frame, FusedFrame
from edgefuse.runtime.live import BackgroundWorker, LiveConfig, Report, Session, StopRequest
from edgefuse.runtime.live.capture import QUEUE
from edgefuse.runtime.sinks import Callback
from edgefuse.runtime.timing import WINDOW, StageTimes, percentiles
from tests.test_live import FakeSource, pick_visible

IN_FLIGHT = 8
"""Frames of one camera that may be between capture and picture: one in each of the threads, and those that
wait for a partner."""


class Faulty(FakeSource):
    """Loses frames, sends what is no picture, and is unplugged every 40 frames."""

    def __init__(self, start: int) -> None:
        super().__init__(None, live=True, fps=500)
        self.next = start

    def read(self) -> Frame | None:
        if self.next % 40 == 39:
            raise LostError("unplugged")
        self.next += self.next % 17 == 5
        frame = super().read()
        return replace(frame, image=np.zeros((4, 4, 7))) if frame and frame.index % 13 == 1 else frame


def faulty(name: str) -> Camera:
    starts = deque(range(0, 40_000, 40))
    return Camera(name, lambda: Faulty(starts.popleft()), fps=500)


def picky(ir: Image, vis: Image) -> Image:
    if vis[0, 0] % 11 == 3:
        raise InputError("refused")
    return vis.copy()


def test_a_thousand_snapshots_during_faults_are_each_consistent() -> None:
    stop, reports = StopRequest(), list[Report]()

    def look() -> None:
        for _ in range(1000):
            reports.append(session.snapshot())
            time.sleep(0.001)
        stop("enough")

    yielded = 0
    thread = threading.Thread(target=look)
    config, sink = LiveConfig(quality=5, duration=60), Callback(lambda _: None)
    session = Session(faulty("ir"), faulty("vis"), picky, config, sinks=[sink], stop=stop)
    with session:
        for frame in session:
            yielded += frame.state == "fused"
            if not thread.ident:
                thread.start()
        thread.join()
    assert len(reports) == 1000
    last = session.snapshot()
    for report in [*reports, last]:
        for source in report.sources:
            accounted = source.fused + source.unpaired + source.dropped + source.failed
            assert source.captured == accounted + source.in_flight
            assert 0 <= source.in_flight <= IN_FLIGHT
            assert source.shown_alone <= source.unpaired
        vis = report.sources[1]
        assert vis.fused == report.frames, "each visible frame is in one picture, counted at the same moment"
        assert sum(report.stages["fuse"].buckets if "fuse" in report.stages else [0]) >= report.frames
    for before, after in zip(reports, [*reports[1:], last], strict=True):
        assert all(b.captured <= a.captured for b, a in zip(before.sources, after.sources, strict=True))
    assert (reports[0].ended, last.ended) == (None, "enough")
    assert last.frames == yielded > 50
    assert all(source.in_flight == 0 for source in last.sources)
    for source in last.sources:
        assert source.reconnects > 1
        assert source.failed > 5
        assert source.dropped > 5


def test_a_snapshot_waits_for_no_inference() -> None:
    fusing, go = threading.Event(), threading.Event()

    def fuse(ir: Image, vis: Image) -> Image:
        fusing.set()
        assert go.wait(10)
        return vis.copy()

    with Session(FakeSource(3), FakeSource(3), fuse) as session:
        thread = threading.Thread(target=lambda: list(session))
        thread.start()
        assert fusing.wait(10)
        report = session.snapshot()
        assert thread.is_alive()
        go.set()
        thread.join(10)
    assert (report.frames, report.ended) == (0, None)
    assert session.snapshot().frames == 3


def test_frames_in_flight_are_those_that_are_held_somewhere() -> None:
    fusing, go = threading.Semaphore(0), threading.Semaphore(0)

    def fuse(ir: Image, vis: Image) -> Image:
        fusing.release()
        assert go.acquire(timeout=10)
        return vis.copy()

    ir, vis = FakeSource(30, fps=100), FakeSource(15, fps=50)
    with Session(ir, vis, fuse) as session:
        thread = threading.Thread(target=lambda: list(session))
        thread.start()
        for done in range(3):
            assert fusing.acquire(timeout=10)
            queues = session.capture._frames
            deadline = time.monotonic() + 10
            while any(len(queue) < QUEUE for queue in queues.values()) and time.monotonic() < deadline:
                time.sleep(0.01)
            time.sleep(0.05)  # for the next frame of each, which waits for room
            report = session.snapshot()
            pending = [one for one in session._synchronizer._near if not one.used]  # type: ignore[attr-defined]
            assert [source.fused for source in report.sources] == [done, done]
            # In the queue, waiting for room in it, waiting for a partner, and being fused.
            held = [QUEUE + 1 + len(pending) + 1, QUEUE + 1 + 1]
            assert [source.in_flight for source in report.sources] == held
            read = [source.next for source in (ir, vis)]
            settled = [s.fused + s.unpaired + s.dropped + s.failed for s in report.sources]
            assert [n - gone for n, gone in zip(read, settled, strict=True)] == held
            go.release()
        for _ in range(30):
            go.release()
        thread.join(10)
    assert all(source.in_flight == 0 for source in session.snapshot().sources)


def test_a_snapshot_before_the_start_and_after_the_end() -> None:
    session = Session(FakeSource(3), FakeSource(3), pick_visible)
    assert (session.snapshot().frames, session.snapshot().seconds, session.snapshot().fps) == (0, 0, 0)
    with session:
        assert len(list(session)) == 3
    assert session.snapshot() == session.snapshot()


def test_threads_start_with_the_run_and_end_with_it() -> None:
    before = threading.active_count()
    worked: list[FusedFrame] = []
    worker = BackgroundWorker("worker", worked.append, budget=1)
    config = LiveConfig(quality=2)
    session = Session(
        FakeSource(9), FakeSource(9), pick_visible, config, sinks=[Callback(print)], background=[worker]
    )
    assert threading.active_count() == before
    with session:
        next(iter(session))
        assert threading.active_count() > before
    assert threading.active_count() == before
    assert worked[0].index == 0


def test_closing_an_unused_session_closes_its_outputs() -> None:
    class Closes(Callback):
        closed = False

        def close(self) -> None:
            self.closed = True

    sink = Closes(print)
    with Session(FakeSource(3), FakeSource(3), pick_visible, sinks=[sink]):
        pass
    assert sink.closed


def test_percentiles_are_those_of_numpy() -> None:
    rng = np.random.default_rng(0)
    for count in (1, 2, 3, 10, 101, WINDOW):
        values = rng.exponential(size=count)
        assert percentiles(values) == pytest.approx(tuple(np.percentile(values, (50, 95, 99))))


def test_buckets_count_all_values_and_percentiles_the_latest() -> None:
    times = StageTimes()
    for n in range(WINDOW + 10):
        times.record("skew", 0.004 if n < 10 else 0.03)
    stats = times.stats()["skew"]
    assert (stats.p50, stats.p99) == (0.03, 0.03)
    assert stats.bins() == [("2-5", 10), ("20-50", WINDOW)]
    assert sum(stats.buckets) == stats.count == WINDOW + 10
    assert stats.sum == pytest.approx(0.04 + WINDOW * 0.03)


def test_the_program_ends_after_the_item_in_work() -> None:
    """A thread that is ended inside OpenCV aborts the process, and then a service counts a crash."""
    program = (
        "import time\n"
        "from edgefuse.runtime.live.background import BackgroundWorker\n"
        "worker = BackgroundWorker('worker', lambda _: (time.sleep(1), print('finished', flush=True)))\n"
        "worker.start()\n"
        "worker.offer(1)\n"
        "time.sleep(0.1)\n"
        "worker.close()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "finished\n", "")
