import shutil
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest

from edgefuse.errors import InputError, LostError, SourceError
from edgefuse.runtime.cameras.camera import Camera
from edgefuse.runtime.config import StopRequest
from edgefuse.runtime.live import file_rate, run
from edgefuse.runtime.record import LosslessVideo, record
from edgefuse.runtime.sinks import VideoOut
from edgefuse.runtime.sources import Source, open_source
from edgefuse.runtime.sources.folder import part_name
from tests.support.recorded import TAGS, ListSource, check_account, frames_of, images


def test_a_camera_that_comes_back_larger_gets_a_second_file(tmp_path: Path) -> None:
    sizes = iter([(48, 64), (96, 128), (96, 128), (96, 128)])

    def open_camera() -> Source:
        return ListSource(images("16-bit", 8, next(sizes)), True, 40, LostError("gone"))

    vis = ListSource(images("grey", 999, (20, 20)), True, 50)
    ir, _ = record({"ir": Camera("cam", open_camera), "vis": vis}, tmp_path, duration=1.0)
    assert [path.name for path in ir.files] == ["0001.mkv", "0002.mkv"]
    assert ir.reconnects >= 1
    first, second = (frames_of(str(path), "ir") for path in ir.files)
    assert (first[0].image.shape, second[0].image.shape) == ((48, 64), (96, 128))
    assert second[0].timestamp > first[-1].timestamp


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
    assert len([m for m in caplog.messages if "skipping a frame" in m]) == 1, "said once"
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
    stop = StopRequest()
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
