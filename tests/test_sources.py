import os
import re
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest

from edgefuse.errors import FrameError, LostError, SourceError
from edgefuse.images import as_visible
from edgefuse.runtime.cameras.camera import ThermalPreprocess, connect
from edgefuse.runtime.frames import Frame, Role
from edgefuse.runtime.live import run
from edgefuse.runtime.record import LosslessVideo
from edgefuse.runtime.sources import RealTime, open_source, opencv, safe_name
from edgefuse.runtime.sources import opencv as camera_module
from edgefuse.runtime.sources.base import SILENCE, Spec

SHAPE = (48, 64, 3)


def flat(value: int) -> np.ndarray:
    return np.full(SHAPE, value, np.uint8)


def write_video(path: Path, frames: int = 5, fps: float = 12.5) -> Path:
    codec = {".mp4": "mp4v", ".avi": "MJPG", ".mkv": "FFV1"}[path.suffix]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), fps, (64, 48))
    assert writer.isOpened()
    for n in range(frames):
        writer.write(flat(20 * n))
    writer.release()
    return path


def read_all(text: str, role: Any = "vis") -> list[Frame]:
    with open_source(text, role) as source:
        frames = []
        while (frame := source.read()) is not None:
            frames.append(frame)
        assert source.read() is None
        return frames


@pytest.mark.parametrize("name", ["a.mp4", "a.avi", "a.mkv", "name with spaces äö.mp4"])
def test_a_video_gives_every_frame_in_order(tmp_path: Path, name: str) -> None:
    path = write_video(tmp_path / name)
    before = time.monotonic()
    frames = read_all(str(path))
    assert [round(float(f.image.mean()) / 20) for f in frames] == [0, 1, 2, 3, 4]
    assert [f.index for f in frames] == [0, 1, 2, 3, 4]
    assert [f.timestamp for f in frames] == pytest.approx([n / 12.5 for n in range(5)])
    assert all(before <= f.captured <= time.monotonic() for f in frames)
    with open_source(str(path), "vis") as source:
        assert (source.live, source.fps, source.length) == (False, 12.5, 5)


def test_a_video_takes_another_frame_rate(tmp_path: Path) -> None:
    frames = read_all(f"{write_video(tmp_path / 'a.avi')}?fps=5")
    assert frames[1].timestamp == pytest.approx(0.2)


def test_a_folder_is_read_in_natural_order(tmp_path: Path) -> None:
    for n in (10, 9, 100, 2):
        cv2.imwrite(str(tmp_path / f"frame{n}.png"), flat(n))
    (tmp_path / "notes.txt").write_text("not an image")
    assert [int(f.image[0, 0, 0]) for f in read_all(str(tmp_path))] == [2, 9, 10, 100]
    assert [f.timestamp for f in read_all(f"{tmp_path}?fps=10")] == pytest.approx([0, 0.1, 0.2, 0.3])


def test_a_folder_keeps_16_bits(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.full((48, 64), 40_000, np.uint16))
    (frame,) = read_all(str(tmp_path), "ir")
    assert frame.image.dtype == np.uint16


def test_a_recording_in_real_time_comes_when_it_is_due(tmp_path: Path) -> None:
    with RealTime(open_source(f"{write_video(tmp_path / 'a.avi')}?fps=50", "vis")) as source:
        start = time.monotonic()
        frames = [source.read() for _ in range(6)]
        assert time.monotonic() - start >= 0.079
    assert source.live
    assert frames.pop() is None
    stamps = [f.timestamp for f in frames if f]
    assert np.diff(stamps) == pytest.approx([0.02] * 4)


def test_a_video_can_be_wound(tmp_path: Path) -> None:
    """Between two key frames too: those of this codec are 12 frames apart."""
    path = write_video(tmp_path / "a.mp4", frames=13, fps=10)
    frames = read_all(f"{path}?start=0.5")
    assert [round(float(f.image.mean()) / 20) for f in frames] == list(range(5, 13))
    assert [f.index for f in frames] == list(range(8))
    assert [f.timestamp for f in frames] == pytest.approx([n / 10 for n in range(8)])
    with open_source(f"{path}?start=0.5", "vis") as source:
        assert source.length == 8


def test_a_video_beyond_its_end_is_said(tmp_path: Path) -> None:
    with (
        open_source(f"{write_video(tmp_path / 'a.mp4')}?start=60", "vis") as source,
        pytest.raises(SourceError, match="has no picture"),
    ):
        source.read()


@pytest.mark.parametrize("name", ["a.mkv", "a.mp4", "folder"])
def test_a_loop_goes_on_with_times_and_numbers(tmp_path: Path, name: str) -> None:
    if name == "folder":
        for n in range(5):
            path = tmp_path / f"folder/{n}.png"
            path.parent.mkdir(exist_ok=True)
            cv2.imwrite(str(path), flat(20 * n))
        text = f"{tmp_path / name}?loop=1&fps=12.5"
    else:
        text = f"{write_video(tmp_path / name)}?loop=1"
    with open_source(text, "vis") as source:
        assert source.length is None
        frames = [frame for frame in (source.read() for _ in range(12)) if frame]
    assert [round(float(f.image.mean()) / 20) for f in frames] == [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1]
    assert [f.index for f in frames] == list(range(12))
    assert [f.timestamp for f in frames] == pytest.approx([n / 12.5 for n in range(12)], abs=2e-3)


