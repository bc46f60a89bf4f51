"""The end-to-end graph: uint8 images in, uint8 image out, with everything around the network inside.

It is arranged for ONNX Runtime's CPU kernels, whose element-wise operators are slow on the last axis of
`[N, H, W, 3]` (one grey level for three colours is broadcast pixel by pixel), while they are fast on
planes. So the images are turned while they are still bytes, a quarter of the traffic, and the pixels of a
plane are one axis. The Reshape between Transpose and Cast matters: without it ONNX Runtime moves the
Transpose behind the Cast, to floats, and on into the addition.

QuantizeLinear with a step of 1 rounds, clamps and converts to bytes at once. TensorRT has bytes at a
network's ends alone, where it wants nothing but a cast, which truncates, and CUDA in ONNX Runtime cannot
pad them: `cast_at_ends` rearranges a graph.
"""

import onnx
from onnx import TensorProto, helper, parser

from edgefuse.export.graph import drop_unread
from edgefuse.spec import ModelSpec

LUMA = {"bgr": (0.114, 0.587, 0.299), "rgb": (0.299, 0.587, 0.114)}
"""BT.601, as `images.luma`."""

AROUND = "end_to_end/"
"""Beginning of the names of the nodes around the network."""

BEFORE = """
    colours_u8 = Reshape(planes_u8, three_planes)
    colours = Cast<to=1>(colours_u8)
    weighed = MatMul(luma, colours)
    grey = Round(weighed)
    warm_u8 = Reshape(thermal_u8, one_plane)
    warm = Cast<to=1>(warm_u8)
    both = Concat<axis=1>(warm, grey)
    stacked = Reshape(both, grey_shape)
    sources = Mul(stacked, unit)
    """
AFTER = """
    answer_levels = Mul(network_fused, white)
    fused_levels = Reshape(answer_levels, one_plane)
    change = Sub(fused_levels, grey)
    shifted = Add(colours, change)
    levels_u8 = QuantizeLinear(shifted, one_level, no_level)
    fused_u8 = Reshape(levels_u8, colour_shape)
    """
# Sizes that are known only when an image comes; how far the sides are from the next multiple, in integers
# that never become negative.
MEASURE = """
    sides = Shape<start=1, end=3>(ir)
    reached = Add(sides, almost)
    blocks = Div(reached, multiple)
    wanted = Mul(blocks, multiple)
    missing = Sub(wanted, sides)
    pads = Concat<axis=0>(no_pads, missing)
    grey_shape = Concat<axis=0>(two_maps, wanted)
    colour_shape = Concat<axis=0>(three_maps, wanted)
    """


def wrap(core: onnx.ModelProto, spec: ModelSpec) -> None:
    """Put luma, normalisation, padding, colours, clamp and rounding around a network graph, in place.

    Args:
        core: graph with input `sources` (and `levels`, which stays an input) and output `fused`.
        spec: of the end-to-end graph; its size may be any, the network graph's is the next multiple.
    """
    steps, constants = _steps(spec)
    ends = [
        ", ".join(f"{t.dtype}[{', '.join(map(str, t.shape))}] {t.name}" for t in tensors)
        for tensors in (spec.inputs(), spec.outputs())
    ]
    ends[1] = ends[1].replace(" fused", " image")
    opsets = f'<ir_version: {core.ir_version}, opset_import: ["" : {spec.opset}]>'
    steps_of = f"{opsets} end_to_end ({ends[0].replace('float32', 'float')}) => ({ends[1]}) {{ {steps} }}"
    shell = parser.parse_model(steps_of).graph
    graph = core.graph
    for node in graph.node:  # so that the image can be called what the network graph's answer is called
        node.input[:] = ["network_fused" if name == "fused" else name for name in node.input]
        node.output[:] = ["network_fused" if name == "fused" else name for name in node.output]
    for node in shell.node:
        node.output[:] = ["fused" if name == "image" else name for name in node.output]
        node.name = f"{AROUND}{node.output[0]}"
    shell.output[0].name = "fused"
    first = next(i for i, node in enumerate(shell.node) if "network_fused" in node.input)
    nodes = [*shell.node[:first], *graph.node, *shell.node[first:]]
    for field, values in (("node", nodes), ("input", list(shell.input)), ("output", list(shell.output))):
        del getattr(graph, field)[:]
        getattr(graph, field).extend(values)
    graph.initializer.extend(constants)
    drop_unread(graph)


