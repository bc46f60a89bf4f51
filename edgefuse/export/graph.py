"""From a network in torch to an ONNX graph with its spec inside."""

import contextlib
import copy
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from edgefuse import __version__
from edgefuse.errors import InputError
from edgefuse.files import replace_file
from edgefuse.spec import ModelSpec
from edgefuse.train.checkpoint import Checkpoint
from edgefuse.train.models import multiple_of

__all__ = ["OPSET", "build_graph", "make_spec", "save_graph"]

OPSET = 18


class _Core(nn.Module):
    """The network as deployed: folded where it can be, in its precision, its answer clamped to [0, 1]."""

    def __init__(self, model: nn.Module, precision: str) -> None:
        super().__init__()
        fuse = getattr(model, "fuse", None)
        folded: nn.Module = fuse() if callable(fuse) else copy.deepcopy(model)
        self.dtype = {"fp32": torch.float32, "fp16": torch.float16}[precision]
        self.model = folded.to(self.dtype)

    def forward(self, x: Tensor) -> Tensor:
        fused: Tensor = self.model(x.to(self.dtype))
        return fused.float().clamp(0, 1)


def make_spec(
    checkpoint: Checkpoint, model: nn.Module, size: tuple[int, int] | None, precision: str
) -> ModelSpec:
    """Return the spec of a graph that is about to be built.

    Raises:
        InputError: width or height is not a multiple of what the network needs.
    """
    multiple = multiple_of(model)
    if size is not None and (size[0] % multiple or size[1] % multiple):
        fit = "x".join(str(side + -side % multiple) for side in size)
        raise InputError(
            f"size {size[0]}x{size[1]} does not fit {checkpoint.model!r}: "
            f"both must be multiples of {multiple}, such as {fit}; without --size any size is accepted"
        )
    kept = ("paradigm", "ir", "vis", "base", "pairs", "batch", "patch", "learning_rate", "losses", "seed")
    training = {name: checkpoint.config[name] for name in kept if name in checkpoint.config}
    return ModelSpec(
        model=checkpoint.model,
        multiple=multiple,
        size=size,
        precision=precision,
        opset=OPSET,
        version=__version__,
        training={**training, "steps": checkpoint.step},
    )


def build_graph(model: nn.Module, spec: ModelSpec) -> onnx.ModelProto:
    """Trace a network in evaluation mode into a checked ONNX graph, `sources` → `fused`."""
    width, height = spec.size or (24 * spec.multiple, 16 * spec.multiple)
    shapes: Any = None
    if spec.size is None:
        h, w = (torch.export.Dim(name, min=4, max=4096) for name in ("rows", "columns"))
        shapes = {"x": {2: spec.multiple * h, 3: spec.multiple * w}}
    with _quiet():
        program = torch.onnx.export(
            _Core(model, spec.precision).eval(),
            (torch.rand(1, 2, height, width),),
            dynamo=True,
            opset_version=spec.opset,
            input_names=["sources"],
            output_names=["fused"],
            dynamic_shapes=shapes,
            verbose=False,
        )
    assert program is not None
    graph: onnx.ModelProto = program.model_proto
    _strip(graph)
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
