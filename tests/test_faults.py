"""What happens to the stream when a camera fails, with real processes on the loopback interface."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edgefuse.errors import LostError, SourceError
from edgefuse.images import Image
from edgefuse.runtime.live import LiveConfig, Report, Stop, connect, run
from edgefuse.runtime.sinks import Callback, FusedFrame
from edgefuse.runtime.sources import Frame, Source
from edgefuse.runtime.supervise import Connection, State

Start = Callable[..., "subprocess.Popen[bytes]"]

SIM = "sim?size=160x120&fps=25"
SERVER = Path(__file__).parent / "mjpeg_server.py"
TS = "-c:v mpeg2video -g 5 -f mpegts udp://127.0.0.1:{port}?pkt_size=1316"
TCP = "-c:v mpeg2video -g 5 -f mpegts tcp://127.0.0.1:{port}?listen=1"


def pick_visible(ir: Image, vis: Image) -> Image:
    return vis.copy()


@pytest.fixture(autouse=True)
def less_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    """A camera that is absent at the start is waited for only so long before the other is shown alone."""
    monkeypatch.setattr("edgefuse.runtime.latest.GRACE", 0.5)


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def start() -> Iterator[Start]:
    """Start a process; it is killed at the end."""
    running = []

    def begin(*command: str) -> "subprocess.Popen[bytes]":
        running.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        return running[-1]

    yield begin
    for process in running:
        process.kill()
        process.wait()


@pytest.fixture
def ffmpeg(start: Start, port: int) -> Start:
    program = shutil.which("ffmpeg")
    if program is None:
        pytest.skip("needs ffmpeg: apt-get install ffmpeg")
    picture = "-loglevel quiet -re -f lavfi -i testsrc2=size={size}:rate=25"

    def begin(output: str, size: str = "160x120") -> "subprocess.Popen[bytes]":
        return start(program, *f"{picture} {output}".format(size=size, port=port).split())

    return begin


def misbehave(start: Start, port: int, *faults: str) -> "subprocess.Popen[bytes]":
    """Start the MJPEG server, and wait until it listens, without using up a connection."""
    server = start(sys.executable, str(SERVER), str(port), *faults)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                return server
        time.sleep(0.05)
    raise AssertionError("the server does not come up")


class Watched:
    """A run in a thread, and what it shows."""

    def __init__(self, ir: str | Connection, vis: str | Connection, **config: Any) -> None:
        self.shown: list[tuple[float, FusedFrame]] = []
        self.stop = Stop()
        self.report: Report
        self._ir = ir if isinstance(ir, Connection) else connect(ir, "ir")
        self._vis = vis if isinstance(vis, Connection) else connect(vis, "vis")
        self._config = LiveConfig(**config)
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        sink = Callback(lambda frame: self.shown.append((time.monotonic(), frame)))
        self.report = run(self._ir, self._vis, pick_visible, [sink], self._config, stop=self.stop)

    def __enter__(self) -> "Watched":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        begun = time.monotonic()
        self.stop("enough", hurry=True)
        self._thread.join(10)
        assert time.monotonic() - begun < 2, "a stop takes less than 2 s in every state"
        for source in self.report.sources:
            accounted = source.fused + source.passed + source.dropped + source.failed
            assert accounted == source.captured, source

    def wait(self, state: str, seconds: float = 10.0, count: int = 3) -> float:
        """Wait until so many pictures of that state were shown from now on; return how long that took."""
        begun = time.monotonic()
        while time.monotonic() - begun < seconds:
            states: list[str] = [frame.state for at, frame in list(self.shown) if at > begun]
            if states.count(state) >= count:
                return time.monotonic() - begun
            time.sleep(0.02)
        raise AssertionError(f"no {count} pictures {state!r} in {seconds} s, but {set(states)}")

    @property
    def last(self) -> FusedFrame:
        return self.shown[-1][1]


# --- servers that are stopped, killed and started again


@pytest.mark.parametrize("output", [TS, TCP], ids=["udp", "tcp"])
def test_a_stream_that_dies_and_returns_is_fused_again(ffmpeg: Start, port: int, output: str) -> None:
    url = output.format(port=port).split()[-1].partition("?")[0]
    with Watched(url, SIM) as watched:
        watched.wait("visible only")  # it is absent at the start
        server = ffmpeg(output)
        watched.wait("fused", 4.0)
        server.kill()
        assert watched.wait("visible only") < 1.5
        assert watched.last.vis.any()
        assert not watched.last.ir.any()
        time.sleep(2.5)  # longer than every timeout
        ffmpeg(output, size="240x180")
        assert watched.wait("fused", 8.0) < 2 + 1.0, "1 s is what ffmpeg takes to start on a busy machine"
        assert watched.last.ir.shape == (180, 240)
    ir = watched.report.sources[0]
    assert ir.losses >= 1
    assert ir.down > 2
    assert watched.report.passed > 30


def test_a_stream_that_is_stopped_for_a_while(ffmpeg: Start, port: int) -> None:
    server = ffmpeg(TS)
    with Watched(f"udp://127.0.0.1:{port}", SIM) as watched:
        watched.wait("fused")
        os.kill(server.pid, signal.SIGSTOP)
        assert watched.wait("visible only") < 1.5
        time.sleep(3)
        os.kill(server.pid, signal.SIGCONT)
        assert watched.wait("fused") < 2
    assert watched.report.sources[0].state is State.LIVE


@pytest.mark.parametrize(
    ("on_loss", "state"), [("passthrough", "infrared only"), ("hold", "held"), ("black", "black")]
)
def test_what_is_shown_while_the_visible_camera_is_lost(
    start: Start, port: int, on_loss: str, state: str
) -> None:
    server = misbehave(start, port, "none")
    with Watched("sim?size=64x48", f"http://127.0.0.1:{port}/", on_loss=on_loss) as watched:
        watched.wait("fused")
        server.kill()
        watched.wait(state)
        shape = watched.last.fused.shape
        assert shape == (120, 160, 3)
        mean = watched.last.fused.mean()
    assert mean < 5 if state == "black" else mean > 5
    assert (watched.report.passed > 0) == (on_loss == "passthrough")
    assert (watched.report.repeated > 0) == (on_loss != "passthrough")


def test_the_last_pair_is_held_while_both_cameras_are_lost(start: Start, port: int) -> None:
    server = misbehave(start, port, "none")
    url = f"http://127.0.0.1:{port}/"
    camera = FlakyCamera([60.0])
    with Watched(Connection("flaky", camera), url, on_loss="hold") as watched:
        watched.wait("fused")
        server.kill()
        camera.fail.set()
        watched.wait("held", count=10)
        time.sleep(0.7)
        assert watched.last.fused.any()
        assert not watched.last.ir.any()
        assert not watched.last.vis.any()


def test_a_loss_can_end_the_stream(start: Start, port: int) -> None:
    server = misbehave(start, port, "none")
    with Watched(f"http://127.0.0.1:{port}/", SIM, on_loss="stop") as watched:
        watched.wait("fused")
        server.kill()
        watched._thread.join(5)
        assert watched.report.ended == "the infrared source was lost"
    assert watched.report.error
    assert str(port) in watched.report.error


# --- a server that misbehaves


@pytest.mark.parametrize("fault", ["cut", "empty", "silent"])
def test_a_connection_that_breaks_is_opened_again(start: Start, port: int, fault: str) -> None:
    misbehave(start, port, fault, "none")
    with Watched(f"http://127.0.0.1:{port}/", SIM) as watched:
        if fault != "empty":
            watched.wait("fused", count=10)
        watched.wait("fused", 10.0, count=40)
    ir = watched.report.sources[0]
    assert ir.reconnects >= (fault != "empty")
    assert ir.state is State.LIVE


@pytest.mark.parametrize("fault", ["corrupt", "larger", "stutter"])
def test_a_camera_that_misbehaves_is_gone_on_with(start: Start, port: int, fault: str) -> None:
    misbehave(start, port, fault)
    with Watched(SIM, f"http://127.0.0.1:{port}/") as watched:
        watched.wait("fused", count=10)
        time.sleep(1)
        watched.wait("fused", 5.0, count=20)
        if fault == "larger":
            assert watched.last.fused.shape == (180, 240, 3)
    assert watched.report.error is None


# --- what no server can do: a driver that hangs, a clock that jumps


class FlakyCamera:
    """Opens cameras that live for so many seconds each, one after the other; then they hang or fail."""

    def __init__(self, lives: list[float], hangs: bool = False, jump: float = 0.0) -> None:
        self.lives, self.hangs, self.jump = lives, hangs, jump
        self.opened = 0
        self.release, self.fail = threading.Event(), threading.Event()

    def __call__(self) -> Source:
        if self.fail.is_set():
            raise LostError("flaky: not there")
        seconds = self.lives[min(self.opened, len(self.lives) - 1)]
        self.opened += 1
        return _Camera(self, seconds, self.jump * self.opened)


class _Camera(Source):
    live, fps, length, name = True, 50.0, None, "flaky"
    limit = 0.0

    def __init__(self, owner: FlakyCamera, seconds: float, jump: float) -> None:
        self._owner, self._end, self._jump = owner, time.monotonic() + seconds, jump
        self._next = 0

    def read(self) -> Frame | None:
        time.sleep(0.02)
        if time.monotonic() > self._end or self._owner.fail.is_set():
            if self._owner.hangs:
                self._owner.release.wait()
            raise LostError("flaky: unplugged")
        self._next += 1
        now = time.monotonic()
        return Frame(np.full((48, 64), 90, np.uint8), self._next, now + self._jump, now)

    def close(self) -> None:
        pass


def test_a_thread_that_hangs_is_abandoned_replaced_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgefuse.runtime.supervise.READ_PATIENCE", 1.2)
    camera = FlakyCamera([0.5, 60.0], hangs=True)
    with Watched(Connection("flaky", camera), SIM) as watched:
        watched.wait("fused")
        watched.wait("visible only")
        watched.wait("fused")
    assert watched.report.sources[0].abandoned == 1
    assert camera.opened == 2
    camera.release.set()


def test_no_endless_number_of_threads_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgefuse.runtime.supervise.OPEN_PATIENCE", 0.1)
    release = threading.Event()

    def hang() -> Source:
        release.wait()
        raise LostError("late")

    before = threading.enumerate()
    with Watched(Connection("hung", hang), SIM) as watched:
        watched.wait("visible only", count=40)
        hung = [thread for thread in threading.enumerate() if thread not in before]
        assert sum(thread.name == "capture-infrared" for thread in hung) == 5
    assert watched.report.sources[0].abandoned == 4
    release.set()


@pytest.mark.parametrize("jump", [-3600.0, 0.2])
def test_a_clock_that_is_set_does_not_part_the_cameras(jump: float) -> None:
    camera = Connection("flaky", FlakyCamera([0.7], jump=jump))
    with Watched(camera, SIM, max_skew=0.1) as watched:
        watched.wait("fused", count=60)
    assert watched.report.sources[0].reconnects >= 1
    assert watched.report.frames > 0.7 * len(watched.shown)


def test_back_off_is_capped_at_a_second() -> None:
    times: list[float] = []

    def absent() -> Source:
        times.append(time.monotonic())
        raise LostError("not there")

    with Watched(Connection("absent", absent), SIM) as watched:
        watched.wait("visible only", count=40)
    waits = np.diff(times)
    assert waits[0] < 0.3
    assert waits.max() < 1.3
    assert len(times) <= 8


def test_what_was_asked_for_wrongly_is_an_error_at_once() -> None:
    def wrong() -> Source:
        raise SourceError("cam0: the camera gives 640x480 in place of 1x1")

    with Watched(Connection("cam0", wrong), SIM) as watched:
        watched._thread.join(5)
    assert watched.report.error == "cam0: the camera gives 640x480 in place of 1x1"


def test_messages_come_once_per_loss_and_return(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", "edgefuse"), Watched(Connection("c", FlakyCamera([0.6])), SIM) as watched:
        watched.wait("fused", count=60)
    said = [message for message in caplog.messages if "infrared" in message]
    assert said[:2] == ["infrared lost: flaky: unplugged", said[1]]
    assert said[1].startswith("infrared is back after 0.")
    assert len(said) <= 3, "one that comes and goes all the time is not told all the time"


# --- the command


@pytest.mark.parametrize(
    ("camera", "number"),
    [("absent", signal.SIGINT), ("silent", signal.SIGTERM), ("slow reader", signal.SIGTERM)],
)
def test_signals_end_the_command_in_every_state(
    start: Start, port: int, camera: str, number: int, tmp_path: Path
) -> None:
    if camera == "silent":
        misbehave(start, port, "silent")
    url, out = f"http://127.0.0.1:{port}/", str(tmp_path / "out.mp4")
    if camera == "slow reader":  # who reads nothing at all
        url, out = SIM, "-"
    command = [sys.executable, "-m", "edgefuse", "stream", "--ir", url, "--vis", SIM, "--out", out]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    told = process.stderr if out == "-" else process.stdout
    assert told is not None
    assert b"sim" in told.readline()  # the stream begins
    time.sleep(3)
    begun = time.monotonic()
    process.send_signal(number)
    process.wait(10)
    assert time.monotonic() - begun < 2
    output, errors = process.communicate()
    assert b"Traceback" not in errors
    assert b"ended:" in (errors if out == "-" else output)
    if out != "-":
        assert cv2.VideoCapture(out).get(cv2.CAP_PROP_FRAME_COUNT) > 2
