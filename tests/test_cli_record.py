"""The command, as a process of its own."""

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import av
import pytest

from edgefuse.runtime.sources.video import read_timestamps
from tests.support.recorded import frames_of


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
    lines = len(read_timestamps(tmp_path / "r/vis/0001.mkv"))
    frames = frames_of(str(tmp_path / "r/vis/0001.mkv"))
    assert lines > 30
    assert frames[-1].timestamp > list(read_timestamps(tmp_path / "r/vis/0001.mkv").values())[-1] - 2.0
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
    assert b"ended: the duration of 2.5 s is over" in output
    assert len(list((tmp_path / "r/vis").glob("*.mkv"))) >= 2
    stamps = [frame.timestamp for frame in frames_of(str(tmp_path / "r/vis"))]
    assert stamps == sorted(stamps)
    assert {int(stamp) for stamp in stamps} >= {1, 2}


@pytest.mark.parametrize("agc", ["linear", "liner"])
def test_an_agc_is_said_to_be_for_the_replay(tmp_path: Path, agc: str) -> None:
    sources = ("--ir", f"sim?size=64x48&frames=3&agc={agc}", "--vis", "sim?size=64x48&frames=3")
    with start_command(*sources, "--out", str(tmp_path / "r")) as process:
        output, errors = process.communicate(timeout=40)
    assert (b"give agc, polarity and window to its replay" in output) == (agc == "linear")
    assert (b"unknown agc 'liner'" in errors) == (agc == "liner")
    assert process.returncode == (agc == "liner"), errors


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash sets the limit")
def test_a_disk_that_refuses_is_said_and_keeps_what_was_written(tmp_path: Path) -> None:
    """A limit on the size of files does to a process what a full disk does."""
    limited = ["bash", "-c", 'ulimit -f 300; exec "$@"', "_", sys.executable, "-m", "edgefuse", "record"]
    arguments = ["--ir", "sim?size=320x240", "--vis", "sim?size=320x240", "--out", str(tmp_path / "r")]
    done = subprocess.run(
        [*limited, *arguments, "--duration", "30"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert "File too large" in done.stderr
    assert "Traceback" not in done.stderr
    assert frames_of(str(tmp_path / "r/vis"))
    assert frames_of(str(tmp_path / "r/ir"), "ir")
