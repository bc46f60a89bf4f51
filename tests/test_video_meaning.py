"""What a video file says beside its pixels: times, rates, shapes of pixels, bits, colours."""

import os
import signal
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter

from edgefuse.batch import recorded_pairs
from edgefuse.errors import SourceError
from edgefuse.images import write_image
from edgefuse.runtime.cameras.camera import connect
from edgefuse.runtime.config import LiveConfig
from edgefuse.runtime.frames import FusedFrame
from edgefuse.runtime.live import run
from edgefuse.runtime.sinks import Callback, OutputOptions, VideoOut, open_output
from edgefuse.runtime.sources import open_source
from tests.support.recorded import frames_of

SHAPE = (48, 64)
B_FRAMES = {
    "libx264": {"bf": "3", "b-pyramid": "normal", "x264-params": "b-adapt=0:log-level=none"},
    "libx265": {"x265-params": "bframes=3:b-pyramid=1:b-adapt=0:log-level=none"},
    "mpeg4": {"bf": "2"},
    "mpeg2video": {"bf": "2"},
}
NO_B_FRAMES = {
    "libx264": {"bf": "0", "x264-params": "log-level=none"},
    "libx265": {"x265-params": "bframes=0:log-level=none"},
}


def numbered(number: int) -> np.ndarray:
    """A picture that carries its number as its level, four apart."""
    return np.full(SHAPE, 20 + 4 * number, np.uint8)


def number_of(image: np.ndarray) -> int:
    return round((float(image[8:40, 8:56].mean()) - 20) / 4)


def write(
    path: Path,
    codec: str,
    times: list[float],
    rate: int = 10,
    *,
    container: str | None = None,
    options: dict[str, str] | None = None,
    images: list[np.ndarray] | None = None,
    pixels: tuple[str, str] = ("gray", "yuv420p"),
    aspect: Fraction | None = None,
) -> Path:
    """Write numbered pictures (or these) at these times, by another library than ours."""
    with av.open(str(path), "w", format=container) as out:
        stream: Any = out.add_stream(codec, rate=rate)
        first = images[0] if images else numbered(0)
        stream.height, stream.width = first.shape[:2]
        stream.pix_fmt, stream.options = pixels[1], options or {}
        stream.codec_context.time_base = Fraction(1, rate * 100 if codec == "ffv1" else rate)
        if codec.startswith("mpeg"):
            stream.bit_rate = 4_000_000
        if aspect:
            stream.sample_aspect_ratio = stream.codec_context.sample_aspect_ratio = aspect
        for number, seconds in enumerate(times):
            image = images[number % len(images)] if images else numbered(number)
            frame = av.VideoFrame.from_ndarray(image, pixels[0])
            frame.time_base = stream.codec_context.time_base
            frame.pts = round(seconds / frame.time_base)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("options", [B_FRAMES, NO_B_FRAMES], ids=["b-frames", "plain"])
@pytest.mark.parametrize(
    ("suffix", "codec", "container"),
    [
        (".avi", "libx264", None),
        (".avi", "mpeg4", None),
        (".wmv", "libx264", "asf"),
        (".mp4", "libx264", None),
        (".mp4", "libx265", None),
        (".mp4", "mpeg4", None),
        (".mkv", "libx264", None),
        (".mkv", "mpeg4", None),
        (".mov", "libx264", None),
        (".flv", "libx264", None),
        (".ts", "libx264", "mpegts"),
        (".ts", "libx265", "mpegts"),
        (".ts", "mpeg2video", "mpegts"),
        (".h264", "libx264", "h264"),
        (".hevc", "libx265", "hevc"),
    ],
)
def test_every_picture_has_its_time_in_every_container(
    tmp_path: Path, suffix: str, codec: str, container: str | None, options: dict[str, dict[str, str]]
) -> None:
    rate = 25 if codec == "mpeg2video" else 10
    times = [n / rate for n in range(30)]
    path = write(tmp_path / f"a{suffix}", codec, times, rate, container=container, options=options.get(codec))
    with open_source(str(path), "vis") as source:
        frames = list(iter(source.read, None))
    assert source.fps == rate
    assert [number_of(frame.image) for frame in frames] == list(range(30))
    assert [frame.timestamp for frame in frames] == pytest.approx(times, abs=2e-3)


