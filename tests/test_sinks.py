import errno
import os
import shutil
import subprocess
import sys
import threading
import time
from collections import namedtuple
from contextlib import suppress
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest

from edgefuse.errors import InputError
from edgefuse.images import read_image
from edgefuse.runtime.compose import side_by_side
from edgefuse.runtime.live import run
from edgefuse.runtime.sinks import (
    Callback,
    FusedFrame,
    ImageSequence,
    RawOut,
    SinkFullError,
    SinkWriter,
    Still,
    VideoOut,
    Window,
    open_output,
)
from edgefuse.runtime.sources import Frame, Source
from edgefuse.runtime.timing import StageTimes


def shot(index: int = 0, size: tuple[int, int] = (64, 48), grey: bool = False, at: float = 0.0) -> FusedFrame:
    width, height = size
    shape = (height, width) if grey else (height, width, 3)
    ir = np.full((height, width), 200, np.uint8)
    vis, fused = np.full(shape, 20, np.uint8), np.full(shape, 20 * index % 256, np.uint8)
    return FusedFrame(ir, vis, fused, index, at)


def frames_of(path: Path) -> list[Any]:
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    frames: list[Any] = []
    while True:
        ok, image = capture.read()
        if not ok:
            return frames
        frames.append(image)


@pytest.mark.parametrize("suffix", [".mp4", ".avi", ".mkv", ".MP4"])
@pytest.mark.parametrize("size", [(64, 48), (65, 49)])
@pytest.mark.parametrize("grey", [False, True])
def test_a_video_holds_every_frame(tmp_path: Path, suffix: str, size: tuple[int, int], grey: bool) -> None:
    path = tmp_path / f"out{suffix}"
    with VideoOut(path, fps=12.5) as sink:
        for n in range(5):
            sink.write(shot(n, size, grey))
        assert not path.exists(), "the final name is given at the end"
    frames = frames_of(path)
    assert [round(float(f.mean()) / 20) for f in frames] == [0, 1, 2, 3, 4]
    assert frames[0].shape == (size[1] + size[1] % 2, size[0] + size[0] % 2, 3)
    assert os.listdir(tmp_path) == [path.name]


def test_a_side_by_side_video(tmp_path: Path) -> None:
    with VideoOut(tmp_path / "out.mkv", fps=10, triptych=True) as sink:
        sink.write(shot(5))
    (frame,) = frames_of(tmp_path / "out.mkv")
    assert frame.shape == (48, 192, 3)
    assert [int(frame[5, x, 0]) for x in (32, 96, 160)] == [200, 20, 100]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_frames_of_cameras_keep_their_times(tmp_path: Path, suffix: str) -> None:
    times = [100.0, 100.04, 100.3, 160.0, 159.0, 160.1]  # late, a gap, and a clock that was set back
    with VideoOut(tmp_path / f"out{suffix}", fps=None) as sink:
        for n, at in enumerate(times):
            sink.write(shot(n, at=at))
    with av.open(str(tmp_path / f"out{suffix}")) as container:
        shown = [frame.time for frame in container.decode(video=0)]
    assert shown == pytest.approx([0, 0.04, 0.3, 60.0, 60.0, 60.1], abs=2e-3)
    assert shown == sorted(set(shown))


def test_an_existing_video_stays_until_the_new_one_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    path.write_text("old")
    sink = VideoOut(path, fps=10)
    sink.write(shot())
    assert path.read_text() == "old"
    sink.close()
    sink.close()
    assert len(frames_of(path)) == 1


def test_a_video_without_frames_writes_nothing(tmp_path: Path) -> None:
    VideoOut(tmp_path / "out.mp4", fps=10).close()
    assert os.listdir(tmp_path) == []


def test_a_full_disk_stops_a_video_before_it_is_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = VideoOut(tmp_path / "out.mp4", fps=10)
    for n in range(16):
        sink.write(shot(n))
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 10**9, 10**6))
    with pytest.raises(InputError, match=r"out\.mp4: the disk is full"):
        sink.write(shot(16))
    sink.close()
    assert len(frames_of(tmp_path / "out.mp4")) == 16


