"""The whole export: checkpoint → trace → quantise → wrap → save → compare; and a repository of it for Triton.

Files are compared by ONNX Runtime on the CPU, whatever else is installed: that computes in the graph's own
precision, where CUDA's default is TF32 and OpenVINO's, on some CPUs, bfloat16.
"""

import itertools
import json
import logging
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnx

from edgefuse.errors import InputError, ModelError
from edgefuse.export.config import Gates
from edgefuse.export.end_to_end import cast_at_ends, wrap
from edgefuse.export.graph import engines_for, layer_precisions, make_spec, save_graph, trace
from edgefuse.export.quantize import quantize
from edgefuse.export.verify import (
    Pair,
    compare,
    compare_engine,
    extreme_pairs,
    failed_path,
    int8_share,
    network_feed,
)
from edgefuse.files import check_writable, replace_file
from edgefuse.images import MIN_SIDE, fit_size, size_of
from edgefuse.metrics import CORE_METRICS
from edgefuse.runtime.engines.engine_cache import (
    BuildOptions,
    SizeRange,
    read_sidecar,
    sidecar_path,
    write_sidecar,
)
from edgefuse.runtime.engines.onnxruntime import CpuEngine
from edgefuse.runtime.engines.tensorrt import TensorRtEngine
from edgefuse.runtime.engines.tensorrt_build import Progress, build_engine
from edgefuse.spec import ModelSpec, Tensor, read_spec
from edgefuse.train.checkpoint import load_checkpoint, restore_model
from edgefuse.train.models.base import FusionNetwork, TorchEngine

logger = logging.getLogger(__name__)

MARGIN = 2.0
"""dB above the gate that the layers of an int8 file are chosen for: other pairs lose more than these."""

MORE = 2
"""How many more layers stay in float, one by one, as long as nothing but a metric fails its gate."""

VERIFIED_OTHERWISE = ("cpu", "tensorrt")
"""Engines: the first by `compare`, the second, which builds for minutes, by `export_engine`."""

LARGEST = 1024
"""Longest side of a picture that ranges are measured on; larger ones are scaled down."""


@dataclass(frozen=True)
class Calibration:
    """What the ranges of an int8 file come from."""

    pairs: list[Pair]
    source: str
    """What the pairs are, for the report."""

    def __post_init__(self) -> None:
        if not self.pairs:
            raise InputError(
                "no calibration pairs: int8 needs some real ones, give --calib-ir and --calib-vis"
            )


def export(
    checkpoint_path: Path,
    out: Path,
    pairs: Sequence[Pair],
    compared_on: str,
    *,
    fp16: bool = False,
    int8: Calibration | None = None,
    size: tuple[int, int] | None = None,
    graph: str = "network",
    colours: str = "bgr",
    tensorrt: bool = False,
    gates: Gates | None = None,
    force: bool = False,
    progress: Callable[[str], None] = lambda _: None,
) -> ModelSpec:
    """Write a checkpoint as an ONNX file, run the file beside the checkpoint, and note the outcome in it.

    Every engine that it is for and that can be used here must keep the gates.

    Args:
        checkpoint_path: `.pt` or `.safetensors` file.
        out: the `.onnx` file; replaced if it exists and the new one passes its gates.
        pairs: what both are run on.
        compared_on: what the pairs are, for the report.
        fp16: half-precision arithmetic; input and output stay as they are.
        int8: 8-bit arithmetic, calibrated on these pairs.
        size: fixed width and height; None: any batch, height and width.
        graph: `network` or `end_to_end`, see `ModelSpec`.
        colours: `bgr` or `rgb`, of an end-to-end graph's images.
        tensorrt: arrange an end-to-end graph as GPUs need it, see `cast_at_ends`.
        gates: how far the file may be from its checkpoint; None: the default limits.
        force: replace the file at `out` even if it is of another training, or not ours.
        progress: called with what is being done.

    Returns:
        The file's spec, with the report. If that did not pass, the file is `failed_path(out)`, and what was
        at `out` is as it was.

    Raises:
        ModelError: the checkpoint cannot be read.
        InputError: a size that does not fit, fp16 and int8 together, or a file that cannot be written, or
            must not be without `force`.
        BackendError: ONNX Runtime is not installed.
    """
    if fp16 and int8:
        raise InputError("--fp16 and --int8 exclude each other: choose one precision")
    check_writable(out)
    checkpoint = load_checkpoint(checkpoint_path)
    model = restore_model(checkpoint, checkpoint_path)
    precision = "fp16" if fp16 else "int8" if int8 else "fp32"
    spec = make_spec(checkpoint, model, size, precision, graph=graph, colours=colours)
    if not force:
        refuse_other_model(out, spec)
    spec, built = _verified(model, spec, pairs, compared_on, int8, gates or Gates(), progress, tensorrt)
    passed = spec.verification is not None and spec.verification.passed
    save_graph(built, spec, out if passed else failed_path(out))
    if passed:
        failed_path(out).unlink(missing_ok=True)  # of an earlier attempt
    return spec


