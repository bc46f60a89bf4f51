"""int8: what is rounded where, and that engines really compute in 8 bits."""

import math

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from edgefuse.errors import InputError
from edgefuse.export import pipeline
from edgefuse.export.config import Gates
from edgefuse.export.graph import OPSET, engines_for, layer_precisions, save_graph, trace
from edgefuse.export.pipeline import Calibration, export
from edgefuse.export.quantize import LARGEST_WEIGHT, insert_pairs, quantize, round_weights
from edgefuse.export.verify import Pair, int8_share, simulated_pairs
from edgefuse.runtime.engines.onnxruntime import CpuEngine
from edgefuse.runtime.engines.openvino import OpenVinoEngine
from edgefuse.spec import ModelSpec
from edgefuse.train.models import FusionNetwork
from edgefuse.weights import checkpoint_file

SIZE = (64, 48)


class Toy(FusionNetwork):
    """Three convolutions at a quarter, and a head that is clipped."""

    size_divisor = 4

    def __init__(self, activation):
        super().__init__()
        self.activation = activation
        layers = [nn.Conv2d(32, 32, 3, padding=1) for _ in range(3)]
        for layer in layers:
            nn.init.orthogonal_(layer.weight)
        self.layers, self.head = nn.ModuleList(layers), nn.Conv2d(32, 16, 1)

    def forward(self, x):
        f = F.pixel_unshuffle(x - 128 / 255, 4)
        for layer in self.layers:
            f = self.activation(layer(f))
        weight = 0.5 + 0.5 * F.pixel_shuffle(F.hardtanh(self.head(f)), 4)
        return x[:, 1:] + weight * (x[:, :1] - x[:, 1:])


@pytest.fixture(scope="module")
def traced():
    torch.manual_seed(3)
    graphs = {}
    for name, activation in (("hardtanh", F.hardtanh), ("relu", F.relu)):
        spec = ModelSpec("toy", 4, size=SIZE, opset=OPSET, precision="int8")
        graphs[name] = spec, trace(Toy(activation).eval(), spec)

    def copied(name):
        spec, graph = graphs[name]
        made = onnx.ModelProto()
        made.CopyFrom(graph)
        return spec, made

    return copied


def feeds(count=2):
    rng = np.random.default_rng(6)
    shape = (1, 2, SIZE[1], SIZE[0])
    return [
        {"sources": rng.integers(0, 256, shape).astype(np.float32) / np.float32(255)} for _ in range(count)
    ]


def test_shuffles_need_no_arithmetic_on_shapes(traced):
    _, graph = traced("relu")
    kinds = {node.op_type for node in graph.graph.node}
    assert {"SpaceToDepth", "DepthToSpace"} <= kinds
    assert not kinds & {"Shape", "Reshape", "Transpose"}


def test_a_network_clipped_to_one_is_a_file_for_all_engines(traced, tmp_path):
    """Signed, symmetric, nothing between a convolution and what rounds its answer; all in 8 bits."""
    spec, graph = traced("hardtanh")
    assert quantize(graph, feeds(), 20.0) == []
    kinds = [node.op_type for node in graph.graph.node]
    assert kinds.count("Clip") == 2, "of what is put together, and the answer: saturation replaces the others"
    constants = {t.name: onnx.numpy_helper.to_array(t) for t in graph.graph.initializer}
    quantizers = [n for n in graph.graph.node if n.op_type in ("QuantizeLinear", "DequantizeLinear")]
    zeros = [constants[n.input[2]] for n in quantizers]
    assert {zero.dtype for zero in zeros} == {np.dtype(np.int8)}
    assert not any(zero.any() for zero in zeros)
    steps = [float(constants[n.input[1]]) for n in quantizers if n.op_type == "QuantizeLinear"]
    assert steps[1:] == pytest.approx([1 / 127] * 4)
    makers = {name: node for node in graph.graph.node for name in node.output}
    assert [makers[n.input[0]].op_type for n in graph.graph.node if n.op_type == "QuantizeLinear"][1:] == [
        "Conv"
    ] * 4
    save_graph(graph, spec, out := tmp_path / "toy.onnx")
    assert int8_share(out, feeds()[0]) == 1.0
    assert layer_precisions(graph) == {"int8": 4}
    assert engines_for(graph) == ("cpu", "cuda", "openvino", "tensorrt")


