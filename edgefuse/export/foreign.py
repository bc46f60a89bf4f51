"""A network from elsewhere as a model file of ours, which `fuse`, `stream` and every engine take.

What `edgefuse.evaluate.candidates` does around such a network when it is scored, this puts into the graph:
the channels of each of its inputs, its range of values, and the luma of an answer in colours.
"""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
from onnx import compose, helper, numpy_helper

from edgefuse import __version__
from edgefuse.errors import GateError, InputError, ModelError
from edgefuse.evaluate.candidates import ForeignNetwork, open_foreign, split_options
from edgefuse.export.graph import engines_for, save_graph
from edgefuse.export.pipeline import refuse_other_model
from edgefuse.images import Image
from edgefuse.runtime.engines.fuser import Fuser
from edgefuse.spec import ModelSpec

DIVISORS = (1, 2, 4, 8, 16, 32, 64)
"""What the sides of pictures may have to be multiples of, as networks that halve their maps need it."""
LUMA = (0.299, 0.587, 0.114)
"""BT.601, of R, G and B."""
LARGEST_DIFFERENCE = 0.01
"""Grey levels between the network as it was and the file that was written."""


def wrap_foreign(source: str, out: Path, *, force: bool = False) -> ModelSpec:
    """Write an ONNX file of another project as one of ours.

    Args:
        source: the file; with options, where it needs them, as in `FILE.onnx?order=vis,ir&range=-1,1`.
        out: the file to write.
        force: replace a file there that is another model.

    Returns:
        What the new file takes and gives.

    Raises:
        InputError: no such file, unknown options, no size at which it fuses, or `out` must not be replaced.
        ModelError: it is one of ours already, or takes what cannot be fed.
        GateError: the new graph does not answer as the network did; nothing is written.
    """
    path = split_options(source)[0]
    if out.suffix != ".onnx":
        raise InputError(f"cannot write {out}: the suffix must be .onnx")
    if not path.is_file():
        raise InputError(f"no such file: {path}")
    if out.exists() and out.samefile(path):
        raise InputError(f"--out would overwrite the input {path}")
    network = open_foreign(source)
    if network is None:
        raise ModelError(
            f"{path} is no ONNX file of another project: give an .onnx file without our metadata"
        )
    divisor = 1
    if size := network.size:
        network(*_pictures(size))
    else:
        divisor = _find_divisor(network)
    graph = onnx.load(path)
    _surround(graph, network)
    spec = ModelSpec(
        path.stem,
        divisor,
        size,
        opset=next((each.version for each in graph.opset_import if each.domain in ("", "ai.onnx")), 0),
        version=__version__,
        engines=engines_for(graph),
    )
    if not force:
        refuse_other_model(out, spec)
    with TemporaryDirectory() as scratch:  # nothing unverified ever has the final name
        save_graph(graph, spec, trial := Path(scratch) / out.name)
        difference = _difference(network, trial, size or (3 * max(divisor, 16), 2 * max(divisor, 16)))
    if not difference <= LARGEST_DIFFERENCE:
        raise GateError(f"{path}, wrapped, gives other results, up to {difference:.3g} grey levels")
    save_graph(graph, spec, out)
    return spec


def _find_divisor(network: ForeignNetwork) -> int:
    """Return the smallest number whose odd multiples it takes as sides."""
    reason: Exception | None = None
    for divisor in DIVISORS:
        odd = max(1, 32 // divisor) | 1
        try:
            network(*_pictures((divisor * (odd + 2), divisor * odd)))
        except InputError as error:
            reason = reason or error
        else:
            return divisor
    raise InputError(f"no size was found that it fuses: {reason}")


def _pictures(size: tuple[int, int]) -> tuple[Image, Image]:
    """Return infrared and visible noise of this width and height."""
    rng = np.random.default_rng(0)
    ir, vis = rng.integers(0, 256, (2, size[1], size[0]), dtype=np.uint8)
    return ir, vis


def _surround(model: onnx.ModelProto, network: ForeignNetwork) -> None:
    """Let a graph take `sources` and give `fused`, as our network graphs do, in place."""
    given = compose.add_prefix(model, "theirs/").graph
    answer = given.output[0]
    taken = next(each for each in given.input if each.name == f"theirs/{network.names[0]}")
    batch, _, height, width = taken.type.tensor_type.shape.dim
    low, span = network.low, network.high - network.low
    constants: dict[str, Any] = {
        "low": np.float32(low),
        "high": np.float32(network.high),
        "span": np.float32(span),
    }
    before: list[onnx.NodeProto] = []
    after: list[onnx.NodeProto] = []
    values, last = "sources", answer.name
    if (low, span) != (0.0, 1.0):
        before += [
            helper.make_node("Mul", ["sources", "span"], ["stretched"]),
            helper.make_node("Add", ["stretched", "low"], ["ranged"]),
        ]
        values = "ranged"
    channels = {"ir": 0, "vis": 1}
    for number, name in enumerate(network.names):
        if len(network.names) == 1:
            places = [channels[role] for role in network.order]
        else:
            places = [channels[network.order[number]]] * network.channels[number]
        constants[f"places_{number}"] = np.array(places, np.int64)
        before.append(helper.make_node("Gather", [values, f"places_{number}"], [f"theirs/{name}"], axis=1))
    if network.answer_channels == 3:
        constants["luma"] = np.array(LUMA, np.float32).reshape(1, 3, 1, 1)
        after.append(helper.make_node("Conv", [last, "luma"], ["grey"]))
        last = "grey"
    after += [
        helper.make_node("Max", [last, "low"], ["above"]),
        helper.make_node("Min", ["above", "high"], ["inside"]),
        helper.make_node("Sub", ["inside", "low"], ["shifted"]),
        helper.make_node("Div", ["shifted", "span"], ["fused"]),
    ]
    nodes = [*before, *given.node, *after]
    tensors = [*given.initializer, *(numpy_helper.from_array(np.asarray(v), n) for n, v in constants.items())]
    sides = [_side(each, name) for each, name in ((batch, "N"), (height, "H"), (width, "W"))]
    ends = [
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [sides[0], count, *sides[1:]])
        for name, count in (("sources", 2), ("fused", 1))
    ]
    graph = helper.make_graph(nodes, "wrapped", ends[:1], ends[1:], tensors)
    model.graph.CopyFrom(graph)
    del model.metadata_props[:]


def _side(dimension: Any, name: str) -> int | str:
    """Return the length that a dimension is fixed to, or the name for any."""
    return int(dimension.dim_value) or name


def _difference(network: ForeignNetwork, out: Path, size: tuple[int, int]) -> float:
    """Return the largest difference between a network and the file that it was written to, in grey levels."""
    ir, vis = _pictures(size)
    with Fuser(out, threads=1, engine="cpu") as fuser:
        return float(np.abs(fuser.fuse_unrounded(ir, vis) - network(ir, vis)).max())