def refuse_other_model(out: Path, spec: ModelSpec) -> None:
    """Raise `InputError` if a file is there that is of another training: weights that may be nowhere else."""
    if not out.exists():
        return
    try:
        before = read_spec(out)
    except ModelError:
        raise InputError(
            f"{out} is there and was not written by edgefuse: give another --out, or --force to replace it"
        ) from None
    # As they come back from a file: lists in place of tuples.
    if (before.model, before.training) != (spec.model, json.loads(json.dumps(spec.training))):
        raise InputError(
            f"{out} is another model ({before.model} of {before.training.get('steps', 'unknown')} steps): "
            "give another --out, or --force to replace it"
        )


def _verified(
    model: FusionNetwork,
    spec: ModelSpec,
    pairs: Sequence[Pair],
    compared_on: str,
    int8: Calibration | None,
    gates: Gates,
    progress: Callable[[str], None],
    tensorrt: bool,
) -> tuple[ModelSpec, onnx.ModelProto]:
    """Return the spec of a network's graph, with the report, and the graph."""
    reference = TorchEngine(model, spec.model)
    progress("Tracing")
    traced = trace(model, spec)
    for more in range(MORE + 1):
        built, facts = _built(traced, spec, int8, gates, progress, tensorrt=tensorrt, more=more)
        progress("Comparing with the checkpoint")
        with tempfile.TemporaryDirectory() as scratch:  # nothing unverified ever has the final name
            save_graph(built, spec, trial := Path(scratch) / "trial.onnx")
            report = compare(CpuEngine(trial), reference, pairs, compared_on, gates, **facts)
            others = [name for name in engines_for(built) if name not in VERIFIED_OTHERWISE]
            more_gates = [compare_engine(name, trial, reference, pairs, gates) for name in others]
        report = replace(report, gates=(*report.gates, *itertools.chain(*more_gates)))
        failed = {gate.name for gate in report.gates if not gate.passed}
        # A metric can lose although the levels are close: MI does where equal levels become unequal ones.
        if int8 is None or not failed or not failed <= set(CORE_METRICS):
            break
    return replace(spec, verification=report, engines=engines_for(built)), built


def _built(
    traced: onnx.ModelProto,
    spec: ModelSpec,
    int8: Calibration | None,
    gates: Gates,
    progress: Callable[[str], None],
    *,
    tensorrt: bool,
    more: int,
) -> tuple[onnx.ModelProto, dict[str, Any]]:
    """Return the graph in its precision and form, and what the report says of it."""
    built, facts = onnx.ModelProto(), dict[str, Any]()
    built.CopyFrom(traced)
    if int8 is not None:
        facts = _to_int8(built, spec, int8, gates, progress, more)
    if spec.end_to_end:
        wrap(built, spec)
        if tensorrt:
            cast_at_ends(built)
    return built, {**facts, "layers": layer_precisions(built)}


