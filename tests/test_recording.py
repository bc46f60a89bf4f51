import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from itertools import pairwise
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from edgefuse.errors import InputError, LostError, SourceError
from edgefuse.runtime.config import Stop
from edgefuse.runtime.live import file_rate, run
from edgefuse.runtime.lossless import LosslessVideo, kind_of
from edgefuse.runtime.recording import RecordedCamera, record
from edgefuse.runtime.sinks import VideoOut
from edgefuse.runtime.sources import Frame, Source, front_end, open_source
from edgefuse.runtime.sources.recording import part_name
from edgefuse.runtime.sources.timesheet import STARTED_TAG, read_timesheet, timesheet_path
from edgefuse.runtime.supervise import Connection

RNG = np.random.default_rng(5)
TAGS = {STARTED_TAG: "2026-01-01T00:00:00.000000+00:00"}


def images(kind: str, count: int = 6, shape: tuple[int, int] = (75, 101)) -> list[np.ndarray]:
    """Random images: nothing is harder to keep."""
    dtype = np.uint16 if kind == "16-bit" else np.uint8
    size = (*shape, 3) if kind == "colour" else shape
    return [RNG.integers(0, np.iinfo(dtype).max + 1, size, dtype) for _ in range(count)]


def frames_of(text: str, role="vis") -> list[Frame]:
    with open_source(text, role) as source:
        return list(iter(source.read, None))


class ListSource(Source):
    """Gives images, live or recorded; then ends, or raises."""

    def __init__(
        self, images: list[np.ndarray], live: bool = False, fps: float = 50.0, error: Exception | None = None
    ) -> None:
        self.name, self.live, self.fps, self.length = "list", live, fps, len(images)
        self.images, self.error, self.next = images, error, 0

    def read(self) -> Frame | None:
        if self.live:
            time.sleep(1 / self.fps)
        if self.next == len(self.images):
            if self.error is not None:
                raise self.error
            return None
        self.next += 1
        now = time.monotonic()
        stamp = now if self.live else (self.next - 1) / self.fps
        return Frame(self.images[self.next - 1], self.next - 1, stamp, now)

    def close(self) -> None:
        pass


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


def test_without_its_sheet_a_video_still_has_milliseconds(tmp_path: Path) -> None:
    given = images("grey", 3)
    video = LosslessVideo(tmp_path / "a.mkv", given[0], 30.0, TAGS)
    for n, image in enumerate(given):
        video.write(image, 1.0 + 0.0333337 * n, n)
    video.close()
    timesheet_path(tmp_path / "a.mkv").unlink()
    stamps = [f.timestamp for f in frames_of(str(tmp_path / "a.mkv"))]
    assert stamps == pytest.approx([1.0, 1.0333337, 1.0666674], abs=6e-4)


@pytest.mark.parametrize("tail", ["12,0.5", "1", "x,y,z\n", "\x00\x00"])
def test_a_sheet_that_breaks_off_keeps_its_whole_lines(tmp_path: Path, tail: str) -> None:
    sheet = timesheet_path(tmp_path / "a.mkv")
    sheet.write_text(f"pts_ms,timestamp_s,index\n0,0.000100,0\n33,0.033400,1\n{tail}")
    assert read_timesheet(tmp_path / "a.mkv") == {0: 0.0001, 33: 0.0334}


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
        stamps = list(read_timesheet(camera.files[0]).values())
        assert len(stamps) == camera.written == camera.captured
        assert 0 < stamps[0] < 0.3
        assert 0.3 < stamps[-1] < time.monotonic() - begun
    assert vis.written > 1.5 * ir.written


def test_a_camera_that_comes_back_larger_gets_a_second_file(tmp_path: Path) -> None:
    sizes = iter([(48, 64), (96, 128), (96, 128), (96, 128)])

    def open_camera() -> Source:
        return ListSource(images("16-bit", 8, next(sizes)), True, 40, LostError("gone"))

    vis = ListSource(images("grey", 999, (20, 20)), True, 50)
    ir, _ = record({"ir": Connection("cam", open_camera), "vis": vis}, tmp_path, duration=1.0)
    assert [path.name for path in ir.files] == ["0001.mkv", "0002.mkv"]
    assert ir.reconnects >= 1
    first, second = (frames_of(str(path), "ir") for path in ir.files)
    assert (first[0].image.shape, second[0].image.shape) == ((48, 64), (96, 128))
    assert second[0].timestamp > first[-1].timestamp


