import os
import re
import shutil
import signal
import subprocess
import sys
import time
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import cv2
import numpy as np
import onnx
import pytest
import typer
from onnx import TensorProto, helper
from typer.testing import CliRunner, Result

from edgefuse.cli.console import Output
from edgefuse.cli.stream import WAITING, print_report, stream, verdict
from edgefuse.errors import EdgefuseError, InputError, ModelError, SourceError
from edgefuse.images import read_image, write_image
from edgefuse.runtime.frames import ROLES
from edgefuse.runtime.live import Report, SinkReport, SourceReport
from edgefuse.runtime.sources import safe_name
from edgefuse.runtime.timing import STAGES, Durations
from edgefuse.spec import ModelSpec

# As in the real command line, one command among others.
app = typer.Typer()
app.command()(stream)


@app.command()
def other() -> None:
    pass


@pytest.fixture(scope="module")
def mean_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model file that returns the mean of its two inputs: small, and its answer is known."""
    node = helper.make_node("ReduceMean", ["sources", "axes"], ["fused"], keepdims=1)
    axes = helper.make_tensor("axes", TensorProto.INT64, [1], [1])
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, channels, "h", "w"])
        for name, channels in (("sources", 2), ("fused", 1))
    ]
    graph = helper.make_graph([node], "mean", ends[:1], ends[1:], [axes])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    helper.set_model_props(model, ModelSpec(model="mean", size_divisor=1).to_metadata())
    path = tmp_path_factory.mktemp("model") / "mean.onnx"
    onnx.save(model, path)
    return str(path)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Eight infrared images of value 100 and visible ones of value 20 n."""
    root = tmp_path_factory.mktemp("pairs")
    for n in range(8):
        for name, image in (
            ("ir", np.full((48, 64), 100, np.uint8)),
            ("vis", np.full((48, 64, 3), 20 * n, np.uint8)),
        ):
            (root / name).mkdir(exist_ok=True)
            cv2.imwrite(str(root / name / f"{n}.png"), image)
    return str(root / "ir"), str(root / "vis")


def run(*args: object) -> Result:
    """Run the command in this process; errors come out as exceptions, as `edgefuse.cli.main` gets them."""
    result = CliRunner().invoke(app, ["stream", *map(str, args)], catch_exceptions=True)
    if isinstance(result.exception, EdgefuseError):
        raise result.exception
    return result


def test_folders_become_images_and_a_table(tmp_path: Path, folders: tuple[str, str], mean_model: str) -> None:
    ir, vis = folders
    result = run("--ir", ir, "--vis", vis, "--model", mean_model, "--out", tmp_path / "fused", "--threads", 1)
    assert result.exit_code == 0, result.output
    images = [read_image(path) for path in sorted((tmp_path / "fused").iterdir())]
    assert [int(image[0, 0, 0]) for image in images] == [50 + 10 * n for n in range(8)]
    for word in (*(set(STAGES) - set(WAITING)), "p50", "p95", "p99", "dropped"):
        assert word in result.output
    assert "total" not in result.output, "of recordings, which are read ahead, it is no latency"
    lines = result.output.splitlines()
    assert lines[1].startswith("All well: ")
    assert lines[1].endswith(" fps, nothing dropped")
    assert "8 frames in" in result.output
    assert "end of" in result.output
    assert "skew, ms: <1 100.0%" in result.output
    assert "age of ir, ms:" in result.output


def test_a_dull_picture_is_stretched_if_asked_for(tmp_path: Path, mean_model: str) -> None:
    dull = np.tile(np.arange(100, 164, dtype=np.uint8), (48, 1))
    for name in ("ir", "vis"):
        (tmp_path / name).mkdir()
        write_image(tmp_path / name / "0.png", dull)
    ranges = []
    for contrast in ("off", "auto"):
        frames = ("--ir", tmp_path / "ir", "--vis", tmp_path / "vis", "--out", tmp_path / contrast)
        assert run(*frames, "--model", mean_model, "--set", f"contrast={contrast}").exit_code == 0
        (file,) = (tmp_path / contrast).iterdir()
        ranges.append(int(np.ptp(read_image(file))))
    assert ranges[0] == 63
    assert 120 <= ranges[1] <= 127


