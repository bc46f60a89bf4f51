"""Network sources against real servers on the loopback interface: ffmpeg and gst-rtsp-server, from Debian."""

import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from edgefuse.errors import LostError, SourceError
from edgefuse.runtime.sources import Frame, Source, open_source

Serve = Callable[..., "subprocess.Popen[bytes]"]

X264 = "-c:v libx264 -preset ultrafast -tune zerolatency -g 12 -pix_fmt yuv420p -f mpegts"
MJPEG = "-c:v mjpeg -q:v 4 -f mpjpeg -listen 1"


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start ffmpeg with a test picture; it is killed at the end."""
    ffmpeg = shutil.which("ffmpeg")
    if ffmpeg is None:
        pytest.skip("needs ffmpeg: apt-get install ffmpeg")
    running = []

    def start(output: str, size: str = "320x240", rate: int = 25) -> "subprocess.Popen[bytes]":
        picture = f"-re -f lavfi -i testsrc2=size={size}:rate={rate}"
        command = [ffmpeg, "-loglevel", "quiet", *picture.split(), *output.split()]
        running.append(subprocess.Popen(command, stdin=subprocess.DEVNULL))
        return running[-1]

    yield start
    for process in running:
        process.kill()
        process.wait()


def connect(url: str, role="vis", seconds: float = 8.0) -> Source:
    """Open a source as soon as its server is up."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return open_source(url, role)
        except LostError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def read(source: Source, count: int) -> list[Frame]:
    frames = [source.read() for _ in range(count)]
    return [frame for frame in frames if frame is not None]


def until_lost(source: Source) -> tuple[str, float]:
    """Read on; return what was said of the end, and how long the last read took."""
    while True:
        begun = time.monotonic()
        try:
            source.read()
        except LostError as error:
            return str(error), time.monotonic() - begun


@pytest.mark.parametrize("scheme", ["udp", "tcp"])
def test_mpeg_ts_has_the_servers_times(serve: Serve, port: int, scheme: str) -> None:
    serve(f"{X264} {scheme}://127.0.0.1:{port}" + ("?listen=1" if scheme == "tcp" else "?pkt_size=1316"))
    with connect(f"{scheme}://127.0.0.1:{port}") as source:
        assert source.live
        assert source.fps == 25
        frames = read(source, 20)
    assert frames[0].image.shape == (240, 320, 3)
    steps = [b.timestamp - a.timestamp for a, b in pairwise(frames)]
    assert steps == pytest.approx([0.04] * 19, abs=1e-4)  # whatever the network did
    assert all(a.captured <= b.captured for a, b in pairwise(frames))


def test_infrared_is_decoded_to_grey(serve: Serve, port: int) -> None:
    serve(f"{X264} udp://127.0.0.1:{port}?pkt_size=1316")
    with connect(f"udp://:{port}", "ir") as source:
        assert read(source, 2)[1].image.shape == (240, 320)


def test_mjpeg_has_no_times_but_those_of_arrival(serve: Serve, port: int) -> None:
    serve(f"{MJPEG} http://127.0.0.1:{port}/live", rate=20)
    with connect(f"http://127.0.0.1:{port}/live") as source:
        frames = read(source, 20)
    assert all(f.timestamp == f.captured for f in frames)
    assert frames[-1].captured - frames[0].captured == pytest.approx(19 / 20, abs=0.5)


@pytest.mark.parametrize("fault", [signal.SIGSTOP, signal.SIGKILL], ids=["stops", "dies"])
@pytest.mark.parametrize(
    "output", [f"{X264} tcp://127.0.0.1:PORT?listen=1", f"{MJPEG} http://127.0.0.1:PORT"]
)
def test_a_server_that_stalls_or_dies_is_lost_in_time(
    serve: Serve, port: int, output: str, fault: int
) -> None:
    server = serve(output.replace("PORT", str(port)))
    url = output.replace("PORT", str(port)).split()[-1].removesuffix("?listen=1")
    with connect(url) as source:
        read(source, 5)
        os.kill(server.pid, fault)
        said, seconds = until_lost(source)
    assert url in said
    assert seconds < 2.5
    if fault == signal.SIGSTOP:
        assert "no picture for 2 s" in said


def test_a_stream_that_comes_back_larger_is_read_on(serve: Serve, port: int) -> None:
    """UDP has no connection: another camera may send to the same port."""
    first = serve(f"{X264} udp://127.0.0.1:{port}?pkt_size=1316")
    with connect(f"udp://127.0.0.1:{port}") as source:
        read(source, 5)
        first.kill()
        first.wait()
        serve(f"{X264} udp://127.0.0.1:{port}?pkt_size=1316", size="480x352")
        sizes = {frame.image.shape for frame in read(source, 60)}
    assert sizes == {(240, 320, 3), (352, 480, 3)}