@pytest.mark.parametrize("suffix", [".avi", ".mp4", ".mkv"])
def test_a_start_in_a_file_with_b_frames_is_exact(tmp_path: Path, suffix: str) -> None:
    options = {**B_FRAMES["libx264"], "g": "10"}
    path = write(tmp_path / f"a{suffix}", "libx264", [n / 10 for n in range(30)], options=options)
    frames = frames_of(f"{path}?start=1.5")
    assert [number_of(frame.image) for frame in frames] == list(range(15, 30))
    assert [frame.timestamp for frame in frames] == pytest.approx([n / 10 for n in range(15)], abs=2e-3)


def test_a_rate_that_nobody_states_is_said_to_be_assumed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "a.mjpeg"
    jpeg = cv2.imencode(".jpg", numbered(3))[1].tobytes()
    path.write_bytes(jpeg * 5)
    with open_source(str(path), "vis") as source:
        assert source.fps == 25
    assert "states no frame rate: assuming 25 per second; fps=… states another" in caplog.text
    caplog.clear()
    assert [f.timestamp for f in frames_of(f"{path}?fps=10")] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])
    assert not caplog.messages


VARIABLE = [n / 30 for n in range(60)] + [2 + n / 10 for n in range(20)]  # two seconds each


def fused_times(ir: Path, vis: Path, out: Path | None = None) -> list[tuple[int, int]]:
    """Fuse, and return which infrared and visible pictures came together."""
    seen: list[tuple[int, int]] = []

    def fuse(ir_image: np.ndarray, vis_image: np.ndarray) -> np.ndarray:
        seen.append((number_of(ir_image), number_of(vis_image)))
        return vis_image.copy()

    with connect(str(ir), "ir") as ir_camera, connect(str(vis), "vis") as vis_camera:
        sinks = [open_output(str(out), OutputOptions(fps=20.0))] if out else [Callback(lambda _: None)]
        run(ir_camera, vis_camera, fuse, sinks)
    return seen


def variable(path: Path, times: list[float] = VARIABLE) -> Path:
    """Write a video whose mean rate is no clock, and whose levels say the tenth of a second."""
    images = [np.full(SHAPE, 20 + 4 * int(10 * at + 1e-6), np.uint8) for at in times]
    return write(path, "ffv1", times, 30, images=images, pixels=("gray", "gray"))


