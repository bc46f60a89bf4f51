import json
import re
from dataclasses import replace

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from edgefuse import Fuser
from edgefuse.errors import BackendError, InputError, ModelError
from edgefuse.export.gates import Gates
from edgefuse.export.graph import build_graph, make_spec, save_graph
from edgefuse.export.inspect import inspect_file
from edgefuse.export.pipeline import Calibration, export
from edgefuse.export.receipt import Pair, compare, extreme_pairs, simulated_pairs
from edgefuse.export.report import failure, table
from edgefuse.export.tensorrt import casts_outermost
from edgefuse.runtime.backends import OnnxRuntimeBackend
from edgefuse.spec import METADATA_KEY, ModelSpec
from edgefuse.train.backend import TorchBackend
from edgefuse.train.checkpoint import load_checkpoint, restore_model
from edgefuse.weights import checkpoint_file

pytestmark = pytest.mark.usefixtures("traced_once")


@pytest.fixture(scope="module")
def checkpoint():
    return load_checkpoint(checkpoint_file("nano"))


@pytest.fixture(scope="module")
def model(checkpoint):
    return restore_model(checkpoint)


@pytest.fixture(scope="module")
def build(checkpoint, model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("deploy")

    def build(name, size=None, **options):
        out = folder / f"{name}.onnx"
        if not out.exists():
            spec = make_spec(checkpoint, model, size, "fp32", graph="deploy", **options)
            save_graph(build_graph(model, spec), spec, out)
        return out

    return build


def test_images_in_image_out(build, model, pair):
    out = build("any")
    ends = onnx.load(out).graph
    assert [(v.name, v.type.tensor_type.elem_type) for v in (*ends.input, *ends.output)] == [
        (name, onnx.TensorProto.UINT8) for name in ("ir", "vis", "fused")
    ]
    readers = [node for node in ends.node if "sources" in node.input and node.op_type != "Shape"]
    assert len(readers) == 1
    assert_all_is_read(ends)
    ir, vis = pair
    file, reference = Fuser(out), Fuser(TorchBackend(model, "nano"))
    for view in (np.s_[:, :], np.s_[:17, :31], np.s_[:64, :96]):
        a, b = ir[view], vis[view]
        for colour in (b, b[:, :, 1]):
            difference = np.abs(file(a, colour).astype(int) - reference(a, colour))
            assert difference.shape == colour.shape
            assert difference.max() <= 1
            assert (difference > 0).mean() < 0.01


def assert_all_is_read(graph):
    """ONNX Runtime warns of each constant that nothing reads."""
    assert {tensor.name for tensor in graph.initializer} <= {name for n in graph.node for name in n.input}


def test_rgb_is_bgr_turned_round(build, pair):
    ir, vis = pair
    rgb = OnnxRuntimeBackend(build("rgb", colours="rgb"))
    answer = rgb.run_images(ir[None, :, :, None], cv2.cvtColor(vis, cv2.COLOR_BGR2RGB)[None])[0]
    expected = Fuser(build("any"))(ir, vis)
    np.testing.assert_array_equal(cv2.cvtColor(answer, cv2.COLOR_RGB2BGR), expected)
    np.testing.assert_array_equal(Fuser(rgb)(ir, vis), expected)


def test_a_batch_is_its_images(build, pair):
    ir, vis = pair
    backend = OnnxRuntimeBackend(build("any"))
    irs, others = np.stack((ir, 255 - ir))[..., None], np.stack((vis, vis[:, ::-1]))
    together = backend.run_images(irs, others)
    for k in range(2):
        np.testing.assert_array_equal(together[k], backend.run_images(irs[k : k + 1], others[k : k + 1])[0])


def test_a_fixed_size_need_not_be_a_multiple(build, model, pair):
    ir, vis = (image[:47, :61] for image in pair)
    file = Fuser(build("fixed", size=(61, 47)))
    assert np.abs(file(ir, vis).astype(int) - Fuser(TorchBackend(model, "nano"))(ir, vis)).max() <= 1
    with pytest.raises(InputError, match="fixed to 61x47"):
        file(ir[:40], vis[:40])


@pytest.mark.parametrize("size", [None, (61, 47)])
def test_tensorrt_gets_no_bytes_but_at_the_ends(build, pair, tmp_path, size):
    file = build("fixed" if size else "any", size)
    graph = onnx.load(file)
    casts_outermost(graph)
    onnx.checker.check_model(graph, full_check=True)
    assert_all_is_read(graph.graph)
    known = onnx.shape_inference.infer_shapes(graph, strict_mode=True).graph
    inside = [v.name for v in known.value_info if v.type.tensor_type.elem_type == onnx.TensorProto.UINT8]
    assert not inside
    assert not {"QuantizeLinear", "DequantizeLinear"} & {node.op_type for node in graph.graph.node}
    onnx.save(graph, tmp_path / "rearranged.onnx")
    images = [image[:47, :61] for image in pair]
    np.testing.assert_array_equal(Fuser(tmp_path / "rearranged.onnx")(*images), Fuser(file)(*images))


def test_openvino_runs_it(build, pair):
    pytest.importorskip("openvino")
    out = build("any")
    answers = [Fuser(out, engine=engine)(*pair).astype(int) for engine in ("onnxruntime", "openvino")]
    assert np.abs(answers[0] - answers[1]).max() <= 1


def test_saturation_and_rounding(build, model):
    dark, red = np.zeros((24, 32), np.uint8), np.zeros((24, 32, 3), np.uint8)
    red[..., 2] = 255
    pairs = [*extreme_pairs((32, 24)), Pair("red", dark, red)]
    receipt = compare(OnnxRuntimeBackend(build("any")), TorchBackend(model, "nano"), pairs, "x")
    assert receipt.passed
    assert 255 * receipt.max_difference <= 1.001


def test_backends_without_deploy_graphs_say_so(pair):
    class Core:
        device = "nowhere"
        spec = ModelSpec("nano", 4, graph="deploy")

        def run(self, x):
            return x[:, :1]

    with pytest.raises(BackendError, match="--graph core"):
        Fuser(Core())(*pair)


# --- int8


@pytest.fixture(scope="module")
def int8(tmp_path_factory):
    rng = np.random.default_rng(5)
    scenes = []
    for k in range(3):
        coarse = rng.integers(0, 256, (8, 10, 4)).astype(np.uint8)
        scene = cv2.resize(coarse, (80, 64), interpolation=cv2.INTER_CUBIC)
        scenes.append(
            Pair(f"scene {k}", np.ascontiguousarray(scene[..., 0]), np.ascontiguousarray(scene[..., 1:]))
        )
    out = tmp_path_factory.mktemp("int8") / "nano.onnx"
    calibration = Calibration(scenes[:2], "two scenes")
    return out, *export(checkpoint_file("nano"), out, scenes, "scenes", int8=calibration, graph="deploy")


def test_calibration_keeps_the_proportions_of_pictures(monkeypatch, tmp_path):
    seen: list[tuple[int, ...]] = []

    def note(core, inputs, *rest, **options):
        seen.extend(x.shape for x in inputs)
        return []

    monkeypatch.setattr("edgefuse.export.pipeline.LARGEST", 64)
    monkeypatch.setattr("edgefuse.export.pipeline.quantize", note)
    pictures = [np.zeros(shape, np.uint8) for shape in ((48, 128), (40, 32), (16, 400))]
    pairs = [Pair(f"{k}", picture, picture) for k, picture in enumerate(pictures)]
    export(checkpoint_file("nano"), tmp_path / "nano.onnx", pairs[1:2], "x", int8=Calibration(pairs, "x"))
    assert seen[:3] == [(1, 2, 24, 64), (1, 2, 40, 32), (1, 2, 16, 64)]


def test_int8_is_in_the_graph_and_close(int8):
    out, spec, receipt = int8
    assert receipt.psnr > 45
    assert receipt.layers["int8"] + len(receipt.kept) == 7
    assert spec.receipt["calibration"] == "two scenes, mse"
    names = [gate["name"] for gate in receipt.gates]
    assert names == ["PSNR", "PSNR at extremes", "layers in int8", "EN", "MI", "VIF", "Qabf", "SSIM"]
    graph = onnx.load(out).graph
    constants = {t.name: onnx.numpy_helper.to_array(t) for t in graph.initializer}
    quantizers = [n for n in graph.node if n.op_type in ("QuantizeLinear", "DequantizeLinear")]
    pairs = [n for n in quantizers if not n.name.startswith("deploy/")]
    weights = [node for node in pairs if node.input[0] in constants]
    assert len(weights) == receipt.layers["int8"]
    for node in pairs:
        zero, steps = constants[node.input[2]], constants[node.input[1]]
        if node in weights:
            assert zero.dtype == np.int8
            assert not zero.any()
            assert steps.shape == (constants[node.input[0]].shape[0],)
        else:
            assert zero.size == 1
            assert int(zero) in (0, 128) if zero.dtype == np.uint8 else int(zero) == 0


def test_an_int8_file_of_floats_fails(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "edgefuse.export.quantize.move_bytes", lambda *_: None
    )  # rounding to levels costs more
    _, pairs = simulated_pairs((64, 48), 1)
    out = tmp_path / "nano.onnx"
    gates = Gates(min_psnr=90)  # which no layer in int8 allows
    spec, receipt = export(
        checkpoint_file("nano"), out, pairs, "x", int8=Calibration(pairs, "x"), size=(64, 48), gates=gates
    )
    assert not out.exists()
    assert [g["name"] for g in receipt.gates if not g["passed"]] == ["layers in int8"]
    words = r"nano\.failed\.onnx is hardly int8 .*: 0% of the layers in int8, at least 25% asked for"
    said = failure(out, spec)
    assert said
    assert re.search(words, said)


@pytest.mark.parametrize(
    ("layers", "passed"), [({"fp16": 2, "fp32": 4}, False), ({"fp16": 3, "fp32": 3}, True)]
)
def test_a_half_precision_file_of_floats_fails(build, checkpoint, model, layers, passed):
    file = OnnxRuntimeBackend(build("any"))
    file._spec = replace(file.spec, precision="fp16")
    pairs = extreme_pairs((32, 24))
    receipt = compare(file, TorchBackend(model, "nano"), pairs, "x", layers=layers)
    assert receipt.passed is passed


def test_sensitive_layers_stay_in_float(checkpoint, model, int8):
    from edgefuse.export.quantize import quantize

    spec = make_spec(checkpoint, model, (64, 48), "int8")
    graph = build_graph(model, spec)
    x = np.random.default_rng(6).random((1, 2, 48, 64), np.float32)
    kept = quantize(graph, [x], "minmax", 60.0)
    assert 0 < len(kept) < 7
    constants = {tensor.name for tensor in graph.graph.initializer}
    rounded = [n for n in graph.graph.node if n.op_type == "DequantizeLinear" and n.input[0] in constants]
    assert len(rounded) == 7 - len(kept)


def test_one_more_layer_stays_in_float_where_that_changes_the_fewest_levels(checkpoint, model):
    from edgefuse.export.quantize import quantize

    spec = make_spec(checkpoint, model, (64, 48), "int8")
    x = np.random.default_rng(6).integers(0, 256, (1, 2, 48, 64)).astype(np.float32) / np.float32(255)
    graphs = [build_graph(model, spec) for _ in range(3)]
    kept = [
        quantize(graph, [x], "minmax", 20.0, more=more, ordinary=[x]) for more, graph in enumerate(graphs)
    ]
    assert [len(names) for names in kept] == [0, 1, 2]
    assert kept[2][:1] == kept[1]
    exact = np.rint(255 * run(build_graph(model, spec), x))
    changed = [np.mean(np.rint(255 * run(graph, x)) != exact) for graph in graphs]
    assert changed[2] <= changed[1] <= changed[0]


def test_signed_bytes_alone_where_an_engine_has_no_others(checkpoint, model):
    from edgefuse.export.quantize import quantize

    graph = build_graph(model, make_spec(checkpoint, model, (64, 48), "int8"))
    x = np.random.default_rng(6).random((1, 2, 48, 64), np.float32)
    quantize(graph, [x], "minmax", 20.0, unsigned=False)
    constants = {t.name: onnx.numpy_helper.to_array(t) for t in graph.graph.initializer}
    quantizers = [n for n in graph.graph.node if n.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert quantizers
    assert {constants[n.input[2]].dtype for n in quantizers} == {np.dtype(np.int8)}
    assert not any(constants[n.input[2]].any() for n in quantizers)


def run(graph, x):
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"sources": x})[0]


