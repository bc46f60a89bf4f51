"""What happens to the stream when a camera fails, with real processes on the loopback interface."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edgefuse.errors import LostError, SourceError
from edgefuse.images import Image
from edgefuse.runtime.cameras.camera import Camera, State, StillState, connect
from edgefuse.runtime.frames import Frame, FusedFrame
from edgefuse.runtime.live import LiveConfig, Report, Session, StopRequest, run
from edgefuse.runtime.live.capture import Supervisor
from edgefuse.runtime.sinks import Callback
from edgefuse.runtime.sources import Source
from edgefuse.runtime.sources.base import SILENCE, SilencePolicy
from tests.support.servers import MPEG2, TS, TS_TCP, CutOff, Process, Servers, Watch, together

SIM = "sim?size=160x120&fps=25"

URLS = {
    "udp": "udp://127.0.0.1:{port}",
    "tcp": "tcp://127.0.0.1:{port}",
    "http": "http://127.0.0.1:{port}/",
    "rtsp": "rtsp://127.0.0.1:{port}/vis",
}


def pick_visible(ir: Image, vis: Image) -> Image:
    return vis.copy()


@pytest.fixture(autouse=True)
def less_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    """A camera that is absent at the start is waited for only so long before the other is shown alone."""
    for role, policy in SILENCE.items():
        monkeypatch.setitem(SILENCE, role, replace(policy, grace=0.5))


@pytest.fixture
def servers() -> Iterator[Servers]:
    with Servers() as made:
        yield made


def serve(servers: Servers, kind: str, large: bool = False) -> Process:
    size = "240x180" if large else "160x120"
    match kind:
        case "http":
            return servers.mjpeg("larger" if large else "none")
        case "rtsp":
            return servers.rtsp(f"--size={size}")
        case _:
            return servers.ffmpeg(f"{MPEG2} {TS if kind == 'udp' else TS_TCP}", size)


class Watched:
    """A run in a thread, and what it shows."""

    def __init__(self, ir: str | Camera, vis: str | Camera, **config: Any) -> None:
        self.shown: list[tuple[float, FusedFrame]] = []
        self.states: set[State] = set()
        self.stop = StopRequest()
        self.report: Report
        self._ir = ir if isinstance(ir, Camera) else connect(ir, "ir")
        self._vis = vis if isinstance(vis, Camera) else connect(vis, "vis")
        self._config = LiveConfig(**config)
        self.thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        sink = Callback(lambda frame: self.shown.append((time.monotonic(), frame)))
        self.report = run(
            self._ir, self._vis, pick_visible, [sink], self._config, stop=self.stop, progress=self._note
        )

    def _note(self, progress: Report) -> None:
        self.states.update(source.state for source in progress.sources)

    def __enter__(self) -> "Watched":
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        watch = Watch()
        self.stop("enough", immediate=True)
        self.thread.join(20)
        watch.assert_within(2, "a stop, in whatever state,")
        for source in self.report.sources:
            accounted = source.fused + source.unpaired + source.dropped + source.failed
            assert accounted == source.captured, source

    def wait(self, state: str, count: int = 3, within: float = 30.0) -> None:
        """Wait until so many pictures of that state were shown from now on, which may take so long."""
        watch, first, states = Watch(), len(self.shown), list[str]()
        deadline = time.monotonic() + 30
        while states.count(state) < count:
            assert time.monotonic() < deadline, f"no {count} pictures {state!r} in 30 s, but {set(states)}"
            time.sleep(0.01)
            states = [frame.state for _, frame in self.shown[first:]]
        watch.assert_within(within, f"until {count} pictures {state!r} were shown, it")

    @property
    def last(self) -> FusedFrame:
        return self.shown[-1][1]


def until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


# --- servers that are stopped, killed and started again


def test_a_stream_that_dies_and_returns_is_fused_again() -> None:
    together(dies_and_returns, *URLS)


def dies_and_returns(kind: str) -> None:
    with Servers() as servers, Watched(SIM, URLS[kind].format(port=servers.port)) as watched:
        watched.wait("infrared only")  # it is absent at the start
        server = serve(servers, kind)
        watched.wait("fused")
        server.kill()
        watched.wait("infrared only", within=1.5)
        ir = watched.last.ir
        assert ir is not None
        assert watched.last.vis is None
        corner = (slice(0, 30), slice(0, 100))
        assert cv2.absdiff(watched.last.fused[..., 0], ir)[corner].max() > 100, "no label"
        time.sleep(1.2)  # longer than the longest pause between two attempts
        serve(servers, kind, large=True)
        ffmpeg_starts = 1.0 if kind in ("udp", "tcp") else 0.0  # the others have said that they listen
        watched.wait("fused", within=2 + ffmpeg_starts)
        watched.wait("fused", count=20)
        assert watched.last.fused.shape == (180, 240, 3)
    vis = watched.report.sources[1]
    assert vis.losses >= 1
    assert vis.downtime_s > 1
    assert watched.report.shown_alone > 9


def test_a_stream_that_stalls_and_goes_on() -> None:
    together(stalls_and_goes_on, "udp", "http", "rtsp")


def stalls_and_goes_on(kind: str) -> None:
    with Servers() as servers, Watched(SIM, URLS[kind].format(port=servers.port)) as watched:
        server = serve(servers, kind)
        watched.wait("fused")
        os.kill(server.pid, signal.SIGSTOP)
        watched.wait("infrared only", within=1.5)
        time.sleep(2.2)  # it is given up, and opened again in vain
        os.kill(server.pid, signal.SIGCONT)
        watched.wait("fused", within=2)
    assert watched.report.sources[1].losses >= 1
    assert watched.report.sources[1].state is State.LIVE


def test_infrared_that_goes_away_is_missed_by_how_it_goes() -> None:
    """Behind its shutter it is silent for up to 3 s; a closed connection is no shutter."""
    together(lambda how: INFRARED[how](), *INFRARED)


def dies() -> None:
    with Servers() as servers, Watched(f"rtsp://127.0.0.1:{servers.port}/ir", SIM) as watched:
        server = servers.rtsp()
        watched.wait("fused")
        server.kill()
        watched.wait("visible only", within=1.5)
        servers.rtsp("--late=1")  # "not found" for a second
        watched.wait("fused")
    assert watched.report.sources[0].reconnects == 1


def calibrates() -> None:
    with Servers() as servers, Watched(URLS["http"].format(port=servers.port), SIM, max_age=3.0) as watched:
        servers.mjpeg("shutter")
        watched.wait("fused", count=90)
        first = [frame.state for _, frame in watched.shown].index("fused")
        assert "visible only" not in {frame.state for _, frame in watched.shown[first:]}
    ir = watched.report.sources[0]
    assert ir.calibrations >= 1
    assert (ir.losses, ir.reconnects) == (0, 0)
    assert State.CALIBRATING in watched.states


def stays_silent() -> None:
    with Servers() as servers, Watched(URLS["http"].format(port=servers.port), SIM) as watched:
        server = servers.mjpeg("none")
        watched.wait("fused")
        os.kill(server.pid, signal.SIGSTOP)
        watched.wait("visible only", within=1.5)
        time.sleep(3.5)
        os.kill(server.pid, signal.SIGCONT)
        watched.wait("fused", within=2)
    ir = watched.report.sources[0]
    assert (ir.calibrations, ir.losses) == (0, 1)
    assert State.CALIBRATING in watched.states


INFRARED = {"dies": dies, "calibrates": calibrates, "stays silent": stays_silent}


def test_what_is_shown_while_the_visible_camera_is_lost() -> None:
    together(shown_while_lost, "passthrough", "hold", "black")


def shown_while_lost(on_loss: str) -> None:
    state = {"passthrough": "infrared only", "hold": "held", "black": "black"}[on_loss]
    with (
        Servers() as servers,
        Watched("sim?size=64x48", URLS["http"].format(port=servers.port), on_loss=on_loss) as watched,
    ):
        server = servers.mjpeg("none")
        watched.wait("fused")
        server.kill()
        watched.wait(state)
        shape = watched.last.fused.shape
        assert shape == (120, 160, 3)
        mean = watched.last.fused.mean()
    assert mean < 5 if state == "black" else mean > 5
    assert (watched.report.shown_alone > 0) == (on_loss == "passthrough")
    assert (watched.report.repeated > 0) == (on_loss != "passthrough")


def test_the_last_pair_is_held_while_both_cameras_are_lost(servers: Servers) -> None:
    server = servers.mjpeg("none")
    camera = FlakyCamera([60.0])
    url = URLS["http"].format(port=servers.port)
    with Watched(Camera("flaky", camera), url, on_loss="hold") as watched:
        watched.wait("fused")
        server.kill()
        camera.fail.set()
        watched.wait("held", count=10)
        time.sleep(0.7)
        assert watched.last.fused.any()
        assert (watched.last.ir, watched.last.vis) == (None, None)


def test_a_loss_can_end_the_stream(servers: Servers) -> None:
    server = servers.mjpeg("none")
    with Watched(URLS["http"].format(port=servers.port), SIM, on_loss="stop") as watched:
        watched.wait("fused")
        server.kill()
        watched.thread.join(5)
        assert watched.report.ended == "the infrared source was lost"
    assert watched.report.error
    assert str(servers.port) in watched.report.error


# --- servers that misbehave


def test_a_server_that_is_up_before_its_stream_is_waited_for(servers: Servers) -> None:
    servers.mjpeg("missing", "page", "empty", "none")
    with Watched(URLS["http"].format(port=servers.port), SIM) as watched:
        watched.wait("fused")
    assert watched.report.error is None


def test_a_connection_that_breaks_is_opened_again() -> None:
    together(breaks, "cut", "silent", "rtsp")


def breaks(fault: str) -> None:
    """Cut in the middle of a picture, or without a word."""
    with Servers() as servers:
        cut_off = None
        if fault == "rtsp":
            servers.rtsp()
            cut_off = CutOff(servers.port, after=30_001)
            url = URLS["rtsp"].format(port=cut_off.port)
        else:
            servers.mjpeg(fault, "none")
            url = URLS["http"].format(port=servers.port)
        with Watched(SIM, url) as watched:
            watched.wait("fused", count=10)
            until(lambda: cut_off is None or cut_off.cuts == 1)
            watched.wait("fused", count=25, within=25 / 25 + 2 + (2 if fault == "silent" else 0))
        if cut_off is not None:
            cut_off.close()
    vis = watched.report.sources[1]
    assert vis.reconnects == 1
    assert vis.state is State.LIVE


def test_a_camera_that_misbehaves_is_gone_on_with() -> None:
    together(misbehaves, "corrupt", "larger", "stutter", "noisy", "time jumps")


def misbehaves(fault: str) -> None:
    with Servers() as servers:
        first = None
        if fault in ("noisy", "time jumps"):
            how = "-bsf:v noise=amount=400" if fault == "noisy" else "-output_ts_offset 5000"
            first = servers.ffmpeg(f"{MPEG2} {how} {TS}")
        else:
            servers.mjpeg(fault)
        url = URLS["http" if first is None else "udp"].format(port=servers.port)
        with Watched(SIM, url, max_skew=0.3) as watched:
            watched.wait("fused", count=10)
            if first is not None and fault == "time jumps":  # another sender, with another zero
                first.kill()
                servers.ffmpeg(f"{MPEG2} {TS}")
            watched.wait("fused", count=25)
            if fault == "larger":
                assert watched.last.fused.shape == (180, 240, 3)
    assert watched.report.error is None
    assert (watched.report.sources[1].dropped > 5) or fault != "corrupt"


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


def test_a_thread_that_hangs_is_abandoned_replaced_and_counted() -> None:
    camera = FlakyCamera([0.5, 60.0], hangs=True)
    with Watched(SIM, Camera("flaky", camera, silence=SilencePolicy(stuck_read=1.2))) as watched:
        watched.wait("fused")
        watched.wait("infrared only")
        watched.wait("fused")
    assert watched.report.sources[1].stuck_threads == 1
    assert camera.opened == 2
    camera.release.set()


def test_a_camera_that_hangs_for_ever_fails_and_the_other_goes_on() -> None:
    release = threading.Event()

    def hang() -> Source:
        release.wait()
        raise LostError("late")

    with Watched(Camera("hung", hang, silence=SilencePolicy(stuck_open=0.1)), SIM) as watched:
        watched.wait("visible only", count=30)
        assert State.FAILED in watched.states
        watched.wait("visible only")
    assert watched.report.sources[0].stuck_threads == 4
    assert watched.report.sources[0].state is State.FAILED
    release.set()


class _Frozen(Source):
    live, fps, length, name = True, 50.0, None, "frozen"

    def read(self) -> Frame | None:
        time.sleep(0.005)
        now = time.monotonic()
        return Frame(np.zeros((4, 4), np.uint8), 0, now, now)

    def close(self) -> None:
        pass


def test_a_camera_whose_picture_stands_still_is_opened_again() -> None:
    connections: list[int] = []
    third = threading.Event()

    def deliver(frame: Frame, lost: int) -> StillState:
        connections.append(frame.connection)
        if frame.connection == 2:
            third.set()
            return "live"
        return "frozen"

    supervisor = Supervisor(
        "ir", Camera("frozen", _Frozen, silence=SilencePolicy(frozen=0.1)), deliver, lambda _: None
    )
    supervisor.start()
    assert third.wait(20)
    supervisor.stop()
    supervisor.join(time.monotonic() + 5)
    assert connections == sorted(connections)
    assert set(connections) == {0, 1, 2}, "each frame says which connection it came through"
    assert supervisor.health.reconnects == 2
    assert supervisor.health.losses == 0, "it had never given a new picture"


def test_frames_from_before_a_reconnection_keep_their_clock() -> None:
    """They can still be waiting in a queue when the camera is open again, with another zero."""
    camera = Camera("c", FlakyCamera([60.0]))
    session = Session(camera, camera, pick_visible)
    image = np.zeros((4, 4), np.uint8)
    for n in range(50):
        session._time_of("ir", Frame(image, n, 1000 + n / 25, n / 25))
    session.capture.supervisors["ir"].health.reconnects = 1
    # Held up by 0.4 s: on a clock that knows nothing yet, it would seem to have been taken then.
    assert session._time_of("ir", Frame(image, 50, 1002.0, 2.4)) == pytest.approx(2.0)
    assert session._time_of("ir", Frame(image, 0, 5.0, 2.5, connection=1)) == pytest.approx(2.5)
    assert session.clocks["ir"].jumps == 0


def test_a_clock_that_is_set_does_not_part_the_cameras() -> None:
    together(clock_is_set, "-3600", "0.2")


def clock_is_set(jump: str) -> None:
    camera = Camera("flaky", FlakyCamera([0.7], jump=float(jump)))
    with Watched(camera, SIM, max_skew=0.1) as watched:
        watched.wait("fused", count=60)
    assert watched.report.sources[0].reconnects >= 1
    assert watched.report.frames > 0.4 * len(watched.shown)


def test_back_off_is_capped_at_a_second() -> None:
    times: list[float] = []

    def absent() -> Source:
        times.append(time.monotonic())
        raise LostError("not there")

    with Watched(Camera("absent", absent), SIM) as watched:
        watched.wait("visible only", count=40)
    waits = np.diff(times)
    assert waits[0] < 0.3
    assert waits.max() < 1.3
    assert len(times) <= 8


def test_what_was_asked_for_wrongly_is_an_error_at_once() -> None:
    def wrong() -> Source:
        raise SourceError("cam0: the camera gives 640x480 in place of 1x1")

    with Watched(Camera("cam0", wrong), SIM) as watched:
        watched.thread.join(5)
    assert watched.report.error == "cam0: the camera gives 640x480 in place of 1x1"


def test_messages_come_once_per_loss_and_return(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", "edgefuse"), Watched(Camera("c", FlakyCamera([0.6])), SIM) as watched:
        watched.wait("fused", count=60)
    said = [
        m for m in caplog.messages if m.startswith(("infrared lost", "infrared still", "infrared is back"))
    ]
    assert said[:2] == ["infrared lost: flaky: unplugged", said[1]]
    assert said[1].startswith("infrared is back after 0.")
    assert len(said) <= 3, "one that comes and goes all the time is not told all the time"


# --- the stopwatch of these tests


def test_a_program_that_holds_everything_up_itself_is_not_forgiven() -> None:
    watch = Watch()
    watch.assert_within(10, "nothing")
    begun = time.monotonic()
    while time.monotonic() < begun + 0.6:
        sum(range(10_000_000))  # no other thread of this process runs meanwhile
    with pytest.raises(AssertionError, match="the sum took"):
        watch.assert_within(0.1, "the sum")


def test_a_machine_too_busy_to_tell_is_said() -> None:
    late = [0.0, 0.0, 0.9, 1.1]
    watch = Watch(lambda: late.pop(0))
    time.sleep(0.05)
    with pytest.raises(AssertionError):
        watch.assert_within(0.01, "late by none of its own")
    watch.assert_within(0.01, "late by what the machine took")
    with pytest.raises(pytest.skip.Exception, match="too busy to tell"):
        watch.assert_within(0.01, "late by nobody knows what")


# --- the command


def test_signals_end_the_command_in_every_state(tmp_path: Path) -> None:
    def scenario(camera: str) -> None:
        with Servers() as servers:
            signalled(servers, camera, tmp_path / "out.mp4")

    together(scenario, "absent", "silent, and a slow reader")


def signalled(servers: Servers, camera: str, out: Path) -> None:
    """The reader reads nothing at all."""
    if camera != "absent":
        servers.mjpeg("silent")
    url, to = URLS["http"].format(port=servers.port), str(out) if camera == "absent" else "-"
    command = [sys.executable, "-m", "edgefuse", "stream", "--ir", url, "--vis", SIM, "--out", to]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    told = process.stderr if to == "-" else process.stdout
    assert told is not None
    assert b"sim" in told.readline()  # the stream begins
    if to == "-":
        time.sleep(2.0)
    else:  # the other camera is shown alone after 2 s
        until(lambda: sum(part.stat().st_size for part in out.parent.glob("out-*.part.mp4")) > 5000)
    time.sleep(0.5)
    watch = Watch()
    process.send_signal(signal.SIGINT if camera == "absent" else signal.SIGTERM)
    process.wait(20)
    watch.assert_within(2, "the end after a signal")
    output, errors = process.communicate()
    assert b"Traceback" not in errors
    assert b"ended:" in (errors if to == "-" else output)
    assert to == "-" or cv2.VideoCapture(to).get(cv2.CAP_PROP_FRAME_COUNT) > 2
