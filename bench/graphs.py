"""The graphs that bench_models.py measures, each built once."""

import contextlib
import io
import math
import warnings
from functools import cache

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from bench.plain_networks import plain
from edgefuse.export.end_to_end import wrap
from edgefuse.export.graph import make_spec, trace
from edgefuse.export.quantize import insert_pairs, quantizable
from edgefuse.train.checkpoint import Checkpoint, load_checkpoint, restore_model
from edgefuse.train.models import FusionNetwork, build_model, parameter_count
from edgefuse.weights import checkpoint_file, shipped

__all__ = ["built", "cost", "frame", "naive"]

Size = tuple[int, int]


@cache
def built(model: str, size: Size | None, precision: str = "fp32", graph: str = "network") -> bytes:
    """Return the file of a graph. An int8 one is the shipped one, or has every convolution in int8."""
    card = shipped().get(model)
    if (precision, graph) == ("int8", "network") and card is not None and card.int8 is not None:
        return _of_size(onnx.load(card.int8), size)
    checkpoint, network = _network(model)
    spec = make_spec(checkpoint, network, size, precision, graph=graph)
    if precision == "int8":  # tracing takes long: once for both
        made = onnx.ModelProto.FromString(built(model, size))
        layers = quantizable(made)
        names = {layer.name for layer in layers}
        insert_pairs(made, dict.fromkeys((layer.input[0] for layer in layers), 1 / 16), names)
    else:
        made = trace(network, spec)
    if spec.end_to_end:
        wrap(made, spec)
    onnx.helper.set_model_props(made, spec.to_metadata())
    content: bytes = made.SerializeToString()
    return content


def _of_size(made: onnx.ModelProto, size: Size | None) -> bytes:
    if size is not None:
        for dim, side in zip(
            made.graph.input[0].type.tensor_type.shape.dim, (1, 2, *size[::-1]), strict=True
        ):
            dim.dim_value = side
    content: bytes = made.SerializeToString()
    return content


@cache
def naive(model: str, size: Size) -> bytes:
    """Return a published network exported as torch does if it is told nothing more."""
    checkpoint, network = _network(model)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            plain(network),
            (torch.from_numpy(frame(size)),),
            dynamo=True,
            input_names=["sources"],
            output_names=["fused"],
        )
    assert program is not None
    made: onnx.ModelProto = program.model_proto
    onnx.helper.set_model_props(made, make_spec(checkpoint, network, size, "fp32").to_metadata())
    content: bytes = made.SerializeToString()
    return content


def cost(model: str, size: Size = (640, 480)) -> dict[str, int]:
    """Return what a network costs on any machine: weights, multiplications, bytes between operators.

    Engines join operators, so that fewer bytes are moved than there are between those of the file.
    """
    made = onnx.shape_inference.infer_shapes(onnx.ModelProto.FromString(built(model, size)), data_prop=True)
    graph = made.graph
    shapes = {w.name: list(w.dims) for w in graph.initializer}
    for value in (*graph.input, *graph.output, *graph.value_info):
        shapes[value.name] = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
    products = 0
    for node in graph.node:
        if node.op_type == "Conv":
            products += math.prod(shapes[node.output[0]]) * math.prod(shapes[node.input[1]][1:])
        elif node.op_type in ("MatMul", "Gemm"):
            products += math.prod(shapes[node.output[0]]) * shapes[node.input[0]][-1]
    moved = sum(
        math.prod(shapes.get(n, [0])) for node in graph.node for n in (*node.input, *node.output) if n
    )
    return {
        "weights": parameter_count(_network(model)[1]),
        "multiplications": products,
        "bytes": 4 * moved,
    }


def frame(size: Size) -> NDArray[np.float32]:
    """Return a network's input of noise, `[1, 2, H, W]` in [0, 1]."""
    return np.random.default_rng(0).random((1, 2, size[1], size[0]), np.float32)


def _network(model: str) -> tuple[Checkpoint, FusionNetwork]:
    """Return a network as it is shipped; one that is not has random weights."""
    if model in shipped():
        checkpoint = load_checkpoint(checkpoint_file(model))
        return checkpoint, restore_model(checkpoint)
    torch.manual_seed(0)
    return Checkpoint(model, {}, 0, {}), build_model(model).eval()
