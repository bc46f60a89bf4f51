"""Arrays of other libraries, where the engine computes: torch's on the CPU, and a GPU's over a fake."""

import ctypes
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgefuse import Fuser
from edgefuse.errors import BackendError, InputError
from edgefuse.runtime.engines.base import DeviceArray, _DLTensor, as_device_array
from edgefuse.spec import ModelSpec
from edgefuse.weights import model_file

torch = pytest.importorskip("torch")


def write_brighter(path, levels=False, **spec):
    """Write an end-to-end graph that answers the brighter of both images (and reads levels)."""
    kinds = {"ir": (TensorProto.UINT8, ["N", "H", "W", 1]), "vis": (TensorProto.UINT8, ["N", "H", "W", 3])}
    if levels:
        kinds["levels"] = (TensorProto.FLOAT, ["N", 4])  # the count of older files
    nodes = [helper.make_node("Max", ["ir", "vis"], ["fused"])]
    outputs = [helper.make_tensor_value_info("fused", *kinds["vis"])]
    inputs = [helper.make_tensor_value_info(name, *kind) for name, kind in kinds.items()]
    if levels:
        nodes[0].output[0] = "brighter"
        nodes += [
            helper.make_node("ReduceMax", ["levels"], ["level"], keepdims=0),
            helper.make_node("Cast", ["level"], ["grey"], to=TensorProto.UINT8),
            helper.make_node("Max", ["brighter", "grey"], ["fused"]),
        ]
    model = helper.make_model(
        helper.make_graph(nodes, "brighter", inputs, outputs),
        opset_imports=[helper.make_opsetid("", 20)],
        ir_version=10,
    )
    facts = ModelSpec("brighter", 1, opset=20, graph="end_to_end", levels=levels, **spec)
    helper.set_model_props(model, facts.to_metadata())
    onnx.save(model, path)
    return path


@pytest.fixture
def brighter(tmp_path):
    with Fuser(write_brighter(tmp_path / "brighter.onnx"), engine="cpu") as fuser:
        yield fuser


@pytest.fixture
def tensors():
    rng = np.random.default_rng(5)
    ir, vis = rng.integers(0, 256, (20, 24), np.uint8), rng.integers(0, 256, (20, 24, 3), np.uint8)
    return torch.from_numpy(ir), torch.from_numpy(vis), np.maximum(ir[..., None], vis)


def test_torch_tensors_are_fused_where_they_are(brighter, tensors):
    ir, vis, expected = tensors
    answer = brighter(ir, vis)
    assert isinstance(answer, DeviceArray)
    assert (answer.shape, answer.dtype.name, answer.device) == ((20, 24, 3), "uint8", "cpu")
    np.testing.assert_array_equal(np.asarray(answer), expected)
    assert torch.equal(torch.as_tensor(np.asarray(answer)), torch.from_numpy(expected))
    np.testing.assert_array_equal(brighter(ir[..., None], answer), expected)  # its own answer


def test_an_answer_goes_where_it_is_wanted(brighter, tensors):
    ir, vis, expected = tensors
    out = torch.zeros_like(vis)
    assert brighter(ir, vis, out=out) is out
    np.testing.assert_array_equal(out.numpy(), expected)


def test_nothing_is_copied(tensors):
    _, vis, _ = tensors
    assert as_device_array(vis, "x").pointer == vis.data_ptr()
    part = vis[4:]
    assert as_device_array(part, "x").pointer == part.data_ptr() == vis.data_ptr() + 4 * 24 * 3


def test_an_answer_lives_as_long_as_it_is_used(brighter, tensors):
    ir, vis, expected = tensors
    kept = np.asarray(brighter(ir, vis))
    for _ in range(8):
        brighter(ir, vis * 0)
    np.testing.assert_array_equal(kept, expected)


def test_levels_are_given(tensors, tmp_path):
    ir, vis, expected = tensors
    fuser = Fuser(write_brighter(tmp_path / "levels.onnx", levels=True), engine="cpu")
    with pytest.raises(InputError, match=r"takes levels, which are not measured on a GPU: give levels="):
        fuser(ir, vis)
    answer = fuser(ir, vis, levels=np.array([0, 200, 0, 0], np.float32))
    np.testing.assert_array_equal(np.asarray(answer), np.maximum(expected, 200))
    given: Any = [0, 200, 0, 0, 255]  # a list, with one that this file does not take
    more = fuser(ir, vis, levels=given)
    np.testing.assert_array_equal(np.asarray(more), np.maximum(expected, 200))
    wrong: Any
    for wrong in ([0, 0, 0], [0, 0, 0, float("nan")], "dark", [[0, 0, 0, 0]], 3.0):
        with pytest.raises(InputError, match=r"levels .* 4 numbers"):
            fuser(ir, vis, levels=wrong)


def on_gpu(array, number=None, **facts):
    """What says that it is on a GPU, whose facts can be changed."""
    data = (array.ctypes.data, False)
    facts = {"shape": array.shape, "typestr": array.dtype.str, "data": data, "version": 3} | facts
    where = {} if number is None else {"__dlpack_device__": lambda: (2, number)}
    return SimpleNamespace(__cuda_array_interface__=facts, array=array, **where)


