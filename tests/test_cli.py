import json
import os
import shlex
import shutil
import subprocess
import sys

import cv2
import numpy as np
import pytest

from edgefuse.cli import COMMANDS
from edgefuse.images import read_image, write_image


@pytest.fixture
def folders(tmp_path, pair):
    ir, vis = pair
    for folder, image, names in (("ir", ir, "abc"), ("vis", vis, "bcd")):
        (tmp_path / folder).mkdir()
        for name in names:
            write_image(tmp_path / folder / f"{name}.png", image)
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "zero.png").touch()
    (tmp_path / "text.onnx").write_text("no model")
    (tmp_path / "zero.onnx").touch()
    return tmp_path


def test_help_names_every_command(run):
    status, out, _ = run("--help")
    assert status == 0
    assert all(f" {name} " in out for name in COMMANDS)
    assert "...\n" not in out.partition("Commands:")[2], "what a command does is cut off"


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_completion_can_be_installed_and_completes(tmp_path):
    environment = {**os.environ, "HOME": str(tmp_path)}
    program = f"{shlex.quote(sys.executable)} -m edgefuse"
    installed = subprocess.run(
        ["bash", "-c", f"{program} --install-completion; true"],  # whose name is that of its parent process
        capture_output=True, text=True, env=environment, check=False,
    )  # fmt: skip
    assert "bash completion installed" in installed.stdout, installed.stderr
    assert "edgefuse" in (tmp_path / ".bashrc").read_text()
    (script,) = (tmp_path / ".bash_completions").iterdir()
    ask = {"_EDGEFUSE_COMPLETE": "complete_bash", "COMP_WORDS": "edgefuse str", "COMP_CWORD": "1"}
    assert "_EDGEFUSE_COMPLETE=complete_bash" in script.read_text()
    asked = subprocess.run(
        [sys.executable, "-m", "edgefuse"], capture_output=True, text=True, env=environment | ask, check=False
    )
    assert asked.stdout.split() == ["stream"]


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_explains_itself(run, command):
    status, out, _ = run(command, "--help")
    assert status == 0
    assert "Usage: edgefuse" in out


def test_version(run):
    assert run("--version")[1].startswith("edgefuse 0.")


def test_fusing_two_images(run, folders):
    status, _, err = run("fuse", "--ir", "ir/a.png", "--vis", "vis/b.png", "--out", "fused.png")
    assert status == 0, err
    assert read_image(folders / "fused.png").shape == (75, 101, 3)


def test_fusing_two_folders_names_what_has_no_partner(run, folders):
    status, _, err = run("fuse", "--ir", "ir", "--vis", "vis", "--out", "out/deep")
    assert status == 0, err
    assert sorted(p.name for p in (folders / "out" / "deep").iterdir()) == ["b.png", "c.png"]
    assert "No visible image for: a" in err
    assert "No infrared image for: d" in err


def test_fusing_says_once_that_infrared_is_resized(run, folders):
    cv2.imwrite("ir/b.png", np.zeros((40, 50), np.uint8))
    cv2.imwrite("ir/c.png", np.zeros((40, 50), np.uint8))
    status, _, err = run("fuse", "--ir", "ir", "--vis", "vis", "--out", "out")
    assert status == 0
    assert err.count("infrared is resized from 50x40") == 1


def test_files_that_cannot_be_read_are_listed_at_the_end(run, folders):
    (folders / "ir/a[1].png").write_text("no picture")
    for name in ("a[1]", "c"):
        cv2.imwrite(str(folders / f"vis/{name}.png"), np.zeros((40, 50), np.uint8))
    status, _, err = run("fuse", "--ir", "ir", "--vis", "vis", "--out", "out")
    assert status == 3
    assert "Wrote 2 fused images: out" in err
    assert "Not fused, 1 of 3:" in err
    assert "ir/a[1].png is not an image that can be decoded" in err
    assert sorted(path.name for path in (folders / "out").iterdir()) == ["b.png", "c.png"]


ONE_PAIR = ["--ir", "ir.png", "--vis", "vis.png", "--out", "o.png"]