def test_a_part_of_a_folder(tmp_path: Path) -> None:
    for n in range(12):
        cv2.imwrite(str(tmp_path / f"{n}_ir.png"), flat(n))
        cv2.imwrite(str(tmp_path / f"{n}_vis.png"), flat(100 + n))
    (tmp_path / "3_ir.txt").touch()
    assert [int(f.image[0, 0, 0]) for f in read_all(f"{tmp_path}/*_ir*")] == list(range(12))
    assert [int(f.image[0, 0, 0]) for f in read_all(f"{tmp_path}/1[01]_vis.png?fps=5")] == [110, 111]
    assert len(read_all(f"{tmp_path}?fps=10&start=1")) == 14
    with pytest.raises(SourceError, match=r"no images match .*\*\.jpg \(0 other files do\)"):
        open_source(f"{tmp_path}/*.jpg", "vis")
    with pytest.raises(SourceError, match="has 24 images, none of them after 9 s"):
        open_source(f"{tmp_path}?start=9", "vis")


@pytest.mark.parametrize(
    ("options", "placed"),
    [
        ("rotate=90", lambda image: np.rot90(image, -1)),
        ("rotate=180", lambda image: np.rot90(image, 2)),
        ("rotate=270", np.rot90),
        ("flip=h", np.fliplr),
        ("flip=v", np.flipud),
        ("flip=hv", lambda image: np.rot90(image, 2)),
        ("flip=h&rotate=90&crop=32x16+8+4", lambda image: np.fliplr(np.rot90(image[4:20, 8:40], -1))),
    ],
)
@pytest.mark.parametrize("kind", [(np.uint16, ()), (np.uint8, (3,))], ids=["infrared", "colour"])
def test_pictures_are_turned_as_the_camera_is_mounted(
    tmp_path: Path, options: str, placed: Any, kind: Any
) -> None:
    image = np.random.default_rng(1).integers(0, 255, (40, 48, *kind[1])).astype(kind[0])
    cv2.imwrite(str(tmp_path / "0.png"), image)
    with open_source(f"{tmp_path}?{options}", "ir" if kind[0] is np.uint16 else "vis") as source:
        frame = source.read()
    assert frame is not None
    assert frame.image.dtype == image.dtype
    assert np.array_equal(frame.image, placed(image))


@pytest.mark.parametrize("kind", [(np.uint16, ()), (np.uint8, (3,))], ids=["infrared", "colour"])
def test_pictures_are_scaled_and_shifted(tmp_path: Path, kind: Any) -> None:
    x, y = np.meshgrid(np.arange(48), np.arange(40))
    image = (3 * x + y).astype(kind[0])
    image = image if not kind[1] else np.dstack([image] * 3)
    cv2.imwrite(str(tmp_path / "0.png"), image)
    role: Role = "ir" if kind[0] is np.uint16 else "vis"
    with open_source(f"{tmp_path}?scale=2", role) as source:
        frame = source.read()
    assert frame is not None
    assert frame.image.dtype == image.dtype
    assert frame.image.shape == image.shape
    assert frame.valid is None
    middle = frame.image[10:30, 12:36].astype(float)
    np.testing.assert_allclose(middle, image[10:30, 12:36] / 2 + (3 * 47 + 39) / 4, atol=1.01)
    with open_source(f"{tmp_path}?shift=12,-4", "ir") as source:
        frame = source.read()
    assert frame is not None
    np.testing.assert_array_equal(frame.image[:36, 12:], image[4:, :36])
    assert frame.valid is not None
    assert (frame.valid[:, :12] == 0).all()
    assert (frame.valid[36:] == 0).all()
    assert (frame.valid[:30, 16:] == 255).all()


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ("scale=0", "outside 0 to 10"),
        ("scale=0.01", "outside 0.1 to 10"),
        ("scale=big", "is not a number"),
        ("shift=5", "not RIGHT,DOWN in pixels"),
        ("shift=1e9,0", "more than 10000 pixels"),
        ("shift=nan,0", "more than 10000 pixels"),
        ("shift=60,0", "leave nothing of the picture of 48x40"),
    ],
)
def test_a_scale_or_shift_that_cannot_be_is_refused(tmp_path: Path, options: str, why: str) -> None:
    cv2.imwrite(str(tmp_path / "0.png"), np.zeros((40, 48), np.uint8))
    with pytest.raises(SourceError, match=why), open_source(f"{tmp_path}?{options}", "ir") as source:
        source.read()


def test_a_visible_picture_cannot_have_a_margin(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "0.png"), np.zeros((40, 48, 3), np.uint8))
    for options in ("scale=0.9", "shift=3,0"):
        with (
            pytest.raises(SourceError, match="shift infrared the other way"),
            open_source(f"{tmp_path}?{options}", "vis") as source,
        ):
            source.read()
    with open_source(f"{tmp_path}?scale=1.5&shift=3,0", "vis") as source:
        assert source.read() is not None


def test_scale_and_shift_of_sim_are_those_of_its_rig() -> None:
    with open_source("sim?frames=1&size=64x48&scale=0.9&shift=4,0&flip=h", "ir") as source:
        frame = source.read()
    assert frame is not None
    assert frame.valid is None
    with open_source("sim?frames=1&size=64x48&scale=0.9&shift=4,0", "ir") as source:
        plain = source.read()
    assert plain is not None
    np.testing.assert_array_equal(frame.image, plain.image[:, ::-1])


@pytest.mark.parametrize("option", ["rotate=45", "flip=x"])
def test_other_turns_are_refused(option: str) -> None:
    name, _, value = option.partition("=")
    with pytest.raises(SourceError, match=f"option {name}: '{value}' is not one of"):
        open_source(f"sim?frames=1&{option}", "vis")


