"""A stream as a service: the unit file and what systemd is told."""

import os
import shutil
import socket
import subprocess
import sys
from contextlib import closing

import pytest

from edgefuse.runtime.service import ServiceNotifier, make_unit

SIM = ("--ir", "sim?size=160x128", "--vis", "sim?size=160x128")


@pytest.fixture
def manager(tmp_path, monkeypatch):
    """What systemd listens on."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.settimeout(0.0)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield listener


def heard(manager):
    states = []
    try:
        while True:
            states.append(manager.recv(4096).decode())
    except BlockingIOError:
        return states


def test_a_stream_tells_that_it_is_ready_alive_and_stopping(run, manager):
    status, _, err = run("stream", *SIM, "--duration", "1.5", "--threads", "1")
    assert status == 0, err
    first, *beats, last = heard(manager)
    assert (first, last) == ("READY=1", "STOPPING=1")
    assert set(beats) == {"WATCHDOG=1"}
    assert len(beats) >= 2
    assert "NOTIFY_SOCKET" not in os.environ, "a child would speak in its name"


def test_ready_is_said_again_until_it_is_heard(tmp_path, monkeypatch):
    path = str(tmp_path / "late")
    monkeypatch.setenv("NOTIFY_SOCKET", path)
    with closing(ServiceNotifier()) as service:
        service.beat()
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
            listener.bind(path)
            listener.settimeout(0.0)
            service.beat()
            service.beat()
            assert heard(listener) == ["READY=1", "WATCHDOG=1", "WATCHDOG=1"]


def test_an_abstract_address(monkeypatch):
    name = f"edgefuse-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(f"\0{name}")
        listener.settimeout(0.0)
        monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}")
        with closing(ServiceNotifier()) as service:
            service.stopping()
        assert heard(listener) == ["STOPPING=1"]


def test_without_a_manager_nothing_is_asked_of_the_stream(monkeypatch):
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    with closing(ServiceNotifier()) as service:
        assert service.beating(None) is None
        service.beat()
        service.stopping()


def test_the_unit_runs_what_was_given(run, tmp_path):
    out = (
        "--out",
        "a b%.mp4",
        "--ir",
        "rtsp://me:${CAM}@10.0.0.5/live?x=1",
        "--vis",
        "cam1",
        "--serve",
        "8080",
    )
    status, unit, err = run("service", "--user", "edge", "--", "stream", *out)
    assert status == 0, err
    lines = dict(line.split("=", 1) for line in unit.splitlines() if "=" in line)
    assert lines["ExecStart"] == (
        f'{sys.executable} -m edgefuse stream --out "a b%%.mp4" '
        "--ir rtsp://me:$${CAM}@10.0.0.5/live?x=1 --vis cam1 --serve 8080"
    )
    assert lines["Type"] == "notify"
    assert lines["User"] == "edge"
    assert lines["WorkingDirectory"] == str(tmp_path)
    assert lines["EnvironmentFile"] == "-/etc/edgefuse.env"
    assert {"WatchdogSec", "Restart", "MemoryMax"} <= lines.keys()


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_accepts_the_unit(tmp_path):
    unit = tmp_path / "edgefuse.service"
    args = [*SIM, "--out", 'a "b" \\ $c %d.mp4', "--set", "max_skew=0.1"]
    unit.write_text(make_unit(args, tmp_path, "root", tmp_path / "env"))
    done = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True)
    complaints = [line for line in done.stderr.splitlines() if "edgefuse.service" in line]
    assert not complaints, done.stderr


@pytest.mark.parametrize(
    ("args", "status", "words"),
    [
        (("--ir", "rtsp://me:hunter2@10.0.0.5/live", "--vis", "cam1"), 1, "contains a password"),
        (("--ir=http://h/v?code=hunter2", "--vis", "cam1"), 1, r"code=*** contains a password"),
        ((*SIM, "--show"), 1, "no display"),
        (("--ir", "cam0"), 1, "--vis is missing"),
        (("--ir", "cam0", "--vis", "cam0"), 1, "both cameras are cam0"),
        ((*SIM, "--outt", "a.mp4"), 2, "--outt"),
        ((*SIM, "--out", "a\nUser=root"), 1, "control character"),
    ],
)
def test_what_no_service_should_run_is_refused(run, args, status, words):
    code, out, err = run("service", "--", *args)
    assert (code, out) == (status, "")
    assert words in err
    assert "hunter2" not in err
