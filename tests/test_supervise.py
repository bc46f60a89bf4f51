"""One camera that is kept going: its states, told by hand, without any real time but a thread's."""

import itertools
import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import numpy as np
import pytest

from edgefuse.errors import FrameError, LostError, SourceError
from edgefuse.runtime.cameras.camera import Camera, Health, State, StillState
from edgefuse.runtime.frames import Frame, Role
from edgefuse.runtime.live.capture import MAX_STUCK, Supervisor
from edgefuse.runtime.sources import Source
from edgefuse.runtime.sources.base import SilencePolicy

IMAGE = np.zeros((16, 16), np.uint8)


class Told(Source):
    """A camera that does what it is told: gives a frame of that look, or raises."""

    name, live, fps, length = "told", True, 30.0, None

    def __init__(self, orders: "queue.Queue[StillState | SourceError]") -> None:
        self._orders = orders
        self._next = 0

    def read(self) -> Frame | None:
        order = self._orders.get()
        if isinstance(order, SourceError):
            raise order
        self._next += 1
        return Frame(IMAGE, self._next, time.monotonic(), time.monotonic())

    def close(self) -> None:
        pass


class Rig:
    """A supervised camera, and the orders it gets."""

    def __init__(self, role: Role, silence: SilencePolicy | None = None) -> None:
        self.orders: queue.Queue[StillState | SourceError] = queue.Queue()
        self.opens: queue.Queue[SourceError | None] = queue.Queue()
        self.look: StillState = "live"
        camera = Camera("told", self._open, silence=silence)
        self.supervisor = Supervisor(role, camera, self._deliver, lambda _: None)
        self.supervisor.start()

    def _open(self) -> Source:
        error = self.opens.get()
        if error is not None:
            raise error
        return Told(self.orders)

    def _deliver(self, frame: Frame, lost: int) -> StillState:
        return self.look

    def state(self) -> State:
        return self.supervisor.health.state

    def frame(self, look: StillState = "live") -> None:
        """Let a frame come, and wait until it is noted."""
        before, self.look = self.supervisor.health.seen, look
        self.orders.put(look)
        until(
            lambda: self.state() is State.LOST if look == "frozen" else self.supervisor.health.seen != before,
        )

    def later(self, seconds: float) -> None:
        """StillState round as if so many seconds had passed without a frame."""
        self.supervisor.check(self.supervisor.health.seen + seconds)

    def close(self) -> None:
        self.supervisor.stop()
        for _ in range(MAX_STUCK + 2):
            self.opens.put(LostError("the end"))
            self.orders.put(LostError("the end"))
        self.supervisor.join(time.monotonic() + 5)


class Recording(Source):
    """Gives frames of these numbers, or raises, and ends."""

    name, live, fps, length = "recording", False, 30.0, None

    def __init__(self, *steps: int | Exception) -> None:
        self._steps = iter(steps)

    def read(self) -> Frame | None:
        step = next(self._steps, None)
        if isinstance(step, Exception):
            raise step
        return None if step is None else Frame(IMAGE, step, 0.0, 0.0)

    def close(self) -> None:
        pass


def read_through(camera: Camera, count: int) -> tuple[Supervisor, list[Frame], list[int]]:
    """Run a camera until it ends, or for `count` frames; return what was delivered and lost before it."""
    frames: list[Frame] = []
    losses: list[int] = []
    done = threading.Event()

    def deliver(frame: Frame, lost: int) -> None:
        frames.append(frame)
        losses.append(lost)
        if len(frames) == count:
            supervisor.stop()

    supervisor = Supervisor("vis", camera, deliver, lambda _: done.set())
    supervisor.start()
    assert done.wait(10)
    supervisor.join(time.monotonic() + 5)
    return supervisor, frames, losses


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


@pytest.fixture(autouse=True)
def no_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgefuse.runtime.live.capture.MAX_DELAY", 0.001)
    monkeypatch.setattr("edgefuse.runtime.live.capture.FIRST_DELAY", 0.001)


@pytest.fixture
def rig(request: pytest.FixtureRequest) -> Iterator[Rig]:
    made = Rig(getattr(request, "param", "ir"))
    made.opens.put(None)
    yield made
    made.close()


