import json
from functools import cache

import numpy as np
import onnx
import pytest

from edgefuse import Fuser
from edgefuse.errors import BackendError, InputError, ModelError
from edgefuse.export.gates import Gates, Verdict, judge, sentence
from edgefuse.export.graph import OPSET, save_graph
from edgefuse.export.pipeline import Calibration, export
from edgefuse.export.receipt import compare, folder_pairs, simulated_pairs
from edgefuse.images import luma, write_image
from edgefuse.runtime.backends import OnnxRuntimeBackend, OpenVinoBackend
from edgefuse.runtime.fuser import network_input
from edgefuse.spec import ModelSpec
from edgefuse.weights import checkpoint_file, model_file, shipped

pytestmark = pytest.mark.usefixtures("traced_once")
SIZE = (64, 48)


@pytest.fixture(scope="module")
def pairs():
    rng = np.random.default_rng(3)
    smooth = np.kron(rng.integers(0, 256, (2, 7, 9)), np.ones((1, 9, 9))).astype(np.uint8)
    black, white = np.zeros((32, 32), np.uint8), np.full((32, 32), 255, np.uint8)
    return [("blocks", smooth[0], smooth[1]), ("extremes", black, white), ("white", white, white)]


@pytest.fixture(scope="module")
def exported(traced_once, weights, pairs, tmp_path_factory):
    """Export a network once, when a test first asks for it."""
    folder = tmp_path_factory.mktemp("exported")

    @cache
    def run(name, fp16=False, size=None):
        out = folder / f"{name}-{fp16}.onnx"
        checkpoint = weights / f"{name}.safetensors"
        return out, *export(checkpoint, out, pairs, "test images", fp16=fp16, size=size)

    return run


FORMS = {
    "nano": ((), (True,)),
    "cnn": ((),),
    "gan": ((True, SIZE),),  # the network of `cnn`
    "transformer": ((), (True, SIZE)),
}


@pytest.mark.parametrize(("name", "form"), [(name, form) for name, forms in FORMS.items() for form in forms])
def test_every_network_exports_and_answers_as_its_checkpoint(exported, name, form):
    out, spec, receipt = exported(name, *form)
    assert receipt.passed
    assert receipt.pairs == 3
    stored = ModelSpec.from_metadata(OnnxRuntimeBackend(out)._session.get_modelmeta().custom_metadata_map)
    assert stored == spec
    assert stored.precision == ("fp16" if form else "fp32")
    assert stored.training == {"paradigm": "aptp", "seed": 2, "steps": 7}
    assert stored.receipt["compared_on"] == "test images"
    assert not list(out.parent.glob("*.part"))


@pytest.mark.parametrize(("name", "published"), [("cnn", "CNN"), ("transformer", "Trans")])
def test_exported_published_networks_answer_as_published(shared, exported, name, published):
    golden = np.load(shared / "golden/paper_networks.npz")
    answer = OnnxRuntimeBackend(exported(name)[0]).run(golden["input"])
    assert np.abs(answer - golden[published].clip(0, 1)).max() < 1e-4


def test_half_precision_is_in_the_graph(exported):
    graph = onnx.load(exported("gan", True, SIZE)[0]).graph
    half, single = onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT
    kernels = {node.input[1] for node in graph.node if node.op_type == "Conv"}
    types = {tensor.name: tensor.data_type for tensor in graph.initializer}
    inferred = onnx.shape_inference.infer_shapes(onnx.load(exported("gan", True, SIZE)[0])).graph.value_info
    types |= {value.name: value.type.tensor_type.elem_type for value in inferred}
    assert {types[name] for name in kernels} == {half}
    assert [graph.input[0].type.tensor_type.elem_type, graph.output[0].type.tensor_type.elem_type] == [
        single
    ] * 2
    # Statistics over the frame stay in single precision.
    means = [node for node in graph.node if node.op_type == "ReduceMean"]
    assert len(means) == 5  # of three channel gates, and the stem's means and squares
    assert {types[node.input[0]] for node in means} == {single}


def test_a_fixed_size_is_in_the_graph_and_checked(weights, pairs, tmp_path, pair):
    out = tmp_path / "model.onnx"
    spec, receipt = export(weights / "nano.safetensors", out, pairs, "test images", size=SIZE)
    assert receipt.passed
    dims = onnx.load(out).graph.input[0].type.tensor_type.shape.dim
    assert [d.dim_value for d in dims] == [1, 2, 48, 64]
    assert spec.size == SIZE
    ir, vis = (image[:47, :61] for image in pair)
    with pytest.raises(InputError, match=r"fixed to 64x48 and the image is 61x47.*--size 61x47"):
        Fuser(out)(ir, vis)
    with pytest.raises(InputError, match="multiples of 4, such as 64x48"):
        export(weights / "nano.safetensors", out, pairs, "test images", size=(61, 47))


def test_files_hold_no_traces_of_the_machine(exported):
    content = exported("nano")[0].read_bytes()
    assert len(content) < 240_000
    assert b"edgefuse/train" not in content
    assert b".py" not in content


@pytest.fixture(scope="module")
def int8(tmp_path_factory):
    """The shipped network in int8, and pairs that it was not calibrated on."""
    out = tmp_path_factory.mktemp("int8") / "nano.onnx"
    _, pairs = simulated_pairs((128, 96))
    calibration = Calibration(pairs[:2], "two frames")
    return out, pairs[2:], export(checkpoint_file("nano"), out, pairs[2:], "frames", int8=calibration)[1]