def test_it_ends_when_it_is_told_or_a_live_source_fails(tmp_path: Path) -> None:
    stop = Stop()
    stop("enough")
    ir, vis = ListSource(images("grey", 99), True), ListSource(images("grey", 99), True)
    record({"ir": ir, "vis": vis}, tmp_path / "a", stop=stop)
    failing = ListSource(images("grey", 3), True, error=SourceError("the cable is out"))
    result = record({"ir": failing, "vis": vis}, tmp_path / "b")
    assert result[0].error == "the cable is out"
    assert result[0].written == 3


def test_a_full_disk_ends_it_with_what_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgefuse.runtime.sinks.budget.RESERVE", 10**18)
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
    with pytest.raises(InputError, match="holds a recording already"):
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
    with open_source(text, "ir") as ir_source, open_source(str(tmp_path / "vis"), "vis") as vis_source:
        run(ir_source, vis_source, fuse, prepare={"ir": front_end(text)})
    pairs = [
        (
            [np.array_equal(ir_seen, front_end(text)(image, 0.0)) for image in ir].index(True),
            [np.array_equal(vis_seen, image) for image in vis].index(True),
        )
        for ir_seen, vis_seen in seen
    ]
    assert pairs[-7:] == [(n, n + 5) for n in range(7)]


# --- frames that are not like the others, parts, a size


def check_account(*cameras: RecordedCamera) -> None:
    for camera in cameras:
        assert camera.captured == camera.written + camera.dropped + camera.failed


ODD: dict[str, np.ndarray] = {
    "float": np.zeros((48, 64), np.float32),
    "four channels": np.zeros((48, 64, 4), np.uint8),
    "16-bit colour": np.zeros((48, 64, 3), np.uint16),
    "no pixels": np.zeros((0, 64), np.uint8),
    "one dimension": np.zeros(64, np.uint8),
    "longer than a slice may be": np.zeros((8, 300_000), np.uint8),
}


