"""The live page under attack: by guessers, other web sites, and clients that only hold connections."""

import logging

import pytest

from edgefuse.runtime.serve import Access, Address

pytest.importorskip("starlette", reason="the extra serve is not installed")
pytest.importorskip("uvicorn", reason="the extra serve is not installed")

from edgefuse.runtime.serve import app
from tests.test_serve import Served

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
