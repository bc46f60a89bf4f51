"""Building a TensorRT engine from an ONNX file: one path for 10.x and 11.x.

The network is strongly typed, always: every tensor has the dtype that the graph gives it, and nothing
else decides the precision. It lives beside the runtime, not the export, because a device must be able to
build an engine for itself without torch. That it builds on a GPU has not been tried, see `tensorrt.py`.
"""

import hashlib
import json
import logging
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from edgefuse.errors import BackendError, InputError, ModelError
from edgefuse.files import read_bytes, replace_file
from edgefuse.runtime.engines.engine_cache import (
    BuildOptions,
    Profile,
    Sidecar,
    cache_folder,
    make_profiles,
    writable_folder,
    write_sidecar,
)
from edgefuse.runtime.engines.tensorrt import TensorRtLog, import_tensorrt, this_machine
from edgefuse.spec import ModelSpec, read_spec

logger = logging.getLogger(__name__)

Progress = Callable[[str, int, int], None]
"""Told the phase of a build, the steps done and the steps in all."""

MOVING = {"reformat", "noop", "constant", "signal", "wait", "shuffle", "slice", "concat"}
"""Types of layers that compute nothing; their dtype says nothing about the precision."""

DTYPE = re.compile("format|type", re.IGNORECASE)
"""Keys under which the inspector tells a tensor's dtype: `Format/Datatype` in all versions so far."""


def build_engine(
    onnx: Path, out: Path, options: BuildOptions | None = None, progress: Progress | None = None
) -> Sidecar:
    """Build an ONNX file of ours into an engine for this machine, and write it.

    What TensorRT's inspector says of the layers' precision is a warning at most: the network is strongly
    typed, and the inspector shows what is fused of several layers by its ends. The sidecar has the ONNX
    file's verification report, marked as such: `of` is that file's name.

    Args:
        onnx: file written by `edgefuse export`, its weights inside.
        out: the `.engine` file; replaced if it exists.
        options: sizes for open dimensions, workspace, optimisation level.
        progress: called during the build, from whatever thread TensorRT uses.

    Raises:
        InputError: a file that cannot be read or written, or sizes that do not fit the graph.
        ModelError: an ONNX file that is not ours, or that TensorRT cannot parse.
        BackendError: no TensorRT, no GPU, or no engine within the workspace.
    """
    options = options or BuildOptions()
    graph = read_bytes(onnx)
    spec = read_spec(onnx, graph)
    machine = this_machine()
    timings = writable_folder(cache_folder() / "tensorrt" / machine.slug) / "timing.cache"
    engine, profiles = _build(graph, onnx, spec, options, timings, progress)
    layers = count_precisions(_inspect(engine))
    if doubt := precision_doubt(layers, spec.precision):
        logger.warning("%s: %s", out, doubt)
    replace_file(out, lambda partial: partial.write_bytes(engine))
    sidecar = Sidecar(
        machine=machine,
        onnx=onnx.name if onnx.resolve().parent == out.resolve().parent else str(onnx.resolve()),
        onnx_sha256=hashlib.sha256(graph).hexdigest(),
        engine_sha256=hashlib.sha256(engine).hexdigest(),
        profiles=profiles,
        options=options,
        spec=spec.built_from(onnx.name),  # what was compared has other kernels
        layers=layers,
    )
    write_sidecar(out, sidecar)
    return sidecar


def _build(
    graph: bytes, onnx: Path, spec: ModelSpec, options: BuildOptions, timings: Path, progress: Progress | None
) -> tuple[bytes, dict[str, Profile]]:
    """Return the serialised engine and the profiles it was built for."""
    trt = import_tensorrt()
    log = TensorRtLog(trt)
    try:
        builder = trt.Builder(log.logger)
    except TypeError:  # what the binding makes of a null pointer
        raise BackendError(f"TensorRT cannot start: {log.last_error}") from None
    # TensorRT 11 keeps this flag, and ignores it: there is no other kind of network.
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log.logger)
    if not parser.parse(graph):
        reason = parser.get_error(0).desc() if parser.num_errors else log.last_error
        raise ModelError(
            f"TensorRT {trt.__version__} cannot parse {onnx}: {' '.join(reason.split())[:300]} (a file of an "
            "earlier version of edgefuse must be exported again, with --for-tensorrt)"
        )

    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_mb << 20)
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    config.builder_optimization_level = options.level
    # float32 in the graph means float32: TF32, which is on by default, has half's ten bits.
    config.clear_flag(trt.BuilderFlag.TF32)
    monitor = _monitor(trt, progress)
    config.progress_monitor = monitor

    if profiles := make_profiles(spec, options.sizes):
        profile = builder.create_optimization_profile()
        for name, shapes in profiles.items():
            profile.set_shape(name, shapes.min, shapes.opt, shapes.max)
        if config.add_optimization_profile(profile) < 0:
            raise InputError(f"TensorRT refuses the size range {options.sizes}: {log.last_error}")

    _use_timings(config, timings)
    engine = builder.build_serialized_network(network, config)
    if monitor.interrupted:
        raise KeyboardInterrupt
    if engine is None:
        raise BackendError(
            f"TensorRT found no engine for {onnx} within {options.workspace_mb} MB: {log.last_error}"
        )
    _keep_timings(config, timings)
    return bytes(engine), profiles