def _to_int8(
    graph: onnx.ModelProto,
    spec: ModelSpec,
    calibration: Calibration,
    gates: Gates,
    progress: Callable[[str], None],
    more: int,
) -> dict[str, Any]:
    """Turn a network graph into an int8 one, in place; return what the report says about that."""
    feeds = []
    # A glowing body at night is beyond what ordinary pairs hold, and a value out of range is clipped.
    for pair in (*calibration.pairs, *extreme_pairs(spec.size or (64, 64))):
        size = spec.size or _within(LARGEST, pair.vis.shape[1], pair.vis.shape[0])
        feeds.append(network_feed(fit_size(pair.ir, size), fit_size(pair.vis, size), spec))
    target = gates.psnr(spec.precision) + MARGIN
    kept = quantize(graph, feeds, target, progress, more=more)
    with tempfile.TemporaryDirectory() as scratch:
        save_graph(graph, spec, trial := Path(scratch) / "network.onnx")
        share = int8_share(trial, feeds[0])
    return {"kept": tuple(kept), "calibration": calibration.source, "int8_share": share}


def _within(largest: int, width: int, height: int) -> tuple[int, int]:
    """Return a size of the same proportions whose sides are at most `largest`, and at least `MIN_SIDE`."""
    factor = min(1.0, largest / max(width, height))
    return max(MIN_SIDE, round(factor * width)), max(MIN_SIDE, round(factor * height))


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
    """Build a TensorRT engine from an exported ONNX file for this machine's GPU, and compare it.

    Until it has passed, the engine is `failed_path(out)`, where one that fails remains for inspection.
    No engine has been built on a GPU yet, see `edgefuse.runtime.engines.tensorrt`.

    Args:
        onnx: file written by `edgefuse export`; its dtypes decide the engine's.
        out: the `.engine` file, with `.engine.json` beside it; replaced if the new one passes.
        checkpoint: `.pt` or `.safetensors` file that the graph was made of.
        pairs: what both are run on; of sizes that the engine serves.
        compared_on: what the pairs are, for the report.
        options: sizes for open dimensions, workspace, optimisation level.
        gates: how far the engine may be from the checkpoint; None: the default limits.
        progress: called during the build.

    Returns:
        The engine's spec with its report, which says whether the gates held.

    Raises:
        InputError: a file that cannot be read or written, another suffix, or sizes that do not fit.
        ModelError: an ONNX file that is not ours, or that TensorRT cannot parse.
        BackendError: no TensorRT, no GPU, no engine within the workspace, or one that fails.
    """
    if out.suffix != ".engine":
        raise InputError(f"cannot write {out}: the suffix must be .engine")
    check_writable(out)
    if read_spec(onnx).size is None:
        check_pairs(pairs, (options or BuildOptions()).sizes)
    trial = failed_path(out)
    build_engine(onnx, trial, options, progress)
    spec = verify_engine(trial, checkpoint, pairs, compared_on, gates)
    if spec.verification and spec.verification.passed:
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
                "serve: widen --set tensorrt_sizes=…, or fix the graph with --size"
            )


