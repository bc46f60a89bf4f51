"""ONNX files of other projects, made here with a few operators."""

import cv2
import numpy as np
import pytest

from edgefuse import Fuser
from edgefuse.errors import EdgefuseError, InputError, ModelError
from edgefuse.evaluate import Settings, baseline, evaluate, model, summarise
from edgefuse.evaluate.candidates import named, open_foreign
from edgefuse.images import luma, replace_luma, write_image
from edgefuse.weights import model_file

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
wrap_foreign = pytest.importorskip("edgefuse.export.foreign").wrap_foreign

IR = np.full((20, 24), 200, np.uint8)
VIS = np.full((20, 24), 100, np.uint8)


def save(path, inputs, nodes, output=("fused", [1, 1, "h", "w"]), constants=()):
    from onnx import TensorProto, helper

    def info(name, shape):
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    tensors = [
        helper.make_tensor(name, getattr(TensorProto, kind), [len(values)], values)
        for name, kind, values in constants
    ]
    graph = helper.make_graph(nodes, "foreign", [info(*i) for i in inputs], [info(*output)], tensors)
    file = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(file, path)
    return str(path)


def first_of_two(path, first="a", second="b", channels=1):
    """A network that gives back its first image, and adds nothing of the second one."""
    from onnx import helper

    shape = [1, channels, "h", "w"]
    nodes = [
        helper.make_node("Mul", [second, "zero"], ["z"]),
        helper.make_node("Add", [first, "z"], ["fused"]),
    ]
    output = ("fused", shape)
    return save(path, [(first, shape), (second, shape)], nodes, output, [("zero", "FLOAT", [0.0])])


def fused(source):
    fuse = open_foreign(source)
    assert fuse is not None
    return fuse(IR, VIS)


