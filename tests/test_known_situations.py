"""Situations from public reports that no other file of tests holds, see docs/known-situations.md."""

import os
import re
import sys
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import onnx
import pytest

from edgefuse import Fuser
from edgefuse.errors import InputError, LostError, ModelError, SourceError
from edgefuse.images import write_image
from edgefuse.pairs import images_by_stem, natural_key, pair_folders
from edgefuse.runtime.record import LosslessVideo
from edgefuse.runtime.sinks import ImageSequence, OutputOptions, Still, VideoOut, naming, open_output
from edgefuse.runtime.sources import open_source, opencv, video
from edgefuse.runtime.sources.base import Spec
from edgefuse.runtime.sources.folder import ImageFolder
from edgefuse.weights import model_file
from tests.support.recorded import TAGS, frames_of, images
from tests.support.shots import shot

ROOT = Path(__file__).parent.parent
DAY = 86_400.0
GREY = np.zeros((8, 8), np.uint8)


def test_every_test_in_the_table_exists() -> None:
    rows = [
        line.split(" | ")
        for line in (ROOT / "docs/known-situations.md").read_text("utf-8").splitlines()
        if line.startswith("| ") and not line.startswith(("| situation", "| ---"))
    ]
    sources = "".join(path.read_text("utf-8") for path in Path(__file__).parent.glob("test_*.py"))
    there = set(re.findall(r"^def (test_\w+)", sources, re.MULTILINE))
    assert len(rows) >= 40
    for row in rows:
        assert len(row) == 4, row
        named = re.findall(r"`(\w+)`", row[3])
        assert named, row
        assert set(named) <= there, row
        assert re.search(r"https://github\.com/[\w.-]+/[\w.-]+/(issues|pull)/\d+", row[1]), row


# --- files


def test_what_desktops_leave_in_folders_is_no_image(tmp_path: Path) -> None:
    for folder in ("ir", "vis"):
        (tmp_path / folder).mkdir()
        for name in ("1.png", "2.PNG"):
            write_image(tmp_path / folder / name, GREY)
            (tmp_path / folder / f"._{name}").write_bytes(b"\0\5\x16\7\0\2\0\0Mac OS X")
        for name in (".DS_Store", "Thumbs.db", "desktop.ini"):
            (tmp_path / folder / name).write_bytes(b"no image")
    pairs = pair_folders(tmp_path / "ir", tmp_path / "vis")
    assert ([stem for stem, *_ in pairs.pairs], pairs.only_ir, pairs.only_vis) == (["1", "2"], [], [])
    for text in ("ir", "ir/*", "ir/**", "**/ir/*"):
        source = open_source(f"{tmp_path}/{text}", "ir")
        assert isinstance(source, ImageFolder)
        assert [path.name for path in source._files] == ["1.png", "2.PNG"]


def test_numbers_beyond_their_padding_stay_in_order(tmp_path: Path) -> None:
    with ImageSequence(tmp_path / "out") as sink:
        for index in (99_999, 999_999, 1_000_000):
            sink.write(shot(index, (8, 8)))
    assert list(images_by_stem(tmp_path / "out")) == ["099999", "999999", "1000000"]
    names = [f"frame{n:04d}.png" for n in range(20_000)]
    assert sorted(sorted(names), key=natural_key) == names


# --- paths


@pytest.mark.parametrize(
    "path", ["C:\\ir", "C:/ir/a.mp4", "C:a.mp4", "\\\\server\\share\\ir", "D:\\a b\\x.mkv"]
)
def test_a_path_of_windows_is_no_url_and_no_option(path: str) -> None:
    assert Spec.parse(f"{path}?fps=5&start=2").target == path
    with pytest.raises(SourceError, match=f"no such file or folder: {re.escape(path)}$"):
        open_source(path, "vis")


def test_the_url_of_a_file_is_answered_with_its_path() -> None:
    with pytest.raises(SourceError, match=r"give a file by its path: /data/a b\.mp4$"):
        open_source("file:///data/a%20b.mp4", "vis")


def test_what_ends_in_a_slash_is_a_folder(tmp_path: Path) -> None:
    with open_output(f"{tmp_path}/run.mp4/", OutputOptions()) as sink:
        sink.write(shot())
    assert [path.name for path in (tmp_path / "run.mp4").iterdir()] == ["000000.png"]


@pytest.mark.parametrize("name", ["nul.mp4", "CON.mp4", "com1.tar.mkv"])
def test_names_that_windows_takes_for_devices_are_refused_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    VideoOut(tmp_path / name, fps=10).close()
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(InputError, match="Windows takes this name for a device"):
        VideoOut(tmp_path / name, fps=10)
    with pytest.raises(InputError, match="Windows takes this name for a device"):
        Still(tmp_path / "aux.png")


# --- cameras and servers


