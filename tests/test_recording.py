import os
import threading
import time
from io import StringIO
from pathlib import Path
from types import SimpleNamespace

import av
import cv2
import numpy as np
import pytest

from edgefuse.cli.console import Output
from edgefuse.cli.record import _print_result
from edgefuse.errors import InputError, LostError, SourceError
from edgefuse.runtime.cameras.camera import Camera, ThermalPreprocess, connect
from edgefuse.runtime.config import StopRequest
from edgefuse.runtime.frames import Frame
from edgefuse.runtime.live import run
from edgefuse.runtime.live.capture import Supervisor
from edgefuse.runtime.record import LosslessVideo, kind_of, record
from edgefuse.runtime.sources import open_source
from edgefuse.runtime.sources.folder import part_name
from edgefuse.runtime.sources.video import STARTED_TAG, read_timestamps, timestamps_path
from edgefuse.thermal_config import ThermalConfig
from tests.support.recorded import TAGS, ListSource, check_account, frames_of, images


@pytest.mark.parametrize(
    ("kind", "role"), [("grey", "vis"), ("grey", "ir"), ("16-bit", "ir"), ("colour", "vis")]
)
def test_every_bit_and_microsecond_is_kept(tmp_path: Path, kind: str, role) -> None:
    given = images(kind)
    times = [0.25 + 0.0333337 * n for n in range(len(given))]
    video = LosslessVideo(tmp_path / "a.mkv", given[0], 30.0, TAGS)
    for n, (image, seconds) in enumerate(zip(given, times, strict=True)):
        video.write(image, seconds, n)
    video.close()
    video.close()
    frames = frames_of(str(tmp_path / "a.mkv"), role)
    assert all(np.array_equal(f.image, image) for f, image in zip(frames, given, strict=True))
    assert all(f.image.dtype == given[0].dtype for f in frames)
    assert [f.timestamp for f in frames] == pytest.approx(times, abs=1e-6)
    with av.open(str(tmp_path / "a.mkv")) as container:
        assert container.metadata[STARTED_TAG] == TAGS[STARTED_TAG]


def test_frames_of_one_millisecond_stay_apart(tmp_path: Path) -> None:
    given, times = images("grey", 4), [0.0100, 0.0101, 0.0102, 0.0300]
    video = LosslessVideo(tmp_path / "a.mkv", given[0], 30.0, TAGS)
    for n, (image, seconds) in enumerate(zip(given, times, strict=True)):
        video.write(image, seconds, n)
    video.close()
    assert [f.timestamp for f in frames_of(str(tmp_path / "a.mkv"))] == pytest.approx(times, abs=1e-6)


def test_a_first_frame_from_before_the_start_is_no_news(tmp_path: Path, caplog) -> None:
    given = images("grey", 3)
    video = LosslessVideo(tmp_path / "a.mkv", given[0], 30.0, TAGS)
    for n, seconds in enumerate((-0.028, 0.012, 0.052)):
        video.write(given[n], seconds, n)
    video.close()
    assert not caplog.messages
    times = [f.timestamp for f in frames_of(str(tmp_path / "a.mkv"))]
    assert np.diff(times) == pytest.approx(0.04, abs=1e-6)


def test_without_its_sheet_a_video_still_has_milliseconds(tmp_path: Path) -> None:
    given = images("grey", 3)
    video = LosslessVideo(tmp_path / "a.mkv", given[0], 30.0, TAGS)
    for n, image in enumerate(given):
        video.write(image, 1.0 + 0.0333337 * n, n)
    video.close()
    timestamps_path(tmp_path / "a.mkv").unlink()
    stamps = [f.timestamp for f in frames_of(str(tmp_path / "a.mkv"))]
    assert stamps == pytest.approx([1.0, 1.0333337, 1.0666674], abs=6e-4)


@pytest.mark.parametrize("tail", ["12,0.5", "1", "x,y,z\n", "\x00\x00"])
def test_a_sheet_that_breaks_off_keeps_its_whole_lines(tmp_path: Path, tail: str) -> None:
    sheet = timestamps_path(tmp_path / "a.mkv")
    sheet.write_text(f"pts_ms,timestamp_s,index\n0,0.000100,0\n33,0.033400,1\n{tail}")
    assert read_timestamps(tmp_path / "a.mkv") == {0: 0.0001, 33: 0.0334}


@pytest.mark.parametrize(
    "image",
    [np.zeros((20, 20), np.float32), np.zeros((20, 20, 4), np.uint8), np.zeros((20, 20, 3), np.uint16)],
)
def test_what_cannot_be_kept_is_refused(image: np.ndarray) -> None:
    with pytest.raises(InputError, match="cannot be recorded without loss"):
        kind_of(image)