def verify_engine(
    engine: Path, checkpoint: Path, pairs: Sequence[Pair], compared_on: str, gates: Gates | None = None
) -> ModelSpec:
    """Run an engine beside the checkpoint that its graph was made of, and note the outcome in its sidecar.

    Args:
        engine: a file of `build_engine`.
        checkpoint: `.pt` or `.safetensors` file.
        pairs: what both are run on.
        compared_on: what the pairs are, for the report.
        gates: how far the engine may be from the checkpoint; None: the default limits.

    Returns:
        The engine's spec with its report, which says whether the gates held.

    Raises:
        ModelError: the checkpoint or the sidecar cannot be read.
        BackendError: TensorRT or the GPU fails.
    """
    loaded = load_checkpoint(checkpoint)
    reference = TorchEngine(restore_model(loaded, checkpoint), loaded.model)
    running = TensorRtEngine(engine, rebuild=False)
    try:
        of_graph, sidecar = running.spec.verification, running.sidecar
        # An engine's types are those of its graph; what TensorRT's inspector shows of them is in the sidecar.
        names = () if of_graph is None else ("kept", "calibration", "layers")
        facts = {name: getattr(of_graph, name) for name in names}
        report = compare(running, reference, pairs, compared_on, gates, **facts)
    finally:
        running.close()
    spec = replace(sidecar.spec, verification=report)
    write_sidecar(engine, replace(sidecar, spec=spec))
    return spec


MAX_BATCH = 8
"""Most frames that the server puts together, where a graph takes any number."""
TYPES = {"uint8": "TYPE_UINT8", "float32": "TYPE_FP32"}


def write_repository(file: Path, folder: Path) -> Path:
    """Put a model file and its configuration where Triton looks for them: `FOLDER/NAME/1/model.onnx`.

    Args:
        file: `.onnx`, run by the server's ONNX Runtime, or `.engine`, run by its TensorRT.
        folder: the model repository; it is made if need be, other models in it stay.

    Returns:
        The model's folder.

    Raises:
        InputError: the folder cannot be written.
        ModelError: not a model file of ours.
    """
    engine = file.suffix == ".engine"
    spec, batch = (read_spec(file), MAX_BATCH) if not engine else _of_engine(file)
    # CUDA would leave a part of such a graph to the CPU, and copy between both.
    on_cpu = not engine and bool(spec.engines) and "cuda" not in spec.engines
    if on_cpu:
        logger.warning(
            "%s is arranged for %s, not for cuda: Triton is told to run it on the CPU; for its GPU, export "
            "the model with --for-tensorrt",
            file,
            ", ".join(spec.engines),
        )
    model = folder / file.stem
    try:
        (model / "1").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make the folder {model / '1'}: {error.strerror or error}") from None
    target = model / "1" / ("model.plan" if engine else "model.onnx")
    replace_file(target, lambda partial: shutil.copyfile(file, partial))
    backend = "tensorrt" if engine else "onnxruntime"
    text = _configuration(file.stem, spec, backend, batch, "KIND_CPU" if on_cpu else "KIND_AUTO")
    replace_file(model / "config.pbtxt", lambda partial: partial.write_text(text, encoding="utf-8"))
    return model


def _of_engine(file: Path) -> tuple[ModelSpec, int]:
    sidecar = read_sidecar(file)
    return sidecar.spec, sidecar.options.sizes.batch


def _configuration(name: str, spec: ModelSpec, backend: str, batch: int, kind: str) -> str:
    """Return the text of `config.pbtxt`."""
    batched = spec.size is None and batch > 1
    lines = [
        f"name: {json.dumps(name, ensure_ascii=False)}",  # which escapes as protobuf's text does
        f'backend: "{backend}"',
        f"max_batch_size: {batch if batched else 0}",
        *(_tensor("input", tensor, batched) for tensor in spec.inputs()),
        *(_tensor("output", tensor, batched) for tensor in spec.outputs()),
        f"instance_group [ {{ count: 1 kind: {kind} }} ]",
    ]
    return "\n".join([*lines, *(["dynamic_batching { }"] if batched else [])]) + "\n"


def _tensor(kind: str, tensor: Tensor, batched: bool) -> str:
    sides = tensor.shape[1:] if batched else tensor.shape  # of a batch, the server adds the first
    dims = ", ".join("-1" if isinstance(side, str) else str(side) for side in sides)
    return f'{kind} [ {{ name: "{tensor.name}" data_type: {TYPES[tensor.dtype]} dims: [ {dims} ] }} ]'
