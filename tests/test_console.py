"""What the command line says where things go wrong, and how it ends."""

import importlib
import io
import json
import logging
import os
import signal
import subprocess
import sys
import time
from datetime import datetime, timedelta

import pytest
from rich.table import Table

from edgefuse.cli import console
from edgefuse.cli.console import ExitCode, Output, explained, phases, progress
from edgefuse.errors import InputError
from edgefuse.images import write_image


def edgefuse(*args, cwd=None, **environment):
    return subprocess.run(
        [sys.executable, "-m", "edgefuse", *map(str, args)],
        capture_output=True,
        cwd=cwd,
        env={**os.environ, **environment},
    )


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "ascii", "utf-8"])
def test_any_encoding_of_the_output_will_do(encoding, tmp_path):
    sim = ("--ir", "sim?size=160x128", "--vis", "sim?size=160x128", "--duration", "0.5")
    done = edgefuse("stream", *sim, cwd=tmp_path, PYTHONIOENCODING=encoding, PYTHONUTF8="0")
    assert done.returncode == 0, done.stderr
    arrow = "→" if encoding == "utf-8" else "->"
    assert f"{arrow} nano on " in done.stdout.decode(encoding)


def test_names_are_printed_as_they_are(run, tmp_path, pair):
    ir, vis = pair
    for side, image in (("ir [night]", ir), ("vis", vis)):
        (tmp_path / side).mkdir()
        write_image(tmp_path / side / "a[bold].png", image)
    write_image(tmp_path / "ir [night]" / "only[1].png", ir)
    status, _, err = run("fuse", "--ir", "ir [night]", "--vis", "vis", "--out", "out [x]")
    assert status == 0
    assert "No visible image for: only[1]\n" in err
    assert "out [x]" in err
    write_image(tmp_path / "ir [night]" / f"{os.fsdecode(b'caf%c' % 0xE9)}.png", ir)
    done = edgefuse("fuse", "--ir", "ir [night]", "--vis", "vis", "--out", "o", cwd=tmp_path)
    assert b"No visible image for: caf" in done.stderr


NASTY = "a\x1b[2Jb\x9b31m\u202ec\nnext\tline"
"""Clears a terminal, colours it and turns the order round: a file's name, or text out of a file."""


def test_a_terminal_is_shown_text_and_never_told_what_to_do(capsys, monkeypatch):
    def run():
        logging.getLogger("edgefuse.test").warning("log %s", NASTY)
        rows = Table(NASTY, title=NASTY)
        rows.add_row(NASTY)
        console.stderr().print(rows)
        raise InputError(NASTY)

    for terminal in (False, True):
        monkeypatch.setenv("FORCE_COLOR", "1") if terminal else monkeypatch.delenv("FORCE_COLOR", False)
        with pytest.raises(SystemExit):
            console.guarded(run, debug=False)
        said = capsys.readouterr().err
        assert said.count("a\N{REPLACEMENT CHARACTER}") >= 4
        for told in ("\x1b[2J", "\x9b", "\u202e"):
            assert told not in said
        assert "next" in said
        assert "\x1b" not in said or terminal, "its own colours"
    console.stdout().say_json({"name": NASTY})
    out = capsys.readouterr().out
    assert json.loads(out) == {"name": NASTY}
    assert out.isascii()
    assert "\x1b" not in out


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (InputError("no such file: [a]"), 1, "no such file: [a]"),
        (FileNotFoundError(2, "No such file or directory", "a.png"), 1, "a.png: No such file or directory"),
        (OSError(28, "No space left on device"), 1, "No space left on device"),
        (MemoryError(), 1, "not enough memory"),
        (ImportError("libGL.so.1: cannot open", name="cv2"), 1, "OpenCV cannot be loaded (libGL.so.1"),
        (ImportError("libGL.so.1: cannot open", name="cv2"), 1, "pip install opencv-python-headless"),
        (
            ModuleNotFoundError("No module named 'cv2'", name="cv2"),
            1,
            "not installed: pip install opencv-python",
        ),
        (ModuleNotFoundError("No module named 'PIL'", name="PIL"), 1, "not installed: pip install pillow"),
        (ImportError("libjpeg.so", name="simplejpeg._jpeg"), 1, "pip install --force-reinstall simplejpeg"),
        (ImportError("bad magic", name="onnxruntime.capi"), 1, "pip install --force-reinstall onnxruntime"),
        (
            RuntimeError("CUDA error: no kernel image\nmore"),
            1,
            "the GPU failed (CUDA error: no kernel image)",
        ),
        (RuntimeError("CUDA out of memory. Tried"), 1, "the GPU has not enough memory"),
        (ImportError("cannot import name 'x'", name="edgefuse.x"), 70, "this is a bug"),
        (ZeroDivisionError("division by zero"), 70, "ZeroDivisionError: division by zero"),
    ],
)
def test_errors_are_explained(error, code, words):
    told = explained(error)
    assert told[0] == code
    assert words in told[1]
    assert "\n" not in told[1]


