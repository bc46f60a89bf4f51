"""The live page: what it shows, who gets in, and that nobody slows the stream down."""

import hmac
import json
import logging
import re
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import typer.main

from edgefuse import cli
from edgefuse.cli.stream import _facts
from edgefuse.errors import InputError, LostError
from edgefuse.images import Image
from edgefuse.rig import Rig, RigAlign
from edgefuse.runtime.cameras.camera import Camera
from edgefuse.runtime.frames import Frame, FusedFrame
from edgefuse.runtime.live import BackgroundWorker, LiveConfig, Session, StopRequest, connect
from edgefuse.runtime.live.background import DriftReport, QualityReport
from edgefuse.runtime.sinks import OutputOptions
from edgefuse.runtime.timing import STAGES, Durations
from tests.support.shots import shot
from tests.test_live import FakeSource, pick_visible

pytest.importorskip("starlette", reason="the extra serve is not installed")
pytest.importorskip("uvicorn", reason="the extra serve is not installed")
parser = pytest.importorskip("prometheus_client.parser", reason="the extra serve is not installed")

from edgefuse.runtime.alignment import Alignment  # noqa: E402
from edgefuse.runtime.serve import Access, Address, LivePage, Recorder, app, metrics, views  # noqa: E402
from edgefuse.runtime.serve.metrics import metrics_of  # noqa: E402
from edgefuse.runtime.serve.views import PALETTES, VIEWS, Preview, View  # noqa: E402


class Served:
    """A run with a page, until the end of the `with`."""

    def __init__(
        self,
        host: str = "127.0.0.1",
        ir: Any = None,
        vis: Any = None,
        rig: Path | None = None,
        background: Any = (),
        improve: Any = None,
    ) -> None:
        align = Rig.load(rig).align() if rig else None
        alignment = Alignment(rig, align, improve) if rig and align else None
        self.page = LivePage(Address(host, 0), "model", "engine", alignment)
        self.stop = StopRequest()
        self.session = Session(
            ir or FakeSource(None, live=True, fps=25),
            vis or FakeSource(None, live=True, fps=25),
            pick_visible,
            LiveConfig(),
            sinks=[self.page],
            stop=self.stop,
            align=align,
            background=background,
        )
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        with self.session:
            self.page.start(self.session)
            for _ in self.session:
                pass

    def __enter__(self) -> "Served":
        self._thread.start()
        deadline = time.monotonic() + 20
        while self.page.preview.frame is None and time.monotonic() < deadline:
            time.sleep(0.01)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop("enough", immediate=True)
        self._thread.join(20)
        assert not self._thread.is_alive()

    def ask(
        self, path: str, method: str = "GET", body: Any = None, **headers: str
    ) -> tuple[HTTPResponse, bytes]:
        connection = HTTPConnection("127.0.0.1", self.page.access.address.port, timeout=20)
        connection.request(method, path, body, {n.replace("_", "-"): v for n, v in headers.items()})
        answer = connection.getresponse()
        data = answer.read()
        connection.close()
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Cache-Control"] == "no-store"
        assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]
        return answer, data


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with Served() as made:
        yield made


@pytest.mark.parametrize(
    ("text", "host", "port", "local"),
    [
        ("8080", "127.0.0.1", 8080, True),
        ("localhost:1", "localhost", 1, True),
        ("[::1]:99", "::1", 99, True),
        ("0.0.0.0:80", "0.0.0.0", 80, False),
        (":80", "127.0.0.1", 80, True),
        ("10.1.2.3:80", "10.1.2.3", 80, False),
    ],
)
def test_addresses(text: str, host: str, port: int, local: bool) -> None:
    address = Address.parse(text)
    assert (address.host, address.port, address.local) == (host, port, local)


@pytest.mark.parametrize(
    "text", ["", "host", "host:port", "1.2.3.4:99999", "a:1/b", "me@host:1", "-1", "[::1"]
)
def test_what_is_no_address_is_named(text: str) -> None:
    with pytest.raises(InputError, match=r"give a port, or HOST:PORT"):
        Address.parse(text)


