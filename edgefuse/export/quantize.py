"""int8 by static Q/DQ pairs, as ONNX Runtime, OpenVINO and TensorRT read them.

A pair stands straight behind the convolution, and everything that reads the value reads it rounded:
`DQ → Conv → Q` with nothing between is what all engines compute in 8 bits. Bytes are signed and zero points
0, as TensorRT needs it. Where a value is clipped to -a..a, these are its range, and saturation takes the
place of the Clip. Weights are symmetric, per output channel, biases in float. Layers that lose too much are
found by measuring and stay in float.

ONNX Runtime computes `Conv → Relu → Q` in float if the bytes are signed. So the answer is rounded before
Relu, too: `Conv → Q → DQ → Relu → Q`, where Relu is written as LeakyRelu of slope 0, the one form of it that
ONNX Runtime computes in bytes (a look-up for each).
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from edgefuse.export.graph import drop_unread, is_small, over_maps
from edgefuse.metrics.statistics import decibels
from edgefuse.packages import stay_offline

Feed = Mapping[str, NDArray[np.float32]]
"""Inputs of a network graph by name."""

ACTIVATIONS = frozenset({"Relu", "Clip"})
LARGEST_WEIGHT = 64
"""CPUs without VNNI add two products of an unsigned byte and a weight in 16 bits: 2 · 255 · 64 fits."""
BINS = 4096
LEVELS = 127
"""On either side of 0."""
WORST = 4
"""How many inputs a layer alone is measured on."""


def quantize(
    graph: onnx.ModelProto,
    feeds: Sequence[Feed],
    target: float,
    progress: Callable[[str], None] = lambda _: None,
    *,
    more: int = 0,
) -> list[str]:
    """Turn a network graph into an int8 one, in place.

    Args:
        graph: network graph in fp32.
        feeds: inputs of real pairs.
        target: PSNR to the fp32 graph, dB, that no input may fall below; layers stay in float until then.
        progress: called with what is being done.
        more: how many more layers stay in float than the target asks for.

    Returns:
        Names of the layers that stay in float, the most sensitive first.
    """
    progress("Calibrating")
    steps = find_steps(graph, feeds)
    names = [layer.name for layer in quantizable(graph)]
    exact = _answers(graph, feeds)

    def psnrs(chosen: set[str], which: Sequence[int] = range(len(feeds))) -> list[float]:
        trial = onnx.ModelProto()
        trial.CopyFrom(graph)
        insert_pairs(trial, steps, chosen)
        answers = _answers(trial, [feeds[k] for k in which])
        return [_psnr(answer, exact[k]) for answer, k in zip(answers, which, strict=True)]

    progress("Measuring all layers in int8")
    together = psnrs(set(names))
    kept: list[str] = []
    if more or min(together) < target:
        worst = sorted(range(len(feeds)), key=lambda k: together[k])[:WORST]
        alone = {}
        for k, name in enumerate(names, 1):
            progress(f"Measuring layer {k} of {len(names)} in int8")
            alone[name] = min(psnrs({name}, worst))
        order = sorted(names, key=lambda name: alone[name])
        kept = order[: _fewest(order, psnrs, target, progress) + more]
    insert_pairs(graph, steps, set(names) - set(kept))
    return kept


def _fewest(
    order: Sequence[str], psnrs: Callable[..., list[float]], target: float, progress: Callable[[str], None]
) -> int:
    """Return how many layers, the most sensitive first, must stay in float for the target."""
    low, high = 0, len(order)
    while low < high:  # the more layers stay in float, the closer the answer
        middle = (low + high) // 2
        progress(f"Trying with {middle} layers in float")
        if min(psnrs(set(order[middle:]))) >= target:
            high = middle
        else:
            low = middle + 1
    return low


def quantizable(graph: onnx.ModelProto) -> list[onnx.NodeProto]:
    """Return the convolutions over maps of a graph that 8 bits make faster: of many constant weights."""
    maps, kernels = over_maps(graph), {t.name: t.dims for t in graph.graph.initializer}
    layers = [n for n in graph.graph.node if n.output[0] in maps and n.input[1] in kernels]
    return [n for n in layers if not is_small(kernels[n.input[1]])]


def find_steps(graph: onnx.ModelProto, feeds: Sequence[Feed]) -> dict[str, float]:
    """Return the step between the levels of every value that may be rounded: what layers read and answer.

    Clipped values have the range of their Clip. Of others the values are measured, and the step is the one
    with the smallest mean squared error of rounding and saturation together.
    """
    makers = {name: node for node in graph.graph.node for name in node.output}
    layers = quantizable(graph)
    answers = {_answer(graph, n) for n in layers} - {value.name for value in graph.graph.output}
    read = dict.fromkeys(n.input[0] for n in layers)
    steps, unknown = {}, []
    for name in dict.fromkeys([*read, *sorted(answers)]):
        bounds = _bounds(graph, makers[name]) if name in makers else None
        if bounds:
            steps[name] = max(map(abs, bounds)) / LEVELS
        elif name in read:
            unknown.append(name)
    for name, (top, counts) in _measure(graph, unknown, feeds).items():
        steps[name] = _least_squares(top, counts) / LEVELS
    return steps


def insert_pairs(graph: onnx.ModelProto, steps: Mapping[str, float], layers: set[str]) -> None:
    """Round weights, inputs and clipped answers of some convolutions, in place."""
    chosen = [n for n in graph.graph.node if n.name in layers]
    answers = {_answer(graph, n) for n in chosen}
    rounded = {n.input[0] for n in chosen} | answers.intersection(steps)
    constants = {t.name: numpy_helper.to_array(t) for t in graph.graph.initializer}
    makers = {name: node for node in graph.graph.node for name in node.output}
    kernels = dict.fromkeys(node.input[1] for node in chosen)
    nodes = [_dequantize(graph, name, *round_weights(constants[name])) for name in kernels]
    # What a layer makes is read rounded by all; of other values, floats are there anyway.
    readers = Counter(
        name
        for node in graph.graph.node
        for name in node.input
        if name in rounded and (node.name in layers or _made_by_layer(makers.get(name)))
    )
    for value in rounded:
        _add(graph, f"{value}_step", np.float32(steps[value]))
        _add(graph, f"{value}_zero", np.int8(0))
    for value in sorted(rounded - makers.keys()):
        nodes += [*_pair(value, value), *_more_pairs(graph, value, steps[value], readers[value])]
    for node in graph.graph.node:
        ours = node.name in layers
        for k, name in enumerate(node.input):
            if name in rounded and (ours or _made_by_layer(makers.get(name))):
                node.input[k] = f"{_copy(name, readers[name])}_rounded"
                readers[name] -= 1
        if ours:
            node.input[1] = f"{node.input[1]}_rounded"
        nodes.append(node)
        for value in rounded.intersection(node.output):
            source = makers.get(node.input[0]) if node.input else None
            joined = source is not None and source.op_type == "Concat"
            nodes += _round(graph, nodes.pop(), value, steps[value], value in answers, joined)
            nodes += _more_pairs(graph, value, steps[value], readers[value])
    del graph.graph.node[:]
    graph.graph.node.extend(nodes)
    drop_unread(graph.graph)


def _round(
    graph: onnx.ModelProto, node: onnx.NodeProto, value: str, step: float, of_layer: bool, joined: bool
) -> list[onnx.NodeProto]:
    """Return what makes and rounds a value, in place of the node that makes it."""
    bounds = _bounds(graph, node)
    if bounds and math.isclose(-bounds[0], bounds[1], rel_tol=1e-4) and not joined:
        return _pair(value, node.input[0])
    if of_layer and (node.op_type == "Relu" or (bounds and bounds[0] == 0)):
        signed = f"{value}_signed"
        relu = helper.make_node("LeakyRelu", [f"{signed}_rounded"], [value], node.name, alpha=0.0)
        return [*_pair(signed, node.input[0], value), relu, *_pair(value, value)]
    if node.op_type == "Concat":
        # OpenVINO 2026.4 rounds its parts instead, some of them to nothing, unless something is between.
        ends = [f"{value}_lowest", f"{value}_highest"]
        _add(graph, ends[0], np.float32(-LEVELS * step))
        _add(graph, ends[1], np.float32(LEVELS * step))
        clip = helper.make_node("Clip", [value, *ends], [f"{value}_clipped"], f"{value}/clip")
        return [node, clip, *_pair(value, f"{value}_clipped")]
    return [node, *_pair(value, value)]


def _pair(value: str, source: str, grid_of: str = "") -> list[onnx.NodeProto]:
    """Return a Q and a DQ: `source` → `VALUE_rounded`."""
    levels = f"{value}_int8"
    grid = [f"{grid_of or value}_step", f"{grid_of or value}_zero"]
    return [
        helper.make_node("QuantizeLinear", [source, *grid], [levels], f"{value}/quantize"),
        helper.make_node("DequantizeLinear", [levels, *grid], [f"{value}_rounded"], f"{value}/floats"),
    ]


def _more_pairs(graph: onnx.ModelProto, value: str, step: float, readers: int) -> list[onnx.NodeProto]:
    """Return pairs for the second reader and more.

    Where two read the same signed bytes ONNX Runtime computes in floats, and equal pairs it makes one again:
    so the steps differ by their last bit.
    """
    nodes = []
    last = np.float32(step)
    for k in range(2, readers + 1):
        copy = _copy(value, k)
        last = np.nextafter(last, np.float32(np.inf))
        _add(graph, f"{copy}_step", last)
        _add(graph, f"{copy}_zero", np.int8(0))
        nodes += _pair(copy, value)
    return nodes


def _copy(value: str, reader: int) -> str:
    return value if reader == 1 else f"{value}_for_{reader}"


def _answer(graph: onnx.ModelProto, layer: onnx.NodeProto) -> str:
    """Return the value behind a layer's activation, or its own where there is none."""
    readers = [n for n in graph.graph.node if layer.output[0] in n.input]
    alone = len(readers) == 1 and readers[0].op_type in ACTIVATIONS
    return readers[0].output[0] if alone else layer.output[0]