def test_the_share_in_8_bits_counts_multiplications(tmp_path):
    """Of two convolutions the one of 2,304 multiplications a pixel is in bytes, that of 512 in floats."""
    rng = np.random.default_rng(0)
    kernels = {"a": (16, 16, 3, 3), "b": (32, 16, 1, 1)}
    graph = onnx.helper.make_graph(
        [
            onnx.helper.make_node("Conv", ["sources", "a"], ["half"], "large_kernel_first", pads=[1] * 4),
            onnx.helper.make_node("Conv", ["half", "b"], ["fused"], "small"),
        ],
        "two",
        [onnx.helper.make_tensor_value_info("sources", onnx.TensorProto.FLOAT, [1, 16, 12, 20])],
        [onnx.helper.make_tensor_value_info("fused", onnx.TensorProto.FLOAT, [1, 32, 12, 20])],
        [
            onnx.numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32), name)
            for name, shape in kernels.items()
        ],
    )
    made = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)
    feed = {"sources": rng.standard_normal((1, 16, 12, 20)).astype(np.float32)}
    onnx.save(made, tmp_path / "two.onnx")
    assert int8_share(tmp_path / "two.onnx", feed) == 0.0
    insert_pairs(made, {"sources": 1 / 32, "half": 0.5}, {"large_kernel_first"})
    onnx.save(made, tmp_path / "two.onnx")
    assert int8_share(tmp_path / "two.onnx", feed) == round(2304 / (2304 + 512), 4)
    relu = onnx.helper.make_node("Relu", ["sources"], ["fused"])
    empty = onnx.helper.make_graph(
        [relu],
        "none",
        graph.input,
        [onnx.helper.make_tensor_value_info("fused", onnx.TensorProto.FLOAT, [1, 16, 12, 20])],
    )
    made = onnx.helper.make_model(empty, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(made, tmp_path / "none.onnx")
    assert int8_share(tmp_path / "none.onnx", feed) == 0.0, "no convolutions at all"


def test_relu_is_computed_in_bytes_between_two_pairs(traced, tmp_path):
    """Convolution, rounded, Relu as engines have it in bytes, rounded: also for all engines."""
    spec, graph = traced("relu")
    quantize(graph, feeds(), 20.0)
    kinds = [node.op_type for node in graph.graph.node]
    first = kinds.index("Conv")
    pair = ["QuantizeLinear", "DequantizeLinear"]
    assert kinds[first + 1 : first + 6] == [*pair, "LeakyRelu", *pair]
    assert all(n.attribute[0].f == 0 for n in graph.graph.node if n.op_type == "LeakyRelu")
    constants = {t.name: onnx.numpy_helper.to_array(t) for t in graph.graph.initializer}
    quantizers = [n for n in graph.graph.node if n.op_type in pair]
    assert {constants[n.input[2]].dtype for n in quantizers} == {np.dtype(np.int8)}
    assert not any(constants[n.input[2]].any() for n in quantizers)
    save_graph(graph, spec, out := tmp_path / "toy.onnx")
    assert int8_share(out, feeds()[0]) == 1.0
    assert engines_for(graph) == ("cpu", "cuda", "openvino", "tensorrt")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    onnxruntime.InferenceSession(str(out), options, providers=["CPUExecutionProvider"])
    ran = [node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node]
    assert ran.count("QLinearLeakyRelu") == 3
    assert ran.count("QuantizeLinear") == ran.count("DequantizeLinear") == 1, "all between stays in bytes"


@pytest.mark.parametrize("name", ["hardtanh", "relu"])
def test_int8_is_close_and_engines_agree(traced, tmp_path, name):
    spec, graph = traced(name)
    exact = [answer(graph, feed) for feed in feeds()]
    quantize(graph, feeds(), 30.0)
    save_graph(graph, spec, out := tmp_path / "toy.onnx")
    for feed, wanted in zip(feeds(), exact, strict=True):
        assert psnr(CpuEngine(out).run(feed), wanted) > 30
        pytest.importorskip("openvino")
        assert psnr(OpenVinoEngine(out).run(feed), CpuEngine(out).run(feed)) > 50


def test_openvino_computes_in_8_bits(traced, tmp_path):
    openvino = pytest.importorskip("openvino")
    if "INT8" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("this CPU computes int8 in float")
    for name in ("hardtanh", "relu"):
        spec, graph = traced(name)
        quantize(graph, feeds(), 20.0)
        save_graph(graph, spec, out := tmp_path / f"{name}.onnx")
        ran = OpenVinoEngine(out)._request.get_compiled_model().get_runtime_model().get_ops()
        notes = [{k: str(v.astype(str)) for k, v in op.get_rt_info().items()} for op in ran]
        kinds = [note["runtimePrecision"] for note in notes if note["layerType"] == "Convolution"]
        # OpenVINO rounds before what puts the two sources beside each other, and the first layer gets floats.
        assert len(kinds) == 4
        assert sum(kind in ("u8", "i8") for kind in kinds) >= 3


def test_sensitive_layers_stay_in_float(traced):
    _, graph = traced("hardtanh")
    exact = [answer(graph, feed) for feed in feeds()]
    all_in_int8 = traced("hardtanh")[1]
    quantize(all_in_int8, feeds(), 0.0)
    target = 0.5 + min(psnr(answer(all_in_int8, f), e) for f, e in zip(feeds(), exact, strict=True))
    kept = quantize(graph, feeds(), target)
    assert 0 < len(kept) < 4
    assert layer_precisions(graph) == {"fp32": len(kept), "int8": 4 - len(kept)}
    assert min(psnr(answer(graph, f), e) for f, e in zip(feeds(), exact, strict=True)) >= target
    more = quantize(traced("hardtanh")[1], feeds(), target, more=1)
    assert more[:-1] == kept


def answer(graph, feed):
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, feed)[0]


