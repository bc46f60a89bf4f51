"""Servers for the tests of streams: real processes on the loopback interface, killed at the end."""

import atexit
import mmap
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, TypeAlias

import cv2
import numpy as np
import pytest

if TYPE_CHECKING:
    from typing_extensions import Self

Process: TypeAlias = "subprocess.Popen[bytes]"

HERE = Path(__file__).parent
SYSTEM_PYTHON = Path("/usr/bin/python3")  # which has the bindings of GStreamer

TS = "-f mpegts udp://127.0.0.1:{port}?pkt_size=1316"
TS_TCP = "-f mpegts tcp://127.0.0.1:{port}?listen=1"
MPEG2 = "-c:v mpeg2video -g 5"
H264 = "-c:v libx264 -preset ultrafast -tune zerolatency -g 12 -pix_fmt yuv420p"
MJPEG = "-c:v mjpeg -q:v 4 -f mpjpeg -listen 1 http://127.0.0.1:{port}"


MOST_FORGIVEN = 1.0  # seconds of a busy machine's that a stopwatch takes off


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Servers:
    """Starts servers at `port`, one after the other or at once."""

    def __init__(self) -> None:
        self.port = free_port()
        self._running: list[Process] = []

    def __enter__(self) -> "Self":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._running:
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()

    def ffmpeg(self, output: str, size: str = "160x120", rate: int = 25) -> Process:
        """Send a test picture: `{port}` in `output` is replaced. Returns at once."""
        program = shutil.which("ffmpeg")
        if program is None:
            pytest.skip("needs ffmpeg: apt-get install ffmpeg")
        picture = f"-loglevel quiet -re -f lavfi -i testsrc2=size={size}:rate={rate}"
        return self._start(program, *f"{picture} {output}".format(port=self.port).split())

    def mjpeg(self, *faults: str) -> Process:
        """Serve MJPEG over HTTP with these faults, see `mjpeg_server.py`."""
        script, pictures = str(HERE / "mjpeg_server.py"), str(_pictures())
        return self._ready(self._start(sys.executable, "-IS", script, str(self.port), pictures, *faults))

    def rtsp(self, *options: str) -> Process:
        """Serve `/ir` and `/vis` over RTSP, see `rtsp_server.py`."""
        if not SYSTEM_PYTHON.exists():
            pytest.skip(f"needs the system's Python, {SYSTEM_PYTHON}")
        server = self._start(str(SYSTEM_PYTHON), str(HERE / "rtsp_server.py"), str(self.port), *options)
        return self._ready(
            server, "needs python3-gi, gir1.2-gst-rtsp-server-1.0 and GStreamer's good, bad, ugly plugins"
        )

    def _start(self, *command: str) -> Process:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        self._running.append(process)
        return process

    def _ready(self, server: Process, needs: str | None = None) -> Process:
        assert server.stdout is not None
        if server.stdout.readline() != b"ready\n":
            if needs is None:
                raise AssertionError("the server does not come up")
            pytest.skip(needs)
        return server


@cache
def _pictures() -> Path:
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for name, (width, height) in (("small", (160, 120)), ("large", (240, 180))):
        (folder / name).mkdir()
        for n in range(16):
            image = np.full((height, width, 3), 40 + 10 * n, np.uint8)
            cv2.putText(image, str(n), (4, 30), cv2.FONT_HERSHEY_SIMPLEX, 0.8, (255, 255, 255))
            (folder / name / f"{n:02}.jpg").write_bytes(cv2.imencode(".jpg", image)[1].tobytes())
    return folder


def together(scenario: Callable[[str], None], *cases: str) -> None:
    """Run a scenario for several cases side by side: servers and clients mostly wait."""
    with ThreadPoolExecutor(len(cases)) as pool:
        futures = {case: pool.submit(scenario, case) for case in cases}
    for case, future in futures.items():
        if error := future.exception():
            print(f"in the case {case!r}")  # pytest shows it beside the failure
            raise error


class Watch:
    """A stopwatch that forgives what a busy machine takes, up to `MOST_FORGIVEN` seconds.

    How late the machine wakes those who sleep is measured by a process of its own, which the program under
    test cannot hold up.
    """

    def __init__(self, late: Callable[[], float] | None = None) -> None:
        self._late = late or _lateness()
        self._begun, self._late_before = time.monotonic(), self._late()

    def assert_within(self, seconds: float, what: str) -> None:
        """Fail if more time than that has passed, or skip if the machine is too busy to tell."""
        passed, late = time.monotonic() - self._begun, self._late() - self._late_before
        if passed <= seconds:
            return
        if late > MOST_FORGIVEN:
            pytest.skip(f"the machine woke a sleeper {late:.1f} s late in {passed:.1f} s: too busy to tell")
        assert passed - late <= seconds, f"{what} took {passed:.2f} s, {late:.2f} s of it for a busy machine"


LATENESS = """
import mmap, struct, sys, time
with open(sys.argv[1], "r+b") as file, mmap.mmap(file.fileno(), 8) as told:
    late = 0.0
    print("ready", flush=True)
    while True:
        begun = time.monotonic()
        time.sleep(0.01)
        late += max(0.0, time.monotonic() - begun - 0.015)
        struct.pack_into("d", told, 0, late)
"""


@cache
def _lateness() -> Callable[[], float]:
    """Start the process that measures, and return what tells its sum of seconds."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(bytes(8))
        file.flush()
        process = subprocess.Popen([sys.executable, "-IS", "-c", LATENESS, file.name], stdout=subprocess.PIPE)
        atexit.register(process.kill)
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.stdout.close()
        told = mmap.mmap(file.fileno(), 8, access=mmap.ACCESS_READ)
    return lambda: float(struct.unpack_from("d", told)[0])


class CutOff:
    """Stands before a server and cuts its first connection off after so many bytes, wherever that is."""

    def __init__(self, server: int, after: int) -> None:
        self._server, self._left = server, after
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.cuts = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        # A shutdown wakes the thread that waits in accept; a close alone would not.
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._server))
                for source, sink in ((client, server), (server, client)):
                    counts = source is server and not self.cuts
                    threading.Thread(target=self._pump, args=(source, sink, counts), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, counts: bool) -> None:
        with suppress(OSError):
            while data := source.recv(1500):
                if counts and len(data) >= self._left:
                    sink.sendall(data[: self._left])
                    self.cuts += 1
                    break
                self._left -= len(data) if counts else 0
                sink.sendall(data)
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