def test_a_disk_that_refuses_keeps_what_was_written(tmp_path: Path) -> None:
    class Full:
        def __getattr__(self, name: str) -> Any:
            return getattr(real, name)

        def write(self, data: Any) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    sink = VideoOut(tmp_path / "out.mp4", fps=10)
    for n in range(25):
        sink.write(shot(n))
    assert sink._encoder is not None
    real, sink._encoder._file._file = sink._encoder._file._file, Full()  # type: ignore[assignment]
    with pytest.raises(OSError, match="No space left"):  # noqa: PT012
        for n in range(25):
            sink.write(shot(n))
        sink.close()
    with suppress(OSError, InputError):
        sink.close()
    assert len(frames_of(tmp_path / "out.mp4")) >= 20
    assert os.listdir(tmp_path) == ["out.mp4"]


def test_two_runs_with_one_output_leave_each_other_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = VideoOut(tmp_path / "out.mp4", fps=10)
    first.write(shot())
    second = VideoOut(tmp_path / "out.mp4", fps=10)
    second.write(shot())
    assert len(list(tmp_path.glob("out-*.part.mp4"))) == 2
    for sink in (first, second):
        sink.close()
    assert caplog.messages == []


def test_what_a_killed_run_left_is_named_and_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", RECORDER, str(tmp_path / "out.mp4")], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    while float(process.stdout.readline()) < 2.0:
        pass
    VideoOut(tmp_path / "out.mp4", fps=10).close()
    (part,) = tmp_path.glob("*.part.mp4")
    assert caplog.messages == [], "the process lives, and writes it"
    process.kill()
    process.communicate()
    with VideoOut(tmp_path / "out.mp4", fps=10) as sink:
        sink.write(shot())
    kept = part.with_name(part.name.replace(".part", ""))
    assert sorted(os.listdir(tmp_path)) == [kept.name, "out.mp4"]
    assert frames_of(kept)
    assert caplog.messages == [f"{part} was cut off by the end of an earlier run: kept as {kept}"]


def test_another_picture_size_or_colour_begins_a_new_file(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "out-2.mkv").write_text("somebody's")
    with VideoOut(tmp_path / "out.mkv", fps=10) as sink:
        for n, (size, grey) in enumerate((((32, 24), True), ((32, 24), False), ((64, 48), False))):
            for _ in range(3):
                sink.write(shot(n + 5, size, grey))
    shapes = [
        [image.shape for image in frames_of(tmp_path / name)]
        for name in ("out.mkv", "out-3.mkv", "out-4.mkv")
    ]
    assert shapes == [[(24, 32, 3)] * 3, [(24, 32, 3)] * 3, [(48, 64, 3)] * 3]
    assert (tmp_path / "out-2.mkv").read_text() == "somebody's"
    assert [message.split(": ")[1] for message in caplog.messages] == [
        "the pictures are now 32x24, colour",
        "the pictures are now 64x48, colour",
    ]


@pytest.mark.parametrize(
    ("codec", "name"), [("h264", "h264"), ("h265", "hevc"), ("ffv1", "ffv1"), ("mjpeg", "mjpeg")]
)
def test_the_codec_can_be_chosen(tmp_path: Path, codec: str, name: str) -> None:
    with VideoOut(tmp_path / "out.mkv", fps=10, codec=codec) as sink:
        for n in range(3):
            sink.write(shot(n, (64, 64)))
    with av.open(str(tmp_path / "out.mkv")) as container:
        assert container.streams.video[0].codec_context.name == name
        assert sum(1 for _ in container.decode(video=0)) == 3