def _use_timings(config: Any, path: Path) -> None:
    """Give the build what earlier ones measured on this GPU with this TensorRT."""
    cache = config.create_timing_cache(_read_timings(path))
    # Of bytes that it did not write TensorRT makes nothing at all, or a cache that the build refuses.
    if cache is None or not config.set_timing_cache(cache, False):
        logger.warning("%s does not fit this GPU, or is damaged, and is replaced", path)
        cache = config.create_timing_cache(b"")
        if cache is not None:
            config.set_timing_cache(cache, False)


def _read_timings(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""
    except OSError as error:
        logger.warning("%s cannot be read (%s) and is replaced", path, error.strerror or error)
        return b""


def _keep_timings(config: Any, path: Path) -> None:
    cache = config.get_timing_cache()
    if cache is None:
        return
    measured = bytes(cache.serialize())
    try:
        replace_file(path, lambda partial: partial.write_bytes(measured))
    except InputError as error:  # the engine is worth more
        logger.warning("the timing cache cannot be kept, so the next build will take as long: %s", error)


def _monitor(trt: Any, progress: Progress | None) -> Any:
    """TensorRT's progress, phase by phase; Ctrl-C during a report ends the build, not the report."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.interrupted = False
            self.steps: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:  # noqa: ARG002
            self.steps[phase_name] = num_steps
            self.tell(phase_name, 0)

        def phase_finish(self, phase_name: str) -> None:
            self.tell(phase_name, self.steps.pop(phase_name, 0))

        def step_complete(self, phase_name: str, step: int) -> bool:
            self.tell(phase_name, step + 1)
            return not self.interrupted

        def tell(self, phase: str, done: int) -> None:
            try:
                if progress is not None:
                    progress(phase, done, self.steps.get(phase, done))
            except KeyboardInterrupt:
                self.interrupted = True

    return Monitor()


def _inspect(engine: bytes) -> str:
    """Return what TensorRT's inspector says about a serialised engine, as JSON."""
    trt = import_tensorrt()
    log = TensorRtLog(trt)
    runtime = trt.Runtime(log.logger)
    loaded = runtime.deserialize_cuda_engine(engine)
    if loaded is None:
        raise BackendError(f"TensorRT cannot load the engine that it built: {log.last_error}")
    return loaded.create_engine_inspector().get_engine_information(trt.LayerInformationFormat.JSON)


def count_precisions(information: str) -> dict[str, int]:
    """Count layers by precision in the inspector's JSON; nothing is counted where it has no such details.

    A layer counts as int8 if it reads or writes int8, else as fp16 if half, and so on; layers that only
    move data do not count. Names of formats differ between versions (`Half`, `Row major linear FP16
    format`), so words are searched for.
    """
    kinds = {"int8": r"(?<!u)int8", "fp16": r"half|fp16", "bf16": r"bf16|bfloat", "fp32": r"float|fp32"}
    counts = dict.fromkeys((*kinds, "other"), 0)
    try:
        layers = json.loads(information)["Layers"]
        computing = [layer for layer in layers if layer["LayerType"].lower() not in MOVING]
        for layer in computing:
            tensors = (*layer.get("Inputs", ()), *layer.get("Outputs", ()))
            text = " ".join(str(t[key]) for t in tensors for key in t if DTYPE.search(key)).lower()
            counts[next((kind for kind, words in kinds.items() if re.search(words, text)), "other")] += 1
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}
    return counts


MIN_SHARE = {"fp16": 0.5, "int8": 0.25}
"""Least share of computing layers in the precision that was asked for: sums and statistics stay in float,
and of an int8 file all but the convolutions."""


def layer_share(layers: Mapping[str, int], precision: str) -> float:
    """Return the share of layers in a precision among those of any known one, 0 to 1.

    Args:
        layers: number of layers by precision; `other` is unknown.
        precision: that of the file's spec.
    """
    known = {name: count for name, count in layers.items() if name != "other"}
    return known.get(precision, 0) / max(1, sum(known.values()))


def precision_doubt(layers: Mapping[str, int], precision: str) -> str | None:
    """Say why an engine may not compute in the precision that its graph asks for; None: no reason is seen.

    Args:
        layers: number of layers by precision.
        precision: that of the graph's spec; an fp32 graph may have any layers.
    """
    share = layer_share(layers, precision)
    if share >= (limit := MIN_SHARE.get(precision, 0.0)):
        return None
    if not any(layers.values()):
        return f"TensorRT's inspector does not say whether it computes in {precision}: compare its speed"
    counts = ", ".join(f"{count} {name}" for name, count in layers.items() if count)
    return (
        f"TensorRT's inspector shows {share:.0%} of its layers in {precision}, usual are at least "
        f"{limit:.0%} (layers: {counts}): layers fused into one may hide it; if it is not faster than fp32, "
        f"see whether the GPU supports {precision}"
    )