def test_how_files_are_read_can_be_said(run, folders):
    counts = np.random.default_rng(0).integers(30_000, 30_100, (40, 50)).astype(np.uint16)
    counts[10:30, 10:30] += 900
    cv2.imwrite("ir.png", counts)
    cv2.imwrite("vis.png", np.random.default_rng(1).integers(900, 1150, (40, 50)).astype(np.uint16))
    means = []
    for options in (["--window", "30000-31000"], ["--window", "30000-31000", "--polarity", "black"]):
        assert (
            run("fuse", "--ir", "ir.png", "--vis", "vis.png", "--out", "o.png", "--bits", "12", *options)[0]
            == 0
        )
        means.append(read_image("o.png")[15:25, 15:25].mean())
    assert means[0] > means[1] + 30
    assert 40 < read_image("o.png")[:8].mean() < 90, "12 bits: the visible picture is not black"
    status, _, err = run("fuse", *ONE_PAIR, "--window", "9-x")
    assert (status, "window '9-x' is not LOW-HIGH" in err) == (1, True)


def test_the_shipped_models_are_listed(run):
    status, out, _ = run("models")
    assert status == 0
    assert "nano (default)" in out
    assert "roadscene/test" in out


ONE = ["--out", "o.png"]
BOTH = ["--ir", "ir", "--vis", "vis"]
WRONG = {
    "missing file": [
        (["fuse", "--ir", "absent.png", "--vis", "vis/b.png", *ONE], "no such file or folder: absent.png"),
        (["export", "absent.pt"], "no such checkpoint: absent.pt"),
    ],
    "not an image": [
        (["fuse", "--ir", "ir/a.png", "--vis", "text.png", *ONE], "text.png is not an image"),
        (["fuse", "--ir", "zero.png", "--vis", "vis/b.png", *ONE], "zero.png is not an image"),
    ],
    "empty folder": [
        (["fuse", "--ir", "empty", "--vis", "vis", "--out", "o"], "no images in empty"),
        (["train", "--ir", "empty", "--vis", "vis", "--out", "o"], "no images in empty"),
    ],
    "unknown model": [
        (["fuse", *BOTH, "--out", "o", "--model", "nanno"], "did you mean 'nano'"),
        (
            ["train", "--model", "resnet", "--patch", "32", *BOTH],
            "known are cnn, gan, nano, transformer",
        ),
    ],
    "corrupt model file": [
        (
            ["fuse", *BOTH, "--out", "o", "--model", "text.onnx"],
            "text.onnx is not an ONNX file",
        ),
        (
            ["fuse", *BOTH, "--out", "o", "--model", "zero.onnx"],
            "zero.onnx does not say what it takes and gives",
        ),
        (["export", "text.onnx"], "text.onnx is an exported file"),
    ],
    "options that do not go together": [
        (["fuse", "--ir", "ir", "--vis", "vis/b.png", *ONE], "two images or two folders"),
        (["fuse", "--ir", "ir/a.png", "--vis", "vis/b.png", "--out", "o.xyz"], "suffix"),
        (["fuse", "--ir", "ir", "--vis", "vis", "--out", "text.png"], "text.png is a file"),
        (["fuse", "--ir", "ir/b.png", "--vis", "vis/b.png", "--out", "vis/b.png"], "overwrite the input"),
        (["fuse", "--ir", "ir/b.png", "--vis", "vis/b.png", "--out", "o.pgm"], ".pgm holds grey"),
        (["fuse", *BOTH, "--out", "o", "--threads", "100000"], "threads is 100000"),
        (["train", *BOTH, "--patch", "32", "--set", "threads=0"], "threads is 0"),
        (["train", *BOTH, "--patch", "32", "--set", "sample_every=0"], "sample_every is 0"),
        (["train", *BOTH, "--patch", "32", "--out", "zero.png"], "cannot make the run folder zero.png"),
        (["train", *BOTH, "--seed", "-1"], "seed is -1"),
        (["train", "--ir", "ir"], "give both --ir and --vis"),
        (["train", "--paradigm", "sptp", *BOTH], "without a partner: a, d"),
        (["train", "--paradigm", "mptp", *BOTH], "'mptp'"),
        (["train", *BOTH], "smaller than a patch of 128"),
        (["export", "--size", "640"], "not WIDTHxHEIGHT"),
        (["export", "--size", "641x480"], "such as 648x480"),
        (["export", "--out", "model.pt"], "must be .onnx"),
        (["export", "--pairs-ir", "ir"], "give both --pairs-ir and --pairs-vis"),
    ],
}