def test_two_recordings_are_copied_in_full(tmp_path: Path) -> None:
    ir, vis = images("16-bit", 5), images("colour", 9)
    result = record({"ir": ListSource(ir), "vis": ListSource(vis)}, tmp_path / "out")
    assert [(camera.written, camera.dropped, camera.error) for camera in result] == [
        (5, 0, None),
        (9, 0, None),
    ]
    for name, given in (("ir", ir), ("vis", vis)):
        frames = frames_of(str(tmp_path / f"out/{name}"), name)
        assert all(np.array_equal(f.image, image) for f, image in zip(frames, given, strict=True))
        assert [f.timestamp for f in frames] == pytest.approx([n / 50 for n in range(len(given))])


def test_live_cameras_share_one_zero(tmp_path: Path) -> None:
    begun = time.monotonic()
    sources = {
        "ir": ListSource(images("16-bit", 99), True, 20),
        "vis": ListSource(images("grey", 99), True, 50),
    }
    ir, vis = record(sources, tmp_path, duration=0.6)  # type: ignore[arg-type]
    assert ir.error is None
    assert vis.error is None
    for camera in (ir, vis):
        stamps = list(read_timestamps(camera.files[0]).values())
        assert len(stamps) == camera.written == camera.captured
        assert 0 < stamps[0] < 0.3
        assert 0.3 < stamps[-1] < time.monotonic() - begun
    assert vis.written > 1.5 * ir.written


def test_it_ends_when_it_is_told_or_a_live_source_fails(tmp_path: Path) -> None:
    stop = StopRequest()
    stop("enough")
    ir, vis = ListSource(images("grey", 99), True), ListSource(images("grey", 99), True)
    record({"ir": ir, "vis": vis}, tmp_path / "a", stop=stop)
    failing = ListSource(images("grey", 3), True, error=SourceError("the cable is out"))
    result = record({"ir": failing, "vis": vis}, tmp_path / "b")
    assert result[0].error == "the cable is out"
    assert result[0].written == 3


def test_a_camera_that_is_lost_for_good_counts_as_lost(tmp_path: Path) -> None:
    first = [ListSource(images("grey", 5), True, error=LostError("the cable is out"))]

    def open_camera() -> ListSource:
        if not first:
            raise LostError("there is no camera")
        return first.pop()

    vis = ListSource(images("grey", 99), True)
    result = record({"ir": Camera("cam", open_camera), "vis": vis}, tmp_path, duration=0.6)
    assert [(camera.losses, camera.reconnects) for camera in result] == [(1, 0), (0, 0)]
    console = Output(file=StringIO(), width=200)
    _print_result(result, "end", console)
    assert isinstance(console.file, StringIO)
    rows = [line.split("│") for line in console.file.getvalue().splitlines() if "│" in line]
    assert [row[7].strip() for row in rows] == ["1", "0"]


def test_a_full_disk_ends_it_with_what_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(total=10**9, free=10**6))
    vis = ListSource(images("grey", 99), True)
    ir, _ = record({"ir": ListSource(images("grey", 99), True), "vis": vis}, tmp_path)
    assert ir.error is not None
    assert "is full" in ir.error


@pytest.mark.parametrize("duration", [0.0, -1.0, float("nan")])
def test_a_duration_must_be_positive(tmp_path: Path, duration: float) -> None:
    with pytest.raises(InputError, match="must be over 0"):
        record({"ir": ListSource([]), "vis": ListSource([])}, tmp_path, duration=duration)


def test_a_recording_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "ir").mkdir()
    (tmp_path / "ir" / "0001.mkv").touch()
    with pytest.raises(InputError, match="already contains a recording"):
        record({"ir": ListSource([]), "vis": ListSource([])}, tmp_path)


def test_a_replay_pairs_by_the_recorded_times_bit_for_bit(tmp_path: Path) -> None:
    """The cameras run at one rate, so that numbers would pair too: but one of them began late."""
    ir, vis = images("16-bit", 12, (48, 64)), images("colour", 12, (48, 64))
    for name, given, late in (("ir", ir, 0.2), ("vis", vis, 0.0)):
        (tmp_path / name).mkdir()
        for first in (0, 5, 9):
            video = LosslessVideo(tmp_path / name / part_name(first + 1), given[0], 25.0, TAGS)
            for n in range(12)[first : {0: 5, 5: 9, 9: 12}[first]]:
                video.write(given[n], late + n / 25, n)
            video.close()
    seen = []

    def fuse(ir_image: np.ndarray, vis_image: np.ndarray) -> np.ndarray:
        seen.append((ir_image, vis_image))
        return vis_image.copy()

    text = str(tmp_path / "ir?window=0-65535")
    with connect(text, "ir") as ir_source, open_source(str(tmp_path / "vis"), "vis") as vis_source:
        run(ir_source, vis_source, fuse)
    agc = ThermalPreprocess(ThermalConfig(window=(0, 65535)))
    pairs = [
        (
            [np.array_equal(ir_seen, agc(image, 0.0)) for image in ir].index(True),
            [np.array_equal(vis_seen, image) for image in vis].index(True),
        )
        for ir_seen, vis_seen in seen
    ]
    assert pairs[-7:] == [(n, n + 5) for n in range(7)]


class SlowVideo(LosslessVideo):
    seconds = 0.1

    def write(self, image: np.ndarray, seconds: float, index: int) -> None:
        time.sleep(self.seconds)
        super().write(image, seconds, index)