def steady(path: Path, rate: int, seconds: float = 4.0) -> Path:
    times = [n / rate for n in range(round(rate * seconds))]
    images = [np.full(SHAPE, 20 + 4 * (n * 10 // rate), np.uint8) for n in range(len(times))]
    return write(path, "ffv1", times, rate, images=images, pixels=("gray", "gray"))


@pytest.mark.parametrize("rate", [20, 30])
def test_a_variable_rate_is_paired_by_its_times(tmp_path: Path, rate: int) -> None:
    """Levels say the tenth of a second; the stated rate says nothing about any one picture."""
    pairs = fused_times(steady(tmp_path / f"ir{rate}.mkv", rate), variable(tmp_path / "v.mkv"))
    assert [vis for _, vis in pairs] == [int(10 * at + 1e-6) for at in VARIABLE]
    assert max(abs(ir - vis) for ir, vis in pairs) <= 1


def test_a_pause_in_a_video_is_not_bridged_by_old_infrared(tmp_path: Path) -> None:
    """Without a steady rate, two frames may be as far apart as those of two cameras: 0.25 s."""
    times = [at + 1.5 * (at >= 2) for at in VARIABLE]
    pairs = fused_times(variable(tmp_path / "ir.mkv", times), steady(tmp_path / "vis.mkv", 20, 5.0))
    assert max(abs(ir - vis) for ir, vis in pairs) in (2, 3)  # tenths, cut off
    assert {vis for _, vis in pairs} == set(range(50)) - set(range(23, 32))


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_variable_rate_keeps_its_times_in_the_output(tmp_path: Path, suffix: str) -> None:
    out = tmp_path / f"out{suffix}"
    fused_times(steady(tmp_path / "ir.mkv", 30), variable(tmp_path / "v.mkv"), out)
    frames = frames_of(str(out))
    assert [frame.timestamp for frame in frames] == pytest.approx(VARIABLE, abs=2e-3)


def test_the_reference_sets_the_times_of_the_output(tmp_path: Path) -> None:
    """Of a slower visible camera each picture serves twice: infrared still comes at its own steady rate."""
    out = tmp_path / "out.mkv"
    ir, vis = steady(tmp_path / "ir.mkv", 20), steady(tmp_path / "vis.mkv", 10)
    with connect(str(ir), "ir") as ir_camera, connect(str(vis), "vis") as vis_camera:
        config = LiveConfig(rate="ir")
        sinks = [open_output(str(out), OutputOptions(fps=20.0))]
        run(ir_camera, vis_camera, lambda _, image: image.copy(), sinks, config)
    assert [f.timestamp for f in frames_of(str(out))] == pytest.approx([n / 20 for n in range(80)], abs=2e-3)


def test_a_steady_rate_stays_exact_in_the_output(tmp_path: Path) -> None:
    out = tmp_path / "out.mp4"
    fused_times(steady(tmp_path / "ir.mkv", 20), steady(tmp_path / "vis.mkv", 20), out)
    video = cv2.VideoCapture(str(out), cv2.CAP_FFMPEG)
    assert (video.get(cv2.CAP_PROP_FPS), video.get(cv2.CAP_PROP_FRAME_COUNT)) == (20, 80)


@pytest.mark.parametrize(
    ("aspect", "shape"), [((2, 1), (48, 128)), ((1, 2), (96, 64)), ((16, 15), (48, 68)), ((1, 1), SHAPE)]
)
def test_pixels_that_are_not_square_are_made_so(
    tmp_path: Path, aspect: tuple[int, int], shape: tuple[int, int]
) -> None:
    path = write(
        tmp_path / "a.mp4", "libx264", [0.0, 0.1], aspect=Fraction(*aspect), options=NO_B_FRAMES["libx264"]
    )
    for role in ("ir", "vis"):
        assert frames_of(str(path), role)[0].image.shape[:2] == shape


@pytest.mark.parametrize("bits", [9, 10, 12, 14])
def test_grey_video_of_more_than_8_bits_is_seen(tmp_path: Path, bits: int) -> None:
    """Visible comes out as 8 bits by its own scale; infrared keeps its counts."""
    image = np.full(SHAPE, 78 << (bits - 8), np.uint16)
    path = grey_video(tmp_path / "a.mkv", image, f"gray{bits}le")
    (vis,), (ir,) = frames_of(str(path)), frames_of(str(path), "ir")
    assert vis.image.dtype == np.uint8
    assert (vis.image == 78).all()
    assert ir.image.dtype == np.uint16
    assert (ir.image == image).all()


def test_the_bits_of_a_visible_video_of_16_bits(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The decoder cannot know that 12 of them are in use; whoever watches is told what to give."""
    path = grey_video(tmp_path / "a.mkv", np.full(SHAPE, 78 << 4, np.uint16), "gray16le")
    other = grey_video(tmp_path / "b.mkv", np.full(SHAPE, 78 << 4, np.uint16), "gray16le")
    (pair,) = recorded_pairs(other, path, bits=12)
    assert (pair.fused == 78).all()
    assert not caplog.messages
    (pair,) = recorded_pairs(other, path)
    assert (pair.fused == 5).all()
    assert "give bits=11" in caplog.text


def grey_video(path: Path, image: np.ndarray, name: str) -> Path:
    """Write one picture, whose pixels are stored as the format of this name."""
    with av.open(str(path), "w") as out:
        stream: Any = out.add_stream("ffv1", rate=10)
        stream.height, stream.width, stream.pix_fmt = *SHAPE, name
        frame = av.VideoFrame(SHAPE[1], SHAPE[0], name)
        plane: Any = frame.planes[0]
        rows = np.zeros((SHAPE[0], plane.line_size // 2), np.uint16)
        rows[:, : SHAPE[1]] = image
        plane.update(rows)
        frame.pts = 0
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


BARS = [(0, 0, 0), (255, 255, 255), (40, 40, 200), (60, 180, 60), (200, 60, 40), (128, 128, 128)]


def bars(height: int, width: int = 1280) -> np.ndarray:
    image = np.zeros((height, width, 3), np.uint8)
    for number, colour in enumerate(BARS):
        image[:, number * width // 6 : (number + 1) * width // 6] = colour
    return image


def colours_of(image: np.ndarray) -> np.ndarray:
    step = image.shape[1] // 6
    return np.array([image[40, step * n + step // 2] for n in range(6)], int)


@pytest.mark.parametrize(("height", "matrix"), [(480, Colorspace.ITU601), (720, Colorspace.ITU709)])
def test_colours_without_a_tag_are_what_players_show(tmp_path: Path, height: int, matrix: Colorspace) -> None:
    converted = VideoReformatter().reformat(
        av.VideoFrame.from_ndarray(bars(height), "bgr24"),
        format="yuv420p",
        dst_colorspace=matrix,
        dst_color_range=ColorRange.MPEG,
    )
    image = converted.to_ndarray()
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as out:
        stream: Any = out.add_stream("libx264", rate=10)
        stream.height, stream.width, stream.pix_fmt = height, 1280, "yuv420p"
        stream.options = {"crf": "4", "x264-params": "log-level=none"}
        frame = av.VideoFrame.from_ndarray(image, "yuv420p")
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    (frame_read,) = frames_of(str(path))
    assert np.abs(colours_of(frame_read.image) - np.array(BARS)).max() <= 6


@pytest.mark.parametrize(
    ("name", "codec", "height", "tags", "matrix"),
    [
        ("a.mp4", "h264", 720, (1, 1, 1, 1), Colorspace.ITU709),
        ("a.mp4", "h264", 480, (6, 1, 1, 1), Colorspace.ITU601),
        ("a.mkv", "h265", 720, (1, 1, 1, 1), Colorspace.ITU709),
        ("a.avi", "mjpeg", 720, None, Colorspace.ITU601),
    ],
)
def test_colours_are_written_as_they_are_tagged(
    tmp_path: Path, name: str, codec: str, height: int, tags: tuple[int, ...] | None, matrix: Colorspace
) -> None:
    image = bars(height)
    with VideoOut(tmp_path / name, 10, codec=codec) as sink:
        for n in range(3):
            sink.write(FusedFrame(image[:, :, 0], image, image, n, n / 10))
    with av.open(str(tmp_path / name)) as container:
        stream = container.streams.video[0]
        frame = next(container.decode(stream))
        context = stream.codec_context
        if tags:
            found = (context.colorspace, context.color_range, context.color_primaries, context.color_trc)
            assert tuple(map(int, found)) == tags
        full = ColorRange.JPEG
        limits = full if codec == "mjpeg" else ColorRange.MPEG
        shown = VideoReformatter().reformat(
            frame,
            format="bgr24",
            src_colorspace=matrix,
            src_color_range=limits,
            dst_color_range=ColorRange.JPEG,
        )
    assert np.abs(colours_of(shown.to_ndarray()) - np.array(BARS)).max() <= 8, "as a player shows it"
    assert np.abs(colours_of(frames_of(str(tmp_path / name))[0].image) - np.array(BARS)).max() <= 8, (
        "as we do"
    )


def boxes(path: Path) -> list[str]:
    """Return the boxes of an MP4 file."""
    data, at, found = path.read_bytes(), 0, []
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        if size == 1:
            size = int.from_bytes(data[at + 8 : at + 16], "big")
        found.append(data[at + 4 : at + 8].decode("ascii"))
        at += size or len(data)
    return found


def test_a_finished_mp4_is_no_longer_in_fragments(tmp_path: Path) -> None:
    image = np.zeros((48, 64, 3), np.uint8)
    with VideoOut(tmp_path / "a.mp4", 10) as sink:
        for n in range(40):
            sink.write(FusedFrame(image[:, :, 0], image, image, n, n / 10))
    found = boxes(tmp_path / "a.mp4")
    assert "moov" in found
    assert "moof" not in found
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert container.duration == pytest.approx(4_000_000, abs=110_000)


ENDLESS = """
import sys, time
import numpy as np
from edgefuse.runtime.frames import FusedFrame
from edgefuse.runtime.sinks import VideoOut
image = np.zeros((48, 64, 3), np.uint8)
with VideoOut(sys.argv[1], None) as sink:
    for n in range(100_000):
        image[:] = n % 200
        sink.write(FusedFrame(image[:, :, 0], image, image, n, n / 25))
        print(n, flush=True)
        time.sleep(0.004)
"""


def test_an_mp4_outlives_a_kill(tmp_path: Path) -> None:
    command = [sys.executable, "-c", ENDLESS, str(tmp_path / "a.mp4")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if int(line) >= 150:
                process.kill()
                break
    (left,) = tmp_path.iterdir()
    assert left.name.endswith(".part.mp4")
    frames = frames_of(str(left))
    assert len(frames) >= 100, "all but the last two seconds"
    assert [round(frame.timestamp * 25) for frame in frames] == list(range(len(frames)))


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="there is no SIGHUP here")
def test_a_closed_terminal_ends_a_recording_in_good_order(tmp_path: Path) -> None:
    sources = ("--ir", "sim?size=64x48", "--vis", "sim?size=64x48&seed=1")
    command = [sys.executable, "-m", "edgefuse", "record", *sources, "--out", str(tmp_path / "r")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        deadline = time.monotonic() + 60
        while not list(tmp_path.glob("r/vis/*.mkv")):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        time.sleep(0.5)
        os.kill(process.pid, signal.SIGHUP)
        output, errors = process.communicate(timeout=30)
    assert process.returncode == 0, errors
    assert b"ended: SIGHUP" in output
    with av.open(str(tmp_path / "r/vis/0001.mkv")) as container:
        assert container.duration is not None  # which is written last


def test_counts_of_a_recorded_thermal_stick(tmp_path: Path) -> None:
    """It sends a picture, and below it counts of 16 bits, both as if they were YUYV."""
    counts = np.arange(192 * 256, dtype=np.uint16).reshape(192, 256) % 5000 + 7000
    picture = np.full((192, 256), 0x8050, np.uint16)  # luma 0x50, no colour
    both = np.concatenate([picture, counts]).view(np.uint8).reshape(384, 256, 2)
    path = tmp_path / "stick.mkv"
    with av.open(str(path), "w") as out:
        stream: Any = out.add_stream("rawvideo", rate=25)
        stream.height, stream.width, stream.pix_fmt = 384, 256, "yuyv422"
        for n in range(2):
            frame = av.VideoFrame.from_ndarray(both, "yuyv422")
            frame.pts = n
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    ir = frames_of(f"{path}?raw=1&crop=256x192+0+192", "ir")
    assert np.array_equal(ir[0].image, counts)
    (vis, _) = frames_of(f"{path}?crop=256x192+0+0", "ir")
    assert vis.image.shape == (192, 256)
    assert int(vis.image[50, 50]) == round((0x50 - 16) * 255 / 219)
    with pytest.raises(SourceError, match="the crop reaches beyond the picture of 256x384"):
        frames_of(f"{path}?crop=256x192+0+200", "ir")
    with pytest.raises(SourceError, match="option crop: 'big' is not WIDTHxHEIGHT"):
        frames_of(f"{path}?crop=big", "ir")
    write_image(tmp_path / "0.png", np.arange(64 * 64, dtype=np.uint8).reshape(64, 64))
    assert frames_of(f"{tmp_path}?crop=16x32+4+8")[0].image.shape == (32, 16)
    other = write(tmp_path / "a.mp4", "libx264", [0.0, 0.1], options=NO_B_FRAMES["libx264"])
    with pytest.raises(SourceError, match="raw=1 needs a video in YUYV"):
        frames_of(f"{other}?raw=1", "ir")


@pytest.mark.parametrize("start", [0.1, 1.2, 2.0, 2.3])
@pytest.mark.parametrize("name", ["a.avi", "a.mp4", "a.mkv"])
def test_a_start_among_pictures_out_of_order_loses_none_and_keeps_their_times(
    tmp_path: Path, name: str, start: float
) -> None:
    """B-frames that are shown before a key frame cannot be decoded from there on."""
    path = write(tmp_path / name, "mpeg4", [n / 10 for n in range(40)], options=B_FRAMES["mpeg4"])
    frames = frames_of(f"{path}?start={start}", "ir")
    first = round(10 * start)
    assert [number_of(frame.image) for frame in frames] == list(range(first, 40))
    assert [frame.timestamp for frame in frames] == pytest.approx(
        [n / 10 for n in range(40 - first)], abs=2e-3
    )
    with open_source(f"{path}?start={start}&loop=1", "ir") as source:
        again = [source.read() for _ in range(2 * (40 - first))]
    assert [number_of(frame.image) for frame in again if frame] == 2 * list(range(first, 40))


def test_counts_of_pixels_that_are_not_square_stay_as_they_are(tmp_path: Path) -> None:
    counts = (np.arange(48 * 64, dtype=np.uint16) * 37 + 7000).reshape(48, 64)
    stored = counts.view(np.uint8).reshape(48, 64, 2)
    pixels, aspect = ("yuyv422", "yuyv422"), Fraction(4, 3)
    path = write(tmp_path / "a.mov", "rawvideo", [0.0], images=[stored], pixels=pixels, aspect=aspect)
    (ir,) = frames_of(f"{path}?raw=1", "ir")
    assert np.array_equal(ir.image, counts)
