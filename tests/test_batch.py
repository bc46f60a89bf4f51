"""Fusing and scoring videos and recordings as if they were folders of images."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgefuse.batch import CHUNK, are_recordings, fuse_files, plan, save_pairs
from edgefuse.errors import InputError
from edgefuse.images import luma, read_image, write_image
from edgefuse.rig import Rig
from edgefuse.runtime.sinks import OutputOptions, open_output
from tests.support.shots import frames_of, shot


@pytest.fixture
def videos(tmp_path, monkeypatch):
    """Six grey frames each, without loss."""
    monkeypatch.chdir(tmp_path)
    for name in ("ir.mkv", "vis.mkv"):
        with open_output(name, OutputOptions(fps=20)) as sink:
            for index in range(6):
                sink.write(shot(index, grey=name == "ir.mkv", at=index / 20))
    return tmp_path


def test_two_videos_are_fused_into_one_or_into_images(run, videos):
    status, _, err = run("fuse", "--ir", "ir.mkv", "--vis", "vis.mkv", "--out", "fused.mkv")
    assert status == 0, err
    assert "Wrote 6 fused frames: fused.mkv" in err
    assert len(frames_of(videos / "fused.mkv")) == 6
    status, _, err = run("fuse", "--ir", "ir.mkv", "--vis", "vis.mkv", "--out", "frames/")
    assert status == 0, err
    assert len(list((videos / "frames").iterdir())) == 6


def write_video(name: str, image: np.ndarray, frames: int = 2) -> None:
    """One picture again and again, without loss."""
    with open_output(name, OutputOptions(fps=20)) as sink:
        for index in range(frames):
            sink.write(replace(shot(index, at=index / 20), fused=image))


def test_a_rig_moves_infrared_once_in_videos_as_in_images(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    ir, vis = np.full((72, 96), 20, np.uint8), rng.integers(60, 100, (72, 96), dtype=np.uint8)
    ir[20:40, 20:30] = 250
    Rig(((1.0, 0.0, 16.0), (0.0, 1.0, 8.0), (0.0, 0.0, 1.0)), (96, 72), (96, 72)).save(Path("rig.json"))
    for name, image in (("ir", ir), ("vis", vis)):
        write_image(Path(f"{name}.png"), image)
        write_video(f"{name}.mkv", image)
    for end, out in (("png", "image.png"), ("mkv", "frames/")):
        args = ("--ir", f"ir.{end}", "--vis", f"vis.{end}", "--rig", "rig.json", "--out", out)
        status, _, err = run("fuse", *args)
        assert status == 0, err
    expected = luma(read_image(Path("image.png"))).astype(int)
    for path in Path("frames").iterdir():
        assert np.abs(luma(read_image(path)) - expected).max() <= 2


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("ir.mkv", "ir.mkv", "out.mkv"), "ir.mkv is given for both cameras"),
        (("same.png", "./same.png", "out.png"), "same.png is given for both cameras"),
        (("ir.mkv", ".", "out.mkv"), "give two videos or recordings, or images for both"),
        (("ir.mkv", "vis.mkv", "vis.mkv"), "--out would overwrite the input vis.mkv"),
        (("ir.mkv", "none.mkv", "out.mkv"), "no such file or folder: none.mkv"),
        (("cam0", "cam1", "out.mkv"), "no such file or folder: cam0; cameras and streams are for"),
        (
            ("rtsp://a/b", "vis.mkv", "out.mkv"),
            "no such file or folder: rtsp:/a/b; cameras and streams are for",
        ),
        (("rtsp://a/b", "sim", "out.mkv"), "no such file or folder: rtsp:/a/b; cameras and streams are for"),
        (("", "vis.mkv", "out.mkv"), "--ir is empty: is a variable of the shell not set?"),
    ],
)
def test_what_cannot_be_fused_is_said(run, videos, args, message):
    before = (videos / "vis.mkv").read_bytes()
    write_image(videos / "same.png", np.zeros((32, 32), np.uint8))
    status, _, err = run("fuse", *sum(zip(("--ir", "--vis", "--out"), args, strict=True), ()))
    assert status == 1
    assert message in err
    assert (videos / "vis.mkv").read_bytes() == before


@pytest.mark.parametrize("out", ["out.png", "out.mp4"])
def test_two_folders_are_not_fused_into_a_folder_that_is_named_as_a_file(tmp_path, run, pair, out):
    for name, image in zip(("ir", "vis"), pair, strict=True):
        (tmp_path / name).mkdir()
        write_image(tmp_path / name / "1.png", image)
    status, _, err = run("fuse", "--ir", "ir", "--vis", "vis", "--out", out)
    assert status == 1
    assert f"--out {out}: two folders are fused into a folder, such as out; `edgefuse stream` makes" in err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ir", "vis"]


def test_pairs_of_videos_become_images(videos):
    ir, vis = save_pairs(Path("ir.mkv"), Path("vis.mkv"), Path("pairs"), limit=4)
    assert sorted(path.name for path in ir.iterdir()) == [f"00000{k}.png" for k in range(4)]
    turned, _ = save_pairs(Path("ir.mkv"), Path("vis.mkv"), Path("turned"), 1, {"polarity": "black"})
    white, black = (read_image(folder / "000000.png") for folder in (ir, turned))
    assert np.abs(255 - black.astype(int) - white).max() <= 1
    assert len(list(vis.iterdir())) == 4


def test_videos_are_scored(run, videos):
    args = ("--model", "maximum", "--no-baselines", "--metrics", "EN", "--video", "--jobs", "1")
    status, out, err = run("evaluate", "--ir", "ir.mkv", "--vis", "vis.mkv", *args)
    assert status == 0, err
    assert "ir.mkv + vis.mkv: 6 pairs" in out


def test_videos_of_two_sizes_are_scored_aligned_or_not_at_all(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    vis = rng.integers(0, 256, (72, 128), dtype=np.uint8)
    write_video("vis.mkv", vis)
    write_video("ir.mkv", np.ascontiguousarray(vis[4:68, 24:104]))
    Rig(((1.0, 0.0, 24.0), (0.0, 1.0, 4.0), (0.0, 0.0, 1.0)), (80, 64), (128, 72)).save(Path("rig.json"))
    args = ["evaluate", "--ir", "ir.mkv", "--vis", "vis.mkv", "--no-baselines", "--model", "average"]
    args += ["--metrics", "PSNR", "--jobs", "1", "--json", "scores.json"]
    status, _, err = run(*args)
    assert status == 1
    assert "scores need one size" in err
    status, _, err = run(*args, "--rig", "rig.json")
    assert status == 0, err
    pairs = json.loads(Path("scores.json").read_text())["pairs"]
    assert len(pairs) == 2
    assert all(pair["scores"]["average"]["PSNR"]["total"] > 60 for pair in pairs)


def test_a_folder_of_images_is_no_recording(tmp_path):
    (tmp_path / "ir").mkdir()
    assert not are_recordings(tmp_path / "ir", tmp_path / "ir")
    assert not are_recordings(tmp_path / "a.png", tmp_path / "none")
    (tmp_path / "a.mp4").touch()
    with pytest.raises(InputError, match="give two videos"):
        are_recordings(tmp_path / "a.mp4", tmp_path / "ir")


def images(folder: Path, count: int) -> tuple[Path, Path]:
    """Noise, in which pair 3 has a damaged infrared image."""
    rng = np.random.default_rng(0)
    for number in range(count):
        for side in ("ir", "vis"):
            image = rng.integers(0, 256, (32, 40) if side == "ir" else (32, 40, 3), dtype=np.uint8)
            (folder / side).mkdir(exist_ok=True)
            write_image(folder / side / f"{number}.png", image)
    (folder / "ir" / "3.png").write_bytes(b"damaged")
    return folder / "ir", folder / "vis"


def test_worker_processes_fuse_as_one_process_does(tmp_path):
    ir, vis = images(tmp_path, 2 * CHUNK + 1)
    found = {}
    for processes in (1, 2):
        out = tmp_path / f"fused{processes}"
        results = {done.path: done.error for done in fuse_files(plan(ir, vis, out), processes=processes)}
        assert len(results) == 2 * CHUNK + 1
        failed = [path.name for path, error in results.items() if error is not None]
        assert failed == ["3.png"]
        assert not (out / "3.png").exists()
        found[processes] = {path.name: read_image(path) for path in sorted(out.iterdir())}
    assert found[1].keys() == found[2].keys()
    assert all(np.array_equal(image, found[2][name]) for name, image in found[1].items())


def test_what_cannot_be_written_ends_the_work(tmp_path):
    ir, vis = images(tmp_path, 2 * CHUNK)
    (tmp_path / "fused").write_text("a file")
    jobs = replace(plan(ir, vis, tmp_path / "new"), only_ir=[])
    jobs = replace(jobs, files=[(a, b, tmp_path / "fused" / c.name) for a, b, c in jobs.files])
    for processes in (1, 2):
        with pytest.raises(InputError, match="fused"):
            list(fuse_files(jobs, processes=processes))