def cast_at_ends(graph: onnx.ModelProto) -> None:
    """Let a graph of uint8 images turn them into float first of all and back last of all, in place.

    TensorRT knows uint8 at a network's ends alone: what takes such an input must be a cast, not even a
    Transpose may come between (NVIDIA/TensorRT issue 3985). On a CPU moving bytes is four times cheaper
    than moving floats, so other graphs do that. The answers are the same to the bit.
    """
    _round_in_floats(graph.graph)
    nodes, first, last = list(graph.graph.node), [], []
    for value in (*graph.graph.input, *graph.graph.output):
        if value.type.tensor_type.elem_type == TensorProto.UINT8:
            inner = f"{value.name}_float"
            for node in nodes:
                for names in (node.input, node.output):
                    names[:] = [inner if name == value.name else name for name in names]
            ends = (value.name, inner), (inner, value.name)
            if value in graph.graph.input:
                first.append(_cast(*ends[0], TensorProto.FLOAT))
            else:
                last.append(_cast(*ends[1], TensorProto.UINT8))
    del graph.graph.node[:]
    graph.graph.node.extend([*first, *nodes, *last])


def _cast(source: str, target: str, dtype: int) -> onnx.NodeProto:
    return helper.make_node("Cast", [source], [target], name=f"cast/{target}", to=dtype)


def _round_in_floats(graph: onnx.GraphProto) -> None:
    """Let an end-to-end graph round and clamp in floats, in place, to an image of whole levels."""
    nodes = []
    for node in graph.node:
        if node.name == f"{AROUND}levels_u8":
            source, target = node.input[0], node.output[0]
            nodes.append(helper.make_node("Round", [source], ["rounded"], name=f"{AROUND}rounded"))
            nodes.append(helper.make_node("Clip", ["rounded", "black", "white"], [target], name=node.name))
            for name, level in (("black", 0.0), ("white", 255.0)):
                if all(tensor.name != name for tensor in graph.initializer):
                    graph.initializer.append(helper.make_tensor(name, TensorProto.FLOAT, [], [level]))
        else:
            nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    drop_unread(graph)


def _steps(spec: ModelSpec) -> tuple[str, list[TensorProto]]:
    """Return the operators around the network graph, and their constants."""
    floats = {"one_level": 1.0, "unit": 1 / 255, "white": 255.0}
    integers = {"three_planes": [0, 3, -1], "one_plane": [0, 1, -1]}
    multiple = spec.size_divisor
    begin, end = "", ""
    if spec.size is None:
        begin += MEASURE
        integers |= {"multiple": [multiple], "almost": [multiple - 1], "no_pads": [0] * 6}
        integers |= {"two_maps": [0, 2], "three_maps": [0, 3]}
        padded = True
    else:
        width, height = spec.size
        right, low = -width % multiple, -height % multiple
        for name, maps in (("grey_shape", 2), ("colour_shape", 3)):
            integers |= {name: [1, maps, height + low, width + right]}
        padded = bool(right or low)
        if padded:
            integers |= {"sides": [height, width], "pads": [0] * 6 + [low, right]}
    if padded:  # while they are bytes, too
        integers |= {"origin": [0, 0], "image_axes": [2, 3]}
        begin += """
            turned_u8 = Transpose<perm=[0, 3, 1, 2]>(vis)
            planes_u8 = Pad<mode="edge">(turned_u8, pads)
            map_u8 = Transpose<perm=[0, 3, 1, 2]>(ir)
            thermal_u8 = Pad<mode="edge">(map_u8, pads)
            """
        end += """
            cropped_u8 = Slice(fused_u8, origin, sides, image_axes)
            image = Transpose<perm=[0, 2, 3, 1]>(cropped_u8)
            """
    else:
        begin += "planes_u8 = Transpose<perm=[0, 3, 1, 2]>(vis)\n thermal_u8 = Identity(ir)\n"
        end += "image = Transpose<perm=[0, 2, 3, 1]>(fused_u8)\n"
    constants = [helper.make_tensor(k, TensorProto.FLOAT, [], [v]) for k, v in floats.items()]
    constants.append(helper.make_tensor("luma", TensorProto.FLOAT, [1, 3], LUMA[spec.colours]))
    constants += [helper.make_tensor(k, TensorProto.INT64, [len(v)], v) for k, v in integers.items()]
    constants.append(helper.make_tensor("no_level", TensorProto.UINT8, [], [0]))
    return begin + BEFORE + AFTER + end, constants
