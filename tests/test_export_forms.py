"""Every form of the models: core and deploy graphs, of a fixed and of any size, in every precision."""

import itertools

import numpy as np
import onnx
import pytest
import torch

from edgefuse import Fuser
from edgefuse.export import graph as graphs
from edgefuse.export.graph import build_graph, make_spec, save_graph
from edgefuse.export.quantize import quantize
from edgefuse.runtime.backends import OnnxRuntimeBackend
from edgefuse.train.backend import TorchBackend
from edgefuse.train.checkpoint import Checkpoint
from edgefuse.train.models import build_model

TRACED = [
    ("nano", "fixed", ("fp32", "fp16", "int8")),
    ("nano", "any", ("fp32", "int8")),
    ("cnn", "fixed", ("fp32", "int8")),
    ("gan", "fixed", ("fp16",)),
    ("transformer", "fixed", ("fp32", "int8")),
]
"""A trace takes seconds, one of any size most; core graphs of any size of all are in test_export.py."""
FORMS = [
    (name, size, precision, graph)
    for name, size, precisions in TRACED
    for precision, graph in itertools.product(precisions, ("core", "deploy"))
]


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    """Export a model with random weights. Tracing takes nearly all the time, so what can be shared is."""
    folder, traces = tmp_path_factory.mktemp("forms"), {}

    def trace(core, spec):
        size = spec.size and tuple(side + -side % spec.multiple for side in spec.size)
        key = spec.model, spec.precision == "fp16", size, core.peak
        if key not in traces:
            traces[key] = original(core, spec).SerializeToString()
        return onnx.ModelProto.FromString(traces[key])

    def build(name, graph, size, precision):
        torch.manual_seed(2)
        model = build_model(name).eval()
        spec = make_spec(Checkpoint(name, {}, 0, {}), model, size, precision, graph=graph)
        x = np.random.default_rng(3).random((1, 2, 24, 32), np.float32)

        def rework(core, peak):
            if precision == "int8":
                quantize(core, [peak * x], "minmax", 20.0, peak)

        out = folder / f"{name}-{graph}-{precision}.onnx"
        save_graph(build_graph(model, spec, rework), spec, out)
        return model, out

    original = graphs._trace
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(graphs, "_trace", trace)
        yield build


@pytest.mark.parametrize(("name", "size", "precision", "graph"), FORMS)
def test_every_form_answers_as_its_checkpoint(build, pair, name, graph, size, precision):
    fixed = size == "fixed"
    limit = {"fp32": 1e-4, "fp16": 5e-3, "int8": 0.3}[precision]
    if graph == "core":
        model, file = build(name, graph, (32, 24) if fixed else None, precision)
        x = np.random.default_rng(4).random((1, 2, 24, 32) if fixed else (2, 2, 36, 20), np.float32)
        with torch.inference_mode():
            expected = model(torch.from_numpy(x)).clamp(0, 1).numpy()
        answer = OnnxRuntimeBackend(file).run(x)
        assert answer.shape == expected.shape
        assert np.abs(answer - expected).max() <= limit
    else:
        model, file = build(name, graph, (30, 22) if fixed else None, precision)
        ir, vis = (image[20:42, 30:60] if fixed else image[:45, :37] for image in pair)
        expected = Fuser(TorchBackend(model, name))(ir, vis)
        image = Fuser(file)(ir, vis)
        assert image.shape == vis.shape
        assert np.abs(image.astype(int) - expected).max() <= 255 * limit + 1