@pytest.mark.parametrize(
    ("args", "words"), [pytest.param(*case, id=k) for k, v in WRONG.items() for case in v]
)
def test_wrong_input_is_answered_by_one_sentence(run, folders, args, words):
    before = {p: p.read_bytes() for p in folders.rglob("*") if p.is_file()}
    status, _, err = run(*args)
    (line,) = err.strip().splitlines()
    assert status == 1
    assert line.startswith("error: ")
    assert words in line
    assert {p: p.read_bytes() for p in folders.rglob("*") if p.is_file()} == before


def test_an_unknown_option_is_named(run):
    status, _, err = run("fuse", "--infrared", "x")
    assert status == 2
    assert "--infrared" in err


def test_an_unexpected_failure_is_one_sentence_too(run, folders, monkeypatch):
    monkeypatch.setattr("edgefuse.batch.plan", lambda *_: 1 / 0)
    status, _, err = run("fuse", "--ir", "ir", "--vis", "vis", "--out", "o")
    assert status == 70
    assert "bug in edgefuse (ZeroDivisionError: division by zero)" in err
    assert "Traceback" not in err


def test_debug_shows_the_traceback(folders):
    command = [sys.executable, "-m", "edgefuse", "fuse", "--ir", "x", "--vis", "y", "--out", "o.png"]
    plain = subprocess.run(command, capture_output=True, text=True, cwd=folders)
    debug = subprocess.run([*command, "--debug"], capture_output=True, text=True, cwd=folders)
    assert (plain.returncode, debug.returncode) == (1, 1)
    assert "Traceback" not in plain.stderr
    assert "Traceback" in debug.stderr


def test_training_exporting_and_fusing_from_one_folder_to_the_next(run, folders):
    for side in ("ir", "vis"):
        (folders / side / "a.png").unlink(missing_ok=True)
        (folders / side / "d.png").unlink(missing_ok=True)
    base = ["train", "--paradigm", "sptp", "--ir", "ir", "--vis", "vis", "--patch", "32", "--out", "run"]
    status, out, err = run(*base, "--steps", "3", "--batch", "2", "--set", "pairs=4")
    assert status == 0, err
    assert "sptp has 2 pairs, 4 are drawn per epoch" in out
    config = json.loads((folders / "run" / "config.json").read_text())
    assert (config["pairs"], config["paradigm"]) == (4, "sptp")
    status, out, err = run("export", "run/nano.safetensors", "--pairs-ir", "ir", "--pairs-vis", "vis")
    assert status == 0, err
    assert "2 pairs of ir and vis" in out
    assert "passed" in out
    status, _, err = run("fuse", "--ir", "ir", "--vis", "vis", "--out", "o", "--model", "nano.onnx")
    assert status == 0, err
    assert len(list((folders / "o").iterdir())) == 2
    status, _, err = run(*base, "--steps", "3", "--batch", "2", "--set", "pairs=4")
    assert "already holds a run" in err


@pytest.mark.parametrize(
    "words",
    [
        ["fuse", "--ir", "ir", "--vis", "vis", "--out", "rtsp://me:word@host/live"],
        ["record", "--ir", "ir", "--vis", "vis", "--out=rtsp://me:word@host/live"],
        ["train", "--ir", "ir", "--vis", "vis", "--out", "rtsp://me:word@host/live"],
    ],
    ids=lambda words: words[0],
)
def test_a_url_to_write_to_does_not_become_folders(run, folders, words):
    before = sorted(folders.iterdir())
    status, _, err = run(*words)
    assert status == 1
    assert f"--out rtsp://me:***@host/live is a URL, and `edgefuse {words[0]}` writes only files" in err
    assert sorted(folders.iterdir()) == before
