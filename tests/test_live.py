import gc
import logging
import threading
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import cv2
import numpy as np
import pytest

from edgefuse import PushSource, live
from edgefuse.errors import InputError, SourceError, counted
from edgefuse.images import Image
from edgefuse.runtime.cameras.camera import Camera
from edgefuse.runtime.frames import Frame, FusedFrame
from edgefuse.runtime.live import LiveConfig, Report, StopRequest, run
from edgefuse.runtime.sinks import Sink
from edgefuse.runtime.sources import Source
from edgefuse.runtime.timing import STAGES, StageTimes, percentiles
from tests.support.shots import both


class FakeSource(Source):
    """A source of flat frames whose grey value is their index.

    A live one makes a frame every 1 / fps seconds; `fails_at` raises in place of that frame;
    `hangs_at` waits there for ever, as a driver may.
    """

    def __init__(
        self,
        length: int | None = 10,
        live: bool = False,
        fps: float = 100.0,
        fails_at: int | None = None,
        hangs_at: int | None = None,
        dtype: Any = np.uint8,
    ) -> None:
        self.name = f"fake-{length}"
        self.live, self.fps, self.length = live, fps, length
        self.fails_at, self.hangs_at, self.dtype = fails_at, hangs_at, dtype
        self.next = 0
        self.closed = threading.Event()

    def read(self) -> Frame | None:
        if self.live:
            time.sleep(1 / self.fps)
        if self.next == self.fails_at:
            raise SourceError(f"{self.name}: the camera was lost")
        if self.next == self.hangs_at:
            self.closed.wait()
        if self.next == self.length:
            return None
        now, n = time.monotonic(), self.next
        self.next += 1
        image = np.full((16, 24), n % 256 * (256 if self.dtype == np.uint16 else 1), self.dtype)
        return Frame(image, n, now if self.live else n / self.fps, now)

    def close(self) -> None:
        self.closed.set()


class ListSink(Sink):
    name = "list"
    in_main_thread = False

    def __init__(self, fails_at: int | None = None, seconds: float = 0.0) -> None:
        self.frames: list[FusedFrame] = []
        self.fails_at, self.seconds = fails_at, seconds
        self.closed = 0

    def write(self, frame: FusedFrame) -> None:
        if len(self.frames) == self.fails_at:
            raise InputError("list: the disk is full")
        time.sleep(self.seconds)
        self.frames.append(frame)

    def close(self) -> None:
        self.closed += 1


def pick_visible(ir: Image, vis: Image) -> Image:
    return vis.copy()


# --- the loop


def test_two_recordings_lose_nothing_and_stay_in_order() -> None:
    sink = ListSink(seconds=0.002)
    report = run(FakeSource(50), FakeSource(50), pick_visible, [sink])
    assert [f.index for f in sink.frames] == list(range(50))
    assert all({int(image[0, 0]) for image in (*both(f), f.fused)} == {f.index} for f in sink.frames)
    assert [f.timestamp for f in sink.frames] == pytest.approx([n / 100 for n in range(50)])
    assert report.frames == report.sinks[0].written == 50
    assert [(s.captured, s.dropped, s.unpaired) for s in report.sources] == [(50, 0, 0), (50, 0, 0)]
    assert report.error is None
    assert report.ended == "end of fake-50"
    assert report.fps == pytest.approx(50 / report.seconds)
    assert sink.closed


def test_every_stage_is_timed() -> None:
    report = run(FakeSource(5), FakeSource(5), pick_visible, [ListSink()])
    assert list(report.stages) == list(STAGES)
    assert {stats.count for stats in report.stages.values()} == {5}


@pytest.mark.parametrize(("ir", "vis"), [(7, 4), (4, 7), (5, 4), (4, 5)])
def test_a_longer_recording_is_said(ir: int, vis: int, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "edgefuse"):
        report = run(FakeSource(ir), FakeSource(vis), pick_visible)
    assert report.frames == 4
    (message,) = caplog.messages
    longer = max(ir, vis)
    extra = counted(longer - 4, "frame")
    assert message == f"fake-{longer} is longer than fake-4 by {extra}: remaining frames are ignored"


def test_a_length_that_is_only_estimated_is_not_said(caplog: pytest.LogCaptureFixture) -> None:
    ir, vis = (replace(Camera.of(FakeSource(count)), length=5) for count in (7, 4))
    run(ir, vis, pick_visible)
    assert caplog.messages == ["fake-7 is longer than fake-4: remaining frames are ignored"]


