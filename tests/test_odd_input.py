"""What people feed in: one table, from the file to the fused picture."""

import logging
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgefuse.errors import EdgefuseError, SourceError
from edgefuse.images import as_visible
from edgefuse.runtime.cameras.camera import ThermalPreprocess, connect
from edgefuse.runtime.engines.fuser import Fuser
from edgefuse.runtime.frames import Role
from edgefuse.runtime.record import LosslessVideo
from edgefuse.runtime.sources import open_source

RNG = np.random.default_rng(3)


def noise(*shape: int, dtype: type = np.uint8) -> np.ndarray:
    if dtype is np.float32:
        return RNG.random(shape, np.float32)
    return RNG.integers(0, np.iinfo(dtype).max, shape, dtype)


def write(path: Path, image: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(path.suffix, image)[1].tobytes())
    return path


def first_picture(text: str, role: Role) -> np.ndarray:
    """Return the first frame of a source as the fuser gets it."""
    with connect(text, role) as camera:
        frame = camera.open().read()
    assert frame is not None
    return camera.preprocess(role)(frame.image, frame.timestamp)


@pytest.fixture(scope="module")
def fuser() -> Fuser:
    return Fuser("nano", threads=1)


# name of the file → what is in it; the infrared and the visible camera get the same
GOOD = {
    "grey.png": noise(48, 64),
    "colour.png": noise(48, 64, 3),
    "alpha.png": noise(48, 64, 4),
    "16-bit.png": noise(48, 64, dtype=np.uint16),
    "16-bit.tiff": noise(48, 64, dtype=np.uint16),
    "16-bit-colour.png": noise(48, 64, 3, dtype=np.uint16),
    "16-bit-alpha.png": noise(48, 64, 4, dtype=np.uint16),
    "odd.png": noise(75, 101, 3),
    "portrait.png": noise(101, 40, 3),
    "smallest.png": noise(16, 16, 3),
    "line.png": noise(16, 1001),
    "flat.png": np.full((48, 64), 7, np.uint8),
    "flat-16-bit.png": np.full((48, 64), 30_000, np.uint16),
    "full-16-bit.png": np.full((48, 64), 65_535, np.uint16),
    "a name with spaces.png": noise(48, 64),
    "Wärmebild 熱画像 🌡.png": noise(48, 64),
    "what?.png": noise(48, 64),
    "a&b=c#d%20e.png": noise(48, 64),
    "photo.jpg": noise(48, 64, 3),
}


@pytest.mark.parametrize("name", GOOD)
def test_it_is_fused_at_its_own_size(tmp_path: Path, fuser: Fuser, name: str) -> None:
    write(tmp_path / name / name, GOOD[name])  # the folder has the name too
    ir, vis = (first_picture(str(tmp_path / name), role) for role in ("ir", "vis"))
    assert ir.ndim == 2
    fused = fuser(ir, vis)
    assert fused.shape == vis.shape
    assert fused.shape[:2] == GOOD[name].shape[:2]
    assert fused.dtype == np.uint8


@pytest.mark.parametrize(
    ("ir", "vis"),
    [((24, 32), (75, 101)), ((101, 40), (48, 64)), ((480, 640), (16, 16)), ((16, 16), (200, 30))],
)
def test_two_cameras_of_unlike_shapes(
    tmp_path: Path, fuser: Fuser, ir: tuple[int, int], vis: tuple[int, int]
) -> None:
    write(tmp_path / "ir/1.png", noise(*ir, dtype=np.uint16))
    write(tmp_path / "vis/1.png", noise(*vis, 3))
    images = [first_picture(str(tmp_path / role), role) for role in ("ir", "vis")]
    assert fuser(*images).shape == (*vis, 3)


@pytest.mark.parametrize(
    ("name", "image", "sentence"),
    [
        ("one.png", noise(1, 1), "is 1x1, at least 16x16 is needed"),
        ("thin.png", noise(2, 640), "is 640x2, at least 16x16 is needed"),
        ("float.tiff", noise(48, 64, 3, dtype=np.float32), "float.tiff has float32 pixels"),
    ],
)
@pytest.mark.parametrize("role", ["ir", "vis"])
def test_it_is_refused_in_one_sentence(
    tmp_path: Path, fuser: Fuser, name: str, image: np.ndarray, sentence: str, role: Role
) -> None:
    write(tmp_path / name, image)
    with pytest.raises(EdgefuseError, match=sentence) as error:
        fuser(*[first_picture(str(tmp_path), role)] * 2)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "image",
    [
        noise(48, 64, 3, dtype=np.float32),
        np.zeros((4, 48, 64, 3), np.uint8),
        np.zeros((0, 64), np.uint8),
        np.zeros(9),
    ],
)
def test_arrays_that_are_no_pictures(image: np.ndarray) -> None:
    for prepare in (as_visible, lambda image: ThermalPreprocess()(image, 0.0)):
        with pytest.raises(EdgefuseError, match="the image has"):
            prepare(image)


