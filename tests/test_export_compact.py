"""Kernels into phases are stored once, and computed anew to the bit."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from edgefuse.export.compact import store_phases_once
from edgefuse.train.models.folding import into_phases


def graph(weight):
    """A convolution of stride 2 with the given kernel, of which one side is what the phases add."""
    pads = [(weight.shape[2] - 1) // 2] * 4
    ends = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, weight.shape[1], 16, 16]),
        helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, len(weight), 8, 8]),
    ]
    node = helper.make_node("Conv", ["x", "w"], ["y"], "conv", strides=[2, 2], pads=pads)
    made = helper.make_graph([node], "g", ends[:1], ends[1:], [numpy_helper.from_array(weight, "w")])
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def answer(model):
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    x = np.random.default_rng(1).random(session.get_inputs()[0].shape, np.float32)
    return session.run(None, {"x": x})[0]


@pytest.mark.parametrize("side", [3, 5])
def test_phases_are_stored_once_and_answer_the_same(side):
    generator = torch.Generator().manual_seed(side)
    weight = into_phases(torch.randn(6, 8, side, side, generator=generator), 2).numpy()
    model = graph(weight)
    small = onnx.ModelProto()
    small.CopyFrom(model)
    store_phases_once(small)
    onnx.checker.check_model(small, full_check=True)
    assert small.ByteSize() < 0.45 * model.ByteSize()
    assert np.array_equal(answer(small), answer(model))


def test_other_kernels_stay_as_they_are():
    weight = np.random.default_rng(0).random((24, 8, 4, 4), np.float32)
    almost = into_phases(torch.rand(6, 8, 3, 3), 2).numpy()
    almost[3, 0, 0, 0] += 1
    for kernel in (weight, almost, into_phases(torch.rand(1, 1, 3, 3), 2).numpy()):
        model = graph(kernel)
        before = model.SerializeToString()
        store_phases_once(model)
        assert model.SerializeToString() == before
