"""Names of files and folders that are not UTF-8, or that look like patterns, through every command."""

import csv
import json
import os
import sys

import pytest

from edgefuse.cli import main
from edgefuse.files import readable
from edgefuse.images import write_image
from edgefuse.runtime.engines.fuser import Fuser
from edgefuse.runtime.record import record
from edgefuse.runtime.sources import open_source
from edgefuse.weights import FOLDER

LATIN = os.fsdecode(b"\xe9t\xe9[1]")


@pytest.fixture
def run(monkeypatch, capsysbinary, tmp_path):
    """Run the command line in an empty folder; return its exit status and errors, which may be no UTF-8."""
    monkeypatch.chdir(tmp_path)

    def call(*args):
        monkeypatch.setattr(sys, "argv", ["edgefuse", *map(str, args)])
        with pytest.raises(SystemExit) as caught:
            main()
        return caught.value.code or 0, capsysbinary.readouterr().err

    return call


@pytest.fixture
def folder(tmp_path, pair):
    """A folder with two pairs, its name and theirs in Latin-1."""
    place = tmp_path / LATIN
    try:
        place.mkdir()
    except OSError:
        pytest.skip("this file system takes no such names")
    for side, image in zip(("ir", "vis"), pair, strict=True):
        (place / side).mkdir()
        for number in (1, 2):
            write_image(place / side / f"{LATIN}{number}.png", image)
    return place


def test_readable_keeps_what_is_utf8():
    assert readable("été → ok") == "été → ok"
    assert readable(LATIN) == r"\xe9t\xe9[1]"


def test_evaluations_are_written(run, folder):
    (folder / "m.onnx").write_bytes((FOLDER / "nano.onnx").read_bytes())
    outs = {f"--{kind}": folder / f"{LATIN}.{kind}" for kind in ("json", "csv", "html")}
    outs["--table"] = folder / f"{LATIN}.md"
    status, err = run(
        *("evaluate", "--ir", folder / "ir", "--vis", folder / "vis", "--jobs", 1),
        *("--model", folder / "m.onnx", "--fused", f"{LATIN}={folder / 'vis'}", "--no-baselines", "--robust"),
        *(text for option in outs.items() for text in option),
    )
    assert status == 0, err
    found = json.loads(outs["--json"].read_text("utf-8"))
    assert found["ir"] == readable(str(folder / "ir"))
    assert [pair["stem"] for pair in found["pairs"]] == [rf"\xe9t\xe9[1]{n}" for n in (1, 2)]
    with outs["--csv"].open(encoding="utf-8", newline="") as file:
        rows = [(row["stem"], row["candidate"]) for row in csv.DictReader(file)]
    assert (r"\xe9t\xe9[1]1", readable(LATIN)) in rows
    assert readable(str(folder)) in outs["--html"].read_text("utf-8")
    assert readable(LATIN).replace("\\", "") in outs["--table"].read_text("utf-8").replace("\\", "")


@pytest.mark.parametrize("engine", ["cpu", "openvino"])
def test_models_are_loaded(folder, pair, engine):
    if engine == "openvino":
        pytest.importorskip("openvino")
    path = folder / "m.onnx"
    path.write_bytes((FOLDER / "nano.onnx").read_bytes())
    with Fuser(path, engine=engine) as fuser:
        assert fuser(*pair).shape == pair[1].shape


def test_recordings_are_made_and_read(folder):
    names = {role: str(folder / role) for role in ("ir", "vis")}
    with open_source(names["ir"], "ir") as ir, open_source(names["vis"], "vis") as vis:
        cameras = record({"ir": ir, "vis": vis}, folder / "out")
    assert [(camera.written, camera.error) for camera in cameras] == [(2, None), (2, None)]
    with open_source(str(folder / "out" / "ir"), "ir") as again:
        assert again.read() is not None


def test_folders_that_look_like_patterns_are_folders(run, folder):
    where = ("--ir", folder / "ir", "--vis", folder / "vis")
    assert run("fuse", *where, "--out", folder / "fused")[0] == 0
    assert len(list((folder / "fused").iterdir())) == 2
    assert run("stream", *where, "--out", f"{folder / 'streamed'}/")[0] == 0
    assert len(list((folder / "streamed").iterdir())) == 2
