import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from edgefuse.errors import InputError, LostError, SourceError
from edgefuse.runtime.config import Stop
from edgefuse.runtime.live import run
from edgefuse.runtime.lossless import LosslessVideo, kind_of
from edgefuse.runtime.recording import record
from edgefuse.runtime.sources import Frame, Source, front_end, open_source
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
        frames = frames_of(str(tmp_path / f"out/{name}.mkv"), name)
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
    assert [path.name for path in ir.files] == ["ir.mkv", "ir-2.mkv"]
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
    monkeypatch.setattr("edgefuse.runtime.recording.RESERVE", 10**18)
    vis = ListSource(images("grey", 99), True)
    ir, _ = record({"ir": ListSource(images("grey", 99), True), "vis": vis}, tmp_path)
    assert ir.error is not None
    assert "is full" in ir.error


@pytest.mark.parametrize("duration", [0.0, -1.0, float("nan")])
def test_a_duration_must_be_positive(tmp_path: Path, duration: float) -> None:
    with pytest.raises(InputError, match="must be over 0"):
        record({"ir": ListSource([]), "vis": ListSource([])}, tmp_path, duration=duration)


def test_a_recording_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "ir.mkv").touch()
    with pytest.raises(InputError, match="holds a recording already"):
        record({"ir": ListSource([]), "vis": ListSource([])}, tmp_path)


def test_a_replay_pairs_by_the_recorded_times_bit_for_bit(tmp_path: Path) -> None:
    """The cameras run at one rate, so that numbers would pair too: but one of them began late."""
    ir, vis = images("16-bit", 12, (48, 64)), images("colour", 12, (48, 64))
    for name, given, late in (("ir", ir, 0.2), ("vis", vis, 0.0)):
        video = LosslessVideo(tmp_path / f"{name}.mkv", given[0], 25.0, TAGS)
        for n, image in enumerate(given):
            video.write(image, late + n / 25, n)
        video.close()
    seen = []

    def fuse(ir_image: np.ndarray, vis_image: np.ndarray) -> np.ndarray:
        seen.append((ir_image, vis_image))
        return vis_image.copy()

    text = str(tmp_path / "ir.mkv?window=0-65535")
    with open_source(text, "ir") as ir_source, open_source(str(tmp_path / "vis.mkv"), "vis") as vis_source:
        run(ir_source, vis_source, fuse, prepare={"ir": front_end(text)})
    pairs = [
        (
            [np.array_equal(ir_seen, front_end(text)(image, 0.0)) for image in ir].index(True),
            [np.array_equal(vis_seen, image) for image in vis].index(True),
        )
        for ir_seen, vis_seen in seen
    ]
    assert pairs[-7:] == [(n, n + 5) for n in range(7)]


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
        wait_for(tmp_path / "r/vis.times.csv", 900)  # some 50 frames
        process.kill()
    lines = len(read_timesheet(tmp_path / "r/vis.mkv"))
    frames = frames_of(str(tmp_path / "r/vis.mkv"))
    assert lines > 30
    assert frames[-1].timestamp > list(read_timesheet(tmp_path / "r/vis.mkv").values())[-1] - 2.0
    assert frames_of(f"{tmp_path}/r/vis.mkv?start=0.5")[0].timestamp == pytest.approx(0.0, abs=0.2)


def test_ctrl_c_completes_the_files(tmp_path: Path) -> None:
    with start_command(*SIMULATED, "--out", str(tmp_path / "r ä")) as process:
        wait_for(tmp_path / "r ä/vis.times.csv", 100)
        begun = time.monotonic()
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=20)
    assert time.monotonic() - begun < 5
    assert process.returncode == 0
    assert b"recorded" in output
    assert not list(Path(tmp_path).glob("**/*.part*"))
    with av.open(str(tmp_path / "r ä/ir.mkv")) as container:
        assert container.duration is not None  # which is written last


def test_training_takes_a_recording_as_it_is(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from edgefuse.train.data import folder_banks

    ir = images("16-bit", 30, (48, 64))
    vis = images("colour", 50, (48, 64))
    record({"ir": ListSource(ir, fps=10), "vis": ListSource(vis, fps=25)}, tmp_path)
    ir_bank, vis_bank = folder_banks([tmp_path / "ir.mkv"], [tmp_path / "vis.mkv"])
    assert ir_bank.keys == [(0, "0"), (0, "1"), (0, "2")]
    assert vis_bank.keys == [(0, "0"), (0, "1")]
    assert np.array_equal(vis_bank[1], cv2.cvtColor(vis[25], cv2.COLOR_BGR2GRAY))
    assert ir_bank[0].dtype == np.uint8


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(InputError, match="cannot make folder"):
        record({"ir": ListSource([]), "vis": ListSource([])}, tmp_path / "x")