def test_files_have_their_own_times(tmp_path: Path) -> None:
    """A camera that stuttered: frames at 0, 40, 400 and 440 ms."""
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "gray"
        for n, milliseconds in enumerate((0, 40, 400, 440)):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64), n, np.uint8), format="gray")
            frame.pts, frame.time_base = milliseconds, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    assert [f.timestamp for f in read_all(str(tmp_path / "a.mkv"))] == pytest.approx([0, 0.04, 0.4, 0.44])
    again = read_all(f"{tmp_path / 'a.mkv'}?fps=10")
    assert [f.timestamp for f in again] == pytest.approx([0, 0.1, 0.2, 0.3])


def write_raw_times(path: Path, *options: str) -> Path:
    """Write a second of 25 frames with ffmpeg and these options."""
    ffmpeg = shutil.which("ffmpeg")
    if ffmpeg is None:
        pytest.skip("needs ffmpeg: apt-get install ffmpeg")
    picture = ["-loglevel", "quiet", "-f", "lavfi", "-i", "testsrc2=size=64x48:rate=25", "-t", "1"]
    subprocess.run([ffmpeg, *picture, *options, str(path)], check=True)
    return path


ODD_TIMES = {
    "below zero.mkv": "-c:v libx264 -bf 2 -output_ts_offset -0.5 -avoid_negative_ts disabled",
    "wraps.ts": "-c:v mpeg2video -output_ts_offset 95443",
    "without.h264": "-c:v libx264 -bf 2",
}


@pytest.mark.parametrize("name", ODD_TIMES)
def test_files_with_odd_times_are_played_evenly(tmp_path: Path, name: str) -> None:
    path = write_raw_times(tmp_path / name, *ODD_TIMES[name].split())
    times = [frame.timestamp for frame in read_all(str(path))]
    assert times == pytest.approx([n / 25 for n in range(25)], abs=2e-3)
    later = [frame.timestamp for frame in read_all(f"{path}?start=0.5")]
    assert len(later) in (12, 13)
    assert np.diff(later) == pytest.approx([1 / 25] * (len(later) - 1), abs=2e-3)
    assert 0 <= later[0] <= 0.041
    with open_source(f"{path}?loop=1", "vis") as source:
        looped = [frame.timestamp for frame in (source.read() for _ in range(60)) if frame]
    assert np.diff(looped) == pytest.approx([1 / 25] * 59, abs=2e-3)


def test_frames_that_a_file_hides_are_not_missed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """An edit list begins in the middle: the frames before are there, and are not to be shown."""
    options = "-c:v libx264 -bf 2 -output_ts_offset -0.5 -avoid_negative_ts disabled"
    frames = read_all(str(write_raw_times(tmp_path / "a.mp4", *options.split())))
    assert len(frames) in (12, 13)
    assert caplog.messages == []


def test_files_joined_end_to_end_go_on(tmp_path: Path) -> None:
    """Transport streams can be joined by copying; the second one's times begin anew."""
    part = write_raw_times(tmp_path / "part.ts", "-c:v", "mpeg2video").read_bytes()
    (tmp_path / "joined.ts").write_bytes(part + part)
    times = [frame.timestamp for frame in read_all(str(tmp_path / "joined.ts"))]
    assert len(times) >= 49
    assert min(np.diff(times)) > 0
    assert max(times) < 2.1