def test_8k_is_fused(tmp_path: Path, fuser: Fuser) -> None:
    """A hot 16-bit spot, on a dark picture."""
    rng = np.random.default_rng(0)  # a picture without any grain would count as a dead camera's
    ir, vis = rng.integers(0, 20, (4320, 7680), np.uint16), np.full((4320, 7680, 3), 40, np.uint8)
    ir[1000:2000, 3000:5000] += 250
    write(tmp_path / "ir/1.png", ir)
    write(tmp_path / "vis/1.bmp", vis)
    fused = fuser(*(first_picture(str(tmp_path / role), role) for role in ("ir", "vis")))
    assert fused.shape == vis.shape
    assert fused[1500, 4000].min() > fused[3000, 4000].max() + 50


# --- videos


def video(path: Path, shape: tuple[int, ...] = (48, 64, 3), frames: int = 20) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = LosslessVideo(path, noise(*shape), 25.0, {})
    for n in range(frames):
        writer.write(noise(*shape), n / 25, n)
    writer.close()
    return path


@pytest.mark.parametrize(
    "name", ["a b.mkv", "Wärme 熱.mkv", "half:past.mkv", "http:x.mkv", "q?a=1&b.mkv", "#1.mkv"]
)
def test_names_of_videos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    video(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    for text in (str(tmp_path / name), name):
        assert first_picture(text, "vis").shape == (48, 64, 3)


@pytest.mark.parametrize("shape", [(75, 101), (101, 40, 3), (49, 63, 3), (16, 16), (1080, 1920)])
def test_sizes_of_videos(tmp_path: Path, shape: tuple[int, ...]) -> None:
    assert first_picture(str(video(tmp_path / "a.mkv", shape, 2)), "vis").shape == shape
    assert first_picture(str(tmp_path / "a.mkv"), "ir").shape == shape[:2]


def test_a_video_that_ends_early_gives_what_there_is(tmp_path: Path) -> None:
    whole = video(tmp_path / "whole.mkv").read_bytes()
    (tmp_path / "cut.mkv").write_bytes(whole[: len(whole) * 2 // 3])
    with open_source(str(tmp_path / "cut.mkv"), "vis") as source:
        frames = list(iter(source.read, None))
    assert 5 < len(frames) < 20
    assert [f.index for f in frames] == list(range(len(frames)))


def test_a_video_that_promises_more_frames_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The index of an .mp4 is read first, and says how many there should be."""
    import av

    with av.open(str(tmp_path / "whole.mp4"), "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
        for _ in range(20):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(noise(48, 64, 3), format="bgr24")))
        container.mux(stream.encode(None))
    whole = (tmp_path / "whole.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) * 2 // 3])
    with caplog.at_level(logging.WARNING), open_source(str(tmp_path / "cut.mp4"), "vis") as source:
        frames = list(iter(source.read, None))
    assert 5 < len(frames) < 20
    assert "cut.mp4" in caplog.text


@pytest.mark.parametrize("damage", [1, 20, 200])
def test_damaged_videos_never_crash(tmp_path: Path, damage: int) -> None:
    """In a process of its own, which must end by itself."""
    data = bytearray(video(tmp_path / "a.mkv").read_bytes())
    for place in RNG.integers(600, len(data), damage):
        data[place] ^= 0xFF
    (tmp_path / "b.mkv").write_bytes(data)
    code = (
        "import sys\nfrom edgefuse.errors import SourceError\n"
        "from edgefuse.runtime.sources import open_source\n"
        "try:\n    with open_source(sys.argv[1], 'vis') as source:\n"
        "        while source.read() is not None: pass\n"
        "except SourceError as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "b.mkv")], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("suffix", [".mkv", ".mp4", ".avi", ".png", ".ts", ""])
def test_files_of_no_length(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"empty{suffix}"
    path.touch()
    with pytest.raises(SourceError, match=r"is empty \(0 bytes\)|is an image"):
        open_source(str(path), "vis")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "1.png").touch()
    with pytest.raises(SourceError, match=r"1\.png is not an image that can be decoded \(0 bytes\)"):
        first_picture(str(folder), "vis")


@pytest.mark.parametrize(
    "url",
    [
        "rtsp://me:hunter2@127.0.0.1:1/live",
        "rtsp://me:hunter2@127.0.0.1:1/live#transport=sctp",
        "http://127.0.0.1:1/v?user=me&password=hunter2",
        "http://me:hunter2@[::1/v",
        "rtsp://me:hunter2#x@127.0.0.1:1/live",
        "rtsp://me:hun/ter2@127.0.0.1:1/live",
        "ftp://me:hunter2@127.0.0.1/a.mp4",
        "gst:rtspsrc location=rtsp://me:hunter2@127.0.0.1/ user-pw=hunter2 ! decodebin ! appsink",
    ],
)
def test_a_password_is_never_printed(tmp_path: Path, url: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SourceError) as error:
        open_source(url, "vis")
    command = [sys.executable, "-m", "edgefuse", "--debug", "record", "--ir", url]
    command += ["--vis", "sim?size=64x48", "--out", str(tmp_path / "r"), "--duration", "0.1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    said = str(error.value) + done.stdout + done.stderr + "".join(capfd.readouterr())
    assert "hunter" not in said.replace(url, "")
    assert "ter2" not in said
