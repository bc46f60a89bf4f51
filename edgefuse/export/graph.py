"""From a network in torch to an ONNX graph with its spec inside."""

import logging
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx
import torch
from onnx import TensorProto, numpy_helper
from torch import Tensor, nn

from edgefuse import __version__
from edgefuse.errors import InputError
from edgefuse.files import replace_file
from edgefuse.spec import LEVELS, ModelSpec
from edgefuse.train.checkpoint import Checkpoint
from edgefuse.train.models import FusionNetwork

OPSET = 20
"""The first with an operator for GELU, which older ones spell out in five passes over the data."""

LEAST_CHANNELS = 8
"""Convolutions with fewer on either side take longer in 8 bits in ONNX Runtime."""

LAYERS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
"""Operators that hold nearly all of the arithmetic."""

DATA = ("paradigm", "ir", "vis", "base", "pairs", "aligned", "batch", "patch", "corrupt", "spoil")
KEPT = (*DATA, "learning_rate", "losses", "teacher", "init", "seed")
"""Settings of a training that a file's metadata tells."""


class _Deployed(nn.Module):
    """The network as deployed: folded where it can be, in its precision, its answer clamped to [0, 1]."""

    def __init__(self, model: FusionNetwork, precision: str) -> None:
        super().__init__()
        self.dtype = torch.float16 if precision == "fp16" else torch.float32
        self.model = model.reparameterize().to(self.dtype)

    def forward(self, sources: Tensor, levels: Tensor | None = None) -> Tensor:
        more = () if levels is None else (levels.to(self.dtype),)
        fused: Tensor = self.model(sources.to(self.dtype), *more)
        return fused.float().clamp(0, 1)


def make_spec(
    checkpoint: Checkpoint,
    model: FusionNetwork,
    size: tuple[int, int] | None = None,
    precision: str = "fp32",
    *,
    graph: str = "network",
    colours: str = "bgr",
) -> ModelSpec:
    """Return the spec of a graph that is about to be built.

    Raises:
        InputError: width or height of a network graph is not a multiple of what the network needs.
    """
    divisor = model.size_divisor
    if graph == "network" and size is not None and (size[0] % divisor or size[1] % divisor):
        fit = "x".join(str(side + -side % divisor) for side in size)
        raise InputError(
            f"size {size[0]}x{size[1]} does not fit {checkpoint.model!r}: both must be multiples of "
            f"{divisor}, such as {fit}; --graph end_to_end and a graph without --size take any size"
        )
    training = {name: checkpoint.config[name] for name in KEPT if name in checkpoint.config}
    return ModelSpec(
        model=checkpoint.model,
        size_divisor=divisor,
        size=size,
        precision=precision,
        opset=OPSET,
        version=__version__,
        training={**training, "steps": checkpoint.step},
        graph=graph,
        colours=colours,
        levels=model.uses_levels,
        level_count=len(LEVELS),
    )


def trace(model: FusionNetwork, spec: ModelSpec) -> onnx.ModelProto:
    """Make the network graph of a network in evaluation mode, which is left as it is.

    Args:
        model: the network.
        spec: its size, precision and inputs count; an `end_to_end` graph's network takes the next multiple.

    Returns:
        The graph, in floats, not yet checked.
    """
    divisor, batch = spec.size_divisor, 1 if spec.size else 2
    width, height = spec.size or (24 * divisor, 16 * divisor)
    width, height = width + -width % divisor, height + -height % divisor
    inputs = {"sources": torch.rand(batch, 2, height, width)}
    shapes: Any = None
    if spec.size is None:
        h, w = (torch.export.Dim(name, min=4, max=4096) for name in ("rows", "columns"))
        n = torch.export.Dim("batch", min=1, max=4096)
        shapes = {"sources": {0: n, 2: divisor * h, 3: divisor * w}}
    if spec.levels:
        inputs["levels"] = torch.rand(batch, spec.level_count)
        if shapes:
            shapes["levels"] = {0: n}
    with _quiet():
        program = torch.onnx.export(
            _Deployed(model, spec.precision).eval(),
            kwargs=inputs,
            dynamo=True,
            opset_version=spec.opset,
            input_names=list(inputs),
            output_names=["fused"],
            dynamic_shapes=shapes,
            custom_translation_table=_translations(),
            verbose=False,
        )
    assert program is not None
    graph: onnx.ModelProto = program.model_proto
    _strip(graph)
    return graph


def _translations() -> dict[Any, Any]:
    """Operators that torch would spell out as shape arithmetic, which GPU providers leave to the CPU."""
    from onnxscript import opset20 as op

    def space_to_depth(x: Any, downscale_factor: int) -> Any:
        # ONNX puts the channels of a phase beside each other, torch the phases of a channel: of a single
        # channel they agree. (OpenVINO 2026.4 answers wrongly where a Gather puts them in order.)
        channels = x.shape[1]
        planes = [x] if channels == 1 else op.Split(x, axis=1, num_outputs=channels)
        parts = [op.SpaceToDepth(plane, blocksize=downscale_factor) for plane in planes]
        return parts[0] if channels == 1 else op.Concat(*parts, axis=1)

    return {torch.ops.aten.pixel_unshuffle.default: space_to_depth}


