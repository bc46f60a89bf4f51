"""Every form of the models: network and end-to-end graphs, of a fixed and of any size, in every precision."""

import itertools

import numpy as np
import onnx
import pytest
import torch

from edgefuse import Fuser
from edgefuse.export.graph import engines_for
from edgefuse.runtime.engines import ENGINES
from edgefuse.runtime.engines.onnxruntime import CpuEngine
from edgefuse.spec import read_spec
from edgefuse.train.models.base import TorchEngine
from edgefuse.weights import FOLDER
from tests.support.forms import export_form

TRACED = [
    ("nano", "any", ("fp32", "fp16", "int8")),
    ("nano", "fixed", ("fp32", "int8")),
    ("cnn", "any", ("fp32", "int8")),
    ("gan", "fixed", ("fp16",)),  # the network of `cnn`
    ("transformer", "any", ("fp32", "int8")),
    ("transformer", "fixed", ("fp16",)),
]
"""A trace takes seconds: of what differs little there is one."""
FORMS = [
    (name, size, precision, graph)
    for name, size, precisions in TRACED
    for precision, graph in itertools.product(precisions, ("network", "end_to_end"))
    if (name, precision, graph) != ("transformer", "int8", "network")  # inside the deploy graph, and slow
]


@pytest.fixture(scope="module")
def build(traced_once, weights, tmp_path_factory):
    """Export a model."""
    folder = tmp_path_factory.mktemp("forms")

    def build(name, graph, size, precision, pair):
        out = folder / f"{name}-{graph}-{precision}.onnx"
        return export_form(traced_once, weights, name, graph, size, precision, pair, out)[0], out

    return build


@pytest.mark.parametrize(("name", "size", "precision", "graph"), FORMS)
def test_every_form_answers_as_its_checkpoint(build, pair, name, graph, size, precision):
    fixed = size == "fixed"
    limit = {"fp32": 1e-4, "fp16": 5e-3, "int8": 0.15}[precision]
    if graph == "network":
        model, file = build(name, graph, (64, 48) if fixed else None, precision, pair)
        rng, engine = np.random.default_rng(4), CpuEngine(file)
        x = rng.random((1, 2, 48, 64) if fixed else (2, 2, 40, 24), np.float32)
        feed = {"sources": x, "levels": rng.uniform(0.2, 0.6, (len(x), 5)).astype(np.float32)}
        feed = {tensor.name: feed[tensor.name] for tensor in engine.spec.inputs()}
        with torch.inference_mode():
            expected = model(*map(torch.from_numpy, feed.values())).clamp(0, 1).numpy()
        answer = engine.run(feed)
        assert answer.shape == expected.shape
        assert np.abs(answer - expected).max() <= limit
    else:
        model, file = build(name, graph, (61, 47) if fixed else None, precision, pair)
        ir, vis = (image[20:67, 30:91] if fixed else image[:45, :37] for image in pair)
        expected = Fuser(TorchEngine(model, name))(ir, vis)
        image = Fuser(file)(ir, vis)
        assert image.shape == vis.shape
        assert np.abs(image.astype(int) - expected).max() <= 255 * limit + 1
    assert ("tensorrt" in engines_for(onnx.load(file))) == (graph == "network")


TAKEN_BY_THE_PARSER = """<ir_version: 10, opset_import: ["" : 20]>
    f (float[1, 2, H, W] x) => (float[1, 1, H, W] y)
    <float[1, 2, 1, 1] w = {1, 1}, int8[1, 2, 1, 1] q = {1, 1},
     float s = {0.1}, int8 z = {0}, int8 t = {3}> { %s y = Conv(x, k) }
"""


@pytest.mark.parametrize(
    ("nodes", "taken"),
    [
        ("k = Constant<value = float[1, 2, 1, 1] {1, 1}>()", True),
        ("k = DequantizeLinear(q, s)", True),
        ("k = DequantizeLinear(q, s, z)", True),
        ("k = DequantizeLinear(q, s, t)", False),
        ("k = Neg(w)", False),
    ],
)
def test_tensorrt_is_given_kernels_that_are_constants(nodes, taken):
    graph = onnx.parser.parse_model(TAKEN_BY_THE_PARSER % nodes)
    assert ("tensorrt" in engines_for(graph)) == taken


def test_tensorrt_is_given_no_matrix_of_a_computed_size():
    """Its parser wants to know the size of a matrix of ones and zeros, as of an identity."""
    for source, taken in (("c", True), ("x", False)):
        nodes = f"c = Constant<value = float[2, 2] {{0, 0, 0, 0}}>() e = EyeLike({source}) y = Add(x, e)"
        graph = onnx.parser.parse_model(
            f'<ir_version: 10, opset_import: ["" : 20]> f (float[H, W] x) => (float[H, W] y) {{ {nodes} }}'
        )
        assert ("tensorrt" in engines_for(graph)) == taken


@pytest.mark.parametrize("name", sorted(path.stem for path in FOLDER.glob("*.onnx")))
def test_shipped_files_say_for_which_engines_they_are(name):
    """Those of `nano` are for all. The paper's networks compute their kernels while they run: written out, as
    TensorRT's parser needs them and `edgefuse export cnn` writes them, they are larger than 1 MB."""
    file = FOLDER / f"{name}.onnx"
    every = set(ENGINES) if name.startswith("nano") else set(ENGINES) - {"tensorrt"}
    assert set(read_spec(file).engines) == every <= set(engines_for(onnx.load(file)))