def test_equal_recordings_are_not_said_to_differ(caplog: pytest.LogCaptureFixture) -> None:
    run(FakeSource(4), FakeSource(4), pick_visible)
    assert caplog.messages == []


@pytest.mark.parametrize(
    ("frames", "rates", "message"),
    [
        ((9, 30), (9, 30), ""),
        ((9, 30), (9, 25), "fake-30 is longer than fake-9 by 0.2 s: remaining frames are ignored"),
        ((27, 30), (9, 30), "fake-27 is longer than fake-30 by 2.0 s: remaining frames are ignored"),
        ((20, 30), (10, 30), "fake-20 is longer than fake-30 by 1.0 s: remaining frames are ignored"),
        ((10, 90), (10, 30), "fake-90 is longer than fake-10 by 2.0 s: remaining frames are ignored"),
    ],
)
def test_recordings_of_different_rates_are_compared_by_time(
    frames: tuple[int, int], rates: tuple[int, int], message: str, caplog: pytest.LogCaptureFixture
) -> None:
    run(FakeSource(frames[0], fps=rates[0]), FakeSource(frames[1], fps=rates[1]), pick_visible)
    assert caplog.messages == [message] * bool(message)


def test_live_sources_keep_the_newest_and_count_the_rest() -> None:
    def slow(ir: Image, vis: Image) -> Image:
        time.sleep(0.03)
        return vis.copy()

    sink = ListSink()
    report = run(
        FakeSource(None, live=True, fps=100),
        FakeSource(None, live=True, fps=200),
        slow,
        [sink],
        config=LiveConfig(duration=0.5),
    )
    ir, vis = report.sources
    assert 8 <= report.frames <= 18
    assert vis.dropped > report.frames
    assert vis.in_flight == 0
    shown = [int(both(f)[1][0, 0]) for f in sink.frames]
    assert shown == sorted(set(shown))
    assert ir.captured > report.frames
    assert report.ended == "the duration of 0.5 s is over"


def test_a_slow_infrared_camera_does_not_slow_the_visible_one() -> None:
    sink = ListSink()
    report = run(
        FakeSource(None, live=True, fps=20),
        FakeSource(None, live=True, fps=100),
        pick_visible,
        [sink],
        config=LiveConfig(duration=0.4),
    )
    assert report.frames > 25
    assert len({int(both(f)[0][0, 0]) for f in sink.frames}) < 12


def test_a_gap_in_the_numbers_of_a_source_counts_as_dropped() -> None:
    class Skips(FakeSource):
        def read(self) -> Frame | None:
            self.next += self.next == 3
            return super().read()

    report = run(Skips(6), FakeSource(6), pick_visible)
    assert report.sources[0].captured == 6
    assert report.sources[0].dropped == 1


def test_a_recording_beside_a_camera_plays_at_its_own_rate() -> None:
    start = time.monotonic()
    report = run(FakeSource(None, live=True, fps=200), FakeSource(11, fps=20), pick_visible)
    assert time.monotonic() - start >= 0.49
    assert report.ended == "end of fake-11"
    assert report.frames >= 9


def test_16_bit_infrared_arrives_as_8_bit() -> None:
    sink = ListSink()
    run(FakeSource(3, dtype=np.uint16), FakeSource(3), pick_visible, [sink])
    assert {both(f)[0].dtype for f in sink.frames} == {np.dtype(np.uint8)}


def test_a_lost_camera_ends_the_run_and_is_reported() -> None:
    sink = ListSink()
    report = run(FakeSource(None, live=True), FakeSource(None, live=True, fails_at=5), pick_visible, [sink])
    assert report.error == "fake-None: the camera was lost"
    assert report.ended == "the visible source failed"
    assert sink.closed


def test_a_camera_that_hangs_does_not_hang_the_end(caplog: pytest.LogCaptureFixture) -> None:
    start = time.monotonic()
    ir = FakeSource(None, live=True, hangs_at=3)
    ir.limit = 0.1
    with caplog.at_level(logging.WARNING, "edgefuse"), ir:
        run(ir, FakeSource(None, live=True), pick_visible, config=LiveConfig(duration=0.2))
    assert time.monotonic() - start < 2
    assert caplog.messages == ["fake-None does not answer: not waiting for its read thread"]


