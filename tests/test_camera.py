"""A camera under the real library: `fake_v4l2.c` stands where the kernel's driver would be."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edgefuse.errors import SourceError
from edgefuse.runtime.sources import open_source
from edgefuse.runtime.sources.opencv import Gaps

SHIM = Path(__file__).parent / "support" / "fake_v4l2.c"

READ = """
import json, sys, time
from pathlib import Path
import edgefuse.runtime.sources.opencv as camera
from edgefuse.runtime.sources import open_source

camera.DEVICES, text, count = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
result, begun = {"frames": []}, time.monotonic()
try:
    with open_source(text, sys.argv[4]) as source:
        result["fps"] = source.fps
        for _ in range(count):
            begun = time.monotonic()
            frame = source.read()
            age = time.monotonic() - frame.captured
            kind, pixel = f"{frame.image.dtype} {frame.image.shape}", frame.image.flat[5].item()
            result["frames"].append([frame.index, kind, pixel, age])
except Exception as error:
    result["error"] = f"{type(error).__name__}: {error}"
    result["seconds"] = time.monotonic() - begun
print(json.dumps(result))
"""


@pytest.fixture(scope="session")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc")
    if not sys.platform.startswith("linux") or compiler is None:
        pytest.skip("the fake driver needs Linux and a C compiler")
    library = tmp_path_factory.mktemp("driver") / "fake_v4l2.so"
    built = subprocess.run(
        [compiler, "-shared", "-fPIC", "-o", str(library), str(SHIM), "-ldl"], capture_output=True, text=True
    )
    if built.returncode:
        pytest.skip(f"the fake driver does not compile here: {built.stderr.splitlines()[0]}")
    return library


def read(
    driver: Path, devices: Path, text: str, count: int = 4, role: str = "ir", **fault: int
) -> dict[str, Any]:
    """Read `count` frames of the fake camera, in a process of its own."""
    (devices / "video0").touch()
    environment = {
        **os.environ,
        "LD_PRELOAD": str(driver),
        "FAKE_V4L2": str(devices / "video0"),
        **{f"FAKE_V4L2_{name.upper()}": str(value) for name, value in fault.items()},
    }
    command = [sys.executable, "-c", READ, str(devices), text, str(count), role]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.stderr == ""
    return json.loads(done.stdout)


def test_raw_16_bits_come_through_with_the_kernels_time(driver: Path, tmp_path: Path) -> None:
    result = read(driver, tmp_path, "cam0?format=Y16&size=64x48&fps=30")
    assert result["fps"] == 30
    assert [f[0] for f in result["frames"]] == [0, 1, 2, 3]
    first = result["frames"][0][2]
    for index, kind, pixel, age in result["frames"]:
        assert kind == "uint16 (48, 64)"
        assert pixel == first + 100 * index
        assert 0.02 <= age < 1.0  # the driver stamped it 20 ms before it could be read


def test_without_a_format_the_library_chooses(driver: Path, tmp_path: Path) -> None:
    result = read(driver, tmp_path, "cam0")
    assert result["frames"][0][1] == "uint8 (48, 64, 3)"


@pytest.mark.parametrize(
    ("text", "fps", "kind"),
    [
        ("cam0?format=Y16&size=32x24&fps=9", 9, "uint16 (24, 32)"),
        ("cam0?exposure=20&gain=20", 30, "uint8 (48, 64, 3)"),
        ("cam0?exposure=auto", 30, "uint8 (48, 64, 3)"),
        ("cam0?format=YUYV&raw=1", 30, "uint16 (48, 64)"),
        ("cam0?format=YUYV&raw=1&crop=64x24+0+24", 30, "uint16 (24, 64)"),
        ("cam0?crop=32x16+3+0", 30, "uint8 (16, 32, 3)"),
        ("cam0?rotate=90&flip=h", 30, "uint8 (64, 48, 3)"),
    ],
)
def test_settings_that_the_camera_takes(
    driver: Path, tmp_path: Path, text: str, fps: float, kind: str
) -> None:
    result = read(driver, tmp_path, text, 2)
    assert (result["fps"], result["frames"][1][1]) == (fps, kind)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("cam0?size=640x480", "the camera gives size 64x48 in place of 640x480"),
        ("cam0?fps=60", "the camera gives fps 30 in place of 60"),
        ("cam0?format=MJPG", "the camera gives format YUYV in place of MJPG"),
        ("cam0?gain=80", "the camera gives gain 50 in place of 80"),
        ("cam0?format=thermal", "option format: 'thermal' is not a four-character code"),
        ("cam0?crop=64x24+1+24", "the crop reaches beyond the picture of 64x48"),
        ("cam0?crop=64x24", "option crop: '64x24' is not WIDTHxHEIGHT+LEFT+TOP"),
        ("cam0?rotate=45", "option rotate: '45' is not one of 90, 180, 270"),
        ("cam0?exposure=long", "option exposure: 'long' is not a number"),
    ],
)
def test_settings_that_it_does_not_take_are_an_error_naming_both(
    driver: Path, tmp_path: Path, text: str, error: str
) -> None:
    result = read(driver, tmp_path, text)
    assert result["error"].startswith("SourceError")
    assert error in result["error"]


@pytest.mark.parametrize(("role", "least"), [("vis", 1.8), ("ir", 3.3)])
def test_a_camera_that_stalls_is_lost(driver: Path, tmp_path: Path, role: str, least: float) -> None:
    """Infrared later: it may be behind its shutter."""
    result = read(driver, tmp_path, "cam0", 20, role, stall=4)
    assert result["error"] == "LostError: cam0 was lost after 3 frames"
    assert least < result["seconds"] < least + 4


def test_infrared_behind_its_shutter_is_waited_for(driver: Path, tmp_path: Path) -> None:
    result = read(driver, tmp_path, "cam0?format=Y16", 8, pause=4)
    assert [frame[0] for frame in result["frames"]] == list(range(8))


def test_frames_that_the_driver_drops_are_counted(driver: Path, tmp_path: Path) -> None:
    """Those before a pause that is too long; they are known once the next pause is as usual."""
    result = read(driver, tmp_path, "cam0", 12, drop=7)
    index = [frame[0] for frame in result["frames"]]
    assert index[:6] == list(range(6))
    assert index[-1] == 11 + 3


@pytest.mark.parametrize(
    ("pauses", "missing"),
    [
        ([1.0] * 20, 0),
        ([1.0] * 9 + [4.0] + [1.0] * 9, 3),
        ([1.0] * 9 + [2.1] + [1.0] * 9 + [3.05] + [0.95] * 9, 3),
        ([1.0] * 9 + [2.0] * 20, 0),  # dark: the exposure takes longer from now on
        ([2.0] * 20, 0),  # slower than it says
        ([1.0] * 9 + [1.7, 0.3] + [1.0] * 9, 0),  # late, not missing
        ([1.0] * 9 + [40.0] + [1.0] * 9, 0),  # behind its shutter
    ],
)
def test_pauses_that_mean_dropped_frames(pauses: list[float], missing: int) -> None:
    gaps = Gaps(0.033)
    times = np.cumsum([100.0, *(0.033 * pause for pause in pauses)])
    assert sum(gaps.missing(time) for time in times.tolist()) == missing


def test_a_camera_that_is_unplugged_is_lost_at_once(driver: Path, tmp_path: Path) -> None:
    result = read(driver, tmp_path, "cam0", 20, unplug=4)
    assert result["error"] == "LostError: cam0 was lost after 3 frames"
    assert result["seconds"] < 0.5


@pytest.fixture
def device() -> Iterator[Path]:
    """The place of a device file, under /dev, for a process that is given a path alone."""
    if not os.access("/dev/shm", os.W_OK):
        pytest.skip("needs a writable /dev/shm")
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        path = Path(folder) / "video0"
        os.mkfifo(path)  # like a device, it is no regular file
        yield path


def test_a_camera_by_its_id(driver: Path, device: Path) -> None:
    link = device.parent / "by-id" / "usb-FLIR_Boson_12345-video-index0"
    link.parent.mkdir()
    link.symlink_to(device)
    result = read(driver, device.parent, f"{link}?format=Y16&size=64x48")
    assert [frame[:2] for frame in result["frames"]] == [[n, "uint16 (48, 64)"] for n in range(4)]
    absent = "/dev/v4l/by-id/usb-absent-video-index0"
    result = read(driver, device.parent, absent)
    assert result["error"].startswith(f"LostError: {absent}: there is no camera {absent} (cameras present: ")


def test_files_in_shared_memory_are_no_cameras(device: Path) -> None:
    folder = device.parent / "frames"
    folder.mkdir()
    for n in range(2):
        cv2.imwrite(str(folder / f"{n}.png"), np.full((8, 8), n, np.uint8))
    for text in (str(folder), str(folder / "*.png")):
        with open_source(text, "vis") as source:
            assert source.length == 2
    with pytest.raises(SourceError, match="is an image"):
        open_source(str(folder / "0.png"), "vis")
    with pytest.raises(SourceError, match="no such file or folder"):
        open_source(str(folder / "missing.mp4"), "vis")


@pytest.mark.parametrize("fault", [{}, {"unplug": 12}], ids=["steady", "loose contact"])
def test_a_camera_is_recorded_by_the_command(
    driver: Path, device: Path, tmp_path: Path, fault: dict[str, int]
) -> None:
    """With a loose contact, which gives way every 12 frames, the rest is still recorded."""
    environment = {
        **os.environ,
        "LD_PRELOAD": str(driver),
        "FAKE_V4L2": str(device),
        **{f"FAKE_V4L2_{name.upper()}": str(value) for name, value in fault.items()},
    }
    command = [sys.executable, "-m", "edgefuse", "record", "--ir", f"{device}?format=Y16&size=64x48&fps=30"]
    command += ["--vis", "sim?size=64x48", "--out", str(tmp_path), "--duration", "3"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    with open_source(str(tmp_path / "ir"), "ir") as source:
        frames = list(iter(source.read, None))
    assert len(frames) > 24
    assert frames[-1].timestamp > 2.0
    for frame in frames:  # each row of the fake's picture counts up, whatever its number
        assert frame.image.dtype == np.uint16
        assert np.array_equal(frame.image - frame.image[:, :1], np.tile(np.arange(64), (48, 1)))
    steps = np.diff([frame.timestamp for frame in frames])
    assert np.median(steps) == pytest.approx(1 / 30, abs=0.01)
    assert "lost" in done.stderr or not fault
