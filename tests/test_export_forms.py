"""Every form of the models: network and end-to-end graphs, of a fixed and of any size, in every precision."""

import itertools

import numpy as np
import pytest
import torch

from edgefuse import Fuser
from edgefuse.runtime.engines.onnxruntime import CpuEngine
from edgefuse.train.models.base import TorchEngine
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