def test_a_start_is_in_the_files_own_time(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", frames=13, fps=10)
    frames = read_all(f"{path}?start=0.5&fps=20")
    assert [round(float(f.image.mean()) / 20) for f in frames] == list(range(5, 13))
    assert [f.timestamp for f in frames] == pytest.approx([n / 20 for n in range(8)])


def test_a_portrait_video_is_upright(tmp_path: Path) -> None:
    ffmpeg = shutil.which("ffmpeg")
    if ffmpeg is None:
        pytest.skip("needs ffmpeg: apt-get install ffmpeg")
    path = write_video(tmp_path / "a.mp4")
    turn = [ffmpeg, "-loglevel", "error", "-i", str(path), "-c", "copy", "-metadata:s:v", "rotate=90"]
    subprocess.run([*turn, str(tmp_path / "b.mp4")], check=True)
    assert read_all(str(tmp_path / "b.mp4"))[0].image.shape == (64, 48, 3)


def test_realtime_is_an_option_of_recordings(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.avi")
    for camera in (connect(f"{path}?realtime=1", "vis"), connect(str(path), "vis", realtime=True)):
        with camera:
            assert isinstance(camera.open(), RealTime)
            assert (camera.live, camera.recorded, camera.reopens) == (True, True, False)
    with pytest.raises(SourceError, match="option realtime: 'maybe' must be 1 or 0"):
        connect(f"{path}?realtime=maybe", "vis")


def test_a_gap_in_a_recording_does_not_hold_up_its_end(tmp_path: Path) -> None:
    source = RealTime(open_source(f"{write_video(tmp_path / 'a.avi')}?fps=0.01", "vis"))
    source.read()
    ended = threading.Event()

    def read() -> None:
        assert source.read() is None
        ended.set()

    thread = threading.Thread(target=read)
    thread.start()
    source.close()
    assert ended.wait(2.0)
    thread.join()


def test_infrared_is_decoded_as_its_luma(tmp_path: Path) -> None:
    ramp = np.repeat(np.linspace(0, 255, 64, dtype=np.uint8)[None], 48, 0)
    writer = cv2.VideoWriter(str(tmp_path / "a.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 25, (64, 48))
    assert writer.isOpened()
    writer.write(cv2.cvtColor(ramp, cv2.COLOR_GRAY2BGR))
    writer.release()
    (ir,) = read_all(str(tmp_path / "a.avi"), "ir")
    (vis,) = read_all(str(tmp_path / "a.avi"), "vis")
    assert ir.image.shape == (48, 64)
    assert cv2.absdiff(ir.image, cv2.cvtColor(vis.image, cv2.COLOR_BGR2GRAY)).max() <= 3
    assert cv2.absdiff(ir.image, ramp).max() <= 8


def test_infrared_in_colour_is_the_same_grey_live_and_recorded(tmp_path: Path) -> None:
    colours = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    video = LosslessVideo(tmp_path / "a.mkv", colours, 25.0, {})
    video.write(colours, 0.0, 0)
    video.close()
    (frame,) = read_all(str(tmp_path / "a.mkv"), "ir")
    assert np.array_equal(ThermalPreprocess()(frame.image, 0.0), ThermalPreprocess()(colours, 0.0))


def test_what_can_come_back(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.avi")
    lost = ["cam0", "/dev/video7", "/dev/v4l/by-id/x", "rtsp://host/live", "udp://:5000", "gst:a ! appsink"]
    assert all(connect(text, "vis").reopens for text in lost)
    assert not any(connect(text, "vis").reopens for text in (str(path), "sim", "sim?frames=3"))


def test_thermal_options_are_those_of_infrared_alone(tmp_path: Path) -> None:
    text = f"{write_video(tmp_path / 'a.avi')}?agc=linear&polarity=black"
    with connect(text, "ir") as camera:
        assert camera.thermal.polarity == "black"
    assert connect("rtsp://h/ir?a=1#polarity=black", "ir").thermal.polarity == "black"
    with pytest.raises(SourceError, match="unknown option 'agc'"):
        connect(text, "vis")
    with pytest.raises(SourceError, match=r"a\.avi.*unknown agc 'liner'"):
        connect(text.replace("linear", "liner"), "ir")
    with pytest.raises(SourceError, match="window '9-x' is not LOW-HIGH"):
        connect("rtsp://h/ir#window=9-x", "ir")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("gst:videotestsrc ! autovideosink", "write the pipeline as SOURCE ! … ! appsink"),
        ("gst:", "write the pipeline as"),
        ("gst:appsink", "write the pipeline as"),
        ("gst:videotestsrc ! ! appsink", "write the pipeline as"),
        ("gst:videotestsrc ! appsinks", "write the pipeline as"),
        ("gst:videotestsrc ! appsink", "built without GStreamer, as PyPI's is; on a Jetson use NVIDIA's"),
        ("gst:videotestsrc ! appsink#size=640x480", "unknown option 'size': known are fps"),
        ("gst:videotestsrc ! appsink#fps=fast", "option fps: 'fast' is not a number"),
    ],
)
def test_pipelines_that_cannot_run(text: str, sentence: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgefuse.runtime.sources.opencv._has_gstreamer", lambda: False)
    with pytest.raises(SourceError, match=sentence) as error:
        open_source(text, "vis")
    assert "\n" not in str(error.value)


def broken(tmp_path: Path) -> dict[str, Path]:
    paths = {name: tmp_path / name for name in ("empty.mp4", "text.mp4", "folder", "image.png", "cut.mp4")}
    paths["empty.mp4"].touch()
    paths["text.mp4"].write_bytes(b"not a video" * 100)
    paths["folder"].mkdir()
    cv2.imwrite(str(paths["image.png"]), flat(1))
    whole = write_video(tmp_path / "whole.mp4").read_bytes()
    paths["cut.mp4"].write_bytes(whole[: len(whole) // 2])
    return paths


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("missing.mp4", "no such file or folder: .*missing.mp4"),
        ("empty.mp4", r"empty.mp4 is empty \(0 bytes\)"),
        ("text.mp4", "text.mp4 is not a video"),
        ("cut.mp4", "cut.mp4 has no video in it"),
        ("folder", "no images in .*folder"),
        ("image.png", "image.png is an image"),
        ("whole.mp4?speed=2", "unknown option 'speed': known are bits, fps, loop, raw, start"),
        ("whole.mp4?fps=fast", "option fps: 'fast' is not a number"),
        ("whole.mp4?fps=0", "option fps: '0' is outside"),
        ("whole.mp4?fps", "option 'fps' has no value"),
        ("whole.mp4?fps=1&fps=2", "option 'fps' is given twice"),
    ],
)
def test_a_bad_recording_gets_one_sentence(
    tmp_path: Path, name: str, sentence: str, capfd: pytest.CaptureFixture[str]
) -> None:
    broken(tmp_path)
    with pytest.raises(SourceError, match=sentence) as error:
        open_source(str(tmp_path / name), "vis")
    assert "\n" not in str(error.value)
    assert capfd.readouterr() == ("", "")


def test_a_broken_image_in_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no image")
    with (
        open_source(str(tmp_path), "vis") as source,
        pytest.raises(SourceError, match=r"a\.png is not an image"),
    ):
        source.read()


def test_a_folder_without_a_readable_image_does_not_loop_for_ever(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(b"no image")
    (tmp_path / "ir").mkdir()
    cv2.imwrite(str(tmp_path / "ir/a.png"), np.full((20, 30), 7, np.uint8))
    camera = connect(f"{tmp_path}?loop=1", "vis")
    report = run(connect(str(tmp_path / "ir"), "ir"), camera, lambda _, vis: vis)
    assert report.error is not None
    assert f"{tmp_path}?loop=1 has no image that can be read: {tmp_path}/" in report.error
    cv2.imwrite(str(tmp_path / "b.png"), np.full((20, 30), 7, np.uint8))
    with open_source(f"{tmp_path}?loop=1", "vis") as source:
        for _ in range(3):
            with pytest.raises(FrameError):
                source.read()
            assert source.read() is not None


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "the source is empty"),
        ("cam", "unknown source 'cam'.*did you mean 'cam0'"),
        ("simm", "did you mean 'sim'"),
        ("ftp://host/a.mp4", "unknown URL scheme 'ftp'.*known are http, "),
        ("http:///a.mp4", "names no host"),
        ("rtsp://host:99999/x", "is not a valid URL"),
        ("rtsp://host/x#transport=sctp", "option transport: unknown transport 'sctp': known are tcp, udp"),
        ("rtsp://host/x#timeout=11", "option timeout: '11' is outside 0 to 10"),
        ("rtsp://host/x#speed=2", "unknown option 'speed': known are fps, timeout, transport"),
        ("sim?sede=3", "unknown sim option 'sede'.*did you mean 'seed'"),
        ("sim?frames=none", "option frames: 'none' is not a whole number"),
    ],
)
def test_a_source_that_cannot_be_understood(text: str, sentence: str) -> None:
    with pytest.raises(SourceError, match=sentence):
        open_source(text, "ir")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("rtsp://me:pw@host:554/live", "rtsp://me:***@host:554/live"),
        ("rtsp://me:p@w:x@host/live", "rtsp://me:***@host/live"),
        ("http://h/v?user=a&password=pw&ch=1", "http://h/v?user=a&password=***&ch=1"),
        ("http://h/v?auth_token=abc", "http://h/v?auth_token=***"),
        ("http://h/v?a=b;c", "http://h/v?a=***;***"),
        ("rtsp://[::1", "rtsp://…"),
        ("rtsp://me:p#w@host/live", "rtsp://***@host/live"),
        ("rtsp://me:p/w@host/live#transport=udp", "rtsp://***@host/live#transport=udp"),
        ("http://h/v#token=abc", "http://h/v#token=***"),
        ("rtsp://h/user=a&password=pw&channel=1", "rtsp://h/user=a&password=***&channel=1"),
        (
            "rtsp://h/user=a_password=pw_channel=1_stream=0.sdp",
            "rtsp://h/user=a_password=***_channel=1_stream=0.sdp",
        ),
        ("http://h/x;password=pw", "http://h/x;password=***"),
        ("http://h/v?psw=pw&loginpas=pw", "http://h/v?psw=***&loginpas=***"),
        ("rtsp://pw@h/live", "rtsp://***@h/live"),
        ("rtsp:/me:pw@h/live", "rtsp:/me:***@h/live"),
        ("http://h/v?u=me&p=s3cret&ch=1", "http://h/v?u=me&p=***&ch=1"),
        ("h/v?u=me&p=s3cret", "h/v?u=me&p=***"),
        ("http://h/live/me/s3cret/1.ts", "http://h/live/me/***/1.ts"),
        ("http://h/live/admin/secret/1.ts", "http://h/live/admin/***/1.ts"),
        ("http://h/me:secret/live", "http://h/me:***/live"),
        ("me:secret@h/live", "me:***@h/live"),
        ("rtsp:me:secret@h/live", "rtsp:me:***@h/live"),
        ("rtsp://h:554/Streaming/Channels/101", "rtsp://h:554/Streaming/Channels/101"),
        ("rtsp://h/h264Preview_01_main", "rtsp://h/h264Preview_01_main"),
        ("rtsp://h/live/ch00_1", "rtsp://h/live/ch00_1"),
        ("rtsp://h/cam/realmonitor?channel=1&subtype=0", "rtsp://h/cam/realmonitor?channel=1&subtype=0"),
        ("rtsp://me:${PASSWORD}@h/live", "rtsp://me:***@h/live"),
        ("recordings/a b?.mp4", "recordings/a b?.mp4"),
        ("gst:rtspsrc user-pw=abc ! appsink", "gst:rtspsrc user-pw=*** ! appsink"),
        (
            "gst:uridecodebin uri=http://me:pw@h/v ! appsink",
            "gst:uridecodebin uri=http://me:***@h/v ! appsink",
        ),
    ],
)
def test_passwords_are_not_shown(text: str, shown: str) -> None:
    assert safe_name(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "h:554/user=admin&password=S3cret&channel=1",
        "10.0.0.5/admin/S3cret/1",
        "camera.local/live?x=S3cret",
        "rtsp//admin:S3cret@h/x",
        "rtsp//S3cret@h/x",
        "rtsp:/h/live?code=S3cret",
        "//admin:S3cret@h/x",
        "S3cret@10.0.0.5/live",
        "http:\\\\admin:S3cret@h/x",
        "rtsp://h/live?x=1;p=S3cret",
        *(f"http://h/v?{key}=S3cret&channel=1" for key in ("code", "jwt", "hash", "access")),
        "http://h/v?S3cret",
        "http://h/v?channel=1,pw=S3cret",
        "http://h/code=S3cret/v",
        "srt://h:9000?streamid=#!::r=x,u=admin,s=S3cret",
        "rtsp://h/x#S3cret",
        "rtsp://h/live%3Fp%3DS3cret",
        "rtsp://h/live%253Fp%253DS3cret",
        "gst:rtspsrc proxy-pw='S3 cret' ! appsink",
        'gst:rtspsrc extra-headers="headers,Authorization=S3cret" ! appsink',
        'gst:souphttpsrc extra-headers="headers,Authorization=(string)\\"Basic S3cret\\"" ! appsink',
        "gst:souphttpsrc cookies=S3cret ! uridecodebin uri='HTTP://h/v?code=S3cret' ! appsink",
    ],
)
def test_a_password_in_an_odd_place_is_in_no_error(text: str) -> None:
    assert "cret" not in safe_name(text)
    if not text.startswith("gst:"):
        with pytest.raises(SourceError) as error:
            open_source(f"{text}#none" if "#" not in text else text, "vis")
        assert "cret" not in str(error.value)