def test_a_library_that_cannot_be_loaded_is_no_bug(run, monkeypatch, tmp_path):
    (tmp_path / "cv2.py").write_text('raise ImportError("libGL.so.1: cannot open shared object file")\n')
    done = edgefuse("fuse", "--ir", "a", "--vis", "b", "--out", "c", PYTHONPATH=str(tmp_path))
    assert done.returncode == ExitCode.ERROR
    assert done.stderr.decode().startswith("error: OpenCV cannot be loaded (libGL.so.1")
    assert b"opencv-python-headless" in done.stderr


@pytest.mark.parametrize(
    "error",
    [
        ImportError("libx.so: cannot open shared object file"),
        OSError("libx.so: cannot open shared object file"),
        AttributeError("module 'numpy' has no attribute 'bool'"),
        RuntimeError("a symbol is missing"),
    ],
)
@pytest.mark.parametrize("package", ["torch", "onnxruntime"])
def test_a_package_that_breaks_while_it_is_imported_is_no_bug(tmp_path, monkeypatch, package, error):
    (tmp_path / package).mkdir()
    (tmp_path / package / "__init__.py").write_text(f"raise {error!r}\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, package, raising=False)
    with pytest.raises(type(error)) as caught:
        importlib.import_module(package)
    code, sentence = explained(caught.value)
    assert code == ExitCode.ERROR
    assert f"cannot be loaded ({error}): install it again: pip install" in sentence


def test_progress_is_told_without_a_terminal(monkeypatch):
    text = io.StringIO()
    monkeypatch.setattr(console, "PROGRESS_SECONDS", 0.0)
    with progress(Output(file=text), "Scoring", 3) as show:
        show(1, text="a[1].png")
    with phases(Output(file=text), "Exporting") as tell:
        tell("Tracing")
    assert text.getvalue() == "Scoring: 1 of 3, a[1].png\nExporting: Tracing\n"
    monkeypatch.setattr(console, "PROGRESS_SECONDS", 60.0)
    with progress(Output(file=text), "Fusing", 3) as show:
        show(1)
    assert "Fusing" not in text.getvalue()


def test_log_lines_are_whole_and_have_a_time(capsys):
    long = "x" * 300
    console.guarded(lambda: logging.getLogger("edgefuse.test").warning("long %s", long), debug=False)
    line = capsys.readouterr().err
    assert line.endswith(f"WARNING long {long}\n")
    time.strptime(line.split()[0], "%Y-%m-%dT%H:%M:%S%z")


def test_json_lines_hold_time_level_logger_and_message(capsys):
    def run():
        console.log_as_json()
        logging.getLogger("edgefuse.test").warning("two\nlines of %s", os.fsdecode(b"caf\xe9"))
        raise InputError("no such file: a")

    with pytest.raises(SystemExit):
        console.guarded(run, debug=False)
    warning, error = map(json.loads, capsys.readouterr().err.splitlines())
    assert datetime.fromisoformat(warning.pop("time")).utcoffset() == timedelta(0)
    assert warning == {"level": "WARNING", "logger": "edgefuse.test", "message": "two\nlines of caf\udce9"}
    assert (error["level"], error["message"]) == ("ERROR", "no such file: a")


def test_stream_logs_as_json_if_asked_to(run):
    status, _, err = run("stream", "--ir", "absent", "--vis", "sim", "--log", "json")
    assert status == 1
    assert all({"time", "level", "logger", "message"} <= json.loads(line).keys() for line in err.splitlines())
    assert "absent" in json.loads(err.splitlines()[-1])["message"]


def test_ctrl_c_ends_with_the_code_of_the_shell(run, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("edgefuse.weights.shipped", interrupted)
    status, _, err = run("models")
    assert status == ExitCode.INTERRUPTED
    assert "stopped by Ctrl-C" in err


def test_a_reader_who_leaves_is_no_error(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-m", "edgefuse", "settings", "train"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    process.stdout.close()
    _, errors = process.communicate()
    assert b"Traceback" not in errors
    assert b"bug" not in errors
    assert process.returncode in (ExitCode.ERROR, -signal.SIGPIPE)
