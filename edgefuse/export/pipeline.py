"""The whole export: checkpoint in, proven ONNX file out."""

from dataclasses import replace
from pathlib import Path

from edgefuse.export.graph import build_graph, make_spec, save_graph
from edgefuse.export.receipt import Pair, Receipt, compare
from edgefuse.runtime.backends import load_backend
from edgefuse.spec import ModelSpec
from edgefuse.train.backend import TorchBackend
from edgefuse.train.checkpoint import load_checkpoint, restore_model

__all__ = ["export"]


def export(
    checkpoint_path: Path,
    out: Path,
    pairs: list[Pair],
    compared_on: str,
    *,
    fp16: bool = False,
    size: tuple[int, int] | None = None,
) -> tuple[ModelSpec, Receipt]:
    """Write a checkpoint as an ONNX file, run the file beside the checkpoint, and note the outcome in it.

    Args:
        checkpoint_path: `.pt` or `.safetensors` file.
        out: the `.onnx` file; replaced if it exists.
        pairs: what both are run on.
        compared_on: what the pairs are, for the receipt.
        fp16: half-precision arithmetic; input and output stay float32.
        size: fixed width and height; None: any size.

    Returns:
        The file's spec, and the receipt. A receipt that did not pass leaves the file in place.

    Raises:
        ModelError: the checkpoint cannot be read.
        InputError: a size that does not fit, or a file that cannot be written.
        BackendError: no inference engine is installed to run the file.
    """
    checkpoint = load_checkpoint(checkpoint_path)
    model = restore_model(checkpoint, checkpoint_path)
    spec = make_spec(checkpoint, model, size, "fp16" if fp16 else "fp32")
    graph = build_graph(model, spec)
    save_graph(graph, spec, out)
    receipt = compare(load_backend(out), TorchBackend(model, checkpoint.model), pairs, compared_on)
    spec = replace(spec, receipt=receipt.to_dict())
    save_graph(graph, spec, out)
    return spec, receipt