def _made_by_layer(maker: onnx.NodeProto | None) -> bool:
    return maker is not None and maker.op_type in (*ACTIVATIONS, "Conv")


def _bounds(graph: onnx.ModelProto, node: onnx.NodeProto) -> tuple[float, float] | None:
    """Return the constants that a Clip clips to; None: it is no such node."""
    if node.op_type != "Clip" or len(node.input) != 3:
        return None
    constants = {t.name: t for t in graph.graph.initializer}
    if not all(name in constants for name in node.input[1:]):
        return None
    low, high = (float(numpy_helper.to_array(constants[name])) for name in node.input[1:])
    return low, high


def _dequantize(
    graph: onnx.ModelProto, name: str, levels: NDArray[np.int8], steps: NDArray[np.float32]
) -> onnx.NodeProto:
    """Add a weight's int8 values and steps, and return the node that makes floats of them."""
    inputs = [f"{name}_int8", f"{name}_step", f"{name}_zero"]
    _add(graph, inputs[0], levels)
    _add(graph, inputs[1], steps)
    _add(graph, inputs[2], np.zeros(steps.shape, np.int8))
    return helper.make_node("DequantizeLinear", inputs, [f"{name}_rounded"], f"{name}/floats", axis=0)


def _add(graph: onnx.ModelProto, name: str, value: NDArray[np.generic] | np.generic) -> None:
    graph.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))


