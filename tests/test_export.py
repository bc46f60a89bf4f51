from functools import cache
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import onnx
import pytest

from edgefuse import Fuser
from edgefuse.errors import BackendError, InputError, ModelError
from edgefuse.export.config import Gates
from edgefuse.export.graph import OPSET, save_graph
from edgefuse.export.pipeline import Calibration, export
from edgefuse.export.verify import (
    Measured,
    Pair,
    compare,
    compare_engine,
    evaluate_gates,
    extreme_pairs,
    folder_pairs,
    network_feed,
    sentence,
    simulated_pairs,
)
from edgefuse.images import MIN_SIDE, write_image
from edgefuse.metrics import CORE_METRICS
from edgefuse.runtime.engines import ENGINES, Engine
from edgefuse.runtime.engines.onnxruntime import CpuEngine
from edgefuse.runtime.engines.openvino import OpenVinoEngine
from edgefuse.spec import GateResult, ModelSpec
from edgefuse.weights import checkpoint_file, model_file, shipped

pytestmark = pytest.mark.usefixtures("traced_once")
SIZE = (64, 48)


@pytest.fixture(scope="module")
def pairs():
    rng = np.random.default_rng(3)
    smooth = np.kron(rng.integers(0, 256, (2, 7, 9)), np.ones((1, 9, 9))).astype(np.uint8)
    black, white = np.zeros((32, 32), np.uint8), np.full((32, 32), 255, np.uint8)
    return [
        Pair("blocks", smooth[0], smooth[1]),
        Pair("extremes", black, white),
        Pair("white", white, white),
    ]


@pytest.fixture(scope="module")
def exported(traced_once, weights, pairs, tmp_path_factory):
    """Export a network once, when a test first asks for it."""
    folder = tmp_path_factory.mktemp("exported")

    @cache
    def run(name, fp16=False, size=None):
        out = folder / f"{name}-{fp16}.onnx"
        checkpoint = weights / f"{name}.safetensors"
        return out, export(checkpoint, out, pairs, "test images", fp16=fp16, size=size)

    return run


FORMS = {
    "nano": ((), (True,)),
    "cnn": ((),),
    "gan": ((True, SIZE),),  # the network of `cnn`
    "transformer": ((), (True, SIZE)),
}


@pytest.mark.parametrize(("name", "form"), [(name, form) for name, forms in FORMS.items() for form in forms])
def test_every_network_exports_and_answers_as_its_checkpoint(exported, name, form):
    out, spec = exported(name, *form)
    assert spec.verification.passed
    assert spec.verification.pairs == 3
    stored = CpuEngine(out).spec
    assert stored == spec
    assert stored.precision == ("fp16" if form else "fp32")
    assert stored.training == {"paradigm": "aptp", "seed": 2, "steps": 7}
    assert stored.verification.compared_on == "test images"
    assert not list(out.parent.glob("*.part"))


@pytest.mark.parametrize(("name", "published"), [("cnn", "CNN"), ("transformer", "Trans")])
def test_exported_published_networks_answer_as_published(shared, exported, name, published):
    golden = np.load(shared / "golden/paper_networks.npz")
    answer = CpuEngine(exported(name)[0]).run({"sources": golden["input"]})
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
    spec = export(weights / "nano.safetensors", out, pairs, "test images", size=SIZE)
    assert spec.verification.passed
    dims = onnx.load(out).graph.input[0].type.tensor_type.shape.dim
    assert [d.dim_value for d in dims] == [1, 2, 48, 64]
    assert spec.size == SIZE
    ir, vis = (image[:47, :61] for image in pair)
    with pytest.raises(InputError, match=r"fixed to 64x48 and the image is 61x47.*--size 61x47"):
        Fuser(out)(ir, vis)
    with pytest.raises(InputError, match="multiples of 8, such as 64x48"):
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
    gates = Gates(max_worse=1)
    spec = export(checkpoint_file("nano"), out, pairs[2:], "frames", int8=calibration, gates=gates)
    return out, pairs[2:], spec.verification


