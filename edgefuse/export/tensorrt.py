"""From a proven ONNX file to a proven TensorRT engine for the GPU of this machine.

The build itself is in `edgefuse.runtime.tensorrt_build`, because a device builds engines for itself, too;
here its outcome is judged. No engine has been built on a GPU yet, see `edgefuse.runtime.tensorrt`.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import onnx
from onnx import TensorProto, helper

from edgefuse.errors import InputError
from edgefuse.export.deploy import round_in_floats
from edgefuse.export.gates import Gates, failed_path
from edgefuse.export.receipt import Pair, compare
from edgefuse.files import check_writable, replace_file
from edgefuse.images import size_of
from edgefuse.runtime.onnx_metadata import read_metadata
from edgefuse.runtime.profiles import SizeRange
from edgefuse.runtime.sidecar import BuildOptions, sidecar_path, write_sidecar
from edgefuse.runtime.tensorrt import TensorRtBackend
from edgefuse.runtime.tensorrt_build import Progress, build_engine
from edgefuse.spec import ModelSpec
from edgefuse.train.backend import TorchBackend
from edgefuse.train.checkpoint import load_checkpoint, restore_model

__all__ = ["casts_outermost", "check_pairs", "export_engine", "prove_engine"]


def export_engine(
    onnx: Path,
    out: Path,
    checkpoint: Path,
    pairs: Sequence[Pair],
    compared_on: str,
    *,
    options: BuildOptions | None = None,
    gates: Gates | None = None,
    progress: Progress | None = None,
) -> ModelSpec:
    """Build an engine from an exported ONNX file, and compare it.

    Until it has passed, the engine is `failed_path(out)`, where one that fails remains for inspection.

    Args:
        onnx: file written by `edgefuse export`; its dtypes decide the engine's.
        out: the `.engine` file, with `.engine.json` beside it; replaced if the new one passes.
        checkpoint: `.pt` or `.safetensors` file that the graph was made of.
        pairs: what both are run on; of sizes that the engine serves.
        compared_on: what the pairs are, for the receipt.
        options: sizes for open dimensions, workspace, optimisation level.
        gates: how far the engine may be from the checkpoint; None: the default limits.
        progress: told how the build goes on.

    Returns:
        The engine's spec with its receipt, which says whether the gates held.

    Raises:
        InputError: a file that cannot be read or written, another suffix, or sizes that do not fit.
        ModelError: an ONNX file that is not ours, or that TensorRT cannot parse.
        BackendError: no TensorRT, no GPU, no engine within the workspace, or one that fails.
        GateError: half or int8 was asked for and did not take.
    """
    if out.suffix != ".engine":
        raise InputError(f"cannot write {out}: the suffix must be .engine")
    check_writable(out)
    if ModelSpec.from_metadata(read_metadata(onnx), onnx).size is None:
        check_pairs(pairs, (options or BuildOptions()).sizes)
    trial = failed_path(out)
    build_engine(onnx, trial, options, progress)
    spec = prove_engine(trial, checkpoint, pairs, compared_on, gates)
    if spec.receipt["passed"]:
        for source, target in ((trial, out), (sidecar_path(trial), sidecar_path(out))):
            replace_file(target, source.replace)
    return spec


def check_pairs(pairs: Sequence[Pair], sizes: SizeRange) -> None:
    """Raise `InputError` if an engine for sizes in this range does not serve one of the pairs."""
    for name, _, vis, *_ in pairs:
        side = zip(sizes.min, (vis.shape[1], vis.shape[0]), sizes.max, strict=True)
        if not all(low <= given <= high for low, given, high in side):
            raise InputError(
                f"the pair {name!r} to compare on is {size_of(vis)}, which an engine for {sizes} does not "
                "serve: widen --tensorrt-sizes, or fix the graph with --size"
            )


def prove_engine(
    engine: Path, checkpoint: Path, pairs: Sequence[Pair], compared_on: str, gates: Gates | None = None
) -> ModelSpec:
    """Run an engine beside the checkpoint that its graph was made of, and note the outcome in its sidecar.

    Args:
        engine: a file of `build_engine`.
        checkpoint: `.pt` or `.safetensors` file.
        pairs: what both are run on.
        compared_on: what the pairs are, for the receipt.
        gates: how far the engine may be from the checkpoint; None: the default limits.

    Returns:
        The engine's spec with its receipt, which says whether the gates held.

    Raises:
        ModelError: the checkpoint or the sidecar cannot be read.
        BackendError: TensorRT or the GPU fails.
    """
    loaded = load_checkpoint(checkpoint)
    reference = TorchBackend(restore_model(loaded, checkpoint), loaded.model)
    backend = TensorRtBackend(engine, rebuild=False)
    try:
        of_graph = backend.spec.receipt
        facts = {name: of_graph[name] for name in ("kept", "calibration") if name in of_graph}
        layers = backend.sidecar.layers
        receipt = compare(backend, reference, pairs, compared_on, gates, layers=layers, **facts)
    finally:
        backend.close()
    spec = replace(backend.spec, receipt=receipt.to_dict())
    write_sidecar(engine, replace(backend.sidecar, spec=spec))
    return spec


def casts_outermost(graph: onnx.ModelProto) -> None:
    """Let a graph of uint8 images turn them into float first of all and back last of all, in place.

    TensorRT knows uint8 at a network's ends alone: what takes such an input must be a cast, not even a
    Transpose may come between (NVIDIA/TensorRT issue 3985). On a CPU moving bytes is four times cheaper
    than moving floats, so other graphs do that. The answers are the same to the bit.
    """
    round_in_floats(graph.graph)
    nodes, first, last = graph.graph.node, [], []
    for value in graph.graph.input:
        if value.type.tensor_type.elem_type == TensorProto.UINT8:
            _rename(graph, value.name, f"{value.name}_float")
            first.append(_cast(value.name, f"{value.name}_float", TensorProto.FLOAT))
    for value in graph.graph.output:
        if value.type.tensor_type.elem_type == TensorProto.UINT8:
            _rename(graph, value.name, f"{value.name}_float")
            last.append(_cast(f"{value.name}_float", value.name, TensorProto.UINT8))
    arranged = [*first, *nodes, *last]
    del nodes[:]
    nodes.extend(arranged)


def _cast(source: str, target: str, dtype: int) -> onnx.NodeProto:
    return helper.make_node("Cast", [source], [target], name=f"cast/{target}", to=dtype)


def _rename(graph: onnx.ModelProto, old: str, new: str) -> None:
    """Rename a tensor between nodes; the graph's own inputs and outputs keep their names."""
    for node in graph.graph.node:
        for names in (node.input, node.output):
            names[:] = [new if name == old else name for name in names]