def test_a_hurry_leaves_unwritten_what_takes_too_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("edgefuse.runtime.record.LosslessVideo", SlowVideo)
    stop = StopRequest()
    stopped = []

    def hurry() -> None:
        stopped.append(time.monotonic())
        stop("Ctrl-C", immediate=True)

    threading.Timer(1.0, hurry).start()
    cameras = {role: ListSource(images("grey", 999), True, 100) for role in ("ir", "vis")}
    result = record(cameras, tmp_path, stop=stop)  # type: ignore[arg-type]
    assert time.monotonic() - stopped[0] < 2
    check_account(*result)
    for camera in result:
        assert camera.dropped > 20
        assert camera.written == len(frames_of(str(tmp_path / camera.role)))
        assert any(f"{camera.dropped} frames were still to be written" in text for text in caplog.messages)


def test_without_hurry_everything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgefuse.runtime.record.LosslessVideo", SlowVideo)
    cameras = {role: ListSource(images("grey", 999), True, 50) for role in ("ir", "vis")}
    result = record(cameras, tmp_path, duration=0.5)  # type: ignore[arg-type]
    assert all(camera.dropped == 0 and camera.written > 10 for camera in result)


def test_a_disk_that_hangs_holds_nothing_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hung = threading.Event()

    class Hanging(LosslessVideo):
        def write(self, image: np.ndarray, seconds: float, index: int) -> None:
            if index == 3:
                hung.wait()
            super().write(image, seconds, index)

    monkeypatch.setattr("edgefuse.runtime.record.LosslessVideo", Hanging)
    stop = StopRequest()
    threading.Timer(0.5, lambda: stop("Ctrl-C", immediate=True)).start()
    begun = time.monotonic()
    cameras = {role: ListSource(images("grey", 999), True, 50) for role in ("ir", "vis")}
    result = record(cameras, tmp_path, stop=stop)  # type: ignore[arg-type]
    assert time.monotonic() - begun < 2.5
    assert all("does not finish" in str(camera.error) for camera in result)
    check_account(*result)
    hung.set()


@pytest.mark.parametrize("segment", [None, 1])
def test_training_takes_a_recording_as_it_is(tmp_path: Path, segment: int | None) -> None:
    pytest.importorskip("torch")
    from edgefuse.train.cache import cache_folders

    ir = images("16-bit", 30, (48, 64))
    vis = images("colour", 50, (48, 64))
    cameras = {"ir": ListSource(ir, fps=10), "vis": ListSource(vis, fps=25)}
    record(cameras, tmp_path, segment=segment)  # type: ignore[arg-type]
    ir_bank, vis_bank = cache_folders([tmp_path / "ir"], [tmp_path / "vis"])
    assert ir_bank.keys == [(0, "0"), (0, "1"), (0, "2")]
    assert vis_bank.keys == [(0, "0"), (0, "1")]
    assert np.array_equal(vis_bank[1], cv2.cvtColor(vis[25], cv2.COLOR_BGR2GRAY))
    assert ir_bank[0].dtype == np.uint8


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(InputError, match="cannot make folder"):
        record({"ir": ListSource([]), "vis": ListSource([])}, tmp_path / "x")


@pytest.mark.parametrize(
    ("text", "read", "message"),
    [
        ("no header\n0,0.1,0\n", {}, "does not begin with 'pts_ms,timestamp_s,index'"),
        ("pts_ms,timestamp_s,index\n0,0.0001,0\nx\n33,0.0334,1\n", {0: 0.0001}, "is damaged in line 3"),
        ("pts_ms,timestamp_s,index\n0,0.0001,0\n33,0.0334", {0: 0.0001}, None),
        ("", {}, None),
    ],
)
def test_a_damaged_file_of_times_is_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str, read: dict[int, float], message: str | None
) -> None:
    timestamps_path(tmp_path / "a.mkv").write_text(text)
    assert read_timestamps(tmp_path / "a.mkv") == read
    assert [message in found for found in caplog.messages] == [True] if message else not caplog.messages


def test_a_bug_of_ours_is_logged_once_with_its_traceback_and_ends_the_reading(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A camera's own errors are losses; a bug would come again at every attempt."""
    opened = []

    class Broken(ListSource):
        def read(self) -> Frame | None:
            raise ZeroDivisionError("our mistake")

    def open_camera() -> ListSource:
        opened.append(1)
        return Broken([], True)

    ended: list[BaseException | None] = []
    supervisor = Supervisor("vis", Camera("cam", open_camera), lambda *_: None, ended.append)
    supervisor.start()
    deadline = time.monotonic() + 10
    while not ended and time.monotonic() < deadline:
        time.sleep(0.01)
    supervisor.stop()
    supervisor.join(time.monotonic() + 5)
    assert isinstance(ended[0], ZeroDivisionError)
    assert len(opened) == 1
    (record,) = caplog.records
    assert record.exc_info
    assert record.getMessage() == "cam: reading failed with a bug in edgefuse"
