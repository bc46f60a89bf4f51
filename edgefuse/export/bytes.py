"""Bytes at both ends of an int8 graph.

Sources have 256 levels, and so has the picture that is made of the answer. So a graph may take the sources
as whole numbers without losing anything, and round the answer; what only moves values around in between,
shuffles above all, then moves a quarter of the memory.
"""

import math

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

__all__ = ["move_bytes"]

MOVES = frozenset({"Reshape", "Transpose"})
"""Operators that change no value."""


def move_bytes(graph: onnx.ModelProto, peak: float) -> None:
    """Let a core graph in fp32 move its sources and its answer as bytes, in place.

    A graph that does not begin by taking grey level 128 off the sources, or does not end by moving and
    clamping its answer, keeps that end as it is.

    Args:
        graph: with input `sources` and output `fused`.
        peak: what white is in both.
    """
    step = np.float32(peak / 255)
    _sources(graph.graph, step)
    _answer(graph.graph, step)


def _sources(graph: onnx.GraphProto, step: np.float32) -> None:
    constants = _constants(graph)
    first = [node for node in graph.node if "sources" in node.input and node.op_type != "Shape"]
    if len(first) != 1 or first[0].op_type != "Sub":
        return
    middle = constants.get(first[0].input[1])
    if middle is None or not np.allclose(middle, 128 * step, rtol=1e-6):
        return
    moved = last = first[0].output[0]
    while len(readers := _readers(graph, last)) == 1 and readers[0].op_type in MOVES:
        last = readers[0].output[0]
    if last == moved:
        return
    _through_bytes(graph, moved, last, step, zero=128)
    quantize = next(node for node in graph.node if node.name == f"{moved}/bytes")
    quantize.input[0] = "sources"  # what was taken off is now the zero of the bytes
    graph.node.remove(next(node for node in graph.node if moved in node.output))


def _answer(graph: onnx.GraphProto, step: np.float32) -> None:
    makers = {name: node for node in graph.node for name in node.output}
    constants = _constants(graph)
    clamp = makers["fused"]
    bounds = [float(constants[name]) for name in clamp.input[1:] if name in constants]
    if (
        clamp.op_type != "Clip"
        or len(bounds) != 2
        or bounds[0] != 0
        or not math.isclose(bounds[1], 255 * step, rel_tol=1e-6)
    ):
        return
    last = moved = clamp.input[0]
    while moved in makers and makers[moved].op_type in MOVES and len(_readers(graph, moved)) == 1:
        moved = makers[moved].input[0]
    if moved == last or len(_readers(graph, moved)) != 1:
        return
    graph.node.remove(clamp)  # bytes saturate
    _through_bytes(graph, moved, last, step, zero=0)
    next(node for node in graph.node if node.name == f"{last}/floats").output[0] = "fused"


def _through_bytes(graph: onnx.GraphProto, first: str, last: str, step: np.float32, zero: int) -> None:
    """Put a Q before the operators that move value `first` until it is `last`, and a DQ behind them.

    The bytes are from 0 to 255, of which `zero` becomes 0 in the end.
    """
    into = [f"{first}_bytes_step", f"{first}_bytes_black"]
    out = [into[0], f"{first}_bytes_zero"]
    for name, value in ((into[0], step), (into[1], np.uint8(0)), (out[1], np.uint8(zero))):
        graph.initializer.append(numpy_helper.from_array(np.array(value), name))
    bytes_in, floats_out = f"{first}_bytes", f"{last}_floats"
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        moves = node.op_type in MOVES and node.input[0] == first
        node.input[:] = [floats_out if name == last else name for name in node.input]
        if moves:
            node.input[0] = bytes_in
        if node.op_type in MOVES and node.output[0] == last:
            nodes += [
                node,
                helper.make_node("DequantizeLinear", [last, *out], [floats_out], f"{last}/floats"),
            ]
        else:
            nodes.append(node)
        if first in node.output:
            nodes.append(helper.make_node("QuantizeLinear", [first, *into], [bytes_in], f"{first}/bytes"))
    del graph.node[:]
    graph.node.extend(nodes)


def _readers(graph: onnx.GraphProto, value: str) -> list[onnx.NodeProto]:
    return [node for node in graph.node if value in node.input]


def _constants(graph: onnx.GraphProto) -> dict[str, NDArray[np.float32]]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