def psnr(one, other):
    return -10 * math.log10(max(1e-20, float(np.mean((one - other) ** 2))))


def test_calibration_keeps_the_proportions_of_pictures(monkeypatch, traced_once, tmp_path):
    seen: list[tuple[int, ...]] = []

    def note(core, feeds, *rest, **options):
        seen.extend(feed["sources"].shape for feed in feeds)
        return []

    monkeypatch.setattr(pipeline, "LARGEST", 64)
    monkeypatch.setattr(pipeline, "quantize", note)
    pictures = [np.zeros(shape, np.uint8) for shape in ((48, 128), (40, 32), (16, 400))]
    pairs = [Pair(f"{k}", picture, picture) for k, picture in enumerate(pictures)]
    export(checkpoint_file("nano"), tmp_path / "nano.onnx", pairs[1:2], "x", int8=Calibration(pairs, "x"))
    assert seen[:3] == [(1, 2, 24, 64), (1, 2, 40, 32), (1, 2, 16, 64)]


def test_an_int8_file_of_floats_fails(traced_once, tmp_path):
    _, pairs = simulated_pairs(SIZE, 1)
    out = tmp_path / "nano.onnx"
    gates = Gates(min_psnr=120)  # which no layer in int8 allows
    calibration = Calibration(pairs, "x")
    spec = export(checkpoint_file("nano"), out, pairs, "x", int8=calibration, size=SIZE, gates=gates)
    assert not out.exists()
    assert [gate.name for gate in spec.verification.gates if not gate.passed] == ["layers in int8"]
    with pytest.raises(InputError, match="no calibration pairs"):
        Calibration([], "nothing")


# --- weights


@given(st.integers(0, 2**31), st.sampled_from([(4, 3, 3, 3), (2, 32, 3, 3), (3, 5, 1, 1), (1, 1, 3)]))
def test_rounded_weights_are_close_and_keep_their_sums(seed, shape):
    weight = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    levels, steps = round_weights(weight)
    exactly = weight / steps.reshape(-1, *[1] * (weight.ndim - 1))
    assert np.abs(levels).max() <= LARGEST_WEIGHT, "two products with 255 fit into 16 bits"
    assert 2 * 255 * LARGEST_WEIGHT <= 32767
    if shape[2] == 1:
        assert np.abs(levels - exactly).max() <= 0.5001
        return
    assert np.abs(levels - exactly).max() <= 2.01
    prefix = np.cumsum((levels - exactly).reshape(*shape[:2], -1).sum(2), axis=1)
    assert (
        np.abs(prefix).max() <= 0.51 + 0.5 * (np.abs(levels) == LARGEST_WEIGHT).sum()
    )  # the largest cannot give way


def test_a_channel_without_weights_stays_silent():
    weight = np.random.default_rng(8).standard_normal((3, 2, 3, 3)).astype(np.float32)
    weight[1] = 0
    levels, steps = round_weights(weight)
    assert np.isfinite(steps).all()
    assert not levels[1].any()


def test_whole_multiples_are_kept_exactly():
    weight = (np.arange(-9, 9).reshape(2, 1, 3, 3) / 6).astype(np.float32)
    levels, steps = round_weights(weight)
    np.testing.assert_allclose(levels * steps.reshape(-1, 1, 1, 1), weight, atol=1e-6)
    np.testing.assert_allclose(steps, 1 / 6, rtol=1e-5)
