"""Outputs beside each other: those that fail, hang or are not read, and raw frames."""

import os
import threading
import time
from typing import Any

import numpy as np
import pytest

from edgefuse.errors import InputError
from edgefuse.runtime.frames import Frame, FusedFrame
from edgefuse.runtime.live import run
from edgefuse.runtime.sinks import Callback, RawOut, SinkWriter
from edgefuse.runtime.sinks.base import Deadline
from edgefuse.runtime.sources import Source
from edgefuse.runtime.timing import StageTimes
from tests.support.shots import shot


@pytest.mark.parametrize("grey", [False, True])
def test_raw_frames_have_one_size(grey: bool, caplog: pytest.LogCaptureFixture) -> None:
    reader, writer = os.pipe()
    with RawOut(writer) as sink:
        sink.write(shot(2, (32, 16), grey))
        sink.write(shot(3, (64, 32), grey))
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        data = np.frombuffer(pipe.read(), np.uint8).reshape(2, 16, 32, 3)
    assert [set(np.unique(image).tolist()) for image in data] == [{40}, {60}]
    assert caplog.messages == ["standard output: pictures are now 64x32, and are fitted into 32x16"]


def test_a_reader_that_has_ended_is_said() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with RawOut(writer) as sink, pytest.raises(InputError, match="the program that read the pictures"):
        sink.write(shot())
    os.close(writer)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_a_full_disk_under_raw_frames_is_said() -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    with RawOut(full) as sink, pytest.raises(OSError, match="No space left"):
        sink.write(shot())
    os.close(full)


class Stuck(Callback):
    """Hangs with the first frame, until it is let go, or interrupted."""

    def __init__(self, heeds: bool) -> None:
        self.go, self.heeds = threading.Event(), heeds
        super().__init__(lambda _: self.go.wait(), "stuck")

    def interrupt(self) -> None:
        if self.heeds:
            self.go.set()


def wait_until(condition: Any) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_callback_that_raises_is_called_no_more(caplog: pytest.LogCaptureFixture) -> None:
    seen: list[int] = []

    def function(frame: FusedFrame) -> None:
        if frame.index == 2:
            raise ZeroDivisionError("no")
        seen.append(frame.index)

    writer = SinkWriter(Callback(function), StageTimes(), lambda: True)

    writer.start()
    for n in range(5):
        writer.put(shot(n))
    writer.finish(Deadline(5))
    assert seen == [0, 1]
    assert (writer.written, writer.dropped) == (2, 3)
    assert caplog.messages == ["callback: ZeroDivisionError: no"]


def test_an_output_that_hangs_is_left_behind() -> None:
    before = threading.active_count()
    sink = Stuck(heeds=False)
    writer = SinkWriter(sink, StageTimes(), lambda: False)
    writer.start()
    for n in range(20):
        writer.put(shot(n))
    start = time.monotonic()
    writer.finish(Deadline(0.2))
    assert time.monotonic() - start < 1
    assert writer.error == "stuck does not finish: not waiting for it"
    assert (writer.written, writer.dropped) == (0, 20)
    sink.go.set()
    wait_until(lambda: threading.active_count() == before)


def test_a_stalled_output_of_recordings_is_given_up_for_the_others(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("edgefuse.runtime.sinks.base.STALL_SECONDS", 0.3)
    seen: list[int] = []
    stuck, good = (
        SinkWriter(sink, StageTimes(), lambda: True)
        for sink in (Stuck(heeds=True), Callback(lambda frame: seen.append(frame.index)))
    )
    stuck.start()
    good.start()
    for n in range(40):
        for writer in (stuck, good):
            writer.put(shot(n))
    for writer in (stuck, good):
        writer.finish(Deadline(5))
    assert seen == list(range(40))
    assert stuck.error == "stuck has taken nothing for 0.3 s: stopped"
    assert stuck.written + stuck.dropped == 40
    assert caplog.messages == [stuck.error]


class Pictures(Source):
    """A recording in memory."""

    name, live, fps, length = "pictures", False, 100.0, 40

    def __init__(self) -> None:
        self._next = 0

    def read(self) -> Frame | None:
        if self._next == self.length:
            return None
        self._next += 1
        image = np.zeros((16, 24), np.uint8)
        return Frame(image, self._next - 1, (self._next - 1) / self.fps, time.monotonic())

    def close(self) -> None:
        pass


def test_a_run_goes_on_without_an_output_that_has_stalled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgefuse.runtime.sinks.base.STALL_SECONDS", 0.3)
    seen: list[int] = []
    stuck, good = Stuck(heeds=False), Callback(lambda frame: seen.append(frame.index))
    report = run(Pictures(), Pictures(), lambda ir, vis: vis.copy(), [stuck, good])
    assert (report.frames, seen) == (40, list(range(40)))
    assert [sink.written + sink.dropped for sink in report.sinks] == [40, 40]
    assert report.error == "stuck has taken nothing for 0.3 s: stopped"
    assert report.seconds < 5
    stuck.go.set()


def test_a_stalled_output_of_cameras_drops_and_goes_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("edgefuse.runtime.sinks.base.STALL_SECONDS", 0.2)
    sink = Stuck(heeds=False)
    writer = SinkWriter(sink, StageTimes(), lambda: False)
    writer.start()
    start = time.monotonic()
    for n in range(30):
        begun = time.monotonic()
        writer.put(shot(n))
        assert time.monotonic() - begun < 0.1, "nobody waits for it"
        time.sleep(0.01)
    assert time.monotonic() - start > 0.3
    assert caplog.messages == ["stuck has taken nothing for 0.2 s: dropping pictures until it continues"]
    sink.go.set()
    wait_until(lambda: writer.written >= 9)
    writer.put(shot(30))
    writer.finish(Deadline(5))
    assert writer.error is None
    assert writer.written + writer.dropped == 31


def test_the_only_output_of_recordings_may_take_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgefuse.runtime.sinks.base.STALL_SECONDS", 0.1)
    sink = Stuck(heeds=False)
    writer = SinkWriter(sink, StageTimes(), lambda: True, alone=True)
    writer.start()
    threading.Timer(0.5, sink.go.set).start()
    for n in range(20):
        writer.put(shot(n))
    writer.finish(Deadline(5))
    assert (writer.written, writer.dropped, writer.error) == (20, 0, None)


def test_a_reader_that_stops_reading_ends_with_the_run() -> None:
    before = threading.active_count()
    reader, out = os.pipe()
    writer = SinkWriter(RawOut(out), StageTimes(), lambda: False)
    writer.start()
    for n in range(20):
        writer.put(shot(n, (640, 480)))
    writer.finish(Deadline(0.2))
    assert writer.error == "standard output: the program that reads the pictures has stopped reading"
    assert writer.written + writer.dropped == 20
    assert threading.active_count() == before
    os.close(reader)
    os.close(out)
