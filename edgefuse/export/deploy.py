"""The deploy graph: uint8 images in, uint8 image out, with everything around the network inside.

It is arranged for ONNX Runtime's CPU kernels, whose element-wise operators are slow on the last axis of
`[N, H, W, 3]` (one grey level for three colours is broadcast pixel by pixel), while they are fast on
planes. So the images are turned while they are still bytes, a quarter of the traffic, and the pixels of a
plane are one axis. The Reshape between Transpose and Cast matters: without it ONNX Runtime moves the
Transpose behind the Cast, to floats, and on into the addition.

Only operators that TensorRT has on the types that it has; it truncates when it casts to uint8, hence Round.
"""

import onnx
from onnx import TensorProto, helper, parser

from edgefuse.spec import ModelSpec

__all__ = ["wrap"]

LUMA = {"bgr": (0.114, 0.587, 0.299), "rgb": (0.299, 0.587, 0.114)}
"""BT.601, as `images.luma`."""

BEFORE = """
    planes_u8 = Transpose<perm=[0, 3, 1, 2]>(vis)
    colours_u8 = Reshape(planes_u8, three_planes)
    colours = Cast<to=1>(colours_u8)
    weighed = MatMul(luma, colours)
    grey = Round(weighed)
    warm_u8 = Reshape(ir, one_plane)
    warm = Cast<to=1>(warm_u8)
    both = Concat<axis=1>(warm, grey)
    """
AFTER = """
    change = Sub(fused_levels, grey)
    shifted = Add(colours, change)
    clipped = Clip(shifted, black, white)
    levels_u8 = Cast<to=2>(clipped)
    fused_u8 = Reshape(levels_u8, colour_shape)
    image = Transpose<perm=[0, 2, 3, 1]>(fused_u8)
    """
# Sizes that are known only when an image comes.
MEASURE = """
    sides = Shape<start=1, end=3>(ir)
    grey_shape = Concat<axis=0>(two_maps, sides)
    colour_shape = Concat<axis=0>(three_maps, sides)
    """
# How far the sides are from the next multiple, in integers that never become negative.
MISSING = """
    reached = Add(sides, almost)
    blocks = Div(reached, multiple)
    wanted = Mul(blocks, multiple)
    missing = Sub(wanted, sides)
    pads = Concat<axis=0>(no_pads, missing)
    """


def wrap(core: onnx.ModelProto, spec: ModelSpec, peak: int) -> None:
    """Put luma, normalisation, padding, colours, clamp and rounding around a core graph, in place.

    Args:
        core: graph with input `sources` and output `fused`.
        spec: of the deploy graph; its size may be any, the core graph's is the next multiple.
        peak: 1 or 255: what white is for the core graph.
    """
    steps, constants = _steps(spec, peak)
    batch = "1" if spec.size else "N"
    height, width = reversed(spec.size) if spec.size else ("H", "W")
    text = (
        f'<ir_version: {core.ir_version}, opset_import: ["" : {spec.opset}]> deploy ('
        f"uint8[{batch}, {height}, {width}, 1] ir, uint8[{batch}, {height}, {width}, 3] vis"
        f") => (uint8[{batch}, {height}, {width}, 3] image) {{ {steps} }}"
    )
    shell = parser.parse_model(text).graph
    graph = core.graph
    for node in graph.node:  # so that the image can be called what the core graph's answer is called
        node.input[:] = ["core_fused" if name == "fused" else name for name in node.input]
        node.output[:] = ["core_fused" if name == "fused" else name for name in node.output]
    for node in shell.node:
        node.output[:] = ["fused" if name == "image" else name for name in node.output]
        node.name = f"deploy/{node.output[0]}"
    shell.output[0].name = "fused"
    first = next(i for i, node in enumerate(shell.node) if "core_fused" in node.input)
    nodes = [*shell.node[:first], *graph.node, *shell.node[first:]]
    for field, values in (("node", nodes), ("input", list(shell.input)), ("output", list(shell.output))):
        del getattr(graph, field)[:]
        getattr(graph, field).extend(values)
    graph.initializer.extend(constants)


def _steps(spec: ModelSpec, peak: int) -> tuple[str, list[TensorProto]]:
    """Return the operators around the core graph, and their constants."""
    floats = {"luma": [LUMA[spec.colours]], "black": 0.0, "white": 255.0}
    integers = {"three_planes": [0, 3, -1], "one_plane": [0, 1, -1]}
    before, after = BEFORE, ""
    multiple = spec.multiple
    padded = spec.size is None or any(side % multiple for side in spec.size)
    if spec.size is None:
        before += MEASURE
        integers |= {"two_maps": [0, 2], "three_maps": [0, 3]}
    else:
        width, height = spec.size
        integers |= {"grey_shape": [1, 2, height, width], "colour_shape": [1, 3, height, width]}

    steps = ["levels = Reshape(both, grey_shape)"]
    if padded:
        if spec.size is None:
            before += MISSING
            integers |= {"multiple": [multiple], "almost": [multiple - 1], "no_pads": [0] * 6}
        else:
            integers |= {"sides": [height, width], "pads": [0] * 6 + [-height % multiple, -width % multiple]}
        steps.append('levels_padded = Pad<mode="edge">(levels, pads)')
        integers |= {"origin": [0, 0], "image_axes": [2, 3]}
        after += "core_cropped = Slice(core_fused, origin, sides, image_axes)\n"
    source, answer = "levels_padded" if padded else "levels", "core_cropped" if padded else "core_fused"
    if peak == 1:
        floats |= {"unit": 1 / 255}
        steps.append(f"sources = Mul({source}, unit)")
        after += f"answer_levels = Mul({answer}, white)\n"
        answer = "answer_levels"
    else:
        steps[-1] = steps[-1].replace(source, "sources", 1)
    after += f"rounded = Round({answer})\n fused_levels = Reshape(rounded, one_plane)\n"
    constants = [helper.make_tensor(k, TensorProto.FLOAT, _shape(v), _flat(v)) for k, v in floats.items()]
    constants += [helper.make_tensor(k, TensorProto.INT64, [len(v)], v) for k, v in integers.items()]
    return before + "\n".join(steps) + "\n" + after + AFTER, constants


def _shape(value: object) -> list[int]:
    return [1, 3] if isinstance(value, list) else []


def _flat(value: object) -> list[float]:
    import numpy as np

    return [float(v) for v in np.ravel(np.asarray(value))]