@pytest.mark.parametrize(
    "text",
    [
        "sim?seed=3&frames=9",
        "cam0?size=640x480&fps=30",
        "night2024/admin/trip20a/ir.raw?start=2",
        "/home/user/night1/ir.mp4",
        "C:/Users/me1234/ir.mp4",
        "C:\\Users\\me@home\\night1.mp4",
        "day/ir@2x.png",
        "rtsp://h/live?unicast=true&proto=Onvif&x=1",
        "rtsp://h/live#transport=udp&fps=25",
    ],
)
def test_what_is_no_password_is_shown(text: str) -> None:
    assert safe_name(text) == text


def test_a_password_can_come_from_the_environment_or_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAMERA_PASSWORD", "p@ss/w#rd")
    (tmp_path / "secret").write_text("p@ss\n")
    spec = Spec.parse(
        "rtsp://me:${CAMERA_PASSWORD}@h/live?token=${file:" + str(tmp_path / "secret") + "}#fps=9"
    )
    assert spec.target == "rtsp://me:p%40ss%2Fw%23rd@h/live?token=p%40ss"
    assert spec.options == {"fps": "9"}
    assert "p%40ss" not in spec.name
    pipeline = Spec.parse("gst:rtspsrc user-pw=${CAMERA_PASSWORD} ! appsink")
    assert pipeline.target == "gst:rtspsrc user-pw=p@ss/w#rd ! appsink"
    with pytest.raises(SourceError, match="the environment has no variable CAMERA_PASSWROD"):
        Spec.parse("rtsp://me:${CAMERA_PASSWROD}@h/live")
    with pytest.raises(SourceError, match="cannot read /absent: No such file"):
        Spec.parse("rtsp://me:${file:/absent}@h/live")