def round_weights(weight: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Return the int8 levels of a kernel `[O, I, k, k]` or `[O, I, k]` and the steps `[O]` between them.

    Where all weights of a channel are whole multiples of its smallest, that is the step, and nothing is lost.
    Else rounding keeps the sums over kernels and along each channel within half a level, unless the largest
    levels cannot give way; plain rounding gets them wrong by several, and an even ground, which most of a
    picture is, would change its level. Channels alike in a picture are next to each other; of 1×1 kernels
    nothing is known, they are plainly rounded.
    """
    top = LARGEST_WEIGHT
    flat = weight.reshape(len(weight), -1).astype(np.float64)
    sizes = np.abs(flat)
    steps = np.maximum(sizes.max(1), 1e-12) / top
    smallest = np.where(sizes > 1e-6 * sizes.max(1, keepdims=True), sizes, np.inf).min(1)
    with np.errstate(invalid="ignore"):
        exact = np.abs(flat / smallest[:, None] - np.rint(flat / smallest[:, None])).max(1) < 1e-4
    steps = np.where(exact & np.isfinite(smallest) & (smallest > steps), smallest, steps)
    exactly = flat / steps[:, None]
    levels = np.rint(exactly)
    side = math.prod(weight.shape[2:])
    if side > 1:
        # Sums over whole kernels, as they should be, and what the rounded ones lack of them.
        sums = np.rint(np.cumsum(exactly.reshape(len(flat), -1, side).sum(2), axis=1))
        lack = (np.diff(sums, axis=1, prepend=0) - levels.reshape(len(flat), -1, side).sum(2)).astype(int)
        for channel, kernel in zip(*np.nonzero(lack), strict=True):
            taps = slice(kernel * side, (kernel + 1) * side)
            missing = lack[channel, kernel]
            error = np.sign(missing) * (exactly[channel, taps] - levels[channel, taps])
            furthest = np.argsort(-error)[: abs(missing)]  # those that were rounded the wrong way the most
            levels[channel, taps.start + furthest] += np.sign(missing)
    return levels.clip(-top, top).astype(np.int8).reshape(weight.shape), steps.astype(np.float32)


def _measure(
    graph: onnx.ModelProto, tensors: Sequence[str], feeds: Sequence[Feed]
) -> dict[str, tuple[float, NDArray[np.float64]]]:
    """Return the largest absolute value of some tensors, and a histogram of absolute values up to it.

    The calibrators of ONNX Runtime keep all values of all images in memory; at full frames that is gigabytes.
    """
    probe = onnx.ModelProto()
    probe.CopyFrom(graph)
    inputs = {value.name for value in graph.graph.input}
    made = [name for name in tensors if name not in inputs]
    del probe.graph.output[:]
    probe.graph.output.extend(
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in made
    )
    session = _session(probe)

    def values(feed: Feed) -> dict[str, NDArray[np.float32]]:
        given = {name: np.abs(feed[name]) for name in tensors if name in inputs}
        return given | {n: np.abs(v) for n, v in zip(made, session.run(None, dict(feed)), strict=True)}

    tops = dict.fromkeys(tensors, 1e-12)
    for feed in feeds:
        for name, value in values(feed).items():
            tops[name] = max(tops[name], float(value.max()))
    counts = {name: np.zeros(BINS) for name in tensors}
    for feed in feeds:
        for name, value in values(feed).items():
            counts[name] += np.histogram(value, BINS, (0, tops[name]))[0]
    return {name: (tops[name], counts[name]) for name in tensors}


def _least_squares(top: float, counts: NDArray[np.float64]) -> float:
    """Return the upper end whose rounding and saturation have the smallest mean squared error together."""
    centres = (np.arange(BINS) + 0.5) * (top / BINS)
    tops = top * np.linspace(0.2, 1, 81)
    errors = []
    for end in tops:
        step = end / LEVELS
        rounded = np.minimum(np.rint(centres / step), LEVELS) * step
        errors.append(float((counts * (centres - rounded) ** 2).sum()))
    return float(tops[int(np.argmin(errors))])


def _answers(graph: onnx.ModelProto, feeds: Sequence[Feed]) -> list[NDArray[np.float32]]:
    session = _session(graph)
    return [session.run(None, dict(feed))[0] for feed in feeds]


def _session(graph: onnx.ModelProto):  # type: ignore[no-untyped-def]
    stay_offline()
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    return ort.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _psnr(answer: NDArray[np.float32], exact: NDArray[np.float32]) -> float:
    difference = float(np.mean((answer - exact) ** 2, dtype=np.float64))
    return decibels(max(difference, 1e-20)) if math.isfinite(difference) else -math.inf
