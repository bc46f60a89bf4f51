"""What `edgefuse export` and `inspect` cannot do: one sentence each, and nothing is broken by it."""

import os
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from edgefuse.export.verify import simulated_pairs
from edgefuse.images import write_image
from edgefuse.train.checkpoint import Checkpoint, load_checkpoint, save_checkpoint, save_weights
from edgefuse.train.models import build_model
from edgefuse.weights import checkpoint_file, model_file

pytestmark = pytest.mark.usefixtures("traced_once")
SMALL = ("--size", "64x48")


@pytest.fixture(scope="module")
def odd_files(tmp_path_factory):
    """Checkpoints, graphs and folders of pairs, each with something wrong."""
    folder = tmp_path_factory.mktemp("odd")
    whole = {".safetensors": checkpoint_file("nano").read_bytes(), ".onnx": model_file("nano").read_bytes()}
    nano = load_checkpoint(checkpoint_file("nano"))
    save_checkpoint(folder / "whole.pt", nano)
    torch.save(nano.weights, folder / "published.model")
    whole[".pt"] = (folder / "whole.pt").read_bytes()
    for suffix, content in whole.items():
        (folder / f"cut{suffix}").write_bytes(content[: len(content) // 2])
        (folder / f"empty{suffix}").touch()
        (folder / f"text{suffix}").write_text("no model")
    save_weights(folder / "other.safetensors", Checkpoint("cnn", nano.weights, 1, {}))
    save_weights(folder / "unknown.safetensors", Checkpoint("nanno", nano.weights, 1, {}))
    shutil.copy(model_file("nano"), folder / "whole.onnx")

    graph = onnx.load(model_file("nano"))
    (folder / "secret.bin").write_bytes(bytes(100_000))
    (folder / "inner").mkdir()
    for name, place in (("outside", "../secret.bin"), ("absolute", str(folder / "secret.bin"))):
        tensor = graph.graph.initializer[0]
        tensor.data_location = onnx.TensorProto.EXTERNAL
        del tensor.external_data[:]
        tensor.external_data.add(key="location", value=place)
        (folder / "inner" / f"{name}.onnx").write_bytes(graph.SerializeToString())

    rng = np.random.default_rng(4)
    for name, side in (("ir/a", 32), ("vis/a", 32), ("lone/b", 32), ("small/a", 16)):
        (folder / name).parent.mkdir(exist_ok=True)
        write_image(folder / f"{name}.png", rng.integers(0, 256, (side, side), np.uint8))
    (folder / "damaged").mkdir()
    (folder / "damaged" / "a.png").write_text("no picture")
    (folder / "nothing").mkdir()
    (folder / "folder.onnx").mkdir()
    return folder


def calibrated(ir, vis, *more):
    return ("nano", "--int8", "--calib-ir", ir, "--calib-vis", vis, *more)


def compared(ir, vis):
    return ("nano", "--pairs-ir", ir, "--pairs-vis", vis)


REFUSED = [
    (("nanno",), "unknown model 'nanno' (did you mean 'nano'?)"),
    (("absent.pt",), "no such checkpoint: absent.pt"),
    (("inner",), "inner is a folder"),
    (("other.safetensors",), "the weights in other.safetensors do not fit 'cnn': Missing key"),
    (("unknown.safetensors",), "unknown model 'nanno'"),
    (("published.model",), "the paper's authors released use `edgefuse import-weights`"),
    (("whole.onnx",), "whole.onnx is an exported file: give the .pt or .safetensors file"),
    (("inner/outside.onnx",), "inner/outside.onnx is an exported file"),
    *(((f"{k}.pt",), f"{k}.pt is not a readable checkpoint") for k in ("cut", "empty", "text")),
    *(((f"{k}.safetensors",), f"{k}.safetensors is not a readable") for k in ("cut", "empty", "text")),
    (("nano", "--size", "641x480"), "multiples of 8, such as 648x480"),
    (("nano", "--size", "8x8"), "size '8x8' is outside 16x16 to 16384x16384"),
    (("nano", "--size", "640x99999"), "size '640x99999' is outside"),
    (("nano", "--size", "640"), "size '640' is not WIDTHxHEIGHT"),
    (("nano", "--size", "-640x480"), "size '-640x480' is not WIDTHxHEIGHT"),
    (("nano", "--graph", "netwrok"), "unknown graph 'netwrok' (did you mean 'network'?)"),
    (("nano", "--rgb"), "add --graph end_to_end"),
    (("nano", "--int8"), "--int8 needs real pairs to calibrate on"),
    (("nano", "--int8", "--calib-ir", "ir"), "--int8 needs real pairs to calibrate on"),
    (("nano", "--calib-ir", "ir"), "--calib-ir and --calib-vis apply to int8 only"),
    (calibrated("ir", "vis", "--fp16"), "--fp16 and --int8 exclude each other"),
    (calibrated("nothing", "vis"), "no images in nothing"),
    (calibrated("absent", "vis"), "no such folder: absent"),
    (calibrated("ir", "lone"), "no stem is in both folders: ir has 1 image such as 'a', lone"),
    (calibrated("small", "vis"), "the two images of pair 'a' differ in size"),
    (calibrated("damaged", "vis"), "damaged/a.png is not an image"),
    (compared("nothing", "vis"), "no images in nothing"),
    (compared("ir", "lone"), "no stem is in both folders"),
    (("nano", "--pairs-ir", "ir"), "give both --pairs-ir and --pairs-vis"),
    (("nano", "--set", "max_difference=-1"), "max_difference is -1.0, it must be at least 0"),
    (("nano", "--set", "min_psnr=nan"), "min_psnr is nan"),
    (("nano", "--set", "max_worse=inf"), "max_worse is inf"),
    *(
        (("nano", "--set", text), f"{text.partition('=')[0]} is an option of TensorRT engines")
        for text in ("tensorrt_sizes=64x64", "tensorrt_batch=2", "workspace=64")
    ),
    (("nano", "--out", "folder.onnx"), "cannot write folder.onnx: it is a folder"),
    (("nano", "--out", "absent/x.onnx"), "there is no folder absent"),
    (("nano", "--out", "whole.pt/x.onnx"), "there is no folder whole.pt"),
    (("nano", "--out", "x.bin"), "cannot write x.bin: the suffix must be .onnx"),
]


@pytest.mark.parametrize(("args", "sentence"), REFUSED, ids=[" ".join(args) for args, _ in REFUSED])
def test_what_cannot_be_exported_is_one_sentence(run, odd_files, monkeypatch, args, sentence):
    monkeypatch.chdir(odd_files)
    before = files(odd_files)
    # Of two equal options the later one wins.
    status, _, err = run("export", "--out", "x.onnx", *SMALL, *args)
    assert status == 1, err
    assert sentence in err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert files(odd_files) == before


def files(folder: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_a_folder_that_refuses_is_named_before_the_work(run, monkeypatch, tmp_path):
    folder = tmp_path / "closed"
    folder.mkdir(mode=0o500)
    if os.access(folder, os.W_OK):  # as root, whom modes do not stop
        folder = Path("/proc")
        if not folder.is_dir():
            pytest.skip("no folder here refuses files of this user")
    monkeypatch.setattr("edgefuse.export.pipeline.trace", lambda *_: pytest.fail("began to work"))
    status, _, err = run("export", "nano", *SMALL, "--out", folder / "x.onnx")
    assert status == 1
    assert f"cannot write {folder}/x.onnx: " in err


def test_a_disk_that_fills_up_leaves_the_earlier_file(run, monkeypatch, tmp_path):
    def write(partial, data):
        with partial.open("wb") as file:
            file.write(data[: len(data) // 2])
        raise OSError(28, "No space left on device")

    (tmp_path / "x.onnx").write_text("an earlier one")
    monkeypatch.setattr(Path, "write_bytes", write)
    status, _, err = run("export", "nano", *SMALL, "--out", "x.onnx", "--force")
    assert status == 1
    assert "No space left on device" in err
    assert files(tmp_path) == {str(tmp_path / "x.onnx"): b"an earlier one"}


def test_a_failed_gate_keeps_the_earlier_file_and_names_the_other(run, tmp_path):
    (tmp_path / "x.onnx").write_text("an earlier one")
    limit = ["--set", "max_difference=0"]
    status, out, err = run("export", "nano", *SMALL, "--out", "x.onnx", "--force", *limit)
    assert status == 1
    assert "x.failed.onnx is too far from its checkpoint" in err
    assert "worst on 'frame " in err
    assert "the earlier x.onnx is unchanged" in err
    assert "FAILED" in out
    assert (tmp_path / "x.onnx").read_text() == "an earlier one"
    assert sorted(os.listdir(tmp_path)) == ["x.failed.onnx", "x.onnx"]
    status, out, _ = run("inspect", "x.failed.onnx")
    assert status == 0
    assert "FAILED" in out


def test_a_good_file_replaces_an_earlier_one(run, tmp_path):
    (tmp_path / "x.onnx").write_text("an earlier one")
    (tmp_path / "x.failed.onnx").write_text("an attempt that failed")
    status, out, err = run("export", "nano", *SMALL, "--out", "x.onnx", "--force")
    assert status == 0, err
    assert os.listdir(tmp_path) == ["x.onnx"]
    assert "ONNX Runtime on cpu" in out
    assert run("inspect", "x.onnx")[1] == out, "inspect shows what export showed"


def test_sizes_beyond_the_simulated_rigs_are_compared_too(monkeypatch):
    described, pairs = simulated_pairs((16384, 16), 2)
    assert described == "2 frames of the simulated rig"
    assert {pair.ir.shape for pair in pairs} == {(16, 4096)}
    monkeypatch.setattr("edgefuse.export.verify.HUGE", 48 * 64)
    assert simulated_pairs((64, 48))[0] == "1 frame of the simulated rig"


UNREADABLE = [
    ("absent.onnx", "no such model file"),
    ("inner", "inner is a folder"),
    ("cut.onnx", "cut.onnx is not a readable ONNX file"),
    ("empty.onnx", "empty.onnx does not say what it takes and gives"),
    ("text.onnx", "text.onnx is not a readable ONNX file"),
    ("whole.pt", "whole.pt is a checkpoint: make a model file of it with `edgefuse export whole.pt`"),
    ("inner/outside.onnx", "keeps weights in ../secret.bin, outside its folder"),
    ("inner/absolute.onnx", "outside its folder"),
]


@pytest.mark.parametrize(("name", "sentence"), UNREADABLE)
@pytest.mark.parametrize("command", ["inspect", "fuse"])
def test_unreadable_graphs_are_one_sentence(run, odd_files, monkeypatch, command, name, sentence):
    monkeypatch.chdir(odd_files)
    before = files(odd_files)
    how = (name,) if command == "inspect" else ("--model", name, *IMAGES)
    status, _, err = run(command, *how)
    assert status == 1, err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert name in err
    assert command == "fuse" or sentence in err
    assert files(odd_files) == before


IMAGES = ("--ir", "ir/a.png", "--vis", "vis/a.png", "--out", "fused.png")


def test_a_file_of_another_model_is_not_replaced(run, tmp_path):
    torch.manual_seed(3)
    mine = Checkpoint("nano", build_model("nano").state_dict(), 9, {"seed": 3, "ir": ("a",)})
    save_weights(tmp_path / "mine.safetensors", mine)
    assert run("export", "mine.safetensors", *SMALL, "--out", "nano.onnx")[0] == 0
    assert run("export", "mine.safetensors", *SMALL, "--out", "nano.onnx")[0] == 0  # the same one again
    before = (tmp_path / "nano.onnx").read_bytes()
    status, _, err = run("export", *SMALL, "--out", "nano.onnx")
    assert status == 1
    assert "nano.onnx is another model (nano of 9 steps): give another --out, or --force" in err
    assert (tmp_path / "nano.onnx").read_bytes() == before
    assert run("export", *SMALL, "--out", "nano.onnx", "--force")[0] == 0
    assert (tmp_path / "nano.onnx").read_bytes() != before
    (tmp_path / "text.onnx").write_text("mine")
    assert "was not written by edgefuse" in run("export", *SMALL, "--out", "text.onnx")[2]
    assert (tmp_path / "text.onnx").read_text() == "mine"
