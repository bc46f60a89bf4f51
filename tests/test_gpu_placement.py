"""Where ONNX Runtime's GPU build puts the nodes of every model file, over stubs of CUDA's libraries.

Nodes are placed before any kernel runs: this proves that the arithmetic would be on the GPU, and not that
it answers correctly or fast there. `make test-gpu-placement` downloads the package and shows a table.
"""

import itertools
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgefuse.runtime.engines.onnxruntime import CPU, CUDA, HEAVY
from edgefuse.spec import ModelSpec
from edgefuse.weights import FOLDER
from tests.support.cuda_stub import environment
from tests.support.forms import export_form

SHIPPED = sorted(path.stem for path in FOLDER.glob("*.onnx"))
SIZES = {"any": None, "even": (64, 48), "odd": (61, 47)}
"""Of a graph; only of the even one are both sides multiples of what networks need."""
FORMS = [
    (name, precision, graph, size, arranged)
    for name, precision, graph, size, arranged in itertools.product(
        ("nano", "cnn", "transformer"),
        ("fp32", "fp16", "int8"),
        ("network", "end_to_end"),
        SIZES,
        ("", "for_tensorrt"),
    )
    if (graph, size) != ("network", "odd") and (precision != "int8" or name == "nano" or size == "even")
]
IMAGES = {"ir": 1, "vis": 3, "fused": 3}
"""Their channels."""
SHAPES = {"Add", "Cast", "Concat", "Div", "Gather", "Max", "Min", "Mul", "Reshape", "Squeeze", "Sub"}
"""Arithmetic on shapes, which ONNX Runtime puts on the CPU on purpose."""
WEIGHTS = {"DequantizeLinear"}
"""Of a kernel, per channel, which CUDA does not do: some kB a frame."""


@pytest.fixture(scope="module")
def placement(gpu_build, tmp_path_factory, traced_once, weights, module_pair):
    """Where the nodes of each file are, by the file's name."""
    folder = tmp_path_factory.mktemp("placement")
    arranged = dict.fromkeys(SHIPPED, ("cuda",))
    for form in FORMS:
        name, precision, graph, size, arranging = form
        out = folder / f"{label(form)}.onnx"
        made = traced_once, weights, name, graph, SIZES[size], precision, module_pair, out, bool(arranging)
        arranged[out.stem] = export_form(*made)[1]
    files = [(FOLDER if name in SHIPPED else folder) / f"{name}.onnx" for name in arranged]
    files.append(_on_cpu(folder / "on_cpu.onnx"))
    found = {Path(file).stem: nodes for file, nodes in gpu_build("placement.py", *files).items()}
    _show(found)
    return found, arranged


def label(form):
    return "-".join(filter(None, form))


@pytest.fixture(scope="module")
def module_pair():
    rng = np.random.default_rng(7)
    return rng.integers(0, 256, (75, 101), np.uint8), rng.integers(0, 256, (75, 101, 3), np.uint8)


@pytest.fixture(scope="module")
def gpu_build(tmp_path_factory):
    """Run a script with the GPU build of ONNX Runtime over stubs; return what it prints."""
    folder = tmp_path_factory.mktemp("stubs")
    env = environment(folder)

    def run(script, *arguments):
        command = [sys.executable, str(Path(__file__).parent / "support" / script), *map(str, arguments)]
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=600, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        return json.loads(done.stdout)

    return run


def _on_cpu(path: Path) -> Path:
    """Write a graph whose convolution CUDA does not have."""
    spec = ModelSpec("integers", 1, opset=20)
    grid = [
        helper.make_tensor("step", TensorProto.FLOAT, [], [0.1]),
        helper.make_tensor("zero", TensorProto.INT8, [], [0]),
    ]
    kernel = helper.make_tensor("kernel", TensorProto.INT8, [1, 2, 1, 1], [1, 2])
    nodes = [
        helper.make_node("QuantizeLinear", ["sources", "step", "zero"], ["levels"]),
        helper.make_node(
            "QLinearConv", ["levels", "step", "zero", "kernel", "step", "zero", "step", "zero"], ["sums"]
        ),
        helper.make_node("DequantizeLinear", ["sums", "step", "zero"], ["fused"]),
    ]
    ends = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", c, "H", "W"])
        for n, c in (("sources", 2), ("fused", 1))
    ]
    graph = helper.make_graph(nodes, "integers", ends[:1], ends[1:], [*grid, kernel])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    helper.set_model_props(model, spec.to_metadata())
    onnx.save(model, path)
    return path


def _show(found):
    print("\n| file | large nodes on CUDA | on the CPU | other nodes on CUDA | on the CPU |")
    print("|---|---|---|---|---|")
    for name, nodes in found.items():
        if not isinstance(nodes, str):
            cells = [
                sum(count for kind, count in nodes[provider].items() if (kind in HEAVY) == large)
                for large in (True, False)
                for provider in (CUDA, CPU)
            ]
            print(f"| {name} | {' | '.join(map(str, cells))} |")


@pytest.mark.parametrize("name", [*SHIPPED, *map(label, FORMS)])
def test_the_arithmetic_of_every_file_is_on_the_gpu(placement, name):
    """Or the file says that it is not for CUDA: bytes that must be padded, which CUDA cannot."""
    found, arranged = placement
    nodes = found[name]
    padded = name.endswith(("end_to_end-any", "end_to_end-odd"))
    assert ("cuda" in arranged[name]) != padded
    if name.endswith("end_to_end-any"):
        assert "large nodes would run on the CPU, such as MatMul end_to_end/weighed" in nodes
        return
    assert not isinstance(nodes, str), nodes
    assert sum(nodes[CUDA].get(kind, 0) for kind in HEAVY) >= 9
    assert not HEAVY & nodes[CPU].keys()
    small = SHAPES | (WEIGHTS if "int8" in name else set()) | ({"Pad"} if padded else set())
    assert nodes[CPU].keys() <= small


def test_a_convolution_that_cuda_does_not_have_is_an_error(placement):
    assert "1 of its large nodes would run on the CPU, such as QLinearConv" in placement[0]["on_cpu"]


def test_arrays_of_a_gpu_are_bound_where_they_are(gpu_build, tmp_path):
    """The answer is the visible image: copies are what the stubs can do."""
    sides = ["N", "H", "W"]
    ends = [helper.make_tensor_value_info(n, TensorProto.UINT8, [*sides, c]) for n, c in IMAGES.items()]
    graph = helper.make_graph([helper.make_node("Identity", ["vis"], ["fused"])], "copy", ends[:2], ends[2:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    helper.set_model_props(model, ModelSpec("copy", 1, opset=20, graph="end_to_end").to_metadata())
    onnx.save(model, tmp_path / "copy.onnx")
    assert gpu_build("on_device.py", tmp_path / "copy.onnx") == {
        **{"device": "ONNX Runtime on cuda", "shape": [20, 24, 3]},
        **{"right": True, "out": True, "timed": [7, True]},
    }