@pytest.mark.parametrize("what", ODD)
def test_a_frame_that_cannot_be_kept_is_left_out(
    tmp_path: Path, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    given = images("grey", 8, (48, 64))
    shown: list[np.ndarray] = [*given[:3], ODD[what], ODD[what], *given[3:], ODD[what]]
    ir, vis = record({"ir": ListSource(shown), "vis": ListSource(images("grey", 5))}, tmp_path)
    assert (ir.written, ir.failed, ir.dropped, ir.error) == (8, 3, 0, None)
    assert (vis.written, vis.failed) == (5, 0)
    frames = frames_of(str(tmp_path / "ir"), "ir")
    assert all(np.array_equal(f.image, image) for f, image in zip(frames, given, strict=True))
    assert len([m for m in caplog.messages if "is left out" in m]) == 1, "said once"
    assert len(list((tmp_path / "ir").iterdir())) == 2 * len(ir.files)


def test_a_frame_of_another_size_or_format_begins_a_part(tmp_path: Path) -> None:
    given = [
        *images("16-bit", 3, (48, 64)),
        *images("16-bit", 2, (31, 17)),
        *images("grey", 2, (31, 17)),
        *images("colour", 2, (31, 17)),
        *images("16-bit", 2, (48, 64)),
        *images("grey", 2, (1, 1)),
        np.zeros((4320, 7680, 3), np.uint8),
    ]
    ir, _ = record({"ir": ListSource(given), "vis": ListSource(images("grey", 5))}, tmp_path)
    assert (ir.written, ir.failed, ir.error) == (len(given), 0, None)
    assert [path.name for path in ir.files] == [f"{n:04d}.mkv" for n in range(1, 8)]
    frames = frames_of(str(tmp_path / "ir"), "vis")
    assert all(np.array_equal(f.image, image) for f, image in zip(frames, given, strict=True))
    assert [f.index for f in frames] == list(range(len(given)))
    assert [f.timestamp for f in frames] == pytest.approx([n / 50 for n in range(len(given))])


@pytest.fixture(scope="module")
def segmented(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[np.ndarray]]:
    """Five seconds in parts of one second, of which the third is missing."""
    folder = tmp_path_factory.mktemp("segmented")
    given = images("16-bit", 50, (16, 24))
    cameras = {"ir": ListSource(given, fps=10), "vis": ListSource(images("grey", 60), fps=12)}
    ir, vis = record(cameras, folder, segment=1)  # type: ignore[arg-type]
    assert [len(camera.files) for camera in (ir, vis)] == [5, 5]
    for path in (folder / "ir").glob("0003.*"):
        path.unlink()
    return folder, given


def test_the_folder_of_both_cameras_is_no_source(segmented: tuple[Path, list[np.ndarray]]) -> None:
    folder, _ = segmented
    with pytest.raises(SourceError, match=f"two cameras: give {folder}/ir"):
        open_source(str(folder), "ir")


def test_a_video_made_of_a_recording_keeps_its_times(
    tmp_path: Path, segmented: tuple[Path, list[np.ndarray]]
) -> None:
    folder, _ = segmented
    out = tmp_path / "out.mp4"
    with (
        open_source(str(folder / "ir"), "ir") as ir,
        open_source(str(folder / "vis"), "vis") as vis,
        VideoOut(out, file_rate(ir, vis)) as sink,
    ):
        run(ir, vis, lambda _, image: image.copy(), [sink])
    with av.open(str(out)) as container:
        times = [frame.time for frame in container.decode(video=0)]
    gaps = [b - a for a, b in pairwise(times) if a is not None and b is not None]
    assert sorted(gaps)[-1] == pytest.approx(1.1, abs=0.1), "the part that is missing"
    assert times[-1] == pytest.approx(4.9, abs=0.1)


def test_parts_are_replayed_as_one(segmented: tuple[Path, list[np.ndarray]]) -> None:
    folder, given = segmented
    frames = frames_of(str(folder / "ir"), "ir")
    left = [*range(20), *range(30, 50)]
    assert [round(f.timestamp * 10) for f in frames] == left
    assert [f.index for f in frames] == list(range(40))
    assert all(np.array_equal(f.image, given[n]) for f, n in zip(frames, left, strict=True))
    with open_source(str(folder / "ir"), "ir") as source:
        assert (source.length, source.fps, source.synchronised) == (40, 10.0, True)


@pytest.mark.parametrize("start", [0.05, 1.0, 1.55, 2.45, 3.0, 4.9])
def test_parts_can_be_entered_anywhere(segmented: tuple[Path, list[np.ndarray]], start: float) -> None:
    folder, given = segmented
    expected = [n for n in (*range(20), *range(30, 50)) if n / 10 >= start - 0.051]
    frames = frames_of(f"{folder}/ir?start={start}", "ir")
    numbers = [round((f.timestamp + start) * 10) for f in frames]
    assert numbers == expected or numbers == expected[1:]
    assert all(np.array_equal(f.image, given[n]) for f, n in zip(frames, numbers, strict=True))
    assert [f.index for f in frames] == list(range(len(frames)))


def test_a_frame_from_just_before_the_zero_is_replayed(tmp_path: Path) -> None:
    """A camera's clock, once it is known better, can put its first frame there."""
    given = images("grey", 3)
    (tmp_path / "ir").mkdir()
    video = LosslessVideo(tmp_path / "ir" / part_name(1), given[0], 25.0, TAGS)
    for n, image in enumerate(given):
        video.write(image, n / 25 - 0.002, n)
    video.close()
    frames = frames_of(str(tmp_path / "ir"))
    assert [f.timestamp for f in frames] == pytest.approx([-0.002, 0.038, 0.078])
    assert np.array_equal(frames[0].image, given[0])
    with open_source(str(tmp_path / "ir"), "ir") as source:
        assert source.length == 3


def test_parts_can_be_played_again_and_at_another_rate(segmented: tuple[Path, list[np.ndarray]]) -> None:
    folder, given = segmented
    with open_source(f"{folder}/ir?loop=1&start=4", "ir") as source:
        frames = [source.read() for _ in range(25)]
    assert all(f is not None and np.array_equal(f.image, given[40 + n % 10]) for n, f in enumerate(frames))
    assert [f.index for f in frames if f] == list(range(25))
    assert [f.timestamp for f in frames if f] == pytest.approx([n / 10 for n in range(25)])
    assert [f.timestamp for f in frames_of(f"{folder}/ir?fps=20")] == pytest.approx(
        [n / 20 for n in range(40)]
    )


def test_a_damaged_part_is_left_out(
    tmp_path: Path, segmented: tuple[Path, list[np.ndarray]], caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(segmented[0] / "ir", tmp_path / "ir")
    (tmp_path / "ir" / "0001.mkv").write_bytes(b"")
    with (tmp_path / "ir" / "0005.mkv").open("r+b") as file:
        file.truncate(4000)
    numbers = [round(f.timestamp * 10) for f in frames_of(str(tmp_path / "ir"), "ir")]
    assert numbers[:20] == [*range(10, 20), *range(30, 40)]
    assert len(numbers) < 30
    assert any("is empty" in message for message in caplog.messages)
    for path in (tmp_path / "ir").glob("*.mkv"):
        path.write_bytes(b"no video at all")
    with pytest.raises(SourceError, match="has no part that can be read"):
        open_source(str(tmp_path / "ir"), "ir")


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*.mkv"))


def test_a_largest_size_ends_a_recording(tmp_path: Path) -> None:
    cameras = {role: ListSource(images("grey", 90, (200, 200)), fps=10) for role in ("ir", "vis")}
    stop = Stop()
    result = record(cameras, tmp_path, max_size=10**6, stop=stop)  # type: ignore[arg-type]
    assert stop.reason == f"{tmp_path} has reached its largest size of 1 MB"
    assert 0.8e6 < size_of(tmp_path) < 1.02e6
    assert all(camera.error is None for camera in result)
    check_account(*result)


def test_with_segments_a_largest_size_keeps_the_newest(tmp_path: Path) -> None:
    cameras = {role: ListSource(images("grey", 90, (200, 200)), fps=10) for role in ("ir", "vis")}
    ir, vis = record(cameras, tmp_path, segment=60, max_size=2 * 10**6)  # type: ignore[arg-type]
    assert (ir.written, vis.written, ir.error, vis.error) == (90, 90, None, None)
    assert 1e6 < size_of(tmp_path) < 2.04e6
    assert 0 < len(ir.files) < 90
    assert len(list((tmp_path / "ir").iterdir())) == 2 * len(ir.files), "their times go with them"
    frames = frames_of(str(tmp_path / "ir"), "ir")
    assert frames[-1].timestamp == pytest.approx(8.9)
    assert np.array_equal(frames[-1].image, cameras["ir"].images[-1])


@pytest.mark.parametrize(("option", "value"), [("segment", 0.5), ("segment", float("nan")), ("max_size", 10)])
def test_limits_must_make_sense(tmp_path: Path, option: str, value: float) -> None:
    with pytest.raises(InputError, match="at least 1"):
        record({"ir": ListSource([]), "vis": ListSource([])}, tmp_path, **{option: value})  # type: ignore[arg-type]


# --- an end in time


class SlowVideo(LosslessVideo):
    seconds = 0.1

    def write(self, image: np.ndarray, seconds: float, index: int) -> None:
        time.sleep(self.seconds)
        super().write(image, seconds, index)


def test_a_hurry_leaves_unwritten_what_takes_too_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("edgefuse.runtime.parts.LosslessVideo", SlowVideo)
    stop = Stop()
    stopped = []

    def hurry() -> None:
        stopped.append(time.monotonic())
        stop("Ctrl-C", hurry=True)

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
    monkeypatch.setattr("edgefuse.runtime.parts.LosslessVideo", SlowVideo)
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

    monkeypatch.setattr("edgefuse.runtime.parts.LosslessVideo", Hanging)
    stop = Stop()
    threading.Timer(0.5, lambda: stop("Ctrl-C", hurry=True)).start()
    begun = time.monotonic()
    cameras = {role: ListSource(images("grey", 999), True, 50) for role in ("ir", "vis")}
    result = record(cameras, tmp_path, stop=stop)  # type: ignore[arg-type]
    assert time.monotonic() - begun < 2.5
    assert all("does not finish" in str(camera.error) for camera in result)
    check_account(*result)
    hung.set()


# --- the command, as a process of its own


def start_command(*arguments: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-m", "edgefuse", "record", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def wait_for(path: Path, size: int, seconds: float = 40.0) -> None:
    deadline = time.monotonic() + seconds
    while not (path.exists() and path.stat().st_size > size):
        assert time.monotonic() < deadline
        time.sleep(0.05)


SIMULATED = ("--ir", "sim?size=128x96", "--vis", "sim?size=128x96")


def test_what_is_written_outlives_a_kill(tmp_path: Path) -> None:
    with start_command(*SIMULATED, "--out", str(tmp_path / "r")) as process:
        wait_for(tmp_path / "r/vis/0001.times.csv", 900)  # some 50 frames
        process.kill()
    lines = len(read_timesheet(tmp_path / "r/vis/0001.mkv"))
    frames = frames_of(str(tmp_path / "r/vis/0001.mkv"))
    assert lines > 30
    assert frames[-1].timestamp > list(read_timesheet(tmp_path / "r/vis/0001.mkv").values())[-1] - 2.0
    assert frames_of(f"{tmp_path}/r/vis?start=0.5")[0].timestamp == pytest.approx(0.0, abs=0.2)


def test_ctrl_c_completes_the_files(tmp_path: Path) -> None:
    with start_command(*SIMULATED, "--out", str(tmp_path / "r ä")) as process:
        wait_for(tmp_path / "r ä/vis/0001.times.csv", 100)
        begun = time.monotonic()
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=20)
    assert time.monotonic() - begun < 2
    assert process.returncode == 0
    assert b"recorded" in output
    assert not list(Path(tmp_path).glob("**/*.part*"))
    with av.open(str(tmp_path / "r ä/ir/0001.mkv")) as container:
        assert container.duration is not None  # which is written last


def test_segments_and_a_size_from_the_command_line(tmp_path: Path) -> None:
    options = ("--segment", "1", "--max-size", "20", "--duration", "2.5")
    with start_command(*SIMULATED, "--out", str(tmp_path / "r"), *options) as process:
        output, errors = process.communicate(timeout=40)
    assert process.returncode == 0, errors
    assert b"ended: 2.5 s are over" in output
    assert len(list((tmp_path / "r/vis").glob("*.mkv"))) >= 2
    stamps = [frame.timestamp for frame in frames_of(str(tmp_path / "r/vis"))]
    assert stamps == sorted(stamps)
    assert {int(stamp) for stamp in stamps} >= {1, 2}


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash sets the limit")
def test_a_disk_that_refuses_is_said_and_keeps_what_was_written(tmp_path: Path) -> None:
    """A limit on the size of files does to a process what a full disk does."""
    limited = ["bash", "-c", 'ulimit -f 300; exec "$@"', "_", sys.executable, "-m", "edgefuse", "record"]
    arguments = ["--ir", "sim?size=320x240", "--vis", "sim?size=320x240", "--out", str(tmp_path / "r")]
    done = subprocess.run(
        [*limited, *arguments, "--duration", "30"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert "visible is not recorded any more" in done.stderr
    assert "File too large" in done.stderr
    assert "Traceback" not in done.stderr
    assert frames_of(str(tmp_path / "r/vis"))
    assert frames_of(str(tmp_path / "r/ir"), "ir")


@pytest.mark.parametrize("segment", [None, 1])
def test_training_takes_a_recording_as_it_is(tmp_path: Path, segment: int | None) -> None:
    pytest.importorskip("torch")
    from edgefuse.train.bank import folder_banks

    ir = images("16-bit", 30, (48, 64))
    vis = images("colour", 50, (48, 64))
    cameras = {"ir": ListSource(ir, fps=10), "vis": ListSource(vis, fps=25)}
    record(cameras, tmp_path, segment=segment)  # type: ignore[arg-type]
    ir_bank, vis_bank = folder_banks([tmp_path / "ir"], [tmp_path / "vis"])
    assert ir_bank.keys == [(0, "0"), (0, "1"), (0, "2")]
    assert vis_bank.keys == [(0, "0"), (0, "1")]
    assert np.array_equal(vis_bank[1], cv2.cvtColor(vis[25], cv2.COLOR_BGR2GRAY))
    assert ir_bank[0].dtype == np.uint8


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(InputError, match="cannot make folder"):
        record({"ir": ListSource([]), "vis": ListSource([])}, tmp_path / "x")