def test_the_skew_of_recordings_is_that_of_their_times(folders: tuple[str, str], mean_model: str) -> None:
    ir, vis = folders
    result = run("--ir", f"{ir}?fps=20", "--vis", f"{vis}?fps=20.1", "--model", mean_model)
    assert "8 frames in" in result.output, "they count as of one rate, and are paired by number"
    assert "skew, ms: <1 62.5%, 1-2 37.5%" in result.output


def test_videos_become_a_side_by_side_video_and_a_still(tmp_path: Path, mean_model: str) -> None:
    for name, value in (("ir", 100), ("vis", 60)):
        writer = cv2.VideoWriter(str(tmp_path / f"{name}.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 20, (64, 48))
        assert writer.isOpened()
        for _ in range(6):
            writer.write(np.full((48, 64, 3), value, np.uint8))
        writer.release()
    out, still = tmp_path / "out.mp4", tmp_path / "still.png"
    sources = ("--ir", tmp_path / "ir.avi", "--vis", tmp_path / "vis.avi", "--model", mean_model)
    result = run(*sources, "--out", out, "--side-by-side", "--still", still)
    assert result.exit_code == 0, result.output
    video = cv2.VideoCapture(str(out), cv2.CAP_FFMPEG)
    assert (video.get(cv2.CAP_PROP_FRAME_COUNT), video.get(cv2.CAP_PROP_FPS)) == (6, 20)
    image = read_image(still)
    assert image.shape == (48, 192, 3)
    assert [int(image[5, x, 0]) for x in (32, 96, 160)] == pytest.approx([100, 60, 80], abs=2)


def test_a_duration_counts_from_the_start_whether_there_are_pictures_or_not(mean_model: str) -> None:
    begun = time.monotonic()
    with pytest.raises(SourceError, match="nothing was fused"):
        run("--ir", "cam97", "--vis", "cam98", "--model", mean_model, "--duration", 1.5)
    assert 1.5 < time.monotonic() - begun < 4


def test_sim_ends_after_its_duration(mean_model: str) -> None:
    sim = "sim?size=64x48&fps=50"
    result = run("--ir", sim, "--vis", sim, "--model", mean_model, "--duration", 4)
    assert result.exit_code == 0
    assert "ended: the duration of 4 s is over" in result.output


def test_raw_frames_go_to_standard_output_and_words_elsewhere(
    folders: tuple[str, str], mean_model: str
) -> None:
    process = start("--ir", folders[0], "--vis", folders[1], "--model", mean_model, "--out", "-", text=False)
    output, errors = process.communicate(timeout=20)
    assert process.returncode == 0, errors
    images = np.frombuffer(output, np.uint8).reshape(8, 48, 64, 3)
    assert [int(image[0, 0, 0]) for image in images] == [50 + 10 * n for n in range(8)]
    assert b"8 frames in" in errors


def test_the_report_tells_clocks_skews_and_quality(mean_model: str) -> None:
    ir, vis = "sim?size=64x48&ir_fps=20&ir_clock_offset=2.5", "sim?size=64x48&vis_fps=40"
    arguments = (
        "--model",
        mean_model,
        "--duration",
        5,
        "--set",
        "rate=ir",
        "--set",
        "quality=5",
        "--set",
        "max_skew=0.2",
    )
    result = run("--ir", ir, "--vis", vis, *arguments)
    assert result.exit_code == 0, result.output
    for words in (
        "skew, ms:",
        "age of ir, ms:",
        "infrared clock: +2500.",
        "quality of",
        "skipped, 0 failed",
        "% of a core",
    ):
        assert words in result.output


def test_a_video_in_parts(tmp_path: Path, folders: tuple[str, str], mean_model: str) -> None:
    arguments = ("--ir", f"{folders[0]}?fps=4", "--vis", f"{folders[1]}?fps=4", "--model", mean_model)
    options = ("--segment", 1, "--set", "codec=h265", "--max-size", 50)
    result = run(*arguments, "--out", tmp_path / "o.mkv", *options)
    assert result.exit_code == 0, result.output
    assert len(list(tmp_path.glob("o-*.mkv"))) == 2


@pytest.mark.parametrize(
    ("options", "error", "sentence"),
    [
        ({"--ir": "missing.mp4"}, SourceError, "no such file or folder: missing.mp4"),
        ({"--vis": "/dev/video99", "--on-loss": "stop"}, SourceError, "there is no camera /dev/video99"),
        ({"--model": "nanno"}, ModelError, "unknown model 'nanno'"),
        ({"--model": "missing.onnx"}, ModelError, "no such model file: missing.onnx"),
        ({"--model": __file__}, ModelError, "is not an ONNX file, or is cut off"),
        ({"--out": "out.gif"}, InputError, "known outputs are"),
        ({"--still": "still.mp4"}, InputError, "the suffix of a still must be"),
        ({"--duration": "0"}, InputError, "duration is 0.0, it must be above 0"),
        ({"--threads": "0"}, InputError, "threads is 0"),
        ({"--set": "max_skew=-1"}, InputError, "max_skew is -1"),
        ({"--out": "o.mp4", "--max-size": "nan"}, InputError, "the largest size is nan MB"),
        ({"--out": "o.mp4", "--max-size": "1e305"}, InputError, r"the largest size is 1e\+305 MB"),
        ({"--vis": "cam97?gain=nan", "--on-loss": "stop"}, SourceError, "option gain: 'nan' is outside"),
        ({"--vis": "cam97?gain=1e99", "--on-loss": "stop"}, SourceError, "option gain: '1e99' is outside"),
        ({"--set": "quality=0"}, InputError, "quality is 0"),
        (
            {"--segment": "2", "--out": "frames/"},
            InputError,
            "segment is not for frames/ .images.",
        ),
        ({"--out": "rtsp://a:pw@h/live"}, InputError, r"cannot write to rtsp://a:\*\*\*@h/live: network"),
        (
            {"--max-size": "2", "--out": "-"},
            InputError,
            "max-size is not for - .raw.: give a folder",
        ),
    ],
)
def test_wrong_input_gets_one_sentence(
    options: dict[str, str],
    error: type[EdgefuseError],
    sentence: str,
    folders: tuple[str, str],
    mean_model: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    given = {"--ir": folders[0], "--vis": folders[1], "--model": mean_model, **options}
    with pytest.raises(error, match=sentence) as raised:
        run(*(word for pair in given.items() for word in pair))
    assert "\n" not in str(raised.value)
    assert os.listdir(tmp_path) == []


def test_one_camera_given_twice_is_refused(tmp_path: Path, folders: tuple[str, str]) -> None:
    (tmp_path / "link").symlink_to(folders[0])
    for vis in (folders[0], f"{folders[0]}/", str(tmp_path / "link"), f"{folders[0]}?fps=9"):
        with pytest.raises(SourceError, match="both cameras are"):
            run("--ir", folders[0], "--vis", vis)
    for vis in ("cam0?fps=30", "/dev/video0", "cam00"):
        with pytest.raises(SourceError, match="both cameras are cam0"):
            run("--ir", "cam0", "--vis", vis)


@pytest.mark.parametrize("option", ["--segment", "--max-size"])
def test_what_is_about_files_needs_one(folders: tuple[str, str], option: str) -> None:
    with pytest.raises(InputError, match=f"{option} is about the files of --out: give one"):
        run("--ir", folders[0], "--vis", folders[1], option, "5")


def test_several_outputs_are_all_written(tmp_path: Path, folders: tuple[str, str], mean_model: str) -> None:
    arguments = ("--ir", folders[0], "--vis", folders[1], "--model", mean_model)
    outs = [str(tmp_path / name) for name in ("a.mp4", "b.mkv", "c/")]
    assert run(*arguments, *(word for out in outs for word in ("--out", out))).exit_code == 0
    for out in outs[:2]:
        assert cv2.VideoCapture(out, cv2.CAP_FFMPEG).get(cv2.CAP_PROP_FRAME_COUNT) == 8
    assert len(os.listdir(outs[2])) == 8
    with pytest.raises(InputError, match=r"x\.mp4 is given twice"):
        run(*arguments, "--out", tmp_path / "x.mp4", "--out", tmp_path / "x.mp4")


def test_folders_are_paired_by_the_names_of_their_files(
    tmp_path: Path, mean_model: str, caplog: pytest.LogCaptureFixture
) -> None:
    """One image is missing: pairing in order would shift all the rest."""
    for camera, missing in (("ir", 2), ("vis", 4)):
        (tmp_path / camera).mkdir()
        for n in range(6):
            if n != missing:
                write_image(tmp_path / camera / f"{n}.png", np.full((48, 64), 40 * n, np.uint8))
    result = run(
        "--ir", tmp_path / "ir", "--vis", tmp_path / "vis", "--model", mean_model, "--out", tmp_path / "o/"
    )
    assert result.exit_code == 0, result.output
    levels = [int(read_image(path)[20, 30].mean()) for path in sorted((tmp_path / "o").iterdir())]
    assert levels == [0, 40, 120, 200]
    assert len([m for m in caplog.messages if "ignoring 1 of 5 images, which have no partner" in m]) == 2


def test_a_camera_that_never_came_is_an_error_though_the_other_was_shown(
    tmp_path: Path, mean_model: str
) -> None:
    arguments = ("--ir", "cam97", "--vis", "sim?size=64x48", "--model", mean_model, "--duration", "3")
    with pytest.raises(SourceError, match="nothing was fused: cam97 never gave a picture"):
        run(*arguments, "--out", tmp_path / "o.mkv")
    assert cv2.VideoCapture(str(tmp_path / "o.mkv"), cv2.CAP_FFMPEG).get(cv2.CAP_PROP_FRAME_WIDTH) == 64


@pytest.mark.parametrize("key", ["psd", "pin", "PW", "userpw", "sig", "signature", "credential", "session"])
def test_secrets_in_a_query_are_not_printed(key: str) -> None:
    assert safe_name(f"http://h/v?{key}=hunter2&channel=1") == f"http://h/v?{key}=***&channel=1"


def test_a_source_is_never_written_over(tmp_path: Path, folders: tuple[str, str], mean_model: str) -> None:
    ir, vis = folders
    before = sorted(p.read_bytes() for p in Path(vis).iterdir())
    for option in (("--out", f"{vis}/"), ("--still", f"{vis}/still.png")):
        with pytest.raises(InputError, match="would overwrite the source"):
            run("--ir", ir, "--vis", vis, "--model", mean_model, *option)
    assert sorted(p.read_bytes() for p in Path(vis).iterdir()) == before


def test_a_failing_output_ends_with_status_1_after_the_table(
    tmp_path: Path, folders: tuple[str, str], mean_model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(total=10**9, free=10**6))
    still = tmp_path / "still.png"
    arguments = ("--ir", folders[0], "--vis", folders[1], "--model", mean_model, "--still", still)
    result = run(*arguments, "--out", tmp_path / "out.mp4")
    assert result.exit_code == 1
    assert "output, failed" in result.output
    assert "8 frames in" in result.output
    assert os.listdir(tmp_path) == ["still.png"]


def test_the_report_prints_names_as_they_are() -> None:
    """Brackets are no markup: neither those of an IPv6 address nor those that look like an end of one."""
    names = ("udp://[fe80::1]:5000", "odd[/x]")
    report = report_of(*({"name": name, "calibrations": 1} for name in names))
    console = Output(file=StringIO(), width=200)
    print_report(report, console)
    assert isinstance(console.file, StringIO)
    for name in names:
        assert f"{name}: 1 shutter calibration" in console.file.getvalue()


def report_of(ir: dict[str, Any] | None = None, vis: dict[str, Any] | None = None, **values: Any) -> Report:
    given: dict[str, Any] = {
        "live": True, "frames": 250, "shown_alone": 0, "repeated": 0, "held": 0, "starved_s": 0.0,
        "seconds": 10.0, "cpu_seconds": 1.0,
        "sinks": (), "stages": {}, "skew": Durations(), "ages": {}, "clock": None, "quality": None,
        "ended": "end", "error": None,
    }  # fmt: skip
    counts = {"captured": 250, "fused": 250}
    sources = tuple(
        SourceReport(**{"role": role, "name": "camera", **counts, **(changed or {})})
        for role, changed in zip(ROLES, (ir, vis), strict=True)
    )
    return Report(**{**given, "sources": sources, **values})


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({}, "All well: 25.0 fps, nothing dropped"),
        (
            {"stages": {"output": Durations(250, p50=0.038)}},
            "All well: 25.0 fps, 38 ms from camera to output, nothing dropped",
        ),
        (
            {"live": False, "stages": {"output": Durations(250, p50=9.0)}},
            "All well: 25.0 fps, nothing dropped",
        ),
        ({"vis": {"dropped": 2, "unpaired": 3}}, "All well: 25.0 fps, 5 of 250 visible frames not fused"),
        ({"ir": {"unpaired": 9}}, "All well: 25.0 fps, nothing dropped"),
        (
            {"live": False, "ir": {"unpaired": 9}},
            "All well: 25.0 fps, 9 of 250 infrared frames not fused",
        ),
        (
            {"ir": {"losses": 1, "downtime_s": 2.04}, "vis": {"captured": 0}},
            "Problems: 25.0 fps, nothing dropped; infrared was lost once, for 2.0 s; visible gave no picture",
        ),
        (
            {"vis": {"captured": 500, "dropped": 250}, "ir": {"failed": 1}},
            "Problems: 25.0 fps, 250 of 500 visible frames not fused; 1 frame of infrared could not be used; "
            "too slow: 50% of the visible frames were dropped",
        ),
        (
            {"live": False, "vis": {"unpaired": 125}},
            "Problems: 25.0 fps, 125 of 250 visible frames not fused; "
            "infrared has no picture for 50% of the visible frames",
        ),
        (
            {"live": False, "ir": {"captured": 500, "unpaired": 250}},
            "All well: 25.0 fps, 250 of 500 infrared frames not fused",
        ),
        (
            {"starved_s": 4.0},
            "Problems: 25.0 fps, nothing dropped; this machine is too busy: threads waited 4.0 s for a core",
        ),
        (
            {"sinks": (SinkReport("out.mp4", 240, 10, None), SinkReport("pipe", 1, 249, "gone"))},
            "Problems: 25.0 fps; out.mp4 was too slow for 10 frames; pipe failed",
        ),
    ],
)
def test_the_first_line_says_whether_all_is_well(values: dict[str, Any], line: str) -> None:
    problems, sentence = verdict(report_of(**values))
    assert sentence == line
    assert bool(problems) is line.startswith("Problems")


# --- real processes


def start(*args: str, text: bool = True) -> subprocess.Popen[Any]:
    return subprocess.Popen(
        [sys.executable, "-u", "-W", "error", "-m", "edgefuse", "stream", *args],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=text,
        env={**os.environ, "COLUMNS": "100"},
    )


@pytest.mark.parametrize(("number", "reason"), [(signal.SIGINT, "Ctrl-C"), (signal.SIGTERM, "SIGTERM")])
def test_a_signal_ends_the_stream_in_good_order(
    number: signal.Signals, reason: str, tmp_path: Path, mean_model: str
) -> None:
    sim, out = "sim?size=160x128&seed=3", tmp_path / "out.mp4"
    process = start("--ir", sim, "--vis", sim, "--model", mean_model, "--out", str(out), "--duration", "60")
    assert process.stdout is not None
    assert "sim" in process.stdout.readline()  # the stream begins
    time.sleep(1)
    process.send_signal(number)
    sent = time.monotonic()
    output, errors = process.communicate(timeout=20)
    assert time.monotonic() - sent < 2
    assert process.returncode == 0, errors
    assert errors == ""
    assert f"ended: {reason}" in output
    assert "p99" in output
    assert cv2.VideoCapture(str(out), cv2.CAP_FFMPEG).get(cv2.CAP_PROP_FRAME_COUNT) >= 4
    assert os.listdir(tmp_path) == ["out.mp4"]


SLOW_MODEL = """
import sys
import edgefuse.runtime.engines.fuser as module

class Slow:
    def __init__(self, *_: object, **__: object) -> None:
        print("begun", flush=True)
        sum(range(10**11))  # in C, where no handler of Python's gets a turn

module.Fuser = Slow
from edgefuse.cli import main
main()
"""

SECOND_SIGNAL = """
import time
from edgefuse.cli.console import stopping_on_signals

with stopping_on_signals(lambda reason: print(reason, flush=True)):
    print("begun", flush=True)
    for _ in range(400):
        time.sleep(0.05)
"""


def start_code(code: str, *args: str) -> subprocess.Popen[str]:
    """Start a program, and return when it has said that it has begun."""
    process = subprocess.Popen([sys.executable, "-c", code, *args], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_start_at_once(number: signal.Signals) -> None:
    process = start_code(SLOW_MODEL, "stream", "--ir", "sim", "--vis", "sim")
    process.send_signal(number)
    try:
        assert process.wait(timeout=2) == -number
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_second_signal_ends_the_program_at_once(number: signal.Signals) -> None:
    process = start_code(SECOND_SIGNAL)
    try:
        process.send_signal(number)
        assert process.stdout is not None
        assert process.stdout.readline() in ("Ctrl-C\n", "SIGTERM\n", "SIGHUP\n")
        process.send_signal(number)
        assert process.wait(timeout=2) == -number
    finally:
        process.kill()
        process.communicate()


def test_a_killed_stream_keeps_all_but_its_last_two_seconds(tmp_path: Path, mean_model: str) -> None:
    sim, out = "sim?size=64x48", tmp_path / "out.mp4"
    process = start("--ir", sim, "--vis", sim, "--model", mean_model, "--out", str(out))
    deadline = time.monotonic() + 20
    while not (parts := list(tmp_path.glob("out-*.part.mp4"))):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    begun = time.monotonic()
    time.sleep(4)
    process.kill()
    seconds = time.monotonic() - begun
    process.communicate()
    assert not out.exists(), "a half video never has the final name"
    with av.open(str(parts[0])) as container:
        shown = [frame.time for frame in container.decode(video=0)]
    assert shown[-1] is not None
    assert seconds - shown[-1] < 2


@pytest.mark.parametrize(
    ("ir", "sentence"),
    [
        ("missing.mp4", "no such file or folder: missing.mp4"),
        ("cam97", "there is no camera /dev/video97"),
        (__file__, "is not a video that can be decoded"),
        ("rtsp://me:hunter2@127.0.0.1:9/live", "rtsp://me:***@127.0.0.1:9/live cannot be opened"),
    ],
)
def test_a_user_sees_one_sentence_only(ir: str, sentence: str, mean_model: str) -> None:
    process = start("--ir", ir, "--vis", "sim?size=64x48", "--model", mean_model, "--on-loss", "stop")
    output, errors = process.communicate(timeout=20)
    assert process.returncode == 1
    assert "Traceback" not in output + errors
    assert errors.splitlines()[-1].startswith("error:")
    assert sentence in errors
    assert "hunter2" not in errors


def test_the_runtime_never_loads_torch() -> None:
    code = "import sys, edgefuse.runtime.live, edgefuse.runtime.engines.fuser; print(*sys.modules)"
    modules = subprocess.check_output([sys.executable, "-c", code], text=True).split()
    assert not {"torch", "onnx", "typer"} & set(modules)


def test_files_that_cannot_be_read_are_left_out_and_listed(
    tmp_path: Path, folders: tuple[str, str], mean_model: str
) -> None:
    """Each bad file takes its pair with it, whichever camera's it is, and no other."""
    ir, vis = (
        Path(shutil.copytree(folder, tmp_path / name)) for folder, name in zip(folders, "iv", strict=True)
    )
    bad = [sorted(vis.iterdir())[0], sorted(vis.iterdir())[3], sorted(ir.iterdir())[5]]
    for path in bad:
        path.write_bytes(path.read_bytes()[:20])
    out = tmp_path / "out"
    texts = ("--ir", str(ir), "--vis", str(vis), "--model", mean_model, "--out", f"{out}/")
    result = CliRunner().invoke(app, ["stream", *texts])
    assert result.exit_code == 3, result.output
    assert "Not read, 3 files:" in result.output
    assert all(f"  {path} is not an image" in result.output for path in bad)
    assert "is longer than" not in result.output
    means = [read_image(path).mean() for path in sorted(out.iterdir())]
    assert means == pytest.approx([(100 + 20 * n) / 2 for n in (1, 2, 4, 6, 7)], abs=1)

    for path in vis.iterdir():
        path.write_bytes(b"")
    result = CliRunner().invoke(app, ["stream", *texts[:-1], str(tmp_path / "none.mp4")])
    assert result.exit_code == 1


def test_check_opens_no_camera_and_writes_nothing(
    tmp_path: Path, folders: tuple[str, str], mean_model: str
) -> None:
    (tmp_path / "out.mp4").write_bytes(b"earlier")
    outputs = [
        "--out",
        tmp_path / "out.mp4",
        "--out",
        tmp_path / "new" / "frames/",
        "--still",
        tmp_path / "a.png",
    ]
    result = run("--ir", "cam98", "--vis", "cam99", "--model", mean_model, *outputs, "--check")
    assert (result.exit_code, "All well: cam98 + cam99" in result.output) == (0, True), result.output
    assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"]
    assert (tmp_path / "out.mp4").read_bytes() == b"earlier"
    ir, vis = folders
    good = ["--ir", ir, "--vis", vis, "--model", mean_model]
    for wrong, said in (
        (["--vis", "nothing.mp4"], "nothing.mp4"),
        (["--model", "absent.onnx"], "absent.onnx"),
        (["--engine", "abacus"], "known are"),
        (["--rig", "absent.json"], "absent.json"),
        (["--out", "a.mp3"], "known outputs are"),
        (["--out", "/proc/a.mp4"], "cannot write"),
        (["--serve", "nowhere"], "HOST:PORT"),
        (["--set", "refine=live"], "give --rig FILE"),
        (["--vis", "rtsp://me:${NO_SUCH_SECRET}@10.0.0.5/a"], "NO_SUCH_SECRET"),
    ):
        with pytest.raises(EdgefuseError, match=re.escape(said)):
            run(*good, *wrong, "--check")


def test_a_site_file_is_checked(tmp_path: Path, folders: tuple[str, str], mean_model: str) -> None:
    site = tmp_path / "site.toml"
    site.write_text(f'ir = "{folders[0]}"\nvis = "{folders[1]}"\nmodel = "{mean_model}"\nthreads = 1\n')
    assert run("--config", site, "--check").exit_code == 0
    site.write_text(site.read_text() + "thread = 1\n")
    with pytest.raises(EdgefuseError, match="did you mean 'threads'"):
        run("--config", site, "--check")