def test_a_url_keeps_its_own_query() -> None:
    spec = Spec.parse("rtsp://host/live?channel=1&subtype=0#transport=udp")
    assert spec.target == "rtsp://host/live?channel=1&subtype=0"
    assert spec.options == {"transport": "udp"}


# --- network, for real, on the loopback interface


class Mjpeg(BaseHTTPRequestHandler):
    """Serves ten JPEGs as multipart/x-mixed-replace, then closes."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        for n in range(10):
            data = cv2.imencode(".jpg", flat(10 * n))[1].tobytes()
            head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
            self.wfile.write(head.encode() + data + b"\r\n")
            time.sleep(0.01)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def mjpeg_url() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Mjpeg)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/live.mjpg"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_network_stream_is_live_and_its_end_is_said(mjpeg_url: str) -> None:
    with open_source(mjpeg_url, "vis") as source:
        assert source.live
        frames = [source.read() for _ in range(8)]
        with pytest.raises(SourceError, match=r"live\.mjpg was lost after \d+ frames"):
            frames += iter(source.read, None)
    assert [f.index for f in frames if f] == list(range(len(frames)))
    assert all(f.timestamp == f.captured for f in frames if f)


def test_an_unreachable_url_is_said_without_its_password(capfd: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    with pytest.raises(SourceError, match="cannot be opened: Connection refused") as error:
        open_source(f"http://me:hunter2@127.0.0.1:{port}/live", "vis")
    assert "hunter2" not in str(error.value)
    assert capfd.readouterr() == ("", "")


def test_a_silent_server_runs_into_the_timeout() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        start = time.monotonic()
        with pytest.raises(SourceError, match=r"does not answer within 0\.3 s"):
            open_source(f"http://127.0.0.1:{listener.getsockname()[1]}/live#timeout=0.3", "vis")
    assert time.monotonic() - start < 3


# --- cameras: no hardware here, so a fake stands below, where OpenCV would be


class FakeDevice:
    """Answers as a `cv2.VideoCapture` does for a camera of 64x48 at 30 frames per second."""

    def __init__(self, frames: int = 3) -> None:
        self.frames = frames
        self.released = False

    def get(self, setting: int) -> float:
        return {cv2.CAP_PROP_FRAME_WIDTH: 64.0, cv2.CAP_PROP_FRAME_HEIGHT: 48.0, cv2.CAP_PROP_FPS: 30.0}.get(
            setting, 0.0
        )

    def grab(self) -> bool:
        self.frames -= 1
        return self.frames >= 0

    def retrieve(self) -> tuple[bool, np.ndarray]:
        return True, flat(7)

    def release(self) -> None:
        self.released = True


@pytest.fixture
def devices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(camera_module, "DEVICES", tmp_path)
    monkeypatch.setattr("sys.platform", "linux")
    return tmp_path


def plug_in(devices: Path, monkeypatch: pytest.MonkeyPatch, device: FakeDevice | None) -> list[Any]:
    (devices / "video0").touch()
    calls: list[Any] = []

    def open_capture(*args: Any) -> FakeDevice | None:
        calls.append(args)
        return device

    monkeypatch.setattr(camera_module, "open_capture", open_capture)
    return calls


def test_a_camera_gives_frames_until_it_is_unplugged(devices: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device = FakeDevice()
    calls = plug_in(devices, monkeypatch, device)
    with open_source("cam0?size=64x48&fps=30", "vis") as source:
        assert source.live
        assert source.fps == 30
        assert [source.read().index for _ in range(3)] == [0, 1, 2]  # type: ignore[union-attr]
        with pytest.raises(SourceError, match="was lost after 3 frames"):
            source.read()
    assert device.released
    target, _, settings = calls[0]
    assert target == str(devices / "video0")
    assert settings[:4] == [cv2.CAP_PROP_FRAME_WIDTH, 64, cv2.CAP_PROP_FRAME_HEIGHT, 48]


@pytest.mark.parametrize(
    ("text", "device", "sentence"),
    [
        ("cam3", FakeDevice(), r"there is no camera .*video3 \(cameras present: .*video0\)"),
        ("/dev/nothing", FakeDevice(), "there is no camera /dev/nothing"),
        ("cam0", None, "video0 cannot be opened as a camera.*busy"),
        ("cam0", FakeDevice(frames=0), "gives no picture: is it busy"),
        ("cam0?size=640x480", FakeDevice(), "the camera gives size 64x48 in place of 640x480"),
        ("cam0?fps=60", FakeDevice(), "gives fps 30 in place of 60"),
        ("cam0?size=big", FakeDevice(), "option size: size 'big' is not WIDTHxHEIGHT"),
    ],
)
def test_a_bad_camera_gets_one_sentence_and_is_released(
    devices: Path, monkeypatch: pytest.MonkeyPatch, text: str, device: FakeDevice | None, sentence: str
) -> None:
    calls = plug_in(devices, monkeypatch, device)
    with pytest.raises(SourceError, match=sentence):
        open_source(text, "ir")
    assert not calls or device is None or device.released


@pytest.mark.parametrize(
    ("text", "pipeline", "fps"),
    [
        ("gst:a ! appsink", "a ! appsink drop=true max-buffers=1 sync=false", 30),
        ("gst: a  ! appsink name=x ", "a  ! appsink name=x", 30),
        ("gst:a ! video/x-raw,format=GRAY16_LE ! appsink#fps=9&agc=linear", None, 9),
        ("gst:uridecodebin uri=rtsp://h/a#b ! appsink", "uridecodebin uri=rtsp://h/a#b ! appsink", 30),
    ],
)
def test_a_pipeline_is_completed_and_opened(
    monkeypatch: pytest.MonkeyPatch, text: str, pipeline: str | None, fps: float
) -> None:
    calls: list[Any] = []

    def open_capture(*args: Any) -> FakeDevice:
        calls.append(args)
        return FakeDevice()

    monkeypatch.setattr(opencv, "_has_gstreamer", lambda: True)
    monkeypatch.setattr(opencv, "open_capture", open_capture)
    camera = connect(text, "ir")
    assert camera.thermal.agc == ("linear" if "agc" in text else "auto")
    with camera.open() as source:
        assert (source.live, source.fps, source.limit) == (True, fps, SILENCE["ir"].read)
        frame = source.read()
        assert frame is not None
        assert frame.timestamp == frame.captured == pytest.approx(time.monotonic(), abs=1)
        for _ in range(2):
            source.read()
        with pytest.raises(LostError, match="was lost after 3 frames"):
            source.read()
    opened, api, settings = calls[0]
    assert opened.startswith(pipeline or "a ! video/x-raw,format=GRAY16_LE ! appsink drop=true")
    assert "#fps" not in opened
    assert api == cv2.CAP_GSTREAMER
    assert settings[settings.index(cv2.CAP_PROP_READ_TIMEOUT_MSEC) + 1] == 3500


REAL_PIPELINE = """
import sys
sys.path.insert(0, sys.argv[1])
sys.path.append(sys.argv[2])  # for what the system lacks; cv2 is the system's
from edgefuse.runtime.sources import open_source
from edgefuse.errors import LostError