def test_a_camera_that_is_only_waited_for_is_not_said_to_hang(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "edgefuse"), FakeSource(None, live=True, hangs_at=3) as ir:
        run(ir, FakeSource(None, live=True), pick_visible, config=LiveConfig(duration=0.2))
    assert caplog.messages == []


def test_stop_ends_a_run_from_another_thread() -> None:
    stop = StopRequest()
    threading.Timer(0.1, stop, args=["enough"]).start()
    start = time.monotonic()
    report = run(FakeSource(None, live=True), FakeSource(None, live=True), pick_visible, stop=stop)
    assert time.monotonic() - start < 1
    assert report.ended == "enough"


def test_stop_while_no_frame_comes() -> None:
    stop = StopRequest()
    threading.Timer(0.1, stop, args=["enough"]).start()
    with FakeSource(None, live=True, hangs_at=0) as ir:
        report = run(ir, FakeSource(None, live=True), pick_visible, stop=stop)
    assert (report.frames, report.stages.get("fuse"), report.ended) == (0, None, "enough")


def test_a_failing_sink_leaves_the_others_running(caplog: pytest.LogCaptureFixture) -> None:
    bad, good = ListSink(fails_at=3), ListSink()
    report = run(FakeSource(20), FakeSource(20), pick_visible, [bad, good])
    assert len(good.frames) == report.frames == 20
    assert (report.sinks[0].written, report.sinks[0].dropped) == (3, 17)
    assert report.error == report.sinks[0].error == "list: the disk is full"
    assert caplog.messages == ["list: the disk is full"]
    assert bad.closed
    assert good.closed


def test_the_run_ends_when_no_output_is_left() -> None:
    report = run(
        FakeSource(None, live=True), FakeSource(None, live=True), pick_visible, [ListSink(fails_at=2)]
    )
    assert report.ended == "every output failed"


def test_a_slow_sink_drops_frames_of_a_camera_and_counts_them() -> None:
    sink = ListSink(seconds=0.05)
    report = run(
        FakeSource(None, live=True),
        FakeSource(None, live=True),
        pick_visible,
        [sink],
        config=LiveConfig(duration=0.5),
    )
    assert report.sinks[0].dropped > 0
    assert report.sinks[0].written + report.sinks[0].dropped == report.frames


def test_an_error_of_the_fuser_is_raised_after_everything_is_closed() -> None:
    def refuse(ir: Image, vis: Image) -> Image:
        raise InputError("too small")

    sink = ListSink()
    with pytest.raises(InputError, match="too small"):
        run(FakeSource(5), FakeSource(5), refuse, [sink])
    assert sink.closed
    assert not [t for t in threading.enumerate() if t.name.startswith(("capture", "sink"))]


def test_a_defect_in_a_source_is_not_swallowed() -> None:
    class Defect(FakeSource):
        def read(self) -> Frame | None:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(Defect(), FakeSource(), pick_visible)


@pytest.mark.parametrize("duration", [0.0, -1.0, float("nan")])
def test_a_duration_must_be_positive(duration: float) -> None:
    with pytest.raises(InputError, match="must be above 0"):
        run(FakeSource(), FakeSource(), pick_visible, config=LiveConfig(duration=duration))


def test_progress_is_told() -> None:
    told: list[Report] = []
    run(
        FakeSource(None, live=True),
        FakeSource(None, live=True),
        pick_visible,
        config=LiveConfig(duration=0.7),
        progress=told.append,
    )
    assert len(told) >= 2
    assert told[-1].frames > told[0].frames
    assert told[-1].fps > 10


def test_capture_fusion_and_output_overlap() -> None:
    """The first picture is being written, the second fused and the third read, all at once."""
    meeting = threading.Barrier(4)
    met: list[str] = []

    def meet(who: str) -> None:
        meeting.wait(20)  # raises if one of the others never comes
        met.append(who)

    class Meeting(FakeSource):
        def read(self) -> Frame | None:
            if self.next == 2:
                meet("capture")
            return super().read()

    class MeetingSink(ListSink):
        def write(self, frame: FusedFrame) -> None:
            if not self.frames:
                meet("output")
            super().write(frame)

    def fuse(ir: Image, vis: Image) -> Image:
        if vis[0, 0] == 1:
            meet("fusion")
        return vis.copy()

    report = run(Meeting(3), Meeting(3), fuse, [MeetingSink()])
    assert report.error is None
    assert sorted(met) == ["capture", "capture", "fusion", "output"]