def test_ffv1_is_lossless(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    with VideoOut(tmp_path / "out.mkv", fps=10) as sink:
        sink.write(FusedFrame(image[:, :, 0], image, image, 0, 0.0))
    with av.open(str(tmp_path / "out.mkv")) as container:
        (frame,) = container.decode(video=0)
        assert np.array_equal(frame.to_ndarray(format="bgr24"), image)


@pytest.mark.parametrize("codec", ["h264", "h265"])
def test_times_of_their_own_cost_no_quality(tmp_path: Path, codec: str) -> None:
    for name, fps in (("steady.mkv", 25.0), ("timed.mkv", None)):
        with VideoOut(tmp_path / name, fps, codec=codec) as sink:
            for n in range(10):
                sink.write(noise(n, at=n / 25))
    sizes = [(tmp_path / name).stat().st_size for name in ("steady.mkv", "timed.mkv")]
    assert sizes[0] == pytest.approx(sizes[1], rel=0.05)


def test_segments_follow_each_other_and_lose_nothing(tmp_path: Path) -> None:
    with VideoOut(tmp_path / "out.mp4", fps=10, segment=1) as sink:
        for n in range(25):
            sink.write(shot(n))
    files = sorted(tmp_path.iterdir(), key=lambda path: path.stat().st_mtime_ns)
    assert [len(frames_of(path)) for path in files] == [10, 10, 5]
    assert all(path.name.startswith("out-20") and ".part" not in path.name for path in files)


def noise(index: int, at: float = 0.0) -> FusedFrame:
    image = np.random.default_rng(index).integers(0, 256, (240, 320, 3), np.uint8)
    return FusedFrame(image[:, :, 0], image, image, index, at)


def bytes_in(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


@pytest.mark.parametrize("name", ["out.mkv", "out.mp4"])
def test_a_size_cap_ends_a_video(tmp_path: Path, name: str) -> None:
    sink = VideoOut(tmp_path / name, fps=10, max_size=10**6)
    with pytest.raises(SinkFullError, match="largest size of 1 MB"):  # noqa: PT012
        for n in range(100):
            sink.write(noise(n))
    sink.close()
    assert 0.7e6 < bytes_in(tmp_path) < 1.01e6  # a frame has up to 250 kB
    assert len(frames_of(tmp_path / name)) >= 3


def test_a_size_cap_with_segments_removes_the_oldest(tmp_path: Path) -> None:
    most = 0
    with VideoOut(tmp_path / "out.mkv", fps=16, segment=1, max_size=8 * 10**6) as sink:
        for n in range(120):
            sink.write(noise(n))
            most = max(most, bytes_in(tmp_path))
    assert 5.5e6 < bytes_in(tmp_path) < 8.05e6
    assert most < 8.05e6
    newest = max(tmp_path.iterdir(), key=lambda path: path.stat().st_mtime_ns)
    assert np.array_equal(frames_of(newest)[-1], noise(119).fused)


def test_a_segment_that_is_larger_than_the_cap_is_cut_short(tmp_path: Path) -> None:
    with VideoOut(tmp_path / "out.mkv", fps=16, segment=3600, max_size=4 * 10**6) as sink:
        for n in range(60):
            sink.write(noise(n))
    assert 2.5e6 < bytes_in(tmp_path) < 4.05e6
    assert len(os.listdir(tmp_path)) >= 3


def test_parts_of_earlier_runs_count_and_go_first(tmp_path: Path) -> None:
    for name in ("out-20200101-000000.mkv", "out-20200101-000000-2.mkv", "out-20200101-000000-10.mkv"):
        (tmp_path / name).write_bytes(bytes(10**6))
    for name in ("out.mkv", "out-20200101.mkv", "other-20200101-000000.mkv", "out-20200101-000000.mp4"):
        (tmp_path / name).write_bytes(bytes(10**6))
    with VideoOut(tmp_path / "out.mkv", fps=16, segment=60, max_size=3 * 10**6) as sink:
        sink.write(noise(0))
        sink.write(noise(1))
        assert sorted(p.name for p in tmp_path.glob("out-2020*.mkv")) == [
            "out-20200101-000000-10.mkv",
            "out-20200101-000000-2.mkv",
            "out-20200101.mkv",
        ]
    assert {"out.mkv", "other-20200101-000000.mkv", "out-20200101-000000.mp4"} < set(os.listdir(tmp_path))


RECORDER = """
import sys, time, numpy as np
from edgefuse.runtime.sinks import FusedFrame, VideoOut
sink = VideoOut(sys.argv[1], fps=None, codec=(sys.argv[2:] or [None])[0])
start = time.monotonic()
for n in range(10_000):
    now = time.monotonic()
    image = np.random.default_rng(n).integers(0, 256, (48, 64, 3), np.uint8)
    sink.write(FusedFrame(image[:, :, 0], image, image, n, now))
    print(now - start, flush=True)
    time.sleep(0.04)
"""


@pytest.mark.parametrize(
    "arguments", [["out.mp4"], ["out.mp4", "h265"], ["out.mkv", "h264"], ["out.mkv"]], ids="-".join
)
def test_a_power_cut_loses_at_most_two_seconds(tmp_path: Path, arguments: list[str]) -> None:
    name, *codec = arguments
    process = subprocess.Popen(
        [sys.executable, "-c", RECORDER, str(tmp_path / name), *codec], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    last = 0.0
    while last < 3.3:
        last = float(process.stdout.readline())
    process.kill()
    process.communicate()
    (part,) = tmp_path.glob("out-*.part.*")
    with av.open(str(part)) as container:
        shown = [frame.time for frame in container.decode(video=0)]
    assert last - shown[-1] < 2


# --- raw


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


# --- several outputs at once


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
    for n in range(5):
        writer.put(shot(n))
    writer.finish(time.monotonic() + 5)
    assert seen == [0, 1]
    assert (writer.written, writer.dropped) == (2, 3)
    assert caplog.messages == ["callback: ZeroDivisionError: no"]


def test_an_output_that_hangs_is_left_behind() -> None:
    before = threading.active_count()
    sink = Stuck(heeds=False)
    writer = SinkWriter(sink, StageTimes(), lambda: False)
    for n in range(20):
        writer.put(shot(n))
    start = time.monotonic()
    writer.finish(time.monotonic() + 0.2)
    assert time.monotonic() - start < 1
    assert writer.error == "stuck does not finish and is left behind"
    assert (writer.written, writer.dropped) == (0, 20)
    sink.go.set()
    wait_until(lambda: threading.active_count() == before)


def test_a_stalled_output_of_recordings_is_given_up_for_the_others(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("edgefuse.runtime.sinks.writer.STALL_SECONDS", 0.3)
    seen: list[int] = []
    stuck, good = (
        SinkWriter(sink, StageTimes(), lambda: True)
        for sink in (Stuck(heeds=True), Callback(lambda frame: seen.append(frame.index)))
    )
    for n in range(40):
        for writer in (stuck, good):
            writer.put(shot(n))
    for writer in (stuck, good):
        writer.finish(time.monotonic() + 5)
    assert seen == list(range(40))
    assert stuck.error == "stuck has taken nothing for 0.3 s: it gets no more pictures"
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
    monkeypatch.setattr("edgefuse.runtime.sinks.writer.STALL_SECONDS", 0.3)
    seen: list[int] = []
    stuck, good = Stuck(heeds=False), Callback(lambda frame: seen.append(frame.index))
    report = run(Pictures(), Pictures(), lambda ir, vis: vis.copy(), [stuck, good])
    assert (report.frames, seen) == (40, list(range(40)))
    assert [sink.written + sink.dropped for sink in report.sinks] == [40, 40]
    assert report.error == "stuck has taken nothing for 0.3 s: it gets no more pictures"
    assert report.seconds < 5
    stuck.go.set()


def test_a_stalled_output_of_cameras_drops_and_goes_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("edgefuse.runtime.sinks.writer.STALL_SECONDS", 0.2)
    sink = Stuck(heeds=False)
    writer = SinkWriter(sink, StageTimes(), lambda: False)
    start = time.monotonic()
    for n in range(30):
        begun = time.monotonic()
        writer.put(shot(n))
        assert time.monotonic() - begun < 0.1, "nobody waits for it"
        time.sleep(0.01)
    assert time.monotonic() - start > 0.3
    assert caplog.messages == ["stuck has taken nothing for 0.2 s: pictures are dropped until it goes on"]
    sink.go.set()
    wait_until(lambda: writer.written >= 9)
    writer.put(shot(30))
    writer.finish(time.monotonic() + 5)
    assert writer.error is None
    assert writer.written + writer.dropped == 31


def test_the_only_output_of_recordings_may_take_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgefuse.runtime.sinks.writer.STALL_SECONDS", 0.1)
    sink = Stuck(heeds=False)
    writer = SinkWriter(sink, StageTimes(), lambda: True, alone=True)
    threading.Timer(0.5, sink.go.set).start()
    for n in range(20):
        writer.put(shot(n))
    writer.finish(time.monotonic() + 5)
    assert (writer.written, writer.dropped, writer.error) == (20, 0, None)


def test_a_reader_that_stops_reading_ends_with_the_run() -> None:
    before = threading.active_count()
    reader, out = os.pipe()
    writer = SinkWriter(RawOut(out), StageTimes(), lambda: False)
    for n in range(20):
        writer.put(shot(n, (640, 480)))
    writer.finish(time.monotonic() + 0.2)
    assert writer.error == "standard output: the program that reads the pictures has stopped reading"
    assert writer.written + writer.dropped == 20
    assert threading.active_count() == before
    os.close(reader)
    os.close(out)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("out.webm", r"the suffix of a video must be one of \.mp4, \.mkv, \.avi"),
        ("missing/out.mp4", "there is no folder"),
        ("", "the output is empty"),
    ],
)
def test_a_bad_output_gets_one_sentence(tmp_path: Path, name: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        open_output(f"{tmp_path}/{name}" if name else "", fps=10, triptych=False)
    assert os.listdir(tmp_path) == []


def test_an_output_follows_from_its_path(tmp_path: Path) -> None:
    (tmp_path / "dotted.d").mkdir()
    kinds = {
        name: type(open_output(f"{tmp_path}/{name}", fps=10, triptych=False))
        for name in ("a.mp4", "a/", "b", "dotted.d")
    }
    assert kinds == {"a.mp4": VideoOut, "a/": ImageSequence, "b": ImageSequence, "dotted.d": ImageSequence}


def test_an_image_sequence_is_lossless_and_numbered(tmp_path: Path) -> None:
    with ImageSequence(tmp_path / "new" / "frames") as sink:
        for n in range(3):
            sink.write(shot(n))
    files = sorted((tmp_path / "new" / "frames").iterdir())
    assert [f.name for f in files] == ["000000.png", "000001.png", "000002.png"]
    assert read_image(files[2])[0, 0].tolist() == [40, 40, 40]


def test_an_image_sequence_does_not_mix_with_older_images(tmp_path: Path) -> None:
    (tmp_path / "old.png").touch()
    with pytest.raises(InputError, match="already has images"):
        ImageSequence(tmp_path)


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot make folder"):
        ImageSequence(tmp_path / "file" / "frames")


def test_a_still_is_the_last_frame(tmp_path: Path) -> None:
    with Still(tmp_path / "still.png") as sink:
        for n in range(3):
            sink.write(shot(n))
        assert os.listdir(tmp_path) == []
    image = read_image(tmp_path / "still.png")
    assert image.shape == (48, 192, 3)
    assert image[5, 160, 0] == 40


@pytest.mark.parametrize(
    ("name", "sentence"), [("a.txt", "the suffix of a still"), ("missing/a.png", "there is no folder")]
)
def test_a_bad_still_gets_one_sentence(tmp_path: Path, name: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        Still(tmp_path / name)


def test_side_by_side_resizes_infrared_and_labels() -> None:
    vis = np.full((480, 640, 3), 60, np.uint8)
    image = side_by_side(np.full((240, 320), 60, np.uint8), vis, vis)
    assert image.shape == (480, 1920, 3)
    assert (image[:400] == 60).all()
    for column in range(3):
        assert (image[400:, 640 * column : 640 * (column + 1)] == 255).any()


@pytest.mark.parametrize("size", [(16, 16), (17, 33), (16, 480)])
def test_side_by_side_of_small_pictures(size: tuple[int, int]) -> None:
    small = shot(1, size)
    assert side_by_side(small.ir, small.vis, small.fused).shape == (size[1], 3 * size[0], 3)


@pytest.mark.skipif(os.name != "posix", reason="displays are named by the environment on Linux only")
@pytest.mark.parametrize("display", [None, ":99"])
def test_a_missing_display_gets_one_sentence(display: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    if display is not None:
        monkeypatch.setenv("DISPLAY", display)
    with pytest.raises(InputError, match=r"no display|no window can be opened"):
        Window(lambda: None)


class FakeScreen:
    """What OpenCV's windows do, without a screen: none can be had where tests run."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.shown: list[Any] = []
        self.sizes: list[tuple[int, int]] = []
        self.key, self.visible, self.opened = -1, 1.0, False
        self.threads: set[threading.Thread] = set()
        monkeypatch.setattr("edgefuse.runtime.sinks.window._check_display", lambda: None)
        for name in ("namedWindow", "resizeWindow", "imshow", "waitKey", "destroyAllWindows"):
            monkeypatch.setattr(cv2, name, getattr(self, name))
        monkeypatch.setattr(cv2, "getWindowProperty", lambda *_: self.visible)

    def namedWindow(self, *_: object) -> None:  # noqa: N802
        self.opened = True

    def destroyAllWindows(self) -> None:  # noqa: N802
        self.opened = False

    def resizeWindow(self, _: str, width: int, height: int) -> None:  # noqa: N802
        self.sizes.append((width, height))

    def imshow(self, _: str, image: Any) -> None:
        self.threads.add(threading.current_thread())
        self.shown.append(image)

    def waitKey(self, _: int) -> int:  # noqa: N802
        return self.key


@pytest.mark.parametrize("triptych", [False, True])
def test_a_window_shows_every_frame_in_the_main_thread(
    monkeypatch: pytest.MonkeyPatch, triptych: bool
) -> None:
    screen, closed = FakeScreen(monkeypatch), []
    writer = SinkWriter(Window(lambda: closed.append(1), triptych), StageTimes(), lambda: True)
    writer.sink.idle()
    assert len(screen.sizes) == 0, "nothing is known of the size before the first picture"
    for n in range(3):
        writer.put(shot(n, (2000, 1200)))
    assert [image.shape for image in screen.shown] == [(1200, 6000 if triptych else 2000, 3)] * 3
    assert screen.sizes == [(1600, 900)]
    assert screen.threads == {threading.main_thread()}
    assert (len(closed), screen.opened) == (0, True)
    writer.finish(time.monotonic() + 5)
    assert (len(closed), screen.opened) == (0, False)
    assert (writer.written, writer.dropped, writer.error) == (3, 0, None)


@pytest.mark.parametrize(("key", "visible"), [(ord("q"), 1.0), (27, 1.0), (-1, 0.0)])
def test_q_escape_or_the_cross_end_the_stream(
    monkeypatch: pytest.MonkeyPatch, key: int, visible: float
) -> None:
    screen, closed = FakeScreen(monkeypatch), []
    with Window(lambda: closed.append(1)) as window:
        window.write(shot())
        assert len(closed) == 0
        screen.key, screen.visible = key, visible
        window.idle()
        assert len(closed) == 1, "also while no frames come"


def test_a_window_that_fails_leaves_the_others_running(monkeypatch: pytest.MonkeyPatch) -> None:
    FakeScreen(monkeypatch)

    def broken(*_: object) -> None:
        raise cv2.error("the display is gone")

    monkeypatch.setattr(cv2, "imshow", broken)
    seen: list[int] = []
    sinks = [Window(lambda: None), Callback(lambda frame: seen.append(frame.index))]
    writers = [SinkWriter(sink, StageTimes(), lambda: True) for sink in sinks]
    for n in range(5):
        for writer in writers:
            writer.put(shot(n))
    for writer in writers:
        writer.finish(time.monotonic() + 5)
    assert seen == list(range(5))
    assert (writers[0].written, writers[0].dropped) == (0, 5)
    assert writers[0].error == "window: the display is gone"
