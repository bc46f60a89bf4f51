"""What is written is what is read, for every part; and the published networks' names are ours."""

import re
import stat
from dataclasses import fields
from zipfile import ZipFile

import pytest
import torch

from edgefuse.errors import ModelError
from edgefuse.train.checkpoint import (
    Checkpoint,
    import_released,
    load_checkpoint,
    restore_model,
    save_checkpoint,
    save_weights,
)
from edgefuse.train.models import build_model


@pytest.fixture
def checkpoint():
    torch.manual_seed(0)
    training = {"optimiser": {"step": 7}, "network": {"w": torch.ones(2)}}
    return Checkpoint("nano", build_model("nano").state_dict(), 12, {"seed": 3}, training)


def same_weights(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_a_checkpoint_keeps_every_part(checkpoint, tmp_path):
    save_checkpoint(tmp_path / "a.pt", checkpoint)
    read = load_checkpoint(tmp_path / "a.pt")
    assert (read.model, read.step, read.config) == ("nano", 12, {"seed": 3})
    assert same_weights(read.weights, checkpoint.weights)
    assert read.training is not None
    assert read.training["optimiser"] == {"step": 7}
    assert torch.equal(read.training["network"]["w"], torch.ones(2))
    assert [path.name for path in tmp_path.iterdir()] == ["a.pt"]


def test_weights_alone_keep_every_part_but_the_training(checkpoint, tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_bytes(b"earlier")
    path.chmod(0o644)
    save_weights(path, checkpoint)
    read = load_checkpoint(path)
    assert (read.model, read.step, read.config, read.training) == ("nano", 12, {"seed": 3}, None)
    assert same_weights(read.weights, checkpoint.weights)
    assert stat.S_IMODE(path.stat().st_mode) & 0o444 == 0o444, "others may read it"


def test_what_a_killed_process_left_half_written_goes_with_the_next_save(checkpoint, tmp_path):
    for name, save in (("a.pt", save_checkpoint), ("b.safetensors", save_weights)):
        (tmp_path / f".{name}.1-2.part").write_bytes(b"half")
        save(tmp_path / name, checkpoint)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.pt", "b.safetensors"]


def test_a_checkpoint_of_a_gpu_is_read_without_one(checkpoint, tmp_path):
    """torch notes where tensors were, and puts them back there unless it is told another place."""
    save_checkpoint(tmp_path / "cpu.pt", checkpoint)
    where = {"data.pkl": (pickle_text("cpu"), pickle_text("cuda:7"))}
    with ZipFile(tmp_path / "cpu.pt") as cpu, ZipFile(tmp_path / "gpu.pt", "w") as gpu:
        for name in cpu.namelist():
            before, after = where.get(name.rpartition("/")[2], (b"", b""))
            content = cpu.read(name)
            assert not before or content.count(before) == 1, "written once, then referred to"
            gpu.writestr(name, content.replace(before, after) if before else content)
    read = load_checkpoint(tmp_path / "gpu.pt")
    assert same_weights(read.weights, checkpoint.weights)


def pickle_text(text):
    return b"X" + len(text).to_bytes(4, "little") + text.encode()


def test_a_network_comes_back_as_it_was_and_in_evaluation_mode(checkpoint):
    model = restore_model(checkpoint)
    assert same_weights(model.state_dict(), checkpoint.weights)
    assert not model.training
    strange = Checkpoint("nano", {"odd": torch.ones(1)}, 0, {})
    with pytest.raises(ModelError, match=r"the weights in a\.pt do not fit 'nano': Missing key"):
        restore_model(strange, "a.pt")


@pytest.mark.parametrize(("part", "value"), [("model", 1), ("weights", [1]), ("step", "2"), ("config", None)])
def test_a_part_of_another_kind_is_named(checkpoint, tmp_path, part, value):
    values = {"format": 1, **{field.name: getattr(checkpoint, field.name) for field in fields(checkpoint)}}
    save_checkpoint(tmp_path / "a.pt", checkpoint)
    values["format"] = torch.load(tmp_path / "a.pt", weights_only=True)["format"]
    torch.save(values | {part: value}, tmp_path / "b.pt")
    kind = type(value).__name__
    with pytest.raises(ModelError, match=rf"b\.pt is damaged: its {part} is a {kind}"):
        load_checkpoint(tmp_path / "b.pt")


def test_what_is_no_checkpoint_is_named(tmp_path):
    torch.save([1], tmp_path / "list.pt")
    with pytest.raises(ModelError, match="is not a checkpoint written by `edgefuse train`"):
        load_checkpoint(tmp_path / "list.pt")
    (tmp_path / "a.onnx").write_bytes(b"")
    with pytest.raises(ModelError, match="is an exported file"):
        load_checkpoint(tmp_path / "a.onnx")


CNN = {
    r"^stem\.": "inchange.",
    r"^skip_(\d)\.linear([12])\.": r"fus_\1.linear\2.0.",
    r"^skip_(\d)\.gate\.conv\.": r"fus_\1.eca.conv.",
    r"^dense_(\d)\.(\d)\.layers\.": r"dense_\1.dense_block.\2.change.",
    r"^(down|up)_(\d)\.": r"\1_\2.\1sampler.",
    r"^head\.": "outchange.",
}
TRANSFORMER = {
    r"^stem\.": "proj.",
    r"^skip_(\d)\.linear([12])\.": r"fuse_\1.linear\2.0.",
    r"^skip_(\d)\.gate\.": r"fuse_\1.eca.conv.linear.",
    r"^layer_(\d)\.norm_1\.": r"trans_\1.transformer_layers.0.attn.norm.",
    r"^layer_(\d)\.attention\.t$": r"trans_\1.transformer_layers.0.attn.fn.t",
    r"^layer_(\d)\.attention\.qkv\.": r"trans_\1.transformer_layers.0.attn.fn.group_qkv.",
    r"^layer_(\d)\.attention\.merge\.": r"trans_\1.transformer_layers.0.attn.fn.group_fus.",
    r"^layer_(\d)\.norm_2\.": r"trans_\1.transformer_layers.0.ff.norm.",
    r"^layer_(\d)\.mlp\.0\.": r"trans_\1.transformer_layers.0.ff.fn.net.0.",
    r"^layer_(\d)\.mlp\.2\.": r"trans_\1.transformer_layers.0.ff.fn.net.3.",
    r"^(down|up)_(\d)\.": r"\1_\2.\1sampler.",
    r"^head\.": "final.",
}


def released_name(name, names):
    for ours, theirs in names.items():
        if re.search(ours, name):
            return re.sub(ours, theirs, name)
    raise AssertionError(f"{name} has no released name")


@pytest.mark.parametrize(("model", "names"), [("cnn", CNN), ("gan", CNN), ("transformer", TRANSFORMER)])
def test_released_weights_get_our_names_and_shapes(tmp_path, model, names):
    torch.manual_seed(1)
    own = build_model(model).state_dict()
    # Linear layers there are 1×1 convolutions here, and masks are constants.
    released = {released_name(name, names): value.squeeze() for name, value in own.items()}
    torch.save({**released, "trans_1.mask": torch.ones(3)}, tmp_path / "a.model")
    read = import_released(tmp_path / "a.model", model)
    assert (read.model, read.step, read.config, read.training) == (model, 0, {}, None)
    assert same_weights(read.weights, own)
    assert {name: w.shape for name, w in read.weights.items()} == {name: w.shape for name, w in own.items()}
    name = next(key for key, value in released.items() if value.numel() > 1)
    torch.save({**released, name: torch.ones(1)}, tmp_path / "other.model")
    with pytest.raises(ModelError, match=rf"is not a released '{model}': '.*' has \(1,\)"):
        import_released(tmp_path / "other.model", model)