def through_dlpack(array, offset):
    """What gives a part of an array that begins `offset` bytes behind its address."""
    tensor = _DLTensor(data=array.ctypes.data, device=1, ndim=1, code=1, bits=8, lanes=1, byte_offset=offset)
    side = ctypes.c_int64(array.size - offset)
    tensor.shape = ctypes.pointer(side)
    new = ctypes.pythonapi.PyCapsule_New
    new.restype, new.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
    capsule = new(ctypes.addressof(tensor), b"dltensor", None)
    return SimpleNamespace(__dlpack__=lambda: capsule, kept=(tensor, side, array))


def test_an_array_begins_behind_its_offset():
    array = np.arange(40, dtype=np.uint8)
    found = as_device_array(through_dlpack(array, 7), "x")
    np.testing.assert_array_equal(np.asarray(found), array[7:])


def test_the_gpu_of_an_array_is_read():
    array = np.zeros((20, 24), np.uint8)
    assert as_device_array(on_gpu(array, 0), "x").device_id == 0
    for on_another in (on_gpu(array, 1), DeviceArray(8, (2,), array.dtype, "cuda", 1)):
        with pytest.raises(InputError, match="x is on GPU 1, and engines compute on GPU 0: copy it there"):
            as_device_array(on_another, "x")


class Raising:
    """As torch's tensors with gradients on a GPU."""

    @property
    def __cuda_array_interface__(self):
        raise RuntimeError("Can't get __cuda_array_interface__ on Variable that requires grad.")


@pytest.mark.parametrize(
    "facts",
    [
        *({"data": data} for data in (None, 5, (None, False), (-1, False), ("8", False))),
        *({"shape": shape} for shape in (None, 3, ("a",), (-1, 4))),
        *({"typestr": kind} for kind in ("?!", "uint9")),
        {"strides": 3},
    ],
)
def test_an_interface_that_makes_no_sense_is_one_sentence(brighter, facts):
    array = np.zeros((20, 24, 3), np.uint8)
    with pytest.raises(InputError, match="visible cannot be read as an array of a device"):
        brighter(on_gpu(array[..., 0].copy()), on_gpu(array, **facts))


def test_what_is_not_a_pair_on_one_device_is_one_sentence(brighter, tensors):
    ir, vis, _ = tensors
    with pytest.raises(InputError, match=r"infrared cannot be read .*requires grad"):
        brighter(Raising(), on_gpu(vis.numpy()))
    with pytest.raises(InputError, match="infrared is in the memory of cpu and visible in that of cuda"):
        brighter(ir, on_gpu(vis.numpy()))
    for mixed in ((ir.numpy(), vis), (ir, vis.numpy())):
        with pytest.raises(InputError, match="one image is NumPy's and the other one is not"):
            brighter(*mixed)
    for shape in ((), (5,), (20, 24)):
        with pytest.raises(InputError, match=r"it must be uint8 \[H, W, 3\]"):
            brighter(ir, torch.zeros(shape, dtype=torch.uint8))
    with pytest.raises(InputError, match="the images are 24x15, at least 16x16 is needed"):
        brighter(ir[:15], vis[:15])


def test_an_answer_is_not_written_where_it_must_not(brighter, tensors):
    ir, vis, _ = tensors
    data = (vis.numpy().ctypes.data, True)
    with pytest.raises(InputError, match="out is read-only"):
        brighter(ir, vis, out=on_gpu(vis.numpy(), data=data))


def test_what_does_not_fit_is_one_sentence(brighter, tensors, tmp_path):
    ir, vis, _ = tensors
    with pytest.raises(
        InputError, match=r"infrared has gaps \(shape \[20, 12\], strides \[24, 2\]\): copy it"
    ):
        brighter(ir[:, ::2], vis[:, :12])
    with pytest.raises(InputError, match=r"visible is float32 \[20, 24, 3\], it must be uint8"):
        brighter(ir, vis.float())
    with pytest.raises(InputError, match=r"infrared is uint8 \[10, 24\], it must be uint8 \[20, 24\]"):
        brighter(ir[:10], vis)
    with pytest.raises(InputError, match=r"out is uint8 \[20, 24\], it must be as the visible image"):
        brighter(ir, vis, out=ir)
    with pytest.raises(InputError, match="ir is in the memory of cuda, and ONNX Runtime on cpu needs it"):
        brighter(on_gpu(ir.numpy()), on_gpu(vis.numpy()))
    with pytest.raises(InputError, match="cannot be read as an array of a device"):
        brighter(torch.zeros(20, 24, requires_grad=True), vis)
    with pytest.raises(InputError, match=r"with edgefuse export YOUR_CHECKPOINT --graph .*--rgb"):
        brighter(ir, vis, rgb=True)
    with pytest.raises(InputError, match=r"make one with edgefuse export nano --graph end_to_end"):
        Fuser(model_file("nano"), engine="cpu")(ir, vis)
    fixed = Fuser(write_brighter(tmp_path / "fixed.onnx", size=(16, 16)), engine="cpu")
    with pytest.raises(InputError, match="fixed to 16x16 and the image is 24x20"):
        fixed(ir, vis)


def test_an_engine_without_it_says_so(brighter, tensors):
    from edgefuse.runtime.engines import Engine

    class Plain(Engine):
        device, spec = "a plain one", brighter.spec

        def run(self, inputs):
            raise AssertionError

    with pytest.raises(BackendError, match="a plain one takes NumPy arrays alone: use --engine cuda"):
        Fuser(Plain())(*tensors[:2])
