"""Network sources against real servers on the loopback interface: ffmpeg and gst-rtsp-server, from Debian."""

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from itertools import pairwise

import pytest

from edgefuse.errors import LostError, SourceError
from edgefuse.runtime.frames import Frame
from edgefuse.runtime.sources import Source, open_source
from tests.support.servers import H264, MJPEG, TS, TS_TCP, Servers, Watch, together


@pytest.fixture
def servers() -> Iterator[Servers]:
    with Servers() as made:
        yield made


@pytest.fixture
def port(servers: Servers) -> int:
    return servers.port


def connect(url: str, role="vis", seconds: float = 20.0) -> Source:
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


def until_lost(source: Source, within: float) -> str:
    """Read on; return what was said of the end. The last read may take so many seconds."""
    try:
        while True:
            watch = Watch()
            source.read()
    except LostError as error:
        watch.assert_within(within, "the last read")
        return str(error)


@pytest.mark.parametrize("scheme", ["udp", "tcp"])
def test_mpeg_ts_has_the_servers_times(servers: Servers, port: int, scheme: str) -> None:
    servers.ffmpeg(f"{H264} {TS_TCP if scheme == 'tcp' else TS}", "320x240")
    with connect(f"{scheme}://127.0.0.1:{port}") as source:
        assert source.live
        assert source.fps == 25
        frames = read(source, 20)
    assert frames[0].image.shape == (240, 320, 3)
    steps = [b.timestamp - a.timestamp for a, b in pairwise(frames)]
    assert steps == pytest.approx([0.04] * 19, abs=1e-4)  # whatever the network did
    assert all(a.captured <= b.captured for a, b in pairwise(frames))


def test_infrared_is_decoded_to_grey(servers: Servers, port: int) -> None:
    servers.ffmpeg(f"{H264} {TS}", "320x240")
    with connect(f"udp://:{port}", "ir") as source:
        assert read(source, 2)[1].image.shape == (240, 320)


def test_mjpeg_has_no_times_but_those_of_arrival(servers: Servers, port: int) -> None:
    servers.ffmpeg(f"{MJPEG}/live", rate=20)
    with connect(f"http://127.0.0.1:{port}/live") as source:
        frames = read(source, 20)
    assert all(f.timestamp == f.captured for f in frames)
    assert frames[-1].captured - frames[0].captured == pytest.approx(19 / 20, abs=0.5)


def test_a_server_that_stalls_or_dies_is_lost_in_time() -> None:
    together(is_lost, "tcp stops", "tcp dies", "http stops", "http dies")


def is_lost(case: str) -> None:
    scheme, fault = case.split()
    with Servers() as servers:
        server = servers.ffmpeg(MJPEG if scheme == "http" else f"{H264} {TS_TCP}")
        url = f"{scheme}://127.0.0.1:{servers.port}"
        with connect(url) as source:
            read(source, 5)
            os.kill(server.pid, signal.SIGSTOP if fault == "stops" else signal.SIGKILL)
            said = until_lost(source, within=2.5)
    assert url in said
    assert "no picture for 2 s" in said or fault == "dies"


def test_a_stream_that_comes_back_larger_is_read_on(servers: Servers, port: int) -> None:
    """UDP has no connection: another camera may send to the same port."""
    first = servers.ffmpeg(f"{H264} {TS}", "320x240")
    with connect(f"udp://127.0.0.1:{port}") as source:
        read(source, 5)
        first.kill()
        first.wait()
        servers.ffmpeg(f"{H264} {TS}", "480x352")
        sizes = {frame.image.shape for frame in read(source, 60)}
    assert sizes == {(240, 320, 3), (352, 480, 3)}


def test_garbage_between_the_packets_is_survived_or_said(servers: Servers, port: int) -> None:
    servers.ffmpeg(f"{H264} {TS}", "320x240")
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
    with pytest.raises(LostError, match=f"127.0.0.1:{port}/ (cannot be|has no video)"):
        open_source(f"http://127.0.0.1:{port}/", "vis")
    server.join()


def test_closing_under_a_reader_ends_it(servers: Servers, port: int) -> None:
    """The reader is inside the library; the one who closes must not wait for it, nor free what it uses."""
    server = servers.ffmpeg(f"{H264} {TS}", "320x240")
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


def test_both_channels_of_an_rtsp_camera() -> None:
    together(both_channels, "", "#transport=udp", "--password", "--password #transport=udp")


def both_channels(case: str) -> None:
    user = "me:hunter2@" if "--password" in case else ""
    transport = case.removeprefix("--password").strip()
    with Servers() as servers:
        servers.rtsp(*(["--password"] if user else []))
        url = f"rtsp://{user}127.0.0.1:{servers.port}"
        with connect(f"{url}/ir{transport}", "ir") as ir, connect(f"{url}/vis{transport}") as vis:
            assert "hunter2" not in ir.name
            assert read(ir, 3)[-1].image.shape == (240, 320)
            frames = read(vis, 10)
    steps = [b.timestamp - a.timestamp for a, b in pairwise(frames)]
    assert steps == pytest.approx([0.04] * 9, abs=0.01)


def test_a_wrong_password_is_an_error_at_once(servers: Servers) -> None:
    servers.rtsp("--password")
    for user in ("", "me:letmein@"):
        with pytest.raises(SourceError, match=r"cannot be used.*401.*check user and password") as error:
            open_source(f"rtsp://{user}127.0.0.1:{servers.port}/ir", "ir")
        assert not isinstance(error.value, LostError)
        assert "letmein" not in str(error.value)


def test_a_path_that_is_not_there_may_be_there_later(servers: Servers) -> None:
    servers.rtsp("--late=0.7")
    url = f"rtsp://127.0.0.1:{servers.port}/ir"
    with pytest.raises(LostError, match="cannot be opened: Server returned 404 Not Found"):
        open_source(url, "ir")
    with connect(url, "ir") as source:
        assert read(source, 1)