def save_graph(graph: onnx.ModelProto, spec: ModelSpec, path: Path) -> None:
    """Check a graph and write it with its spec; a half-written file never has the final name.

    Raises:
        InputError: the disk or folder refuses.
    """
    onnx.helper.set_model_props(graph, spec.to_metadata())
    onnx.checker.check_model(graph, full_check=True)
    replace_file(path, lambda partial: partial.write_bytes(graph.SerializeToString()))


def drop_unread(graph: onnx.GraphProto) -> None:
    """Drop the constants that no node of a graph without subgraphs reads, in place.

    ONNX Runtime does so, too, but warns of each.
    """
    read = {name for node in graph.node for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in read]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def layer_precisions(graph: onnx.ModelProto) -> dict[str, int]:
    """Count the layers of a graph by the precision that they compute in: `{"int8": 6, "fp32": 1}`.

    A layer is int8 if all that it multiplies comes straight out of int8. The luma's weighing around the
    network in an end-to-end graph is not counted, and neither are convolutions of a single row or column,
    or, in an int8 graph, of fewer than `LEAST_CHANNELS` on either side.
    """
    kernels: dict[str, Sequence[int]] = {}
    if any(node.op_type == "DequantizeLinear" for node in graph.graph.node):
        kernels = {t.name: tuple(t.dims) for t in graph.graph.initializer}
    names = {TensorProto.FLOAT: "fp32", TensorProto.FLOAT16: "fp16", TensorProto.BFLOAT16: "bf16"}
    types = _types(graph)
    maps = over_maps(graph)
    makers = {name: node for node in graph.graph.node for name in node.output}
    counts: Counter[str] = Counter()
    for node in graph.graph.node:
        if node.op_type not in LAYERS or node.name.startswith(("deploy/", "end_to_end/")):
            continue
        kernel = kernels.get(node.input[1], ())
        if node.op_type == "Conv" and (node.output[0] not in maps or is_small(kernel)):
            continue
        sources = [makers.get(name) for name in node.input[:2]]
        if all(source is not None and source.op_type == "DequantizeLinear" for source in sources):
            counts["int8"] += 1
        else:
            counts[names.get(types.get(node.output[0], 0), "unknown")] += 1
    return dict(sorted(counts.items()))


def engines_for(graph: onnx.ModelProto) -> tuple[str, ...]:
    """Return the engines that a graph is arranged for.

    TensorRT knows unsigned bytes at a graph's ends alone, where it wants a cast, and no others inside. CUDA
    in ONNX Runtime cannot pad them: what lies before would be on the GPU and what follows on the CPU.
    """
    unsigned = {name for name, kind in _types(graph).items() if kind == TensorProto.UINT8}
    touching = {n.op_type for n in graph.graph.node if unsigned.intersection((*n.input, *n.output))}
    at_ends = unsigned <= {v.name for v in (*graph.graph.input, *graph.graph.output)}
    bytes_suit = at_ends and touching <= {"Cast"}
    suits = {"cuda": "Pad" not in touching, "tensorrt": bytes_suit and _is_parsed_by_tensorrt(graph.graph)}
    return tuple(name for name in ("cpu", "cuda", "openvino", "tensorrt") if suits.get(name, True))


def _is_parsed_by_tensorrt(graph: onnx.GraphProto) -> bool:
    """Return whether TensorRT's parser takes what a graph computes, but for its types.

    It wants kernels that are constants, or come straight out of int8 ones, zero points of 0, and no identity
    matrix whose size is computed (builtin_op_importers.cpp of onnx-tensorrt: `Conv`,
    `QuantDequantLinearHelper`, `EyeLike`).
    """
    shifted = {t.name for t in graph.initializer if numpy_helper.to_array(t).any()}
    constants = {t.name for t in graph.initializer}
    constants |= {name for node in graph.node if node.op_type == "Constant" for name in node.output}
    wanted = {"Conv": 1, "ConvTranspose": 1, "EyeLike": 0}
    for node in graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            if shifted.intersection(node.input[2:]):
                return False
            if node.input[0] in constants:
                constants.update(node.output)
        elif node.op_type in wanted and node.input[wanted[node.op_type]] not in constants:
            return False
    return True


def is_small(kernel: Sequence[int]) -> bool:
    """Return whether a kernel `[O, I, …]` is of so few channels that 8 bits make it no faster."""
    return min(kernel[:2], default=LEAST_CHANNELS) < LEAST_CHANNELS


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


def _strip(graph: onnx.ModelProto) -> None:
    """Drop the tracer's notes (stack traces with this machine's paths, names): half of a small file."""
    graph.doc_string = ""
    graph.graph.doc_string = ""
    del graph.graph.value_info[:]
    del graph.graph.metadata_props[:]
    for part in (*graph.graph.node, *graph.graph.input, *graph.graph.output, *graph.graph.initializer):
        part.doc_string = ""
        del part.metadata_props[:]


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the tracer's notes about packages that this project does not use out of the log."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