@given(st.integers(0, 2**31), st.sampled_from([(4, 3, 3, 3), (2, 32, 3, 3), (3, 5, 1, 1), (1, 1, 3)]))
def test_rounded_weights_are_close_and_keep_their_sums(seed, shape):
    from edgefuse.export.quantize import round_weights

    weight = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    levels, steps = round_weights(weight)
    exactly = weight / steps.reshape(-1, *[1] * (weight.ndim - 1))
    assert np.abs(levels).max() <= 127
    if shape[2] == 1:
        assert np.abs(levels - exactly).max() <= 0.5001
        return
    assert np.abs(levels - exactly).max() <= 2.01
    prefix = np.cumsum((levels - exactly).reshape(*shape[:2], -1).sum(2), axis=1)
    assert np.abs(prefix).max() <= 0.51 + 0.5 * (np.abs(levels) == 127).sum()  # the largest cannot give way


def test_a_channel_without_weights_stays_silent():
    from edgefuse.export.quantize import round_weights

    weight = np.random.default_rng(8).standard_normal((3, 2, 3, 3)).astype(np.float32)
    weight[1] = 0
    levels, steps = round_weights(weight)
    assert np.isfinite(steps).all()
    assert not levels[1].any()


def test_whole_multiples_are_kept_exactly():
    from edgefuse.export.quantize import round_weights

    weight = (np.arange(-9, 9).reshape(2, 1, 3, 3) / 6).astype(np.float32)
    levels, steps = round_weights(weight)
    np.testing.assert_allclose(levels * steps.reshape(-1, 1, 1, 1), weight, atol=1e-6)
    np.testing.assert_allclose(steps, 1 / 6, rtol=1e-5)