def test_garbage_between_the_packets_is_survived_or_said(serve: Serve, port: int) -> None:
    serve(f"{X264} udp://127.0.0.1:{port}?pkt_size=1316")
    with connect(f"udp://127.0.0.1:{port}") as source, socket.socket(type=socket.SOCK_DGRAM) as noise:
        for n in range(40):
            noise.sendto(os.urandom(1316), ("127.0.0.1", port))
            try:
                frame = source.read()
            except SourceError:
                break
            assert frame is not None
            assert frame.image.shape[2] == 3, n


def test_a_connection_cut_in_the_middle_of_a_picture(port: int) -> None:
    """A server that sends half a JPEG and hangs up."""

    def half() -> None:
        with socket.create_server(("127.0.0.1", port)) as listener:
            peer, _ = listener.accept()
            peer.recv(4096)
            head = b"HTTP/1.0 200 OK\r\nContent-Type: multipart/x-mixed-replace;boundary=f\r\n\r\n"
            peer.sendall(head + b"--f\r\nContent-Type: image/jpeg\r\nContent-Length: 5000\r\n\r\n\xff\xd8")
            peer.close()

    server = threading.Thread(target=half)
    server.start()
    time.sleep(0.1)
    with pytest.raises(SourceError), connect(f"http://127.0.0.1:{port}/live", seconds=0) as source:
        source.read()
    server.join()


def test_a_server_that_is_no_video_is_said(port: int) -> None:
    def page() -> None:
        with socket.create_server(("127.0.0.1", port)) as listener:
            peer, _ = listener.accept()
            peer.recv(4096)
            peer.sendall(b"HTTP/1.0 200 OK\r\nContent-Type: text/html\r\n\r\n" + b"<html>hello</html>" * 400)
            peer.close()

    server = threading.Thread(target=page)
    server.start()
    time.sleep(0.1)
    with pytest.raises(SourceError, match=f"127.0.0.1:{port}/ (cannot be|has no video)"):
        open_source(f"http://127.0.0.1:{port}/", "vis")
    server.join()


def test_closing_under_a_reader_ends_it(serve: Serve, port: int) -> None:
    """The reader is inside the library; the one who closes must not wait for it, nor free what it uses."""
    server = serve(f"{X264} udp://127.0.0.1:{port}?pkt_size=1316")
    source = connect(f"udp://127.0.0.1:{port}")
    read(source, 2)
    server.kill()
    ended = threading.Event()

    def reader() -> None:
        with pytest.raises(LostError):
            read(source, 1000)
        ended.set()

    thread = threading.Thread(target=reader)
    thread.start()
    time.sleep(0.3)
    begun = time.monotonic()
    source.close()
    assert time.monotonic() - begun < 0.5
    assert ended.wait(3.0)
    thread.join()


# --- RTSP


@pytest.fixture(params=[False, True], ids=["open", "password"])
def rtsp(request: pytest.FixtureRequest, port: int) -> Iterator[str]:
    """A server; the address to read it at, up to the path."""
    python = Path("/usr/bin/python3")
    script = Path(__file__).with_name("rtsp_server.py")
    command = [str(python), str(script), str(port), *(["--password"] if request.param else [])]
    if not python.exists():
        pytest.skip("needs the system's Python in /usr/bin")
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as server:
        assert server.stdout is not None
        if server.stdout.readline() != b"ready\n":
            pytest.skip(
                "needs python3-gi, gir1.2-gst-rtsp-server-1.0 and GStreamer's good, bad, ugly plugins"
            )
        yield f"rtsp://{'me:hunter2@' if request.param else ''}127.0.0.1:{port}"
        server.kill()


@pytest.mark.parametrize("transport", ["", "#transport=udp"])
def test_both_channels_of_an_rtsp_camera(rtsp: str, transport: str) -> None:
    with connect(f"{rtsp}/ir{transport}", "ir") as ir, connect(f"{rtsp}/vis{transport}") as vis:
        assert "hunter2" not in ir.name
        assert read(ir, 3)[-1].image.shape == (240, 320)
        frames = read(vis, 10)
    steps = [b.timestamp - a.timestamp for a, b in pairwise(frames)]
    assert steps == pytest.approx([0.04] * 9, abs=0.01)


def test_a_wrong_path_or_password_is_said_without_the_password(rtsp: str) -> None:
    wrong = rtsp.replace("hunter2", "letmein")
    with pytest.raises(SourceError, match=r"cannot be used.*40[14]") as error:
        connect(f"{wrong}/{'ir' if '@' in rtsp else 'none'}")
    assert "letmein" not in str(error.value)