def test_int8_does_not_clip_what_its_pairs_do_not_hold(int8):
    _, _, receipt = int8
    (extremes,) = (gate for gate in receipt.gates if gate["name"] == "PSNR at extremes")
    assert receipt.passed
    assert extremes["value"] > 45, "calibrated without them, white on black comes out at 20"


def test_openvino_runs_int8_as_such(int8):
    openvino = pytest.importorskip("openvino")
    out, pairs, receipt = int8
    one, other = OnnxRuntimeBackend(out), OpenVinoBackend(out)
    for pair in pairs:
        x = network_input(pair.ir, luma(pair.vis), 4)
        assert -10 * np.log10(np.mean((one.run(x) - other.run(x)) ** 2)) > 55
    if "INT8" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("this CPU computes int8 in float")
    ran = other._request.get_compiled_model().get_runtime_model().get_ops()
    notes = [{k: str(v.astype(str)) for k, v in op.get_rt_info().items()} for op in ran]
    kinds = [note["runtimePrecision"] for note in notes if note["layerType"] == "Convolution"]
    assert sum(kind in ("u8", "i8") for kind in kinds) == receipt.layers["int8"]


def test_a_shape_that_does_not_fit_is_one_sentence(exported):
    pytest.importorskip("openvino")
    with pytest.raises(BackendError, match="nano could not be run with OpenVINO: "):
        OpenVinoBackend(exported("nano")[0]).run(np.zeros((1, 3, 32, 32), np.float32))


class Answers:
    """A backend that always answers the same value."""

    device = "nowhere"

    def __init__(self, value, precision="fp32"):
        self.value, self.spec = value, ModelSpec("nano", 4, precision=precision)

    def run(self, x):
        return np.full((1, 1, *x.shape[2:]), self.value, np.float32)


@pytest.mark.parametrize(
    ("precision", "difference", "passed"),
    [("fp32", 9e-5, True), ("fp32", 1.1e-4, False), ("fp16", 0.0017, True), ("fp16", 0.0018, False)],
)
def test_gates(pairs, precision, difference, passed):
    receipt = compare(Answers(0.5 + difference, precision), Answers(0.5), pairs, "x", layers={"fp16": 1})
    assert receipt.passed is passed
    assert receipt.max_difference == pytest.approx(difference, rel=1e-3)
    assert receipt.psnr == pytest.approx(-20 * np.log10(difference), abs=0.01)


def test_a_gate_that_nothing_was_measured_for_fails():
    measured = [Verdict("PSNR", float("inf"), "a pair"), Verdict("layers in int8", 1.0, "")]
    verdicts = judge(measured, ModelSpec("nano", 4, precision="int8"), Gates())
    assert {v["name"] for v in verdicts if v["passed"]} == {"PSNR", "layers in int8"}
    failed = [v for v in verdicts if not v["passed"]]
    assert [v["name"] for v in failed] == ["PSNR at extremes", "EN", "MI", "VIF", "Qabf", "SSIM"]
    assert sentence(failed[0]) == "PSNR at extremes could not be measured, 40 asked for"


def test_equal_answers_have_no_finite_psnr_and_fit_into_json(pairs):
    receipt = compare(Answers(0.5), Answers(0.5), pairs, "x")
    assert receipt.psnr == float("inf")
    assert json.loads(json.dumps(receipt.to_dict()))["psnr"] is None


def test_pairs_to_compare_on(tmp_path):
    for side in ("ir", "vis"):
        (tmp_path / side).mkdir()
        for k in range(20):
            write_image(tmp_path / side / f"{k:02}.png", np.full((16, 20, 3), k, np.uint8))
    described, found = folder_pairs(tmp_path / "ir", tmp_path / "vis", limit=5)
    assert [name for name, *_ in found] == ["00", "04", "08", "12", "16"]
    assert described.startswith("5 pairs of")
    described, found = simulated_pairs((64, 48))
    assert "simulated" in described
    assert {image.shape for _, ir, vis, _ in found for image in (ir, vis[..., 0])} == {(48, 64)}


def test_a_folder_that_refuses_is_named(weights, pairs, tmp_path):
    with pytest.raises(InputError, match="no folder"):
        export(weights / "nano.safetensors", tmp_path / "absent" / "x.onnx", pairs, "test images")


@pytest.mark.parametrize("name", shipped())
def test_shipped_files_are_what_export_writes(name):
    file = OnnxRuntimeBackend(model_file(name))
    assert file.spec.opset == OPSET
    assert file.spec.receipt["run_on"] == "ONNX Runtime on cpu"
    x = np.random.default_rng(8).random((3, 2, 32, 64), np.float32)
    np.testing.assert_allclose(file.run(x)[1:2], file.run(x[1:2]), atol=1e-6)


def test_files_of_others_are_refused(tmp_path):
    node = onnx.helper.make_node("Relu", ["a"], ["b"])
    ends = [onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, [1]) for n in "ab"]
    graph = onnx.helper.make_graph([node], "g", ends[:1], ends[1:])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, tmp_path / "foreign.onnx")
    with pytest.raises(ModelError, match="edgefuse export"):
        Fuser(tmp_path / "foreign.onnx")
    save_graph(model, ModelSpec("nano", 4), tmp_path / "ours.onnx")
    assert Fuser(tmp_path / "ours.onnx").spec.model == "nano"