# --- timing


def test_percentiles_are_interpolated() -> None:
    assert percentiles([float(n) for n in range(101)]) == (50.0, 95.0, 99.0)


def test_times_stay_bounded_and_counts_do_not() -> None:
    times = StageTimes()
    for n in range(5000):
        times.record("fuse", float(n))
    stats = times.stats()["fuse"]
    assert stats.count == 5000
    assert stats.mean == pytest.approx(2499.5)
    assert stats.max == 4999
    assert stats.p50 == pytest.approx(np.median(range(904, 5000)))


def test_an_unknown_stage_is_refused() -> None:
    with pytest.raises(KeyError, match="unknown stage 'fusing'"):
        StageTimes().record("fusing", 1.0)


def test_a_stage_that_raises_is_not_recorded() -> None:
    times = StageTimes()
    with pytest.raises(ValueError, match="no"), times.measure("fuse"):
        raise ValueError("no")
    assert times.stats() == {}


# --- for programs


def test_live_is_an_iterator() -> None:
    with live(FakeSource(6), FakeSource(6), pick_visible) as pairs:
        seen = [(pair.index, int(pair.fused[0, 0]), round(100 * pair.timestamp)) for pair in pairs]
    assert seen == [(n, n, n) for n in range(6)]
    report = pairs.report()
    assert (report.frames, report.ended) == (6, "end of fake-6")


def test_live_takes_texts_and_settings() -> None:
    sim = "sim?size=64x48&fps=50"
    for pair in live(sim, sim, pick_visible, duration=60):
        assert pair.fused.shape == (48, 64, 3)
        assert 0 < pair.stats.latency < 1
        assert set(pair.stats.ages) == {"ir", "vis"} or pair.state != "fused"
        if pair.index == 3:
            break
    else:
        pytest.fail("not four pairs in a minute")


def test_live_can_be_left_early_and_closed() -> None:
    before = threading.active_count()
    with live(FakeSource(None, live=True), FakeSource(None, live=True), pick_visible, quality=9) as pairs:
        for pair in pairs:
            if pair.index == 3:
                break
    pairs.report()
    assert threading.active_count() == before
    with pytest.raises(StopIteration):
        next(pairs)


@pytest.mark.parametrize("how", ["break", "end", "exception"])
def test_live_closes_the_engine_that_it_opened(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Opened:
        closed = 0

        def __init__(self, *_: object) -> None:
            pass

        def __enter__(self) -> "Opened":
            return self

        def __exit__(self, *_: object) -> None:
            Opened.closed += 1

        def __call__(self, ir: Image, vis: Image) -> Image:
            return vis.copy()

    def use() -> None:
        for _ in live(FakeSource(5), FakeSource(5), "nano"):
            if how == "break":
                break
            if how == "exception":
                raise ZeroDivisionError

    monkeypatch.setattr("edgefuse.runtime.engines.fuser.Fuser", Opened)
    with suppress(ZeroDivisionError):
        use()
    gc.collect()
    assert Opened.closed == 1


def test_live_raises_what_failed() -> None:
    with pytest.raises(SourceError, match="the camera was lost"):
        list(live(FakeSource(10), FakeSource(10, fails_at=3), pick_visible))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rate": "both"}, "unknown rate 'both'"),
        ({"max_skw": 1}, r"live: unknown setting 'max_skw' \(did you mean 'max_skew'\?\)"),
        ({"thread": 1}, r"live: unknown setting 'thread' \(did you mean 'threads'\?\)"),
        ({"duration": "long"}, "duration is 'long', it must be"),
        ({"duration": -1}, "duration"),
    ],
)
def test_live_refuses_wrong_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        live(FakeSource(), FakeSource(), pick_visible, **settings)


@pytest.mark.parametrize("asked", [None, 1.5, True, -1, object()])
def test_live_says_what_a_source_is(asked: Any) -> None:
    with pytest.raises(InputError, match=r"is not a source: give a text such as 'cam0'"):
        live(FakeSource(), asked, pick_visible)


def test_numbers_are_cameras_and_paths_are_texts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[str] = []

    def note(ir: str, vis: str, _: bool) -> tuple[Source, Source]:
        asked.extend((ir, vis))
        return FakeSource(), FakeSource()

    monkeypatch.setattr("edgefuse.runtime.live.connect_pair", note)
    live(0, tmp_path, pick_visible).close()
    assert asked == ["cam0", str(tmp_path)]