def test_infrared_that_is_silent_for_a_moment_calibrates(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    for _ in range(2):
        rig.frame()
        assert rig.state() is State.LIVE
        rig.later(0.4)
        assert rig.state() is State.LIVE
        for seconds in (0.6, 1.5, 2.9):
            rig.later(seconds)
            assert rig.state() is State.CALIBRATING
            assert rig.supervisor.health.patience == 3.0
    rig.frame()
    health = rig.supervisor.health
    assert (health.state, health.calibrations, health.losses, health.downtime_s) == (State.LIVE, 2, 0, 0.0)
    assert caplog.messages == ["told sends no picture, probably a shutter calibration"] * 2


def test_infrared_that_is_silent_for_longer_is_lost(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    rig.frame()
    rig.later(1.0)
    rig.later(3.1)
    assert rig.state() is State.LOST
    assert rig.supervisor.health.patience == 0.5
    rig.frame()
    health = rig.supervisor.health
    assert (health.state, health.calibrations, health.losses) == (State.LIVE, 0, 1)
    assert caplog.messages == ["infrared lost: told: no frame for 3.1 s"]


@pytest.mark.parametrize("rig", ["vis"], indirect=True)
def test_a_visible_camera_has_no_shutter(rig: Rig) -> None:
    rig.frame()
    rig.later(0.6)
    assert rig.state() is State.LOST


def test_an_error_is_no_calibration(rig: Rig) -> None:
    rig.frame()
    rig.later(1.0)
    rig.orders.put(LostError("told: unplugged"))
    until(lambda: rig.state() is State.LOST)
    assert rig.supervisor.health.reason == "told: unplugged"


def test_a_picture_that_stands_still_calibrates_then_is_lost(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    rig.frame()
    for _ in range(3):
        rig.frame("calibrating")
        assert rig.state() is State.CALIBRATING
    assert caplog.messages == ["told repeats a picture, probably a shutter calibration"]
    rig.frame("frozen")
    assert rig.state() is State.LOST
    assert "has not changed for over 3 s" in rig.supervisor.health.reason
    rig.frame()
    health = rig.supervisor.health
    assert (health.state, health.losses, health.reconnects) == (State.LIVE, 1, 0)


def test_each_reason_of_a_loss_is_told_once(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    rig.frame()
    rig.orders.put(LostError("told: unplugged"))
    for reason in ("refused", "refused", "not found", "refused", "not found"):
        rig.opens.put(LostError(f"told: {reason}"))
    rig.opens.put(None)
    rig.frame()
    assert caplog.messages == [
        "infrared lost: told: unplugged",
        "infrared still lost: told: refused",
        "infrared still lost: told: not found",
    ]


def test_a_camera_that_is_waited_for_tells_each_reason_once(caplog: pytest.LogCaptureFixture) -> None:
    rig = Rig("vis")
    for reason in ("refused", "not found", "refused", "not found"):
        rig.opens.put(LostError(f"told: {reason}"))
    rig.opens.put(None)
    rig.frame()
    rig.close()
    assert caplog.messages == [
        "waiting for visible: told: refused",
        "waiting for visible: told: not found",
    ]


def test_a_camera_that_always_hangs_fails_and_is_said_so(
    rig: Rig, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And comes back if it does: a thread that returns makes room for another attempt."""
    rig.frame()  # and then the camera hangs, in reading and five times in opening
    hung = rig.supervisor._reader
    for n in range(MAX_STUCK + 2):
        until(lambda: rig.supervisor._reader.busy_since is not None)
        rig.supervisor.check(time.monotonic() + 60)
        assert rig.supervisor.health.stuck_threads == min(n + 1, MAX_STUCK)
        assert (rig.state() is State.FAILED) == (n >= MAX_STUCK)
    names = [thread.name for thread in threading.enumerate()]
    assert names.count("capture-infrared") == MAX_STUCK + 1
    assert [record.levelname for record in caplog.records].count("ERROR") == 1
    assert "infrared failed: told got stuck 5 times inside its driver" in caplog.text
    rig.orders.put("live")
    assert hung.thread is not None
    hung.thread.join(5)
    rig.supervisor.check(time.monotonic() + 60)
    assert rig.supervisor.health.stuck_threads == MAX_STUCK + 1, "one more attempt"
    for _ in range(MAX_STUCK + 1):
        rig.opens.put(None)
    until(lambda: rig.supervisor._reader.source is not None)
    rig.orders.put("live")
    until(lambda: rig.state() is State.LIVE)
    assert rig.supervisor.health.losses == 1


def test_the_time_without_a_camera_counts_while_it_lasts() -> None:
    health = Health("vis", "told", 25.0, SilencePolicy())
    health.on_frame(None)
    assert health.downtime_s == 0
    health.mark_lost("unplugged")
    time.sleep(0.05)
    during = health.downtime_s
    assert during >= 0.05
    health.on_frame(None)
    assert during <= health.downtime_s == health.downtime_s
    health.mark_lost("unplugged")
    health.finish()
    assert health.downtime_s == health.downtime_s > during


def test_silence_that_the_machine_was_too_busy_to_hear_is_no_loss() -> None:
    rig = Rig("vis")
    rig.opens.put(None)
    rig.frame()
    seen = rig.supervisor.health.seen
    asked: list[float] = []

    def starved(since: float) -> float:
        asked.append(since)
        return 0.8

    rig.supervisor.check(seen + 1.2, starved)
    assert rig.state() is State.LIVE
    assert asked[0] == seen
    rig.supervisor.check(seen + 1.4, starved)
    assert rig.state() is State.LOST
    assert rig.supervisor.health.reason == "told: no frame for 0.6 s"
    rig.close()


@pytest.mark.parametrize(("fps", "quiet"), [(30.0, 0.5), (4.0, 0.75)])
def test_a_slow_camera_may_be_silent_for_three_frames(fps: float, quiet: float) -> None:
    health = Health("vis", "told", fps, SilencePolicy())
    states = []
    for before, silent in ((False, 1e9), (True, quiet - 0.01), (True, quiet + 0.01)):
        if before:
            health.on_frame(None)
        health.check(health.seen + silent)
        states.append(health.state)
    assert states == [State.WAITING, State.LIVE, State.LOST], "nothing is lost that was never there"


def test_a_camera_that_comes_and_goes_is_logged_every_ten_seconds(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(f"{Health.__module__}.time", SimpleNamespace(monotonic=lambda: clock.now))
    health = Health("vis", "told", 25.0, SilencePolicy())
    health.on_frame(None)
    levels = []
    with caplog.at_level(logging.DEBUG):
        for clock.now in (100.0, 109.0, 110.0, 119.0, 125.0):
            caplog.clear()
            health.mark_lost("unplugged")
            clock.now += 0.5
            health.on_frame(None)
            levels.append([record.levelname for record in caplog.records])
    assert levels == [["WARNING", "INFO"], ["DEBUG"], ["WARNING", "INFO"], ["DEBUG"], ["WARNING", "INFO"]]
    assert caplog.messages == ["visible lost: unplugged", "visible is back after 0.5 s"]
    assert (health.losses, health.downtime_s) == (5, 2.5)


@pytest.mark.parametrize(("late", "level"), [(1.0, "DEBUG"), (-1.0, "WARNING")])
def test_a_thread_that_does_not_end_is_not_waited_for(
    late: float, level: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A camera that may still answer in time is nothing to warn of."""
    go = threading.Event()

    class Hangs(Told):
        limit = late

        def read(self) -> Frame | None:
            go.wait()
            return None

    camera = Camera("told", lambda: Hangs(queue.Queue()))
    supervisor = Supervisor("vis", camera, lambda *_: None, lambda _: None)
    supervisor.start()
    until(lambda: supervisor._reader.source is not None and supervisor._reader.busy_since is not None)
    time.sleep(0.05)
    with caplog.at_level(logging.DEBUG):
        supervisor.stop()
        supervisor.join(time.monotonic())
    go.set()
    found = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert found[0] == (level, "told does not answer: not waiting for its read thread")


def test_a_recording_ends_and_one_that_is_stopped_does_not() -> None:
    supervisor, frames, losses = read_through(Camera.of(Recording(0, 1, 2)), 99)
    assert supervisor.health.state is State.ENDED
    assert [frame.index for frame in frames] == [0, 1, 2]
    assert losses == [0, 0, 0]
    supervisor, frames, _ = read_through(Camera.of(Recording(0, 1, 2)), 2)
    assert supervisor.health.state is State.LIVE
    assert len(frames) == 2


def test_gaps_in_the_numbers_are_lost_frames_and_a_counter_may_start_over() -> None:
    steps = (5, 6, 8, 12, 3, 4, 10_004, 20_004, 20_005)
    _, _, losses = read_through(Camera.of(Recording(*steps)), 99)
    assert losses == [0, 0, 1, 3, 0, 0, 9999, 9999, 0]
    _, _, losses = read_through(Camera.of(Recording(0, 10_001, 10_003)), 99)
    assert losses == [0, 0, 1], "ten thousand frames are no gap"


def test_frames_that_cannot_be_read_are_skipped_and_each_reason_is_told_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    steps = (FrameError("early"), 1, FrameError("damaged"), FrameError("damaged"), FrameError("cut off"), 5)
    supervisor, frames, losses = read_through(Camera.of(Recording(*steps)), 99)
    assert [frame.index for frame in frames] == [1, 5]
    assert losses == [0, 0], "skipped frames are not lost ones"
    assert supervisor.skipped == 4
    assert supervisor.unreadable == ("early", "damaged", "cut off")
    assert caplog.messages == ["early", "damaged", "cut off"]


def test_frames_tell_how_often_their_camera_was_reopened() -> None:
    """And the numbers of another connection have no gap to those before."""
    made = itertools.count()

    def reopen() -> Source:
        return Recording(100 * next(made), LostError("gone"))

    supervisor, frames, losses = read_through(Camera("told", reopen), 4)
    assert [(frame.index, frame.connection) for frame in frames] == [(0, 0), (100, 1), (200, 2), (300, 3)]
    assert losses == [0] * 4
    assert supervisor.health.reconnects == 3
    assert supervisor.fps == 30.0


def test_a_picture_that_stays_frozen_has_its_camera_reopened() -> None:
    rig = Rig("ir", SilencePolicy(frozen=0.2))
    for _ in range(2):
        rig.opens.put(None)
    rig.frame()
    rig.frame("frozen")
    rig.frame()
    time.sleep(0.25)
    rig.frame("frozen")  # once more, for no time yet
    rig.frame()
    assert rig.supervisor.health.reconnects == 0
    rig.frame("frozen")
    time.sleep(0.25)
    rig.orders.put("frozen")
    until(lambda: rig.supervisor.health.reconnects == 1)
    assert rig.supervisor.health.reason == "told: its picture still does not change, reopening it"
    rig.frame()
    assert rig.state() is State.LIVE
    rig.close()