with open_source(sys.argv[3], "ir") as source:
    for _ in range(3):
        frame = source.read()
        print(source.fps, frame.index, frame.image.dtype, frame.image.shape)
try:
    open_source("gst:nosuchelement ! appsink", "vis")
except LostError as error:
    print(error)
"""


def test_a_pipeline_for_real() -> None:
    """With the system's OpenCV, where that was built with GStreamer, as Debian's is."""
    python, packages = "/usr/bin/python3", Path(cv2.__file__).parents[1]
    probe = "import cv2; print(cv2.getBuildInformation())"
    if not Path(python).exists() or not re.search(
        r"GStreamer: +YES", subprocess.run([python, "-c", probe], capture_output=True, text=True).stdout
    ):
        pytest.skip("needs OpenCV with GStreamer: apt-get install python3-opencv")
    caps = "video/x-raw,format=GRAY16_LE,width=64,height=48,framerate=25/1"
    text = f"gst:videotestsrc is-live=true ! {caps} ! appsink"
    command = [python, "-c", REAL_PIPELINE, str(Path(__file__).parents[1]), str(packages), text]
    environment = {**os.environ, "OPENCV_LOG_LEVEL": "SILENT"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)
    if "ImportError" in done.stderr or "ModuleNotFoundError" in done.stderr:
        pytest.skip(f"the system's Python cannot use these packages: {done.stderr.splitlines()[-1]}")
    *frames, error = done.stdout.splitlines()
    assert frames == [f"25.0 {n} uint16 (48, 64)" for n in range(3)], done.stderr
    assert "GStreamer cannot start this pipeline" in error


def test_a_pipeline_that_does_not_start_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opencv, "_has_gstreamer", lambda: True)
    for device, sentence in ((None, "try it with gst-launch-1.0"), (FakeDevice(0), "gives no picture")):
        monkeypatch.setattr(opencv, "open_capture", lambda *_, device=device: device)
        with pytest.raises(LostError, match=sentence):
            open_source("gst:a ! appsink", "vis")
        assert device is None or device.released


def test_a_torn_frame_is_lost_and_many_are_the_end(devices: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Torn(FakeDevice):
        def retrieve(self) -> tuple[bool, Any]:
            return (True, flat(7)) if self.frames in (29, 27) else (False, None)

    plug_in(devices, monkeypatch, Torn(30))
    with open_source("cam0", "vis") as source:
        assert [source.read().index for _ in range(2)] == [0, 2]  # type: ignore[union-attr]
        with pytest.raises(LostError, match="cam0 was lost"):
            source.read()


@pytest.mark.parametrize("shape", [(48, 64), (1, 48 * 64), (48 * 64,)])
def test_raw_data_that_the_library_flattens_gets_its_shape(
    devices: Path, monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...]
) -> None:
    """OpenCV 4.11 and 4.12 give the bytes of a Y16 frame as one line."""
    counts = np.arange(48 * 64, dtype=np.uint16)

    class Flat(FakeDevice):
        def get(self, setting: int) -> float:
            return cv2.VideoWriter.fourcc(*"Y16 ") if setting == cv2.CAP_PROP_FOURCC else super().get(setting)

        def retrieve(self) -> tuple[bool, np.ndarray]:
            flat = len(shape) == 1 or shape[0] == 1
            return True, counts.view(np.uint8).reshape(*shape[:-1], -1) if flat else counts.reshape(shape)

    plug_in(devices, monkeypatch, Flat())
    with open_source("cam0?format=Y16", "ir") as source:
        frame = source.read()
    assert frame is not None
    assert np.array_equal(frame.image, counts.reshape(48, 64))


def test_a_device_that_is_no_camera(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SourceError, match="/dev/null cannot be opened as a camera"):
        open_source("/dev/null", "vis")
    assert capfd.readouterr() == ("", "")


# --- the simulated rig


def test_sim_with_frames_is_a_recording_that_repeats() -> None:
    first, second = (read_all("sim?frames=2&size=64x48&seed=3", "ir") for _ in range(2))
    assert len(first) == 2
    assert all(np.array_equal(a.image, b.image) for a, b in zip(first, second, strict=True))


def test_two_sim_cameras_are_live_and_share_their_time() -> None:
    with (
        open_source("sim?size=64x48&ir_fps=25&vis_fps=50&ir_clock_offset=0.5", "ir") as ir,
        open_source("sim?size=64x48&ir_fps=25&vis_fps=50", "vis") as vis,
    ):
        assert ir.live
        assert (ir.fps, vis.fps) == (25, 50)
        a, b, c = ir.read(), vis.read(), vis.read()
    assert a is not None
    assert b is not None
    assert c is not None
    assert a.captured - b.captured == pytest.approx(a.index / 25 - b.index / 50)
    assert a.timestamp - a.captured == pytest.approx(0.5)
    assert b.timestamp == pytest.approx(b.captured)
    assert c.index > b.index
    assert c.captured <= time.monotonic()


@pytest.mark.parametrize(("form", "bits"), [("Y10", 10), ("Y12", 12), ("Y14", 14), ("Y16", 16)])
def test_a_grey_camera_of_more_than_8_bits_is_seen(
    devices: Path, monkeypatch: pytest.MonkeyPatch, form: str, bits: int
) -> None:
    class Deep(FakeDevice):
        def get(self, name: int) -> float:
            code = cv2.VideoWriter.fourcc(*form.ljust(4))
            return float(code) if name == cv2.CAP_PROP_FOURCC else super().get(name)

        def retrieve(self) -> tuple[bool, Any]:
            return True, np.full((48, 64), 78 << (bits - 8), np.uint16)

    plug_in(devices, monkeypatch, Deep(3))
    with open_source(f"cam0?format={form}", "vis") as source:
        frame = source.read()
        assert frame is not None
        assert frame.image.dtype == (np.uint16 if bits == 16 else np.uint8)  # who knows how many are in use
        assert (as_visible(frame.image) == 78).all()
    plug_in(devices, monkeypatch, Deep(3))
    with open_source(f"cam0?format={form}", "ir") as source:
        frame = source.read()
        assert frame is not None
        assert (frame.image == 78 << (bits - 8)).all(), "infrared keeps its counts"


def test_times_of_another_clock_are_said_to_be_left_out(
    devices: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Uptime(FakeDevice):
        def get(self, name: int) -> float:
            return 1000.0 if name == cv2.CAP_PROP_POS_MSEC else super().get(name)

    plug_in(devices, monkeypatch, Uptime(3))
    with open_source("cam0", "vis") as source:
        frames = [source.read() for _ in range(3)]
    assert all(frame and frame.timestamp == frame.captured for frame in frames)
    said = "cam0: the driver's times are not on this machine's clock: taking those of arrival"
    assert caplog.messages == [said]
