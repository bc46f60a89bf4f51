"""int8 by static Q/DQ pairs, as TensorRT, OpenVINO and ONNX Runtime read them.

Symmetric with zero point 0, weights per output channel, biases in float. A pair stands before the layer
that reads the value, so behind the activation of the one that made it, where TensorRT can fuse both.
Layers that lose too much are found by measuring and stay in float.
"""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edgefuse.export.bytes import move_bytes
from edgefuse.export.calibrate import find_scales, measure
from edgefuse.export.initializers import drop_unread
from edgefuse.export.layers import over_maps

__all__ = ["choose_layers", "insert_pairs", "quantizable", "quantize"]

WORST = 4
"""How many inputs a layer alone is measured on."""


def quantizable(graph: onnx.ModelProto) -> list[onnx.NodeProto]:
    """Return the convolutions over maps of a graph whose weights are constants."""
    constants = {t.name for t in graph.graph.initializer}
    maps = over_maps(graph)
    return [n for n in graph.graph.node if n.output[0] in maps and n.input[1] in constants]


def quantize(
    graph: onnx.ModelProto,
    inputs: Sequence[NDArray[np.float32]],
    method: str,
    target: float,
    peak: float = 1.0,
    progress: Callable[[str], None] = lambda _: None,
    bytes_at_ends: bool = True,
) -> list[str]:
    """Turn a core graph into an int8 one, in place.

    Args:
        graph: core graph in fp32.
        inputs: network inputs `[1, 2, H, W]` of real pairs, on the graph's scale.
        method: name in `calibrate.METHODS`.
        target: PSNR to the fp32 graph, dB, that no input may fall below; layers stay in float until then.
        peak: what white is in the graph's input and answer.
        progress: called with what is being done.
        bytes_at_ends: see `bytes.move_bytes`; TensorRT has no unsigned bytes.

    Returns:
        Names of the layers that stay in float, the most sensitive first.

    Raises:
        InputError: the method is unknown.
    """
    if bytes_at_ends:
        move_bytes(graph, peak)
    layers = quantizable(graph)
    progress("Calibrating")
    names = list(dict.fromkeys(layer.input[0] for layer in layers))
    scales = find_scales(measure(graph, names, inputs), method)
    kept = choose_layers(graph, scales, inputs, target - 20 * math.log10(peak), progress)
    insert_pairs(graph, scales, {layer.name for layer in layers} - set(kept))
    return kept


def choose_layers(
    graph: onnx.ModelProto,
    scales: Mapping[str, float],
    inputs: Sequence[NDArray[np.float32]],
    target: float,
    progress: Callable[[str], None] = lambda _: None,
) -> list[str]:
    """Return the layers to keep in float, fewest, in the order of what each loses alone.

    The target is 10·log10 of one over the mean squared difference to the graph as it is. A layer alone is
    measured on the `WORST` inputs that lose the most with all layers in int8, everything else on all.
    """
    names = [layer.name for layer in quantizable(graph)]
    exact = _answers(graph, inputs)

    def psnrs(chosen: set[str], which: Sequence[int] = range(len(inputs))) -> list[float]:
        trial = onnx.ModelProto()
        trial.CopyFrom(graph)
        insert_pairs(trial, scales, chosen)
        answers = _answers(trial, [inputs[k] for k in which])
        return [_psnr(answer, exact[k]) for answer, k in zip(answers, which, strict=True)]

    progress("Measuring all layers in int8")
    together = psnrs(set(names))
    if min(together) >= target:
        return []
    worst = sorted(range(len(inputs)), key=lambda k: together[k])[:WORST]
    alone = {}
    for k, name in enumerate(names, 1):
        progress(f"Measuring layer {k} of {len(names)} in int8")
        alone[name] = min(psnrs({name}, worst))
    order = sorted(names, key=lambda name: alone[name])
    # The more layers stay in float, the closer the answer: so halve the range that holds the number.
    low, high = 1, len(order)
    while low < high:
        middle = (low + high) // 2
        progress(f"Trying with {middle} layers in float")
        if min(psnrs(set(order[middle:]))) >= target:
            high = middle
        else:
            low = middle + 1
    return order[:low]


def insert_pairs(graph: onnx.ModelProto, scales: Mapping[str, float], layers: set[str]) -> None:
    """Put Q/DQ pairs before some convolutions, in place; weights become int8 constants."""
    constants = {t.name: t for t in graph.graph.initializer}
    int8 = {n.output[0] for n in graph.graph.node if n.op_type == "DequantizeLinear"}
    made: set[str] = set()
    nodes: list[onnx.NodeProto] = []
    for node in graph.graph.node:
        if node.name in layers:
            value, weight = node.input[:2]
            if value not in made and value not in int8:
                made.add(value)
                graph.graph.initializer.extend(_grid(value, np.float32(scales[value])))
                q, s, z = f"{value}_int8", f"{value}_step", f"{value}_zero"
                nodes.append(helper.make_node("QuantizeLinear", [value, s, z], [q], f"{value}/quantize"))
                outputs = [f"{value}_rounded"]
                nodes.append(helper.make_node("DequantizeLinear", [q, s, z], outputs, f"{value}/dequantize"))
            if weight not in made:
                made.add(weight)
                nodes.append(_int8_weight(graph, constants[weight]))
            node.input[:2] = [value if value in int8 else f"{value}_rounded", f"{weight}_rounded"]
        nodes.append(node)
    del graph.graph.node[:]
    graph.graph.node.extend(nodes)
    drop_unread(graph.graph)


def _int8_weight(graph: onnx.ModelProto, tensor: TensorProto) -> onnx.NodeProto:
    """Add a weight's int8 values and steps, and return the node that makes floats of them."""
    weight = numpy_helper.to_array(tensor)
    largest = np.abs(weight).max(tuple(range(1, weight.ndim)))
    steps = np.maximum(largest, 1e-12).astype(np.float32) / np.float32(127)
    levels = np.rint(weight / steps.reshape(-1, *[1] * (weight.ndim - 1))).clip(-127, 127).astype(np.int8)
    name = tensor.name
    graph.graph.initializer.append(numpy_helper.from_array(levels, f"{name}_int8"))
    graph.graph.initializer.extend(_grid(name, steps))
    inputs = [f"{name}_int8", f"{name}_step", f"{name}_zero"]
    return helper.make_node("DequantizeLinear", inputs, [f"{name}_rounded"], f"{name}/dequantize", axis=0)


def _grid(name: str, steps: NDArray[np.float32] | np.float32) -> list[TensorProto]:
    steps = np.asarray(steps, np.float32)
    zeros = np.zeros(steps.shape, np.int8)
    return [numpy_helper.from_array(steps, f"{name}_step"), numpy_helper.from_array(zeros, f"{name}_zero")]


def _answers(graph: onnx.ModelProto, inputs: Sequence[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return [session.run(None, {"sources": x})[0] for x in inputs]


def _psnr(answer: NDArray[np.float32], exact: NDArray[np.float32]) -> float:
    return -10 * math.log10(max(float(np.mean((answer - exact) ** 2, dtype=np.float64)), 1e-20))