def test_pairs_of_cameras_have_a_wall_time_and_those_of_recordings_none() -> None:
    for pair in live(FakeSource(None, live=True), FakeSource(None, live=True), pick_visible):
        assert pair.wall_time is not None
        assert pair.wall_time - time.time() == pytest.approx(pair.timestamp - time.monotonic(), abs=0.05)
        break
    assert next(live(FakeSource(3), FakeSource(3), pick_visible)).wall_time is None


def test_frames_can_be_pushed_from_a_callback() -> None:
    ir, vis = PushSource("pushed", fps=50), FakeSource(None, live=True)
    buffer = np.zeros((16, 24), np.uint16)
    stop = threading.Event()

    def drive() -> None:
        for n in range(1, 10_000):
            buffer[:] = 256 * n
            ir.push(buffer)
            buffer[:] = 0  # as a driver that uses its buffer again
            if stop.wait(0.02):
                return

    thread = threading.Thread(target=drive)
    thread.start()
    with live(ir, vis, pick_visible) as pairs:
        seen = [pair for pair, _ in zip((p for p in pairs if p.state == "fused"), range(20), strict=False)]
    stop.set()
    thread.join()
    assert len(seen) == 20
    assert pairs.report().sources[0].name == "pushed"
    assert pairs.report().sources[0].in_flight == 0


def test_of_pushed_frames_the_newest_is_kept_and_the_rest_counted() -> None:
    camera = PushSource()
    for n in range(5):
        camera.push(np.full((16, 24), n, np.uint8), timestamp=n / 10)
    frame = camera.read()
    assert frame is not None
    assert (frame.index, frame.timestamp, int(frame.image[0, 0])) == (4, 0.4, 4)
    camera.close()
    assert camera.read() is None
    with pytest.raises(InputError, match="fps is 0"):
        PushSource(fps=0)


def test_levels_of_each_pair_are_passed_to_a_model_that_takes_them() -> None:
    class TakesLevels:
        spec = SimpleNamespace(levels=True)
        given: ClassVar[list[float]] = []

        def __call__(self, ir: Image, vis: Image, *, levels: Any) -> Image:
            self.given.append(float(levels[2]))
            return vis.copy()

    class Steps(FakeSource):
        def read(self) -> Frame | None:
            frame = super().read()
            return frame and replace(frame, image=np.full((16, 24), 255 * (frame.index >= 5), np.uint8))

    fuse = TakesLevels()
    run(FakeSource(10, fps=10), Steps(10, fps=10), fuse)
    assert fuse.given[:5] == [0] * 5
    assert fuse.given[5:] == [1] * 5


def test_some_frames_are_scored_in_the_background() -> None:
    rng = np.random.default_rng(0)

    class Noise(FakeSource):
        def read(self) -> Frame | None:
            frame = super().read()
            return frame and replace(frame, image=rng.integers(0, 256, (48, 64), np.uint8))

    config = LiveConfig(quality=5, duration=1.0)
    report = run(Noise(None, live=True), Noise(None, live=True), pick_visible, config=config)
    assert report.quality is not None
    assert 1 <= report.quality.scored + report.quality.skipped <= report.frames // 5 + 1
    if report.quality.scored:
        assert set(report.quality.means) == {"EN", "MI", "VIF", "Qabf", "SSIM"}


# --- recordings by time


@pytest.mark.parametrize("grid", ["ir", "vis"])
def test_recordings_of_different_rates_are_paired_by_time(grid: str) -> None:
    slow, fast = FakeSource(9, fps=9), FakeSource(30, fps=30)
    sink = ListSink()
    ir, vis = (slow, fast) if grid == "ir" else (fast, slow)
    report = run(ir, vis, pick_visible, [sink])
    index = [int(both(f)[grid == "vis"][0, 0]) for f in sink.frames]
    partner = [int(both(f)[grid == "ir"][0, 0]) for f in sink.frames]
    assert index == list(range(9)), "every frame of the slower one, once"
    assert partner == [round(n * 30 / 9) for n in range(9)]
    for source in report.sources:
        assert source.in_flight == 0


