"""The live page under attack: by guessers, other web sites, and clients that only hold connections."""

import json
import logging
import socket
import sys
import time
from contextlib import ExitStack
from dataclasses import replace

import pytest

from edgefuse.runtime.serve import Access, Address

pytest.importorskip("starlette", reason="the extra serve is not installed")
pytest.importorskip("uvicorn", reason="the extra serve is not installed")

from edgefuse.runtime.serve import app
from tests.test_serve import Noise, Served

ON = '{"on": true}'


def test_malformed_headers_are_refused_without_a_traceback(caplog: pytest.LogCaptureFixture) -> None:
    with Served() as served:
        for host in ("[::1", "::1]", "a[b"):
            assert served.ask("/", Host=host)[0].status == 400, host
        assert served.ask("/api/recording", "POST", ON, Origin="http://[")[0].status == 403
        assert served.page.recorder.recording is None
    with Served("0.0.0.0") as served:
        bearer = f"Bearer {served.page.access.token}"
        answer, _ = served.ask("/api/recording", "POST", ON, Origin="http://[", Authorization=bearer)
        assert answer.status == 403
        assert served.ask("/", Host="[::1")[0].status == 401
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_guessing_is_answered_with_429_but_the_token_still_works() -> None:
    limit = app.WRONG_TOKENS_PER_MINUTE
    with Served("0.0.0.0") as served:
        statuses = [
            served.ask(f"/?token={n}", X_Forwarded_For=f"10.0.0.{n}")[0].status for n in range(limit + 5)
        ]
        assert statuses == [401] * limit + [429] * 5
        token = served.page.access.token
        assert served.ask("/healthz", Authorization=f"Bearer {token}")[0].status == 200


def test_another_web_site_does_not_lock_out_who_visits_it() -> None:
    with Served() as served:
        for _ in range(app.WRONG_TOKENS_PER_MINUTE + 5):
            evil = {"Origin": "http://evil.example"}
            assert served.ask("/api/recording", "POST", ON, **evil)[0].status == 403
        assert served.ask("/healthz")[0].status == 200


def test_many_clients_do_not_hide_a_guesser(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "MAX_CLIENTS", 3)
    guard = app._Guard(lambda *_: None, Access(Address("0.0.0.0", 1)))
    for n in range(app.WRONG_TOKENS_PER_MINUTE):
        assert not guard._is_guessing("guesser")
        guard._is_guessing(f"client {n}")
    assert guard._is_guessing("guesser")
    assert len(guard._wrong) == 3


def test_who_reads_nothing_is_disconnected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "SEND_SECONDS", 0.4)
    with Served(vis=Noise(None, live=True, fps=25)) as served, ExitStack() as stack:
        connections = served.page._server.server_state.connections
        stream = b"GET /stream.mjpg?width=640 HTTP/1.1\r\nHost: localhost\r\n\r\n"
        pictures = b"GET /snapshot.jpg?width=640 HTTP/1.1\r\nHost: localhost\r\n\r\n" * 40
        for request in (stream, stream, pictures):
            client = stack.enter_context(socket.socket())
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect(("127.0.0.1", served.page.access.address.port))
            client.sendall(request)
        deadline = time.monotonic() + 15
        while len(connections) < 3 and time.monotonic() < deadline:
            time.sleep(0.01)
        while connections and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not connections


@pytest.mark.skipif(sys.platform != "linux", reason="the other addresses of loopback are Linux'")
def test_idle_connections_of_other_machines_lock_nobody_else_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "MAX_OF_CLIENT", 3)
    monkeypatch.setattr(app, "MAX_REMOTE", 5)
    monkeypatch.setattr(app, "_is_this_machine", "127.0.0.1".__eq__)
    with Served("0.0.0.0") as served, ExitStack() as stack:
        port = served.page.access.address.port

        def admitted(address: str) -> bool:
            client = socket.create_connection(("127.0.0.1", port), 5, (address, 0))
            stack.enter_context(client)
            try:
                client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                return client.recv(100).startswith(b"HTTP/1.1 401")
            except ConnectionError:
                return False

        assert [admitted("127.0.0.2") for _ in range(6)] == [True] * 3 + [False] * 3
        assert [admitted("127.0.0.3") for _ in range(4)] == [True] * 2 + [False] * 2
        assert [admitted("127.0.0.1") for _ in range(8)] == [True] * 8


def test_the_headers_are_on_the_answer_of_a_server_that_is_full() -> None:
    with Served() as served:
        served.page._server.config.limit_concurrency = 1
        assert served.ask("/healthz")[0].status == 503


def test_this_machine_is_known() -> None:
    assert all(map(app._is_this_machine, ("127.0.0.1", "::1", "::ffff:127.0.0.1")))
    assert not any(map(app._is_this_machine, ("10.0.0.1", "::ffff:10.0.0.1", "fe80::1", "")))


def test_a_redirection_stays_on_the_page() -> None:
    with Served("0.0.0.0") as served:
        token = served.page.access.token
        for path in (
            "//evil.example",
            "/%5Cevil.example",
            "/%5C/evil.example",
            "/%09/evil.example",
            "/%0d%0aX:%20y",
        ):
            answer, _ = served.ask(f"{path}?token={token}")
            assert answer.status == 303
            target = answer.headers["Location"]
            assert target[0] == "/" != target[1], target
            assert "\\" not in target
            assert answer.headers["X"] is None


def test_two_pages_on_one_host_do_not_log_each_other_out() -> None:
    with Served("0.0.0.0") as one, Served("0.0.0.0") as other:
        cookies = []
        for served in (one, other):
            answer, _ = served.ask(f"/?token={served.page.access.token}")
            cookies.append(answer.headers["Set-Cookie"].partition(";")[0])
        kept = dict(cookie.split("=", 1) for cookie in cookies)  # as a browser does, which ignores ports
        both = "; ".join(f"{name}={value}" for name, value in kept.items())
        assert [served.ask("/", Cookie=both)[0].status for served in (one, other)] == [200, 200]


def test_what_fails_is_logged_once_and_by_us(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise RuntimeError("a defect")

    with Served() as served:
        monkeypatch.setattr(served.page, "report", fail)
        assert [served.ask("/api/state")[0].status for _ in range(3)] == [500] * 3
        with socket.create_connection(("127.0.0.1", served.page.access.address.port), 5) as client:
            client.sendall(b"no HTTP at all\r\n\r\n")
            assert client.recv(100).startswith(b"HTTP/1.1 400")
    (record,) = (record for record in caplog.records if record.levelno >= logging.WARNING)
    assert record.name == "edgefuse.runtime.serve.app"
    assert "a defect" in caplog.text


def test_an_output_that_failed_is_a_problem_of_health(monkeypatch: pytest.MonkeyPatch) -> None:
    with Served() as served:
        report = served.page.report()
        failed = replace(report.sinks[0], error="out.mp4: no space left on device")
        monkeypatch.setattr(served.page, "report", lambda: replace(report, sinks=(failed,)))
        answer, data = served.ask("/healthz")
    assert answer.status == 503
    assert json.loads(data)["problems"] == ["out.mp4: no space left on device"]