@pytest.mark.parametrize(
    ("names", "options", "level"),
    [
        (("a", "b"), "", 200),
        (("a", "b"), "?order=vis,ir", 100),
        (("vis", "ir"), "", 100),
        (("input_vi", "input_ir"), "", 100),
        (("img_ir", "img_vis"), "", 200),
        (("a", "b"), "?range=-1,1", 200),
        (("a", "b"), "?range=0,255&order=ir,vis", 200),
    ],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_two_inputs(tmp_path, names, options, level, channels):
    source = first_of_two(tmp_path / "two.onnx", names[0], names[1], channels)
    assert np.abs(fused(source + options) - level).max() < 0.01


@pytest.mark.parametrize(("options", "level"), [("", 200), ("?order=vis,ir", 100)])
def test_one_input_of_two_channels(tmp_path, options, level):
    from onnx import helper

    constants = [("zero", "INT64", [0]), ("one", "INT64", [1]), ("axis", "INT64", [1])]
    node = helper.make_node("Slice", ["x", "zero", "one", "axis"], ["fused"])
    source = save(tmp_path / "one.onnx", [("x", [1, 2, "h", "w"])], [node], constants=constants)
    assert np.abs(fused(source + options) - level).max() < 0.01


def test_it_stands_in_the_table_beside_ours(tmp_path):
    for side, image in (("ir", IR), ("vis", VIS)):
        (tmp_path / side).mkdir()
        noise = np.random.default_rng(len(side)).integers(0, 50, image.shape, dtype=np.uint8)
        write_image(tmp_path / side / "1.png", image + noise)
    source = first_of_two(tmp_path / "theirs.onnx")
    result = evaluate(
        tmp_path / "ir",
        tmp_path / "vis",
        [named(source), model(source + "?order=vis,ir"), baseline("copy-ir"), baseline("copy-vis")],
        Settings("paper", ("VIF", "EN")),
    )
    means = summarise(result)
    for name, copy in ((f"model {source}", "copy-ir"), (f"model {source}?order=vis,ir", "copy-vis")):
        assert means[name]["VIF"].total == pytest.approx(means[copy]["VIF"].total, abs=1e-3)


@pytest.mark.parametrize(
    ("options", "kept"), [("", IR), ("?order=vis,ir", VIS), ("?range=-1,1", IR), ("?range=0,255", IR)]
)
@pytest.mark.parametrize("channels", [1, 3])
def test_wrapped_it_is_a_model_as_ours(tmp_path, options, kept, channels, run):
    source = first_of_two(tmp_path / "theirs.onnx", channels=channels)
    status, _, err = run("wrap", source + options, "--out", "ours.onnx")
    assert status == 0, err
    fuse = Fuser(tmp_path / "ours.onnx")
    assert (fuse.spec.model, fuse.spec.size, fuse.spec.size_divisor) == ("theirs", None, 1)
    colours = np.stack([VIS, VIS, VIS // 2], -1)
    for vis, grey in ((VIS, VIS), (colours, luma(colours))):
        expected = replace_luma(vis, grey, kept if kept is IR else grey)
        assert cv2.absdiff(fuse(IR, vis), expected).max() <= 1
    assert run("wrap", source, "--out", "ours.onnx")[0] == 0, "a file of the same model is replaced"


def test_wrapped_it_keeps_its_size_and_gets_sides_that_it_can_halve(tmp_path, run):
    from onnx import helper

    halves = [
        helper.make_node("AveragePool", ["first"], ["half"], kernel_shape=[4, 4], strides=[4, 4]),
        helper.make_node("Resize", ["half", "", "scales"], ["fused"]),
    ]
    gather = helper.make_node("Gather", ["x", "place"], ["first"], axis=1)
    constants = [("place", "INT64", [0]), ("scales", "FLOAT", [1.0, 1.0, 4.0, 4.0])]
    save(tmp_path / "any.onnx", [("x", ["n", 2, "h", "w"])], [gather, *halves], constants=constants)
    spec = wrap_foreign(str(tmp_path / "any.onnx"), tmp_path / "a.onnx")
    assert (spec.size, spec.size_divisor) == (None, 4)
    assert np.abs(Fuser(tmp_path / "a.onnx")(IR[:19, :22], VIS[:19, :22]).astype(int) - 200).max() <= 1
    save(tmp_path / "fixed.onnx", [("x", [1, 2, 20, 24])], [gather, *halves], constants=constants)
    assert wrap_foreign(str(tmp_path / "fixed.onnx"), tmp_path / "f.onnx").size == (24, 20)
    assert (Fuser(tmp_path / "f.onnx")(IR, VIS) == 200).all()
    with pytest.raises(InputError, match="is another model"):
        wrap_foreign(str(tmp_path / "any.onnx"), tmp_path / "f.onnx")


def test_what_cannot_be_wrapped_is_named(tmp_path, run):
    source = first_of_two(tmp_path / "theirs.onnx")
    for args, message in (
        ((str(model_file("nano")), "a.onnx"), "is no ONNX file of another project"),
        (("none.onnx", "a.onnx"), "no such file: none.onnx"),
        ((source, "a.engine"), "cannot write a.engine: the suffix must be .onnx"),
        ((source, source), "would overwrite the input"),
        ((source, "none/a.onnx"), "there is no folder none"),
        ((source + "?order=ir", "a.onnx"), "order is 'ir'"),
    ):
        status, _, err = run("wrap", args[0], "--out", args[1])
        assert (status, message in err) == (1, True), err


def test_our_own_files_are_not_foreign():
    assert open_foreign(str(model_file("nano"))) is None


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ("?ordr=ir,vis", InputError, r"unknown option of .*two.onnx 'ordr' \(did you mean 'order'\?\)"),
        ("?order=ir,ir", InputError, "order is 'ir,ir': it is ir,vis or vis,ir"),
        ("?range=1", InputError, "range of .*two.onnx is '1'"),
        ("?range=1,0", InputError, "black must be below white"),
    ],
)
def test_wrong_options_are_named(tmp_path, options, error, message):
    source = first_of_two(tmp_path / "two.onnx")
    with pytest.raises(error, match=message):
        open_foreign(source + options)


def test_what_cannot_be_fed_is_named(tmp_path):
    from onnx import helper

    node = helper.make_node("Identity", ["x"], ["fused"])
    wide = save(tmp_path / "wide.onnx", [("x", [1, 5, "h", "w"])], [node], ("fused", [1, 5, "h", "w"]))
    with pytest.raises(ModelError, match=r"takes x \[1, 5, 'h', 'w'\]: two images of one or three"):
        open_foreign(wide)
    fixed = save(tmp_path / "fixed.onnx", [("x", [1, 2, 16, 16])], [node], ("fused", [1, 2, 16, 16]))
    with pytest.raises(InputError, match=r"fixed.onnx cannot fuse images of 24x20"):
        fused(fixed)
    both = save(tmp_path / "both.onnx", [("x", [1, 2, "h", "w"])], [node], ("fused", [1, 2, "h", "w"]))
    with pytest.raises(InputError, match=r"gives \[1, 2, 20, 24\], which is not an image"):
        fused(both)
    (tmp_path / "text.onnx").write_text("nothing")
    with pytest.raises(EdgefuseError, match=r"text.onnx cannot be opened as an ONNX file"):
        open_foreign(str(tmp_path / "text.onnx"))
