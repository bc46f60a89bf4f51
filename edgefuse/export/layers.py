"""In which precision the layers of a graph really compute, read off the graph itself."""

from collections import Counter

import onnx
from onnx import TensorProto

__all__ = ["LAYERS", "layer_precisions", "over_maps"]

LAYERS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
"""Operators that hold nearly all of the arithmetic."""

NAMES = {TensorProto.FLOAT: "fp32", TensorProto.FLOAT16: "fp16", TensorProto.BFLOAT16: "bf16"}


def layer_precisions(graph: onnx.ModelProto) -> dict[str, int]:
    """Count the layers of a graph by the precision that they compute in: `{"int8": 6, "fp32": 1}`.

    A layer is int8 if all that it multiplies comes straight out of int8; the luma's weighing around the
    network in a deploy graph is not counted, and neither are convolutions of a single row or column.
    """
    types = _types(graph)
    maps = over_maps(graph)
    makers = {name: node for node in graph.graph.node for name in node.output}
    counts: Counter[str] = Counter()
    for node in graph.graph.node:
        if node.op_type not in LAYERS or node.name.startswith("deploy/"):
            continue
        if node.op_type == "Conv" and node.output[0] not in maps:
            continue
        sources = [makers.get(name) for name in node.input[:2]]
        if all(source is not None and source.op_type == "DequantizeLinear" for source in sources):
            counts["int8"] += 1
        else:
            counts[NAMES.get(types.get(node.output[0], 0), "unknown")] += 1
    return dict(sorted(counts.items()))


def over_maps(graph: onnx.ModelProto) -> set[str]:
    """Return the answers of the convolutions that go over maps, not over what maps were averaged to."""
    inferred = onnx.shape_inference.infer_shapes(graph).graph
    flat = {
        value.name
        for value in (*inferred.value_info, *inferred.output)
        if any(side.dim_value == 1 for side in value.type.tensor_type.shape.dim[2:])
    }
    return {n.output[0] for n in graph.graph.node if n.op_type == "Conv" and n.output[0] not in flat}


def _types(graph: onnx.ModelProto) -> dict[str, int]:
    """Return the element type of every value."""
    known = onnx.shape_inference.infer_shapes(graph).graph
    types = {t.name: t.data_type for t in known.initializer}
    for value in (*known.value_info, *known.input, *known.output):
        types[value.name] = value.type.tensor_type.elem_type
    return types
