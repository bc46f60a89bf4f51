import json
import re
from dataclasses import replace

import cv2
import numpy as np
import onnx
import pytest
import torch

from edgefuse import Fuser
from edgefuse.errors import InputError, ModelError
from edgefuse.export.config import Gates
from edgefuse.export.end_to_end import cast_at_ends, wrap
from edgefuse.export.graph import OPSET, make_spec, save_graph, trace
from edgefuse.export.pipeline import Calibration, export
from edgefuse.export.report import failure, inspect_file, table
from edgefuse.export.verify import Pair, compare, extreme_pairs, simulated_pairs
from edgefuse.images import measure_levels
from edgefuse.runtime.engines.onnxruntime import CpuEngine
from edgefuse.spec import METADATA_KEY, ModelSpec
from edgefuse.train.checkpoint import load_checkpoint, restore_model
from edgefuse.train.models import FusionNetwork
from edgefuse.train.models.base import TorchEngine
from edgefuse.weights import checkpoint_file

pytestmark = pytest.mark.usefixtures("traced_once")


@pytest.fixture(scope="module")
def checkpoint():
    return load_checkpoint(checkpoint_file("nano"))


@pytest.fixture(scope="module")
def model(checkpoint):
    return restore_model(checkpoint)


@pytest.fixture(scope="module")
def build(traced_once, checkpoint, model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("end_to_end")

    def build(name, size=None, **options):
        out = folder / f"{name}.onnx"
        if not out.exists():
            spec = make_spec(checkpoint, model, size, "fp32", graph="end_to_end", **options)
            graph = traced_once(model, spec)
            wrap(graph, spec)
            save_graph(graph, spec, out)
        return out

    return build


def test_images_in_image_out(build, model, pair):
    out = build("any")
    ends = onnx.load(out).graph
    assert [(v.name, v.type.tensor_type.elem_type) for v in (*ends.input, *ends.output)] == [
        *((name, onnx.TensorProto.UINT8) for name in ("ir", "vis")),
        ("levels", onnx.TensorProto.FLOAT),
        ("fused", onnx.TensorProto.UINT8),
    ]
    assert_all_is_read(ends)
    ir, vis = pair
    file, reference = Fuser(out), Fuser(TorchEngine(model, "nano"))
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
    rgb = CpuEngine(build("rgb", colours="rgb"))
    colours, levels = cv2.cvtColor(vis, cv2.COLOR_BGR2RGB), measure_levels(ir, vis)
    answer = rgb.run({"ir": ir[None, :, :, None], "vis": colours[None], "levels": levels[None]})[0]
    expected = Fuser(build("any"))(ir, vis)
    np.testing.assert_array_equal(cv2.cvtColor(answer, cv2.COLOR_RGB2BGR), expected)
    np.testing.assert_array_equal(Fuser(rgb)(ir, vis), expected)


def test_a_batch_is_its_images(build, pair):
    ir, vis = pair
    engine = CpuEngine(build("any"))
    irs, others = np.stack((ir, 255 - ir))[..., None], np.stack((vis, vis[:, ::-1]))
    inputs = {"ir": irs, "vis": others}
    inputs["levels"] = np.stack([measure_levels(a[..., 0], b) for a, b in zip(irs, others, strict=True)])
    together = engine.run(inputs)
    for k in range(2):
        alone = engine.run({name: value[k : k + 1] for name, value in inputs.items()})
        np.testing.assert_array_equal(together[k], alone[0])


def test_a_fixed_size_need_not_be_a_multiple(build, model, pair):
    ir, vis = (image[:47, :61] for image in pair)
    file = Fuser(build("fixed", size=(61, 47)))
    assert np.abs(file(ir, vis).astype(int) - Fuser(TorchEngine(model, "nano"))(ir, vis)).max() <= 1
    with pytest.raises(InputError, match="fixed to 61x47"):
        file(ir[:40], vis[:40])


@pytest.mark.parametrize("size", [None, (61, 47)])
def test_tensorrt_gets_no_bytes_but_at_the_ends(build, pair, tmp_path, size):
    file = build("fixed" if size else "any", size)
    graph = onnx.load(file)
    cast_at_ends(graph)
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
    fusers = [Fuser(out, engine=engine) for engine in ("cpu", "openvino")]
    answers = [fuser(*pair).astype(int) for fuser in fusers]
    assert np.abs(answers[0] - answers[1]).max() <= 1


def test_saturation_and_rounding(build, model):
    dark, red = np.zeros((24, 32), np.uint8), np.zeros((24, 32, 3), np.uint8)
    red[..., 2] = 255
    pairs = [*extreme_pairs((32, 24)), Pair("red", dark, red)]
    report = compare(CpuEngine(build("any")), TorchEngine(model, "nano"), pairs, "x")
    assert report.passed
    assert 255 * report.max_difference <= 1.01


def test_levels_stay_an_input(build, model, pair):
    class Shifted(FusionNetwork):
        size_divisor, uses_levels = 4, True

        def forward(self, x, levels):
            return x[:, 1:] + levels[:, 2, None, None, None] - 0.25

    toy = Shifted().eval()
    spec = ModelSpec("toy", 4, opset=OPSET, graph="end_to_end", levels=True, level_count=5)
    graph = trace(toy, spec)
    wrap(graph, spec)
    save_graph(graph, spec, out := build("any").parent / "levels.onnx")
    ir, vis = pair
    for levels in (None, np.array([0, 0, 0.35, 0, 0], np.float32)):
        expected = Fuser(TorchEngine(toy, "toy"))(ir, vis, levels=levels)
        difference = np.abs(Fuser(out)(ir, vis, levels=levels).astype(int) - expected)
        assert difference.max() <= 1
    assert [value.name for value in onnx.load(out).graph.input] == ["ir", "vis", "levels"]


# --- looking into files


@pytest.fixture(scope="module")
def int8(tmp_path_factory):
    """An int8 file of images, and its spec."""
    _, pairs = simulated_pairs((80, 64))
    out = tmp_path_factory.mktemp("int8") / "nano.onnx"
    calibration = Calibration(pairs[:2], "two frames")
    gates = Gates(max_worse=9)
    source = checkpoint_file("nano")
    return out, export(source, out, pairs[2:], "frames", int8=calibration, graph="end_to_end", gates=gates)


def test_inspecting(int8, tmp_path):
    out, spec = int8
    assert inspect_file(out) == (spec, spec.verification.layers)
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
        CpuEngine(tmp_path / "outside.onnx")


@pytest.mark.parametrize(
    "change",
    [
        lambda report: {"x": 1},
        lambda report: [1],
        lambda report: {**report, "psnr": "high"},
        lambda report: {**report, "gates": [{"name": "PSNR"}]},
        lambda report: {**report, "metrics": {"EN": None}},
        lambda report: {**report, "sizes": [1]},
    ],
)
def test_a_damaged_report_is_one_sentence(int8, tmp_path, change):
    graph = onnx.load(int8[0])
    (entry,) = graph.metadata_props
    assert entry.key == METADATA_KEY
    values = json.loads(entry.value)
    entry.value = json.dumps({**values, "verification": change(values["verification"])})
    onnx.save(graph, tmp_path / "odd.onnx")
    with pytest.raises(ModelError, match=r"odd\.onnx has damaged metadata .*: export it again$"):
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


def test_what_is_shown_of_a_file(int8):
    out, spec = int8
    assert "of the multiplications in ONNX Runtime on a CPU" in shown(out, spec)
    assert "ir uint8 [N, H, W, 1]: infrared" in shown(out, spec)
    assert "rounding, not a GPU's kernels" in shown(out, replace(spec, precision="fp16"))
    assert "verification none" in shown(out, replace(spec, verification=None))
    gate = replace(spec.verification.gates[0], value=None)
    odd = replace(spec, verification=replace(spec.verification, psnr=None, gates=(gate,), of="a.onnx"))
    assert "lowest PSNR infinite" in shown(out, odd)
    assert "PSNR infinite, at least 40 required" in shown(out, odd)
    assert "of the ONNX file a.onnx" in shown(out, odd)


def test_a_file_that_fails_says_which_gate(int8):
    out, spec = int8
    gates = [replace(gate, passed=False) for gate in spec.verification.gates if "layers" in gate.name]
    few = replace(spec, verification=replace(spec.verification, gates=tuple(gates), kept=("conv",)))
    said = failure(out, few)
    assert said is not None
    assert re.search(
        r"nano\.failed\.onnx computes too little in int8, so .*% of the layers in int8, at least 25%",
        said,
    )
    assert "the others lose more than min_psnr allows; the earlier nano.onnx is unchanged" in said
    assert failure(out, spec) is None


def shown(path, spec):
    columns = [list(column.cells) for column in table(path, spec).columns]
    return "\n".join(f"{name} {text}" for name, text in zip(*columns, strict=True))


def test_wishes_that_cannot_be_met(tmp_path, checkpoint, model):
    with pytest.raises(InputError, match="no calibration pairs"):
        Calibration([], "nothing")
    torch.save({"a": 1}, tmp_path / "odd.pt")
    with pytest.raises(ModelError, match="not a checkpoint"):
        export(tmp_path / "odd.pt", tmp_path / "x.onnx", [], "nothing")
    assert not (tmp_path / "x.onnx").exists()
