import os
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest

from edgefuse.runtime.sinks import (
    QuotaReachedError,
    VideoOut,
)
from tests.support.shots import frames_of, noise, shot


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
        for n, (size, grey) in enumerate(
            (((32, 24), True), ((32, 24), False), ((64, 48), False), ((64, 48), True))
        ):
            for _ in range(3):
                sink.write(shot(n + 5, size, grey))
    shapes = [
        [image.shape for image in frames_of(tmp_path / name)]
        for name in ("out.mkv", "out-3.mkv", "out-4.mkv", "out-5.mkv")
    ]
    assert shapes == [[(24, 32, 3)] * 3, [(24, 32, 3)] * 3, [(48, 64, 3)] * 3, [(48, 64, 3)] * 3]
    assert (tmp_path / "out-2.mkv").read_text() == "somebody's"
    assert [message.split(": ")[1] for message in caplog.messages] == [
        "the pictures are now 32x24, colour",
        "the pictures are now 64x48, colour",
        "the pictures are now 64x48, grey",
    ]


def test_segments_follow_each_other_and_lose_nothing(tmp_path: Path) -> None:
    with VideoOut(tmp_path / "out.mp4", fps=10, segment=1) as sink:
        for n in range(25):
            sink.write(shot(n))
    files = sorted(tmp_path.iterdir(), key=lambda path: path.stat().st_mtime_ns)
    assert [len(frames_of(path)) for path in files] == [10, 10, 5]
    assert all(path.name.startswith("out-20") and ".part" not in path.name for path in files)


def bytes_in(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


@pytest.mark.parametrize("name", ["out.mkv", "out.mp4"])
def test_a_size_cap_ends_a_video(tmp_path: Path, name: str) -> None:
    sink = VideoOut(tmp_path / name, fps=10, max_size=10**6)
    with pytest.raises(QuotaReachedError, match="largest size of 1 MB"):  # noqa: PT012
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
