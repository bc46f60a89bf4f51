"""From a network in torch to an ONNX graph with its spec inside."""

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from edgefuse import __version__
from edgefuse.errors import InputError
from edgefuse.export.deploy import wrap
from edgefuse.files import replace_file
from edgefuse.spec import ModelSpec
from edgefuse.train.checkpoint import Checkpoint
from edgefuse.train.models import FusionNetwork

__all__ = ["OPSET", "OPSETS", "build_graph", "make_spec", "save_graph"]

OPSET = 20
"""The first with an operator for GELU, which older ones spell out in five passes over the data."""
OPSETS = range(18, 22)

DATA = ("paradigm", "ir", "vis", "base", "pairs", "aligned", "batch", "patch", "corrupt", "spoil")
KEPT = (*DATA, "learning_rate", "losses", "teacher", "init", "seed")
"""Settings of a training that a file's metadata tells."""


class _Core(nn.Module):
    """The network as deployed: folded where it can be, in its precision, its answer clamped to 0..peak."""

    def __init__(self, model: FusionNetwork, precision: str, peak: int) -> None:
        super().__init__()
        self.peak = peak
        self.dtype = torch.float16 if precision == "fp16" else torch.float32
        self.model = model.reparameterize(peak).to(self.dtype)

    def forward(self, x: Tensor) -> Tensor:
        fused: Tensor = self.model(x.to(self.dtype))
        return fused.float().clamp(0, self.peak)


def make_spec(
    checkpoint: Checkpoint,
    model: FusionNetwork,
    size: tuple[int, int] | None,
    precision: str,
    *,
    graph: str = "core",
    colours: str = "bgr",
    opset: int = OPSET,
) -> ModelSpec:
    """Return the spec of a graph that is about to be built.

    Raises:
        InputError: width or height of a core graph is not a multiple of what the network needs, or the
            opset is not one of `OPSETS`.
    """
    multiple = model.size_divisor
    if graph == "core" and size is not None and (size[0] % multiple or size[1] % multiple):
        fit = "x".join(str(side + -side % multiple) for side in size)
        raise InputError(
            f"size {size[0]}x{size[1]} does not fit {checkpoint.model!r}: both must be multiples of "
            f"{multiple}, such as {fit}; --graph deploy and a graph without --size take any size"
        )
    if opset not in OPSETS:
        raise InputError(f"opset {opset} is not one of {OPSETS[0]} to {OPSETS[-1]}")
    training = {name: checkpoint.config[name] for name in KEPT if name in checkpoint.config}
    return ModelSpec(
        model=checkpoint.model,
        multiple=multiple,
        size=size,
        precision=precision,
        opset=opset,
        version=__version__,
        training={**training, "steps": checkpoint.step},
        graph=graph,
        colours=colours,
    )


def build_graph(
    model: FusionNetwork, spec: ModelSpec, rework: Callable[[onnx.ModelProto, int], None] | None = None
) -> onnx.ModelProto:
    """Make the graph of a network in evaluation mode.

    Args:
        model: the network; it is left as it is.
        spec: what the graph takes and gives.
        rework: changes a core graph, in which white is the second argument, in place, before what a deploy
            graph has around it is put there.

    Returns:
        The graph, not yet checked.
    """
    # Levels in half precision would need weights below its normal range.
    levels = spec.graph == "deploy" and spec.precision != "fp16" and 255.0 in model.white_levels
    peak = 255 if levels else 1
    graph = _trace(_Core(model, spec.precision, peak).eval(), spec)
    _strip(graph)
    if rework is not None:
        rework(graph, peak)
    if spec.graph == "deploy":
        wrap(graph, spec, peak)
    return graph


def _trace(core: nn.Module, spec: ModelSpec) -> onnx.ModelProto:
    multiple, batch = spec.multiple, 1 if spec.size else 2
    width, height = spec.size or (24 * multiple, 16 * multiple)
    width, height = width + -width % multiple, height + -height % multiple
    shapes: Any = None
    if spec.size is None:
        h, w = (torch.export.Dim(name, min=4, max=4096) for name in ("rows", "columns"))
        n = torch.export.Dim("batch", min=1, max=4096)
        shapes = {"x": {0: n, 2: multiple * h, 3: multiple * w}}
    with _quiet():
        program = torch.onnx.export(
            core,
            (torch.rand(batch, 2, height, width),),
            dynamo=True,
            opset_version=spec.opset,
            input_names=["sources"],
            output_names=["fused"],
            dynamic_shapes=shapes,
            verbose=False,
        )
    assert program is not None
    graph: onnx.ModelProto = program.model_proto
    return graph


def save_graph(graph: onnx.ModelProto, spec: ModelSpec, path: Path) -> None:
    """Check a graph and write it with its spec; a half-written file never has the final name.

    Raises:
        InputError: the disk or folder refuses.
    """
    onnx.helper.set_model_props(graph, spec.to_metadata())
    onnx.checker.check_model(graph, full_check=True)
    replace_file(path, lambda partial: partial.write_bytes(graph.SerializeToString()))


def _strip(graph: onnx.ModelProto) -> None:
    """Drop the tracer's notes (stack traces with this machine's paths, names): half of a small file."""
    graph.doc_string = ""
    graph.graph.doc_string = ""
    del graph.graph.value_info[:]
    del graph.graph.metadata_props[:]
    for part in (*graph.graph.node, *graph.graph.input, *graph.graph.output, *graph.graph.initializer):
        part.doc_string = ""
        del part.metadata_props[:]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the tracer's notes about packages that this project does not use off the screen."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
