import os
import shutil
from collections import namedtuple
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest

from edgefuse.errors import InputError
from edgefuse.images import read_image
from edgefuse.runtime.compose import side_by_side
from edgefuse.runtime.frames import FusedFrame
from edgefuse.runtime.sinks import (
    ImageSequence,
    OutputOptions,
    QuotaReachedError,
    SinkWriter,
    Still,
    VideoOut,
    open_output,
)
from edgefuse.runtime.sinks.base import Deadline
from edgefuse.runtime.timing import StageTimes
from tests.support.shots import frames_of, noise, shot


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
    (kept,) = tmp_path.iterdir()
    assert kept.name.startswith("out-20")
    assert len(frames_of(kept)) == 16
    assert sink.lost_on_failure == 0


@contextmanager
def small_files(size: int) -> Iterator[None]:
    """Refuse to write beyond so many bytes of a file, as a full disk does."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("name", ["out.mp4", "out.mkv", "out.avi"])
@pytest.mark.parametrize("room", [0.3, 0.7, 0.999])
def test_a_disk_that_refuses_costs_no_earlier_file_and_lost_frames_are_counted(
    tmp_path: Path, name: str, room: float, caplog: pytest.LogCaptureFixture
) -> None:
    out = tmp_path / name
    with VideoOut(out, fps=10) as sink:
        for n in range(25):
            sink.write(noise(n))
    before = out.read_bytes()
    writer = SinkWriter(VideoOut(out, fps=10), StageTimes(), lambda: True)
    writer.start()
    with small_files(int(room * len(before))):
        for n in range(25):
            writer.put(noise(n))
        writer.finish(Deadline(20))
    assert writer.error is not None
    assert "File too large" in writer.error
    assert out.read_bytes() == before
    (kept,) = (path for path in tmp_path.iterdir() if path != out)
    assert kept.name.startswith("out-20")
    assert ".part" not in kept.name
    assert f"{out} could not be completed: its incomplete file is kept as {kept}" in caplog.messages
    assert writer.written + writer.dropped == 25
    assert 0 <= len(frames_of(kept)) - writer.written < 10, "the last second counts when it is whole"


@pytest.mark.parametrize(
    ("codec", "name"), [("h264", "h264"), ("h265", "hevc"), ("ffv1", "ffv1"), ("mjpeg", "mjpeg")]
)
def test_the_codec_can_be_chosen(tmp_path: Path, codec: str, name: str) -> None:
    with open_output(str(tmp_path / "out.mkv"), OutputOptions(fps=10, codec=codec)) as sink:
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


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("out.webm", r"known outputs are .* a video \(\.mp4, \.mkv, \.avi\)"),
        ("missing/out.mp4", "there is no folder"),
        ("", "the output is empty"),
    ],
)
def test_a_bad_output_gets_one_sentence(tmp_path: Path, name: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        open_output(f"{tmp_path}/{name}" if name else "", OutputOptions(10))
    assert os.listdir(tmp_path) == []


def test_an_output_follows_from_its_path(tmp_path: Path) -> None:
    (tmp_path / "dotted.d").mkdir()
    kinds = {
        name: type(open_output(f"{tmp_path}/{name}", OutputOptions(10)))
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


def test_an_image_sequence_ends_at_its_largest_size(tmp_path: Path) -> None:
    sink = open_output(f"{tmp_path}/frames/", OutputOptions(max_size=10**6))
    with pytest.raises(QuotaReachedError, match="largest size of 1 MB"):  # noqa: PT012
        for n in range(20):
            sink.write(noise(n))
    sizes = [path.stat().st_size for path in (tmp_path / "frames").iterdir()]
    assert 10**6 - 2 * max(sizes) < sum(sizes) <= 10**6


def test_an_image_sequence_leaves_room_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sink = ImageSequence(tmp_path / "frames")
    for n in range(16):  # between two looks at the disk
        sink.write(shot(n))
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(total=10**9, free=10**6))
    with pytest.raises(InputError, match="frames: the disk is full"):
        sink.write(shot(1))
    assert len(os.listdir(tmp_path / "frames")) == 16


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot make folder"):
        ImageSequence(tmp_path / "file" / "frames")


def test_a_still_is_the_last_frame(tmp_path: Path) -> None:
    with Still(tmp_path / "still.png") as sink:
        assert sink.name == str(tmp_path / "still.png")
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


def test_side_by_side_labels_three_pictures() -> None:
    vis = np.full((480, 640, 3), 60, np.uint8)
    image = side_by_side(vis[:, :, 0], vis, vis)
    assert image.shape == (480, 1920, 3)
    assert (image[:400] == 60).all()
    for column in range(3):
        assert (image[400:, 640 * column : 640 * (column + 1)] > 230).any()


@pytest.mark.parametrize("size", [(16, 16), (17, 33), (16, 480)])
def test_side_by_side_of_small_pictures(size: tuple[int, int]) -> None:
    small = shot(1, size)
    assert side_by_side(small.ir, small.vis, small.fused).shape == (size[1], 3 * size[0], 3)