@pytest.mark.parametrize("rates", [(25.0, 24.8), (24.8, 25.0), (30.0, 30.0 / 1.001)])
def test_rates_that_are_nearly_equal_do_not_part_the_recordings(rates: tuple[float, float]) -> None:
    length = 200 if 25.0 in rates else 1000
    skews: list[float] = []

    class Skews(ListSink):
        def write(self, frame: FusedFrame) -> None:
            skews.append(frame.stats.skew)

    report = run(FakeSource(length, fps=rates[0]), FakeSource(length, fps=rates[1]), pick_visible, [Skews()])
    assert report.frames >= length * min(rates) / max(rates) - 1
    assert max(skews[:-2]) <= 0.501 / min(rates), "the last one may have lost its nearest to the end"


def test_recordings_whose_rates_are_equal_as_far_as_can_be_told_are_paired_by_number() -> None:
    """Times in whole milliseconds make 29.97 of one file and 29.94 of the other."""
    report = run(FakeSource(30, fps=29.97), FakeSource(30, fps=29.94), pick_visible)
    assert report.frames == 30


def test_the_faster_recording_can_set_the_pace() -> None:
    report = run(FakeSource(9, fps=9), FakeSource(30, fps=30), pick_visible, config=LiveConfig(rate="vis"))
    assert 28 <= report.frames <= 30
    assert report.sources[0].fused == 9


def test_a_frame_missing_from_a_recording_does_not_shift_the_rest() -> None:
    class Gap(FakeSource):
        def read(self) -> Frame | None:
            self.next += self.next == 3
            return super().read()

    sink = ListSink()
    run(Gap(8), FakeSource(8), pick_visible, [sink])
    assert [(int(both(f)[0][0, 0]), int(both(f)[1][0, 0])) for f in sink.frames] == [
        (n, n) for n in (0, 1, 2, 4, 5, 6, 7)
    ]


def test_pairs_that_cannot_be_fused_are_counted_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    """As when a camera comes back in a size that the model file is not made for."""

    def picky(ir: Image, vis: Image) -> Image:
        if vis[0, 0] % 20 >= 10:
            raise InputError("the model file is fixed to 24x16")
        return vis.copy()

    config = LiveConfig(duration=0.5)
    report = run(FakeSource(None, live=True), FakeSource(None, live=True), picky, config=config)
    assert report.error is None
    assert caplog.messages == ["a pair cannot be fused: the model file is fixed to 24x16"]
    vis = report.sources[1]
    assert vis.failed > 3
    assert vis.in_flight == 0