@pytest.mark.parametrize(("host", "sent"), [("0.0.0.0", "192.168.1.7"), ("::", "192.168.1.7")])
def test_the_address_that_is_printed_is_one_that_a_phone_can_open(
    monkeypatch: pytest.MonkeyPatch, host: str, sent: str
) -> None:
    class Probe(socket.socket):
        def connect(self, _: object) -> None:
            pass

        def getsockname(self) -> tuple[str, int]:
            return sent, 40_000

    monkeypatch.setattr(socket, "socket", Probe)
    access = Access(Address(host, 8080), "t" * 16)
    assert access.url == f"http://{sent}:8080/?token={'t' * 16}"

    def nowhere(*_: object) -> None:
        raise OSError("Network is unreachable")

    monkeypatch.setattr(Probe, "connect", nowhere)
    monkeypatch.setattr(socket, "gethostname", lambda: "camera-3")
    assert Address(host, 8080).url == "http://camera-3:8080/"
    assert Address("10.1.2.3", 8080).url == "http://10.1.2.3:8080/"


@pytest.mark.parametrize(
    "words", [["--serve"], ["--serve", "--ir", "a"], ["--serve", "8080"], ["--serve=8080", "--ir", "a"]]
)
def test_the_page_has_a_usual_port(words: list[str]) -> None:
    group: Any = typer.main.get_command(cli.app)
    stream = group.commands["stream"]
    assert stream.make_context("stream", [*words]).params["serve"] == "8080"


def test_a_port_in_use_is_named(served: Served) -> None:
    with pytest.raises(InputError, match=r"cannot serve on 127\.0\.0\.1:"):
        LivePage(served.page.access.address, "model", "engine")


def frames() -> list[FusedFrame]:
    colour, grey = shot(1), shot(2, grey=True)
    absent = [(None, colour.vis), (colour.ir, None), (None, None)]
    return [colour, grey, *(FusedFrame(*two, colour.fused, n, 0.0) for n, two in enumerate(absent, 3))]


def decoded(jpeg: bytes) -> Image:
    image = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    return image


@pytest.mark.parametrize("view", VIEWS)
def test_every_view_shows_every_frame(view: str) -> None:
    preview = Preview()
    looked_at = View(view, 640)
    assert preview.jpeg(looked_at) is None
    for frame in frames():
        preview.update(frame)
        made = preview.jpeg(looked_at)
        assert made is not None
        index, jpeg = made
        assert index == frame.index
        assert decoded(jpeg).shape == (48, 64 * (3 if view == "panels" else 1), 3)


def test_pictures_are_never_larger_than_a_browser_shows() -> None:
    preview = Preview()
    preview.update(FusedFrame(None, None, np.zeros((20, 4000, 3), np.uint8), 1, 0.0))
    made = preview.jpeg(View("fused", 99_999))
    assert made is not None
    assert decoded(made[1]).shape == (10, 1920, 3)


def test_infrared_is_seen_in_a_palette() -> None:
    preview = Preview()
    preview.update(shot(1))
    pictures = {}
    for palette in PALETTES:
        made = preview.jpeg(View("infrared", 640, palette))
        assert made is not None
        pictures[palette] = decoded(made[1]).astype(int)
    assert np.abs(pictures["white"] - (255 - pictures["black"])).mean() < 3
    assert len({picture.tobytes() for picture in pictures.values()}) == len(PALETTES)


def test_a_picture_is_encoded_no_more_often_than_somebody_can_see() -> None:
    preview, view = Preview(), View("fused", 640)
    preview.update(shot(1))
    assert preview.is_due(view)
    preview.jpeg(view)
    assert preview.is_due(view), "of the same frame it is there already"
    preview.update(shot(2))
    assert not preview.is_due(view)
    assert preview.is_due(View("visible", 640))
    time.sleep(0.04)
    assert preview.is_due(view)


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """As many elements as pictures were encoded, which takes a moment."""
    counted: list[int] = []
    real = cv2.imencode

    def count(*args: Any) -> Any:
        counted.append(1)
        time.sleep(0.02)
        return real(*args)

    monkeypatch.setattr(cv2, "imencode", count)
    return counted


