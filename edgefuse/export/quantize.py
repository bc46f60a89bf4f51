"""int8 by static Q/DQ pairs, as TensorRT, OpenVINO and ONNX Runtime read them.

Zero point 0 (128 for sources that come as bytes), weights per output channel and symmetric, biases in
float. A pair stands before the layer that reads the value, so behind the activation of the one that made it,
where TensorRT can fuse both.
Layers that lose too much are found by measuring and stay in float.
"""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edgefuse.export.bytes import move_bytes
from edgefuse.export.calibrate import Unsigned, find_scales, measure
from edgefuse.export.initializers import drop_unread
from edgefuse.export.layers import over_maps

__all__ = ["choose_layers", "insert_pairs", "quantizable", "quantize"]

NEVER_NEGATIVE = frozenset({"Relu", "Sigmoid"})

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
    unsigned: bool = True,
    more: int = 0,
    ordinary: Sequence[NDArray[np.float32]] = (),
) -> list[str]:
    """Turn a core graph into an int8 one, in place.

    Args:
        graph: core graph in fp32.
        inputs: network inputs `[1, 2, H, W]` of real pairs, on the graph's scale.
        method: name in `calibrate.METHODS`.
        target: PSNR to the fp32 graph, dB, that no input may fall below; layers stay in float until then.
        peak: what white is in the graph's input and answer.
        progress: called with what is being done.
        unsigned: use unsigned bytes for what is never negative, which have twice the levels for it, and at
            both ends (`bytes.move_bytes`). TensorRT has none.
        more: how many more layers stay in float than the target asks for: each time the one that leaves the
            fewest pixels of `ordinary` on another grey level.
        ordinary: inputs for that.

    Returns:
        Names of the layers that stay in float, the most sensitive first.

    Raises:
        InputError: the method is unknown.
    """
    if unsigned:
        move_bytes(graph, peak)
    layers = quantizable(graph)
    progress("Calibrating")
    names = list(dict.fromkeys(layer.input[0] for layer in layers))
    makers = {name: node.op_type for node in graph.graph.node for name in node.output}
    positive = {name for name in names if unsigned and makers.get(name) in NEVER_NEGATIVE}
    scales = find_scales(measure(graph, names, inputs), method, positive)
    kept = choose_layers(graph, scales, inputs, target - 20 * math.log10(peak), progress)
    for _ in range(more):
        kept.append(
            _next_to_keep(graph, scales, {layer.name for layer in layers} - set(kept), ordinary, peak)
        )
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


def _next_to_keep(
    graph: onnx.ModelProto,
    scales: Mapping[str, float],
    layers: set[str],
    inputs: Sequence[NDArray[np.float32]],
    peak: float,
) -> str:
    exact = [np.rint(answer * (255 / peak)) for answer in _answers(graph, inputs)]

    def changed(layer: str) -> float:
        trial = onnx.ModelProto()
        trial.CopyFrom(graph)
        insert_pairs(trial, scales, layers - {layer})
        answers = _answers(trial, inputs)
        return sum(
            float(np.mean(np.rint(a * (255 / peak)) != e)) for a, e in zip(answers, exact, strict=True)
        )

    return min(sorted(layers), key=changed)


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
                kind = np.uint8 if isinstance(scales[value], Unsigned) else np.int8
                graph.graph.initializer.extend(_grid(value, np.float32(scales[value]), kind))
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


def round_weights(weight: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Return the int8 levels of a kernel `[O, I, k, k]` or `[O, I, k]` and the steps `[O]` between them.

    Where all weights of a channel are whole multiples of its smallest, that is the step, and nothing is lost.
    Else rounding keeps the sums over kernels and along each channel within half a level, but where a level of
    ±127 cannot give way; plain rounding gets them wrong by several, and an even ground, which most of a
    picture is, would change its level. Channels alike in a picture are next to each other; of 1×1 kernels
    nothing is known, they are plainly rounded.
    """
    flat = weight.reshape(len(weight), -1).astype(np.float64)
    sizes = np.abs(flat)
    steps = np.maximum(sizes.max(1), 1e-12) / 127
    smallest = np.where(sizes > 1e-6 * sizes.max(1, keepdims=True), sizes, np.inf).min(1)
    with np.errstate(invalid="ignore"):
        exact = np.abs(flat / smallest[:, None] - np.rint(flat / smallest[:, None])).max(1) < 1e-4
    steps = np.where(exact & np.isfinite(smallest) & (smallest > steps), smallest, steps)
    exactly = flat / steps[:, None]
    levels = np.rint(exactly)
    side = math.prod(weight.shape[2:])
    if side == 1:
        return levels.astype(np.int8).reshape(weight.shape), steps.astype(np.float32)
    # Sums over whole kernels, as they should be, and what the rounded ones lack of them.
    wanted = np.diff(
        np.rint(np.cumsum(exactly.reshape(len(flat), -1, side).sum(2), axis=1)), axis=1, prepend=0
    )
    lack = (wanted - levels.reshape(len(flat), -1, side).sum(2)).astype(int)
    for channel, kernel in zip(*np.nonzero(lack), strict=True):
        taps = slice(kernel * side, (kernel + 1) * side)
        missing = lack[channel, kernel]
        error = np.sign(missing) * (exactly[channel, taps] - levels[channel, taps])
        chosen = np.argsort(-error)[: abs(missing)]  # those that were rounded the wrong way the furthest
        levels[channel, taps.start + chosen] += np.sign(missing)
    return levels.clip(-127, 127).astype(np.int8).reshape(weight.shape), steps.astype(np.float32)


def _int8_weight(graph: onnx.ModelProto, tensor: TensorProto) -> onnx.NodeProto:
    """Add a weight's int8 values and steps, and return the node that makes floats of them."""
    levels, steps = round_weights(numpy_helper.to_array(tensor))
    name = tensor.name
    graph.graph.initializer.append(numpy_helper.from_array(levels, f"{name}_int8"))
    graph.graph.initializer.extend(_grid(name, steps))
    inputs = [f"{name}_int8", f"{name}_step", f"{name}_zero"]
    return helper.make_node("DequantizeLinear", inputs, [f"{name}_rounded"], f"{name}/dequantize", axis=0)


def _grid(
    name: str, steps: NDArray[np.float32] | np.float32, kind: type[np.int8] | type[np.uint8] = np.int8
) -> list[TensorProto]:
    steps = np.asarray(steps, np.float32)
    zeros = np.zeros(steps.shape, kind)
    return [numpy_helper.from_array(steps, f"{name}_step"), numpy_helper.from_array(zeros, f"{name}_zero")]


def _answers(graph: onnx.ModelProto, inputs: Sequence[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return [session.run(None, {"sources": x})[0] for x in inputs]


def _psnr(answer: NDArray[np.float32], exact: NDArray[np.float32]) -> float:
    difference = float(np.mean((answer - exact) ** 2, dtype=np.float64))
    return -10 * math.log10(max(difference, 1e-20)) if math.isfinite(difference) else -math.inf