@pytest.mark.parametrize("error", [InputError("too small"), cv2.error("OpenCV: assertion failed")])
def test_a_first_pair_that_cannot_be_fused_ends_no_stream(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    pairs: list[int] = []

    def fails_first(ir: Image, vis: Image) -> Image:
        pairs.append(1)
        if len(pairs) < 5:
            raise error
        return vis.copy()

    config = LiveConfig(duration=0.3)
    report = run(FakeSource(None, live=True), FakeSource(None, live=True), fails_first, config=config)
    assert report.frames == len(pairs) - 4 > 0
    assert report.error is None
    assert caplog.messages == [f"a pair cannot be fused: {error}"]
    assert report.sources[1].failed == 4


def test_a_stream_of_which_nothing_can_be_fused_has_failed() -> None:
    def refuse(ir: Image, vis: Image) -> Image:
        raise InputError("too small")

    stop = StopRequest()
    threading.Timer(0.3, stop, args=["enough"]).start()
    report = run(FakeSource(None, live=True), FakeSource(None, live=True), refuse, stop=stop)
    assert (report.frames, report.error) == (0, "too small")


class Shutter(FakeSource):
    """Infrared that sends nothing for a while, or the same 16-bit picture again and again."""

    def __init__(self, silent: float = 0.0, still: float = 0.0) -> None:
        super().__init__(None, live=True, dtype=np.uint16)
        self.silent, self.still = silent, still
        self.until = 0.0

    def read(self) -> Frame | None:
        if self.next == 20:
            self.until = self.until or time.monotonic() + self.still
            time.sleep(self.silent)
            self.silent = 0.0
            self.next -= time.monotonic() < self.until
        return super().read()


HELD, ALONE = {"fused", "infrared held"}, {"fused", "visible only"}


@pytest.mark.parametrize("rate", ["ir", "vis"])
@pytest.mark.parametrize(
    ("kind", "max_age", "states"),
    [
        ("silent", None, ALONE),
        ("silent", 3.0, HELD),
        ("still", None, HELD),
        ("still", 3.0, HELD),
        ("still", 0.6, HELD | ALONE),
        ("silent", 0.8, HELD | ALONE),
    ],
)
def test_old_infrared_is_labelled_at_once_and_not_fused_beyond_its_age(
    rate: str, kind: str, max_age: float | None, states: set[str]
) -> None:
    sink, health = ListSink(), set()
    report = run(
        Shutter(**{kind: 1.2}),
        FakeSource(None, live=True),
        pick_visible,
        [sink],
        LiveConfig(duration=2.0, rate=rate, max_age=max_age),  # type: ignore[arg-type]
        progress=lambda progress: health.add(progress.sources[0].state),
    )
    assert {frame.state for frame in sink.frames} == states
    assert max(np.diff([frame.captured for frame in sink.frames])) < 0.8, "visible frames are still shown"
    ages = {state: [f.stats.ages["ir"] for f in sink.frames if f.state == state] for state in HELD & states}
    assert max(ages["fused"]) < (0.45 if rate == "vis" else 0.7)
    assert max(ages.get("infrared held", [0.0])) < (max_age or 3.0) + 0.2
    assert report.held == len(ages.get("infrared held", []))
    assert all((frame.ir is None) is (frame.state == "visible only") for frame in sink.frames)
    assert report.sources[0].calibrations == 1
    assert report.sources[0].losses == 0
    assert "calibrating" in health


def test_what_is_silent_is_not_labelled_as_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    labels: set[str] = set()

    def note(image: Image, text: str) -> Image:
        labels.add(text)
        return image

    monkeypatch.setattr("edgefuse.runtime.live.fallback.with_label", note)
    config = LiveConfig(duration=1.4)
    report = run(Shutter(silent=1.0), FakeSource(None, live=True), pick_visible, config=config)
    assert report.shown_alone > 0
    assert labels == {"infrared silent"}


def test_a_machine_that_is_too_busy_is_not_taken_for_a_lost_camera(caplog: pytest.LogCaptureFixture) -> None:
    """For more than half a second no thread gets a turn, as on a machine whose cores are all in use."""
    pairs = live(FakeSource(None, live=True), FakeSource(None, live=True), pick_visible)
    for pair in pairs:
        if pair.index == 10:
            hold_the_interpreter(0.9)
        if pair.index == 40:
            break
    report = pairs.report()
    assert [source.losses for source in report.sources] == [0, 0]
    assert report.starved_s > 0.5
    assert any("this machine is too busy" in message for message in caplog.messages)


def hold_the_interpreter(seconds: float) -> None:
    """Keep all other threads from running: a single call of C, which gives the lock of Python not back."""
    size, took = 10**6, 0.0
    while took < seconds:
        size = int(size * min(10.0, max(2.0, seconds / max(took, 1e-9))))
        start = time.monotonic()
        sum(range(size))
        took = time.monotonic() - start


def test_a_frozen_infrared_picture_is_a_loss_and_is_not_fused() -> None:
    sink = ListSink()
    report = run(
        Shutter(still=4.2),
        FakeSource(None, live=True),
        pick_visible,
        [sink],
        LiveConfig(duration=5.5),
    )
    states = [frame.state for frame in sink.frames]
    assert states.index("visible only") > 20
    alone = [frame for frame in sink.frames if frame.state == "visible only"]
    assert all(frame.vis is not None and (frame.fused == frame.vis).all() for frame in alone)
    assert states[-1] == "fused"
    ir = report.sources[0]
    assert (ir.losses, ir.calibrations) == (1, 0)
    assert ir.in_flight == 0


@pytest.mark.parametrize("role", ["ir", "vis"])
def test_a_frame_that_is_no_picture_is_counted_and_the_rest_goes_on(role: str) -> None:
    class Odd(FakeSource):
        def read(self) -> Frame | None:
            frame = super().read()
            return replace(frame, image=np.zeros((4, 4, 7))) if frame and frame.index == 3 else frame

    cameras = {"ir": FakeSource(8), "vis": FakeSource(8), role: Odd(8)}
    report = run(cameras["ir"], cameras["vis"], pick_visible)
    assert report.frames == 7
    assert [source.failed for source in report.sources] == [role == "ir", role == "vis"]
    assert all(s.in_flight == 0 and s.captured == 8 for s in report.sources)