def test_a_picture_is_encoded_once_for_all_viewers(encoded: list[int]) -> None:
    preview = Preview()
    for n in range(3):
        preview.update(shot(n))
        assert len(encoded) == n, "nothing is encoded before somebody looks"
        threads = [threading.Thread(target=preview.jpeg, args=(View("fused", 640),)) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(encoded) == 3


@pytest.mark.parametrize(("wide", "most"), [(1920, 6), (640, 3), (64, 1)])
def test_screens_of_twenty_sizes_share_their_pictures(encoded: list[int], wide: int, most: int) -> None:
    preview, image = Preview(), np.zeros((16, wide, 3), np.uint8)
    for n in range(1, 4):
        preview.update(FusedFrame(None, None, image, n, 0.0))
        for width in range(300, 1500, 60):
            made = preview.jpeg(View("fused", width, ("inferno", "hot")[n % 2]))
            assert made is not None
            assert decoded(made[1]).shape[1] >= min(width, wide), "never less than was asked for"
        assert len(encoded) <= n * most


def test_the_picture_that_was_asked_for_last_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(views, "CACHED", 3)
    monkeypatch.setattr(views, "MAX_FPS", 0.01)
    preview = Preview()
    preview.update(shot(1))
    watched = View("fused", 640)
    for other in ("infrared", "visible", "edges", "blend", "panels"):
        preview.jpeg(watched)
        preview.jpeg(View(other, 640))
        preview.update(shot(2))
        assert not preview.is_due(watched), "others do not make it due"
    assert len(preview._shared) == 3


def test_who_asks_too_often_gets_the_last_picture_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(views, "MAX_FPS", 0.01)
    preview = Preview()
    preview.update(shot(1))
    first = preview.jpeg(View("fused", 640), capped=True)
    preview.update(shot(2))
    assert preview.jpeg(View("fused", 640), capped=True) == first
    monkeypatch.setattr(views, "MAX_FPS", 1e9)
    assert preview.jpeg(View("fused", 640), capped=True) != first


def test_pictures_follow_each_other(served: Served) -> None:
    first, data = served.ask("/snapshot.jpg?view=panels&width=640")
    assert decoded(data).shape == (16, 72, 3)
    second, _ = served.ask(f"/snapshot.jpg?after={first.headers['X-Frame']}")
    assert int(second.headers["X-Frame"]) > int(first.headers["X-Frame"])
    for query in ("view=../../etc/passwd", "view=other", "width=-1", "width=x", "palette=x"):
        assert served.ask(f"/snapshot.jpg?{query}")[0].status == 400


def test_the_stream_is_made_of_pictures(served: Served) -> None:
    with socket.create_connection(("127.0.0.1", served.page.access.address.port), 10) as viewer:
        viewer.sendall(b"GET /stream.mjpg HTTP/1.1\r\nHost: localhost\r\n\r\n")
        data = b""
        while data.count(b"--frame\r\n") < 4:
            data += viewer.recv(65536)
    assert b"multipart/x-mixed-replace" in data
    parts = data.split(b"--frame\r\n")[1:3]
    for part in parts:
        jpeg = part.partition(b"\r\n\r\n")[2]
        assert decoded(jpeg).shape == (16, 24, 3)


def test_state_health_and_metrics(served: Served) -> None:
    _, data = served.ask("/api/state")
    state = json.loads(data)
    assert (state["model"], state["engine"], state["frame"]["size"]) == ("model", "engine", [24, 16])
    assert [source["state"] for source in state["report"]["sources"]] == ["live", "live"]
    answer, data = served.ask("/healthz")
    assert answer.status == 200, data
    assert json.loads(data)["cameras"] == {"infrared": "live", "visible": "live"}
    assert state["stages"] == STAGES
    assert state["report"]["stages"].keys() <= STAGES.keys()
    script = (app.STATIC / "page.js").read_text()
    tints = re.search(r"const TINTS = \[(.*?)\]", script)
    assert tints is not None
    assert tints[1].count("#") == len(STAGES), "a colour for each stage of the chart"
    _, data = served.ask("/metrics")
    families = {family.name: family for family in parser.text_string_to_metric_families(data.decode())}
    stages = families["edgefuse_stage_seconds"].samples
    counts = {s.labels["stage"]: s.value for s in stages if s.name.endswith("_count")}
    ends = {s.labels["stage"]: s.value for s in stages if s.labels.get("le") == "+Inf"}
    assert counts == ends
    assert counts["fuse"] > 0
    outcomes = {s.labels["outcome"] for s in families["edgefuse_frames"].samples}
    assert outcomes == {"fused", "unpaired", "dropped", "failed"}
    edges = [s.value for s in stages if s.name.endswith("_bucket") and s.labels["stage"] == "fuse"]
    assert edges == sorted(edges), "cumulative"
    assert {"edgefuse_skew_seconds", "edgefuse_camera_reconnects"} <= families.keys()
    assert families["edgefuse_memory_bytes"].samples[0].value > 1e7


def test_a_run_that_is_too_slow_is_not_well(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(metrics, "time", SimpleNamespace(monotonic=lambda: now[0]))
    report, recent = served.session.snapshot(), metrics.Recent()
    limits = metrics.Limits(dropped=0.2, latency=0.3)

    def health(seconds: float, captured: int, dropped: int, pictures: int, delay: float) -> metrics.Health:
        now[0] += seconds
        infrared, visible = (replace(source, captured=captured, dropped=dropped) for source in report.sources)
        infrared = replace(infrared, captured=2 * captured, dropped=captured + dropped)  # twice as fast
        stages = {"output": Durations(count=pictures, sum=delay)}
        at = replace(report, sources=(infrared, visible), stages=stages, sinks=())
        return metrics.health_of(at, "cpu", 0.1, recent, limits)

    assert health(0, 1000, 10, 990, 99.0).ok
    slow = health(30, 1100, 60, 1040, 124.0)
    assert slow.problems == (
        "50% of the frames were dropped, the limit is 20%",
        "0.50 s from camera to output, the limit is 0.3 s",
    )
    assert (slow.dropped, slow.latency_s) == (0.5, 0.5)
    assert not health(5, 1200, 60, 1140, 134.0).ok, "the bad moments are still in the window"
    assert health(11, 1300, 60, 1240, 144.0).ok
    limits = metrics.Limits()
    assert health(30, 1400, 160, 1241, 244.0).ok, "without limits"


def test_quality_is_measured_for_machines_too(served: Served) -> None:
    told = QualityReport(3, 0, {"VIF": 0.75, "SSIM": 0.5})
    data = metrics_of(replace(served.session.snapshot(), quality=told), 0.1).decode()
    (family,) = (f for f in parser.text_string_to_metric_families(data) if f.name == "edgefuse_quality")
    assert {s.labels["metric"]: s.value for s in family.samples} == told.means


@pytest.mark.parametrize("known", [True, False])
def test_how_far_the_alignment_is_off_is_seen(known: bool) -> None:
    told = DriftReport(known, 3.1, "right", -0.12, 7, 2, 0)

    class Watch(BackgroundWorker[FusedFrame]):
        def snapshot(self) -> DriftReport:
            return told

    with Served(background=[Watch("alignment check", lambda _: None)]) as served:
        state = json.loads(served.ask("/api/state")[1])
        _, data = served.ask("/metrics")
        report = served.session.snapshot()
    assert report.alignment == told
    assert state["report"]["alignment"] == vars(told)
    values = {
        family.name.removeprefix("edgefuse_alignment_"): family.samples[0].value
        for family in parser.text_string_to_metric_families(data.decode())
        if "alignment" in family.name
    }
    assert values == ({"off_pixels": 3.1, "agreement_change": -0.12} if known else {}), "no number made up"
    assert told.sentence() in _facts(report)


def test_a_lost_camera_is_seen_at_once() -> None:
    lost = threading.Event()

    class Unplugged(FakeSource):
        def read(self) -> Frame | None:
            if lost.is_set():
                raise LostError("unplugged")
            return super().read()

    def plug_in() -> FakeSource:
        if lost.is_set():
            raise LostError("not there")
        return Unplugged(None, live=True, fps=25)

    with Served(ir=Camera("camera", plug_in)) as served:
        assert served.ask("/healthz")[0].status == 200
        lost.set()
        deadline = time.monotonic() + 10
        while served.ask("/healthz")[0].status == 200:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        problems = json.loads(served.ask("/healthz")[1])["problems"]
    assert "infrared is lost" in problems


def test_a_recording_is_started_and_ended(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    _, data = served.ask("/api/recording", "POST", '{"on": true}')
    name = json.loads(data)["recording"]
    assert json.loads(served.ask("/api/state")[1])["recording"] == name
    time.sleep(0.5)
    ended = json.loads(served.ask("/api/recording", "POST", '{"on": false}')[1])
    assert (ended["recording"], ended["file"], ended["problem"]) == (None, name, None)
    assert ended["written"] > 5
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert cv2.VideoCapture(str(tmp_path / name), cv2.CAP_FFMPEG).get(cv2.CAP_PROP_FRAME_COUNT) > 0


def test_recordings_of_one_second_are_all_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    recorder, files = Recorder(OutputOptions()), []
    for n in range(3):
        assert recorder.record(True, shot(n)).recording is not None
        ended = recorder.record(False)
        assert (ended.written, ended.problem) == (1, None), "even the shortest has the picture that was shown"
        files.append(ended.file)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(map(str, files))
    assert len(set(files)) == 3


def test_a_recording_without_a_picture_names_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    recorder = Recorder(OutputOptions())
    recorder.record(True)
    ended = recorder.record(False)
    assert (ended.file, ended.problem) == (None, "there was no picture to record")
    assert not list(tmp_path.iterdir())


def test_a_recording_is_written_as_the_other_outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    recorder = Recorder(OutputOptions(triptych=True, codec="ffv1", segment=1.0))
    named = recorder.record(True).recording
    for n in range(3):
        recorder.write(replace(shot(n), timestamp=float(n)))
    assert recorder.record(False).written == 3
    files = [*tmp_path.iterdir()]
    assert len(files) == 3, "parts of a second"
    assert named is not None
    assert {*tmp_path.glob(named)} == {*files}
    assert files[0].suffix == ".mkv"
    assert cv2.VideoCapture(str(files[0]), cv2.CAP_FFMPEG).get(cv2.CAP_PROP_FRAME_WIDTH) == 3 * 64
    with pytest.raises(InputError, match="largest size"):
        Recorder(OutputOptions(max_size=10))


def test_a_recording_that_fails_is_seen_everywhere(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with monkeypatch.context() as full:
        full.setattr("shutil.disk_usage", lambda _: SimpleNamespace(total=10**12, free=0))
        served.ask("/api/recording", "POST", '{"on": true}')
        deadline = time.monotonic() + 10
        while served.page.recorder.problem is None:
            assert time.monotonic() < deadline
            time.sleep(0.02)
    state = json.loads(served.ask("/api/state")[1])
    assert state["recording"] is None
    assert "the disk is full" in state["recording_problem"]
    assert "the disk is full" in state["report"]["sinks"][-1]["error"]
    answer, data = served.ask("/healthz")
    assert answer.status == 503
    assert "the disk is full" in "".join(json.loads(data)["problems"])
    assert b'edgefuse_output_failed{output="1"} 1.0' in served.ask("/metrics")[1]
    told = json.loads(served.ask("/api/recording", "POST", '{"on": false}')[1])
    assert (told["file"], "the disk is full" in told["problem"]) == (None, True)
    assert served.ask("/healthz")[0].status == 200, "dismissed"


@pytest.mark.parametrize("body", ["", "[]", '{"on": 3}', '{"off": true}', '{"on": true, "path": "/etc/x"}'])
def test_what_is_no_command_is_refused(served: Served, body: str) -> None:
    assert served.ask("/api/recording", "POST", body)[0].status == 400
    assert served.page.recorder.recording is None


def rig_file(path: Path) -> Path:
    """Two cameras with the same picture of what is 10 m away; their parallax is 20 pixels at a metre."""
    eye = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
    Rig(eye, (24, 16), (24, 16), distance=10.0, parallax=(20.0, 0.0, 0.0)).save(path)
    return path


def test_infrared_is_moved_and_the_rig_file_written(tmp_path: Path) -> None:
    path = rig_file(tmp_path / "rig.json")
    with Served(rig=path) as served:
        state = json.loads(served.ask("/api/state")[1])["alignment"]
        assert (state["x"], state["distance"], state["has_distance"], state["saved"]) == (0, 10, True, True)
        answer, data = served.ask("/api/alignment", "POST", '{"x": 3, "y": -2, "distance": 5}')
        assert answer.status == 200, data
        assert isinstance(served.session.align, RigAlign)
        matrix = np.array(served.session.align.rig.matrix)
        assert matrix[:2, 2] == pytest.approx([3 + 20 * (1 / 5 - 1 / 10), -2])
        assert Rig.load(path).matrix[0][2] == 0, "not saved yet"
        served.ask("/api/alignment", "POST", '{"x": 3, "y": -2, "distance": 5, "save": true}')
        assert np.array(Rig.load(path).matrix) == pytest.approx(matrix)
        assert Rig.load(path).distance == 5
        state = json.loads(served.ask("/api/state")[1])["alignment"]
        assert (state["x"], state["y"], state["distance"], state["saved"]) == (0, 0, 5, True)
        for wrong in ('{"x": 1e9, "y": 0}', '{"x": 0, "y": 0, "distance": -1}'):
            assert served.ask("/api/alignment", "POST", wrong)[0].status == 409
        assert served.ask("/api/alignment", "POST", '{"x": "a", "y": 0}')[0].status == 400
        assert list(tmp_path.iterdir()) == [path]


def test_infrared_is_refined_on_request(tmp_path: Path) -> None:
    def improve(rig: Rig, frame: FusedFrame, move: bool) -> Rig:
        assert frame.ir is not None
        return replace(rig.moved(np.array([[1, 0, 2.0 * move], [0, 1, 0], [0, 0, 1]])), residual_px=0.25)

    path = rig_file(tmp_path / "rig.json")
    with Served(rig=path, improve=improve) as served:
        answer, data = served.ask("/api/alignment", "POST", '{"x": 1, "y": 0, "refine": true}')
        assert answer.status == 200, data
        assert json.loads(data)["alignment"]["residual_px"] == 0.25
        served.ask("/api/alignment", "POST", '{"x": 1, "y": 0, "save": true}')
        assert Rig.load(path).matrix[0][2] == 3
    with Served(rig=path) as served:
        answer, data = served.ask("/api/alignment", "POST", '{"x": 0, "y": 0, "refine": true}')
        assert answer.status == 409
        assert b"nothing to refine" in data or b"no picture" in data


def test_without_a_rig_file_there_is_nothing_to_move(served: Served) -> None:
    assert json.loads(served.ask("/api/state")[1])["alignment"] is None
    assert served.ask("/api/alignment", "POST", '{"x": 1, "y": 0}')[0].status == 409


# --- who gets in


def test_no_other_web_site_reaches_it(served: Served) -> None:
    assert served.ask("/")[0].status == 200
    assert served.ask("/", Host="evil.example")[0].status == 421
    assert served.ask("/api/state", Host="127.0.0.1.evil.example")[0].status == 421
    port = served.page.access.address.port
    on = '{"on": true}'
    for headers in (
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": f"http://localhost:{port + 1}", "Host": f"localhost:{port}"},
        {"Sec_Fetch_Site": "cross-site"},
    ):
        assert served.ask("/api/recording", "POST", on, **headers)[0].status == 403
    assert served.page.recorder.recording is None
    assert served.ask("/api/recording")[0].status == 405


@pytest.mark.parametrize(
    "path", ["/../page.css", "/..%2f..%2fetc/passwd", "/static/page.js", "//etc/passwd", "/page.html"]
)
def test_paths_reach_no_files(served: Served, path: str) -> None:
    assert served.ask(path)[0].status == 404


def test_large_requests_are_refused(served: Served) -> None:
    assert served.ask("/api/recording", "POST", "x" * 10_000)[0].status == 413


def test_another_address_demands_the_token() -> None:
    with Served("0.0.0.0") as served:
        token, url = served.page.access.token, served.page.url
        assert url.endswith(f"?token={token}")
        for path in ("/", "/api/state", "/metrics", "/healthz", "/snapshot.jpg", "/stream.mjpg", "/page.js"):
            assert served.ask(path)[0].status == 401
            assert served.ask(f"{path}?token={token[:-1]}")[0].status == 401
        answer, _ = served.ask(f"/snapshot.jpg?view=fused&token={token}")
        assert (answer.status, answer.headers["Location"]) == (303, "/snapshot.jpg?view=fused")
        cookie = answer.headers["Set-Cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=Strict" in cookie
        assert served.ask("/", Cookie=cookie.partition(";")[0])[0].status == 200
        assert served.ask("/metrics", Authorization=f"Bearer {token}")[0].status == 200
        answer, _ = served.ask(f"//evil.example/?token={token}")
        assert not answer.headers.get("Location", "/").startswith("//"), "no redirection to elsewhere"


def test_a_token_can_be_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEFUSE_TOKEN", "a-token-of-our-own")
    with Served("0.0.0.0") as served:
        assert served.page.url.endswith("/?token=${EDGEFUSE_TOKEN}"), "it is not printed"
        assert served.ask("/metrics", Authorization="Bearer a-token-of-our-own")[0].status == 200
        assert served.ask("/metrics")[0].status == 401
    for weak in ("short", "with spaces and more", 'quote"quote"quote'):
        monkeypatch.setenv("EDGEFUSE_TOKEN", weak)
        with pytest.raises(InputError, match="16 or more of the characters") as caught:
            LivePage(Address("0.0.0.0", 0), "model", "engine")
        assert weak not in str(caught.value)


def test_tokens_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[bytes, bytes]] = []
    real = hmac.compare_digest

    def compare(given: bytes, token: bytes) -> bool:
        compared.append((given, token))
        return real(given, token)

    monkeypatch.setattr(hmac, "compare_digest", compare)
    with Served("0.0.0.0") as served:
        token = served.page.access.token
        given = [f"/?token={token[:-1]}", "/?token=%ff%fe", "/"]
        assert [served.ask(path)[0].status for path in given] == [401] * 3
        assert served.ask("/", Authorization="Bearer x")[0].status == 401
        assert served.ask("/", Cookie=f"{served.page.access.cookie}=x; \x7f=3")[0].status == 401
    assert all(against == token.encode() for _, against in compared)
    assert len(compared) == 4


def test_changes_need_the_token_and_the_page_itself() -> None:
    on = '{"on": true}'
    with Served("0.0.0.0") as served:
        token, port = served.page.access.token, served.page.access.address.port
        cookie, host = f"{served.page.access.cookie}={token}", f"10.0.0.7:{port}"
        refused = [
            served.ask("/api/recording", "POST", on),
            served.ask("/api/recording", "POST", on, Cookie=f"{served.page.access.cookie}=wrong"),
        ]
        assert [answer.status for answer, _ in refused] == [401, 401]
        other = {"Cookie": cookie, "Host": host, "Origin": "http://evil.example"}
        assert served.ask("/api/recording", "POST", on, **other)[0].status == 403
        assert served.ask("/api/alignment", "POST", "{}", **other)[0].status == 403
        assert served.page.recorder.recording is None
        own = {"Cookie": cookie, "Host": host, "Origin": f"http://{host}"}
        assert served.ask("/api/recording", "POST", '{"on": false}', **own)[0].status == 200


def test_slow_clients_are_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "REQUEST_SECONDS", 0.4)
    monkeypatch.setattr(app, "BODY_SECONDS", 0.4)
    body = b"POST /api/recording HTTP/1.1\r\nHost: localhost\r\nContent-Length: 12\r\n\r\n{"
    whole, part = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n", b"GET / HTTP/1.1\r\nHost: loc"
    with Served() as served:
        for first, begun in ((b"", b""), (b"", part), (b"", body), (whole, part)):
            with socket.create_connection(("127.0.0.1", served.page.access.address.port), 10) as client:
                if first:
                    client.sendall(first)
                    assert client.recv(65536).startswith(b"HTTP/1.1 200")
                client.sendall(begun)
                answer, began = b"", time.monotonic()
                try:
                    while received := client.recv(65536):
                        answer += received
                except ConnectionResetError:
                    pass
                assert time.monotonic() - began < 4, begun
            assert (b" 408 " in answer) == (begun is body)
        assert served.ask("/healthz")[0].status == 200


def test_passwords_are_shown_nowhere(caplog: pytest.LogCaptureFixture) -> None:
    camera = connect("rtsp://me:secret@127.0.0.1:9/x", "ir")
    with Served(ir=camera) as served:
        time.sleep(0.5)
        shown = b"".join(served.ask(path)[1] for path in ("/", "/api/state", "/metrics", "/healthz"))
    assert b"127.0.0.1:9" in shown
    assert b"secret" not in shown
    assert not any("secret" in message for message in caplog.messages)


# --- viewers


def test_viewers_are_let_go_when_the_run_ends(caplog: pytest.LogCaptureFixture) -> None:
    with Served() as served, ExitStack() as stack:
        port = served.page.access.address.port
        viewers = [stack.enter_context(socket.create_connection(("127.0.0.1", port), 10)) for _ in range(3)]
        for n, viewer in enumerate(viewers):
            viewer.sendall(f"GET /stream.mjpg?width={200 + n} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            assert viewer.recv(65536).startswith(b"HTTP/1.1 200")
        served.stop("enough", immediate=True)
        for viewer in viewers:
            while viewer.recv(65536):
                pass
    assert not served.page._thread or not served.page._thread.is_alive()
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


class Noise(FakeSource):
    """Pictures that take as many bytes as any."""

    rng = np.random.default_rng(0)

    def read(self) -> Frame | None:
        frame = super().read()
        assert frame is not None
        return replace(frame, image=self.rng.integers(0, 256, (480, 640), np.uint8))


def test_twenty_viewers_and_one_that_sleeps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "SEND_SECONDS", 0.5)
    with Served(vis=Noise(None, live=True, fps=25)) as served, ExitStack() as stack:
        port = served.page.access.address.port
        viewers = [stack.enter_context(socket.create_connection(("127.0.0.1", port), 20)) for _ in range(21)]
        for viewer in viewers:
            viewer.sendall(b"GET /stream.mjpg?width=640 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        sleeper, *awake = viewers
        read, deadline = dict.fromkeys(awake, 0), time.monotonic() + 20
        while min(read.values()) < 400_000 and time.monotonic() < deadline:
            for viewer in awake:
                read[viewer] += len(viewer.recv(65536))
        assert min(read.values()) >= 400_000
        while served.page._report is not None and time.monotonic() < deadline:
            if json.loads(served.ask("/api/state")[1])["viewers"] <= 20:
                break  # who takes nothing was cut off
            for viewer in awake:
                viewer.recv(65536)
        assert json.loads(served.ask("/api/state")[1])["viewers"] <= 20
        assert served.session.snapshot().sinks[0].dropped == 0
        del sleeper


# --- in a browser


CHROMIUM = next((path for name in ("chromium", "google-chrome") if (path := shutil.which(name))), None)


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_the_page_in_a_browser(tmp_path: Path) -> None:
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    lost = threading.Event()

    class Unplugged(FakeSource):
        def read(self) -> Frame | None:
            if lost.is_set():
                raise LostError("unplugged")
            return super().read()

    camera = Camera("camera", lambda: Unplugged(None, live=True, fps=25))
    rig = rig_file(tmp_path / "rig.json")

    def improve(rig: Rig, _: FusedFrame, move: bool) -> Rig:
        return replace(rig, residual_px=0.3)

    served_rig = Served(vis=camera, rig=rig, improve=improve)
    with served_rig as served, playwright.sync_playwright() as run:
        browser = run.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        errors: list[str] = []
        page = browser.new_page(viewport={"width": 390, "height": 800})  # a phone's
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(served.page.url)

        def until(holds: Any, seconds: float = 30) -> None:
            deadline = time.monotonic() + seconds
            while not holds():
                assert time.monotonic() < deadline
                time.sleep(0.1)

        picture = page.locator("#picture")
        until(lambda: int(picture.get_attribute("data-frames") or 0) > 5)
        before = picture.screenshot()
        until(lambda: picture.screenshot() != before)
        assert page.locator("#status").inner_text() == "live"
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, "nothing sticks out"
        page.click("button[data-view=wipe]")
        page.locator("#edge").fill("20")
        frames = int(picture.get_attribute("data-frames") or 0)
        until(lambda: int(picture.get_attribute("data-frames") or 0) > frames + 2)
        page.click("button[data-view=check]")
        with page.expect_download() as saved:
            page.click("#save")
        assert decoded(Path(saved.value.path()).read_bytes()).shape[1] == 24, (
            "what is shown, not what it is made of"
        )
        swapped = page.locator("#picture").screenshot()
        until(lambda: page.locator("#picture").screenshot() != swapped)
        page.click("button[data-x='1']")
        until(lambda: "moved by 1, 0 pixels, 10 m" in page.locator("#moved").inner_text())
        page.locator("#metres").fill("0")
        until(lambda: "1.0 m" in page.locator("#moved").inner_text())
        page.click("#refine")
        until(lambda: "to 0.3 pixels" in page.locator("#moved").inner_text())
        page.click("#keep")
        until(lambda: Rig.load(rig).distance == 1)
        page.click("button[data-view=panels]")
        height = "document.querySelector('#picture').height"
        until(lambda: page.evaluate(height) == 3 * 16)  # below each other
        page.set_viewport_size({"width": 1280, "height": 800})  # a desk's
        until(lambda: page.evaluate(height) == 16)
        facts, shown = page.locator(".facts").bounding_box(), picture.bounding_box()
        assert facts["x"] >= shown["x"] + shown["width"], "beside the picture"
        page.click("button[data-view=infrared]")
        page.select_option("#palette", "white")
        frames = int(picture.get_attribute("data-frames") or 0)
        until(lambda: int(picture.get_attribute("data-frames") or 0) > frames + 2)
        lost.set()
        until(lambda: page.locator("#notice").is_visible(), 2)
        assert page.locator("#status").inner_text() == "Visible lost"
        assert errors == []
        browser.close()