def test_int8_does_not_clip_what_its_pairs_do_not_hold(int8):
    _, _, report = int8
    (extremes,) = (gate for gate in report.gates if gate.name == "PSNR at extremes")
    assert report.passed
    assert extremes.value is None or extremes.value > 45, (
        "calibrated without them, white on black comes out at 20"
    )


def test_openvino_answers_as_onnx_runtime_does():
    pytest.importorskip("openvino")
    _, pairs = simulated_pairs((128, 96), 2)
    out = model_file("nano-int8")
    one, other = CpuEngine(out), OpenVinoEngine(out)
    for pair in pairs:
        feed = network_feed(pair.ir, pair.vis, one.spec)
        assert -10 * np.log10(np.mean((one.run(feed) - other.run(feed)) ** 2)) > 45


def test_a_shape_that_does_not_fit_is_one_sentence(exported):
    pytest.importorskip("openvino")
    with pytest.raises(BackendError, match=r"nano could not be run on \[1, 3, 32, 32\] by OpenVINO"):
        OpenVinoEngine(exported("nano")[0]).run({"sources": np.zeros((1, 3, 32, 32), np.float32)})


class Answers(Engine):
    """An engine that answers one value after the other, and the last one from then on."""

    device = "nowhere"

    def __init__(self, *values, precision="fp32", runs_per_pair=1):
        self.spec = ModelSpec("nano", 4, precision=precision)
        self.values = [value for value in values for _ in range(runs_per_pair)]

    def run(self, inputs):
        value = self.values.pop(0) if len(self.values) > 1 else self.values[0]
        return np.full((1, 1, *inputs["sources"].shape[2:]), value, np.float32)


RUNS = 2  # of a file on each pair: as images, and as planes


@pytest.mark.parametrize(
    ("precision", "difference", "passed"),
    [("fp32", 9e-5, True), ("fp32", 1.1e-4, False), ("fp16", 0.0017, True), ("fp16", 0.0018, False)],
)
def test_gates(pairs, precision, difference, passed):
    file = Answers(0.5 + difference, precision=precision)
    report = compare(file, Answers(0.5), pairs, "x", layers={"fp16": 1})
    assert report.passed is passed
    assert report.max_difference == pytest.approx(difference, rel=1e-3)
    assert report.psnr == pytest.approx(-20 * np.log10(difference), abs=0.01)


