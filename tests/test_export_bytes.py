"""Bytes at both ends of int8 graphs."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch

from edgefuse.export.bytes import MOVES, move_bytes
from edgefuse.export.graph import OPSET, build_graph
from edgefuse.spec import ModelSpec
from edgefuse.train.models import build_model


def run(graph, x):
    session = ort.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"sources": x})[0]


def traced(name, size=(64, 48)):
    torch.manual_seed(3)
    model = build_model(name).eval()
    return build_graph(model, ModelSpec(name, 4, size=size, opset=OPSET))


def levels(peak=1.0):
    return (peak / 255 * np.random.default_rng(1).integers(0, 256, (1, 2, 48, 64))).astype(np.float32)


@pytest.mark.parametrize("size", [(64, 48), None])
def test_only_the_answer_is_rounded(size):
    graph = traced("nano", size)
    before = run(graph, levels())
    move_bytes(graph, 1.0)
    onnx.checker.check_model(graph, full_check=True)
    after = run(graph, levels())
    assert np.abs(255 * after - np.rint(255 * after)).max() < 1e-4  # whole levels
    assert np.abs(after - before).max() <= 0.51 / 255


def test_what_only_moves_moves_bytes():
    graph = traced("nano")
    move_bytes(graph, 1.0)
    types = {
        v.name: v.type.tensor_type.elem_type
        for v in onnx.shape_inference.infer_shapes(graph).graph.value_info
    }
    moves = [node for node in graph.graph.node if node.op_type in MOVES and "val" not in node.input[0]]
    assert len(moves) == 6
    assert {types[node.output[0]] for node in moves} == {onnx.TensorProto.UINT8}
    assert all(
        node.op_type not in ("Sub", "Clip") or "sources" not in node.input for node in graph.graph.node
    )


def test_a_graph_without_such_ends_stays_as_it_is():
    graph = traced("cnn")
    before = graph.SerializeToString(deterministic=True)
    move_bytes(graph, 1.0)
    assert graph.SerializeToString(deterministic=True) == before