def test_a_camera_is_told_its_format_before_size_and_rate() -> None:
    asked = opencv._settings({"size": (1920, 1080), "fps": 30.0, "format": "MJPG"}, raw=False)
    order = [cv2.CAP_PROP_FOURCC, cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT, cv2.CAP_PROP_FPS]
    assert asked[::2] == order


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the library is asked to open."""
    calls: list[Any] = []

    def refuse(*args: Any, **_: Any) -> None:
        calls.append(args)
        raise SourceError("is not there")

    monkeypatch.setattr(video, "Decoder", refuse)
    return calls


@pytest.mark.parametrize("password", ["P@ssword", "p^w!", "p%23%2Fw", "a:b"])
def test_a_password_is_passed_on_as_it_stands(opened: list[Any], password: str) -> None:
    url = f"rtsp://user1:{password}@192.0.2.8:554/stream1"
    with pytest.raises(LostError) as caught:
        open_source(url, "vis")
    assert opened[0][0] == url
    assert password not in str(caught.value)


@pytest.mark.parametrize("password", ["p/w", "p?w", "p#w"])
def test_a_password_that_cuts_a_url_in_two_is_answered_with_what_to_write(password: str) -> None:
    with pytest.raises(SourceError, match=r"password.* as %2[F3]") as caught:
        open_source(f"rtsp://user1:{password}@192.0.2.8/stream1", "vis")
    assert password not in str(caught.value)


def test_rtsp_comes_over_tcp_unless_udp_is_asked_for(opened: list[Any]) -> None:
    for text in ("rtsp://192.0.2.8/a", "rtsp://192.0.2.8/a#transport=udp"):
        with pytest.raises(LostError):
            open_source(text, "vis")
    assert [args[3]["rtsp_transport"] for args in opened] == ["tcp", "udp"]


# --- time


def test_segments_of_an_hour_that_comes_twice_stay_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The end of summer time in Berlin, and a clock that is then set back by two seconds."""
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    begun = datetime(2026, 10, 25, 0, 30, tzinfo=timezone.utc)
    clock = iter([begun, begun + timedelta(hours=1), begun + timedelta(hours=1, seconds=2), begun, begun])

    class Now(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return next(clock).astimezone(tz)

    monkeypatch.setattr(naming, "datetime", Now)
    try:
        with VideoOut(tmp_path / "o.mkv", fps=10, timed=True, segment=1) as sink:
            for n in range(5):
                sink.write(shot(n, at=2.0 * n))
                sink.write(shot(n, at=2.0 * n + 0.1))
    finally:
        monkeypatch.undo()
        time.tzset()
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [
        "o-20261025-003000-2.mkv",
        "o-20261025-003000-3.mkv",
        "o-20261025-003000.mkv",
        "o-20261025-013000.mkv",
        "o-20261025-013002.mkv",
    ]


# 33 bits of MPEG-TS end after 26.5 hours, 32 bits of RTP after 13.3, 31 bits of milliseconds after 24.9 days.
LONG = [0.0, 0.04, 47_721.9, 95_443.7, 95_443.8, 2 * DAY, 3 * DAY, 3 * DAY + 0.04]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_run_of_days_keeps_its_times(tmp_path: Path, suffix: str) -> None:
    with VideoOut(tmp_path / f"o{suffix}", fps=None) as sink:
        for n, seconds in enumerate(LONG):
            sink.write(shot(n, at=5e6 + seconds))
    with av.open(str(tmp_path / f"o{suffix}")) as container:
        assert [frame.time for frame in container.decode(video=0)] == pytest.approx(LONG, abs=2e-3)
    assert [frame.timestamp for frame in frames_of(f"{tmp_path}/o{suffix}")] == pytest.approx(LONG, abs=2e-3)


def test_a_recording_of_a_month_keeps_its_microseconds(tmp_path: Path) -> None:
    times = [0.0, DAY + 0.000_001, 24.9 * DAY, 31 * DAY + 0.123_456]
    given = images("16-bit", len(times), (24, 32))
    video = LosslessVideo(tmp_path / "a.mkv", given[0], 30.0, TAGS)
    for n, (image, seconds) in enumerate(zip(given, times, strict=True)):
        video.write(image, seconds, n)
    video.close()
    assert [frame.timestamp for frame in frames_of(f"{tmp_path}/a.mkv", "ir")] == pytest.approx(
        times, abs=1e-6
    )


# --- models and libraries


def changed_model(path: Path, **fields: int) -> Path:
    model = onnx.load(str(model_file("nano")))
    model.ir_version = fields.get("ir_version", model.ir_version)
    model.opset_import[0].version = fields.get("opset", model.opset_import[0].version)
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize(
    ("field", "what"), [("opset", "opset 99"), ("ir_version", "IR version 99")], ids=["opset", "IR"]
)
def test_a_model_that_is_newer_than_the_runtime_is_said(tmp_path: Path, field: str, what: str) -> None:
    path = changed_model(tmp_path / "new.onnx", **{field: 99})
    with pytest.raises(ModelError, match=rf"has {what}, and ONNX Runtime \S+ knows them up to \d\d: install"):
        Fuser(path, engine="cpu")


@pytest.mark.parametrize("engine", ["cpu", "openvino"])
def test_weights_in_a_file_of_their_own_must_lie_beside_the_model(tmp_path: Path, engine: str) -> None:
    pytest.importorskip("openvino" if engine == "openvino" else "onnxruntime")
    path = tmp_path / "model.onnx"
    onnx.save_model(
        onnx.load(str(model_file("nano"))),
        str(path),
        save_as_external_data=True,
        location="weights.data",
        size_threshold=256,
    )
    ir, vis = np.zeros((16, 16), np.uint8), np.zeros((16, 16, 3), np.uint8)
    assert Fuser(path, engine=engine)(ir, vis).shape == vis.shape
    for spoil in (lambda data: data.write_bytes(data.read_bytes()[:500]), os.remove):
        spoil(tmp_path / "weights.data")
        with pytest.raises(ModelError, match=r"file of their own, which must lie beside it, whole$"):
            Fuser(path, engine=engine)


def test_no_name_that_libraries_have_dropped_is_used() -> None:
    dropped = re.compile(
        r"openvino\.runtime|openvino\.inference_engine|VideoWriter_fourcc|\bnp\.(float_|product|in1d|trapz|bool8|"
        r"cumproduct|NaN|Inf|float|int|bool|object)\b(?!_)"
    )
    for path in (ROOT / "edgefuse").rglob("*.py"):
        found = dropped.search(path.read_text("utf-8"))
        assert found is None, f"{path}: {found}"