@pytest.mark.parametrize("wrong", [0.9, np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("at", [0, 1, 2])
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_one_wrong_pair_among_right_ones_fails(pairs, precision, at, wrong):
    values = [0.5] * len(pairs)
    values[at] = wrong
    file = Answers(*values, 0.5, precision=precision, runs_per_pair=RUNS)
    report = compare(file, Answers(0.5), pairs, "x", Gates(max_worse=9), layers={precision: 1})
    (failed,) = (gate for gate in report.gates if not gate.passed)
    assert failed.name == ("max difference" if precision == "fp32" else "PSNR")
    assert failed.pair == report.worst == pairs[at].name
    assert report.max_difference == (0.4 if np.isfinite(wrong) else 1.0)


@pytest.mark.parametrize("wrong", [0.9, np.nan])
@pytest.mark.parametrize("at", [0, 1, 2])
def test_one_wrong_extreme_among_right_ones_fails(pairs, at, wrong):
    values = [0.5] * (len(pairs) + 3)
    values[len(pairs) + at] = wrong
    file = Answers(*values, precision="fp16", runs_per_pair=RUNS)
    report = compare(file, Answers(0.5), pairs, "x", layers={"fp16": 1})
    (failed,) = (gate for gate in report.gates if not gate.passed)
    assert (failed.name, failed.pair) == ("PSNR at extremes", extreme_pairs((16, 16))[at].name)


@pytest.fixture
def pretend(monkeypatch):
    """Have an engine that answers these values; return those that were closed."""

    def install(name, *values, precision="fp32", device="nowhere"):
        closed = []

        class Pretended(Answers):
            def __init__(self, _):
                super().__init__(*values, precision=precision)
                self.device = device

            missing = staticmethod(lambda: None)

            def close(self):
                closed.append(self)

        monkeypatch.setitem(ENGINES, name, Pretended)
        return closed

    return install


@pytest.mark.parametrize("wrong", [0.9, np.nan])
@pytest.mark.parametrize("at", [0, 1, 2])
def test_another_engine_may_not_be_wrong_on_one_pair(pretend, pairs, at, wrong):
    values = [0.5, 0.5, 0.5]
    values[at] = wrong
    closed = pretend("openvino", *values)
    (gate,) = compare_engine("openvino", Path("x"), Answers(0.5), pairs)
    assert (gate.name, gate.passed, gate.pair) == ("PSNR on openvino", False, pairs[at].name)
    assert (gate.limit, len(closed)) == (55, 1)
    pretend("openvino", 0.5)
    (gate,) = compare_engine("openvino", Path("x"), Answers(0.5), pairs)
    assert gate.passed


def test_a_file_that_another_engine_computes_wrongly_is_not_written(monkeypatch, weights, pairs, tmp_path):
    pytest.importorskip("openvino")
    right = OpenVinoEngine.run
    monkeypatch.setattr(OpenVinoEngine, "run", lambda self, inputs: right(self, inputs) * np.float32(0.9))
    out = tmp_path / "model.onnx"
    spec = export(weights / "nano.safetensors", out, pairs, "test images", size=SIZE)
    assert [gate.name for gate in spec.verification.gates if not gate.passed] == ["PSNR on openvino"]
    assert not out.exists()


def test_an_engine_that_cannot_be_used_here_is_not_compared(monkeypatch, caplog, pretend, pairs):
    caplog.set_level("INFO")
    for refuse, said in (("__init__", ["not compared on cuda: no GPU"]), ("missing", [])):
        caplog.clear()
        pretend("cuda", 0.5)
        monkeypatch.setattr(
            ENGINES["cuda"], refuse, Mock(side_effect=BackendError("no GPU")) if said else lambda: "no driver"
        )
        assert compare_engine("cuda", Path("x"), Answers(0.5), pairs) == []
        assert caplog.messages == said


@pytest.mark.parametrize(
    ("precision", "device", "limit"),
    [
        ("fp32", "x", 55),
        ("fp16", "x", 55),
        ("int8", "x", 40),
        ("fp32", "x in bf16", 40),
        ("int8", "x in bf16", 40),
    ],
)
def test_each_precision_of_another_engine_has_its_limit(pretend, pairs, precision, device, limit):
    """On real pairs; on the extremes, which a file in fp32 is not tried on, it is the same for all."""
    for above in (0.1, -0.1):
        pretend("cuda", 0.5 + 10 ** (-(limit + above) / 20), precision=precision, device=device)
        first, *extremes = compare_engine("cuda", Path("x"), Answers(0.5), pairs)
        assert (first.name, first.limit, first.passed) == ("PSNR on cuda", limit, above > 0)
        assert first.value == pytest.approx(limit + above, abs=0.01)
        found = [(gate.name, gate.limit) for gate in extremes]
        assert found == [("PSNR at extremes on cuda", 40)] * (precision != "fp32")


def test_an_end_to_end_graph_is_compared_as_images_in_grey_levels(pairs):
    class Images(Answers):
        """Answers the visible image, but one pixel `wrong` levels away, on infrared that is not white."""

        def __init__(self, wrong):
            super().__init__(0)
            self.spec, self.wrong = ModelSpec("nano", 4, graph="end_to_end"), wrong

        def run(self, inputs):
            fused = inputs["vis"].copy()
            if inputs["ir"].min() < 255:
                fused[0, 3, 4] ^= self.wrong
            return fused

    coloured = [pair._replace(vis=np.repeat(pair.vis[..., None], 3, -1)) for pair in pairs]
    for wrong, passed in ((0, True), (1, True), (2, False)):
        report = compare(Images(wrong), Images(0), coloured, "x")
        (gate,) = report.gates
        assert (gate.name, gate.passed) == ("max difference", passed)
        assert gate.value == pytest.approx(wrong / 255, rel=1e-5)
        assert report.max_difference == pytest.approx(wrong / 255, rel=1e-2)
        if wrong:
            smallest = min(pairs[:2], key=lambda pair: pair.vis.size)
            mean = wrong**2 / smallest.vis.size
            assert report.psnr == pytest.approx(20 * np.log10(255) - 10 * np.log10(mean), abs=0.01)


def test_one_pair_may_not_lose_what_the_others_gain(monkeypatch, pairs):
    mutual = iter([3.0, 1.0, 0.0, 2.5])  # of the file and the checkpoint, on each pair
    monkeypatch.setattr(
        "edgefuse.export.verify.score", lambda *_, metrics: dict.fromkeys(metrics, 1.0) | {"MI": next(mutual)}
    )
    file = Answers(0.5, precision="int8")
    report = compare(file, Answers(0.5), pairs[:2], "x", layers={"int8": 1})
    (failed,) = (gate for gate in report.gates if not gate.passed)
    assert (failed.name, failed.value, failed.pair) == ("MI", -0.25, pairs[1].name)


def test_a_gate_that_nothing_was_measured_for_fails():
    measured = [Measured("PSNR", float("inf"), "a pair"), Measured("layers in int8", 1.0, "")]
    results = evaluate_gates(measured, ModelSpec("nano", 4, precision="int8"))
    assert {gate.name for gate in results if gate.passed} == {"PSNR", "layers in int8"}
    failed = [gate for gate in results if not gate.passed]
    assert [gate.name for gate in failed] == ["PSNR at extremes", "EN", "MI", "VIF", "Qabf", "SSIM"]
    assert {(gate.value, gate.pair) for gate in failed} == {(None, "")}
    assert sentence(failed[0]) == "PSNR at extremes could not be measured, 40 required"


@pytest.mark.parametrize(
    ("gate", "end_to_end", "words"),
    [
        (("max difference", 1e-4, 2e-5, "a", True), False, "max difference 2.00e-05, at most 0.0001 allowed"),
        (
            ("max difference", 1 / 255, 2 / 255, "a", False),
            True,
            "max difference 2 grey levels, at most 1 allowed",
        ),
        (("PSNR", 55.0, 53.21, "a", False), False, "lowest PSNR 53.2 dB, at least 55 dB required"),
        (("PSNR", 55.0, None, "a", True), False, "PSNR infinite, at least 55 required"),
        (("VIF", -0.01, 0.02, "a", True), False, "mean VIF changed by +0.0200, at least -0.01 required"),
    ],
)
def test_a_gate_is_one_sentence(gate, end_to_end, words):
    name, limit, value, pair, passed = gate
    assert sentence(GateResult(name, limit, value, pair, passed), end_to_end) == f"{words}, worst on 'a'"


def test_a_share_of_layers_is_a_sentence_without_a_pair():
    gate = GateResult("layers in int8", 0.5, 0.25, "", False)
    assert sentence(gate) == "25% of the layers in int8, at least 50% required"


def test_extremes_are_white_black_and_white_on_black():
    white, black = np.full((3, 5), 255, np.uint8), np.zeros((3, 5), np.uint8)
    expected = {
        "all white": (white, white),
        "all black": (black, black),
        "white infrared on black": (white, black),
    }
    found = extreme_pairs((5, 3))
    assert [pair.name for pair in found] == list(expected)
    for pair in found:
        assert pair.extreme
        ir, vis = expected[pair.name]
        assert np.array_equal(pair.ir, ir)
        assert np.array_equal(pair.vis, vis)


def test_a_report_says_on_what_and_how_far_apart(pairs):
    values = [0.5 + step for step in (0.02, 0.04, 0.06)] + [0.5] * (len(pairs) - 3)
    file = Answers(*values, 0.5, precision="fp16", runs_per_pair=RUNS)
    report = compare(file, Answers(0.5), pairs, "some pairs", layers={"fp16": 3, "fp32": 1}, int8_share=0.5)
    assert (report.compared_on, report.pairs, report.run_on) == ("some pairs", len(pairs), "nowhere")
    assert report.sizes == tuple(dict.fromkeys(f"{p.vis.shape[1]}x{p.vis.shape[0]}" for p in pairs))
    assert (report.worst, report.max_difference) == (pairs[2].name, 0.06)
    assert report.psnr == pytest.approx(-20 * np.log10(0.06), abs=0.01)
    assert report.layers == {"fp16": 3, "fp32": 1}
    assert report.int8_share == 0.5
    assert 0.9 < report.ssim < 1
    assert set(report.metrics) == set(CORE_METRICS)
    (layers,) = (gate for gate in report.gates if gate.name == "layers in fp16")
    assert (layers.value, layers.pair) == (0.75, "")
    assert all(value == round(value, 5) for value in report.metrics.values())
    assert any(value != round(value, 1) for value in report.metrics.values())


def test_pairs_are_brought_to_the_size_that_a_file_takes(pairs):
    """Both pictures, and the extremes too; the checkpoint sees the same."""
    seen = []

    class Watching(Answers):
        def run(self, inputs):
            seen.append(inputs["sources"].shape[2:])
            return super().run(inputs)

    file, checkpoint = (Watching(0.5, precision="fp16") for _ in range(2))
    file.spec = ModelSpec("nano", 4, size=(40, 32), precision="fp16")
    report = compare(file, checkpoint, pairs, "x", layers={"fp16": 1})
    assert report.sizes == ("40x32",)
    assert set(seen) == {(32, 40)}


def test_equal_answers_have_an_infinite_psnr(pairs):
    assert compare(Answers(0.5), Answers(0.5), pairs, "x").psnr is None
    with pytest.raises(InputError, match="no pairs to compare"):
        compare(Answers(0.5), Answers(0.5), [], "x")


def test_pairs_to_compare_on(monkeypatch, tmp_path):
    for side in ("ir", "vis"):
        (tmp_path / side).mkdir()
        for k in range(20):
            write_image(tmp_path / side / f"{k:02}.png", np.full((16, 20, 3), k, np.uint8))
    described, found = folder_pairs(tmp_path / "ir", tmp_path / "vis", limit=5)
    assert [name for name, *_ in found] == ["00", "04", "08", "12", "16"]
    assert described == f"5 pairs of {tmp_path / 'ir'} and {tmp_path / 'vis'}"
    assert [(ir[0, 0], vis[0, 0, 0]) for _, ir, vis, _ in found] == [(k, k) for k in (0, 4, 8, 12, 16)]
    assert len(folder_pairs(tmp_path / "ir", tmp_path / "vis")[1]) == 8
    described, found = simulated_pairs((64, 48))
    assert described == "4 frames of the simulated rig"
    assert [pair.name for pair in found] == ["frame 0", "frame 25", "frame 50", "frame 75"]
    assert {image.shape for _, ir, vis, _ in found for image in (ir, vis[..., 0])} == {(48, 64)}
    monkeypatch.setattr("edgefuse.export.verify.HUGE", 64 * 48)
    described, found = simulated_pairs((64, 48))
    assert (described, len(found)) == ("1 frame of the simulated rig", 1)
    assert len(simulated_pairs((63, 48))[1]) == 4
    monkeypatch.setattr("edgefuse.sim.rig.MAX_SIDE", 40)
    ((_, ir, vis, _),) = simulated_pairs((80, 60), 1)[1]
    assert (ir.shape, vis.shape) == ((30, 40), (30, 40, 3)), "smaller, of the same shape"
    ((_, ir, _, _),) = simulated_pairs((400, 60), 1)[1]
    assert ir.shape == (MIN_SIDE, 40)


def test_a_folder_that_refuses_is_named(weights, pairs, tmp_path):
    with pytest.raises(InputError, match="no folder"):
        export(weights / "nano.safetensors", tmp_path / "absent" / "x.onnx", pairs, "test images")


@pytest.mark.parametrize("name", shipped())
def test_shipped_files_are_what_export_writes(name):
    file = CpuEngine(model_file(name))
    assert file.spec.opset == OPSET
    assert file.spec.verification.run_on == "ONNX Runtime on cpu"
    rng = np.random.default_rng(8)
    feed = {"sources": rng.random((3, 2, 32, 64), np.float32), "levels": rng.random((3, 5), np.float32)}
    feed = {tensor.name: feed[tensor.name] for tensor in file.spec.inputs()}
    alone = file.run({name: value[1:2] for name, value in feed.items()})
    np.testing.assert_allclose(file.run(feed)[1:2], alone, atol=2e-6)


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