def test_inspecting(int8, tmp_path):
    out, spec, receipt = int8
    assert inspect_file(out) == (spec, receipt.layers)
    content = out.read_bytes()
    (tmp_path / "cut.onnx").write_bytes(content[: len(content) // 2])
    graph = onnx.load(out)
    tensor = graph.graph.initializer[0]
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../elsewhere.bin")
    (tmp_path / "outside.onnx").write_bytes(graph.SerializeToString())
    for name, words in {
        "absent.onnx": "no such model file",
        "cut.onnx": "not a readable ONNX file",
        "outside.onnx": r"elsewhere\.bin, outside its folder",
    }.items():
        with pytest.raises(ModelError, match=words) as caught:
            inspect_file(tmp_path / name)
        assert "\n" not in str(caught.value)
    with pytest.raises(ModelError):
        OnnxRuntimeBackend(tmp_path / "outside.onnx")


@pytest.mark.parametrize(
    "change",
    [
        lambda receipt: {"x": 1},
        lambda receipt: [1],
        lambda receipt: {**receipt, "psnr": "high"},
        lambda receipt: {**receipt, "gates": [{"name": "PSNR"}]},
        lambda receipt: {**receipt, "gates": [{**receipt["gates"][0], "name": "EN", "value": None}]},
        lambda receipt: {**receipt, "metrics": {"EN": None}},
        lambda receipt: {**receipt, "sizes": [1]},
    ],
)
def test_a_damaged_receipt_is_one_sentence(int8, tmp_path, change):
    graph = onnx.load(int8[0])
    (entry,) = graph.metadata_props
    assert entry.key == METADATA_KEY
    values = json.loads(entry.value)
    entry.value = json.dumps({**values, "receipt": change(values["receipt"])})
    onnx.save(graph, tmp_path / "odd.onnx")
    with pytest.raises(ModelError, match=r"odd\.onnx has a damaged receipt: export it again$"):
        inspect_file(tmp_path / "odd.onnx")


def test_weights_outside_the_folder_are_found_in_inner_graphs(int8, tmp_path):
    graph = onnx.load(int8[0])
    tensor = onnx.TensorProto(name="t", data_type=onnx.TensorProto.FLOAT, dims=[1])
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../elsewhere.bin")
    constant = onnx.helper.make_node("Constant", [], ["c"], value=tensor)
    end = onnx.helper.make_tensor_value_info("c", onnx.TensorProto.FLOAT, [1])
    branch = onnx.helper.make_graph([constant], "branch", [], [end])
    graph.graph.node.append(
        onnx.helper.make_node("If", ["yes"], ["d"], then_branch=branch, else_branch=branch)
    )
    (tmp_path / "inner.onnx").write_bytes(graph.SerializeToString())
    with pytest.raises(ModelError, match=r"elsewhere\.bin, outside its folder"):
        inspect_file(tmp_path / "inner.onnx")


def test_what_a_cpu_does_not_prove_is_said(int8):
    out, spec, _ = int8
    assert "multiplies in float between" in shown(out, spec)
    other = replace(spec, receipt={**spec.receipt, "run_on": "OpenVINO on cpu"})
    assert "in float between" not in shown(out, other)
    assert "rounding, not a GPU's kernels" in shown(out, replace(other, precision="fp16"))


def shown(path, spec):
    return " ".join(str(cell) for column in table(path, spec).columns for cell in column.cells)


def test_wishes_that_cannot_be_met(tmp_path, checkpoint, model):
    with pytest.raises(InputError, match="no calibration pairs"):
        Calibration([], "nothing")
    with pytest.raises(InputError, match="opset 9"):
        make_spec(checkpoint, model, None, "fp32", opset=9)
    torch.save({"a": 1}, tmp_path / "odd.pt")
    with pytest.raises(ModelError, match="not a checkpoint"):
        export(tmp_path / "odd.pt", tmp_path / "x.onnx", [], "nothing")
    assert not (tmp_path / "x.onnx").exists()
