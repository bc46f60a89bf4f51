"""Inference engines by name, behind one small class. None of them needs torch."""

import hashlib
import logging
from pathlib import Path

from edgefuse.errors import BackendError, unknown_name
from edgefuse.files import read_bytes
from edgefuse.packages import INSTALL_HINTS
from edgefuse.runtime.engines.base import Engine, OpensFile, check_threads
from edgefuse.runtime.engines.onnxruntime import CpuEngine, CudaEngine
from edgefuse.runtime.engines.openvino import OpenVinoEngine
from edgefuse.runtime.engines.tensorrt import TensorRtEngine
from edgefuse.spec import ModelSpec, read_spec
from edgefuse.weights import model_file, shipped

__all__ = [
    "ENGINES",
    "Engine",
    "OpensFile",
    "check_threads",
    "export_command",
    "file_for",
    "model_digest",
    "open_engine",
]

logger = logging.getLogger(__name__)

ENGINES: dict[str, type[OpensFile]] = {
    "cuda": CudaEngine,
    "cpu": CpuEngine,
    "openvino": OpenVinoEngine,
    "tensorrt": TensorRtEngine,
}
"""In order of preference."""


def model_digest(model: str, engine: str | None) -> str:
    """Return the SHA-256 of what a model's file holds.

    Args:
        model: as for `file_for`.
        engine: name in `ENGINES`; None: as for `cpu`.

    Raises:
        EdgefuseError: as `file_for`, or the file cannot be read.
    """
    path = Path(model) if Path(model).is_file() else file_for(model, engine or "cpu")
    return hashlib.sha256(read_bytes(path)).hexdigest()


def file_for(model: str | Path, engine: str) -> Path:
    """Return the file of a model that an engine takes.

    Args:
        model: name of a shipped model, of which the engine takes the int8 file if the card
            says that it runs it faster than the one in fp32; or a file.
        engine: name in `ENGINES`.

    Raises:
        ModelError: neither a shipped model nor an existing file.
        BackendError: the file is arranged for other engines.
    """
    card = shipped().get(str(model))
    if card and card.int8 and card.int8_speed.get(engine, 0) > 1:
        spec = read_spec(card.int8)
        if not spec.engines or engine in spec.engines:
            return card.int8
    path = model_file(model)
    if path.suffix == ".onnx" and ENGINES[engine].needs_arranging:
        spec = read_spec(path)
        if spec.engines and engine not in spec.engines:
            raise BackendError(
                f"{path} is arranged for {', '.join(spec.engines)}, not for {engine}: {_arranging(spec)}"
            )
    return path


def _arranging(spec: ModelSpec) -> str:
    """Say how to make a file that all engines take out of the network of another."""
    if not spec.training:  # a network of another project, which was wrapped
        return "its network has operators that this engine does not take: use one of those"
    rgb = spec.end_to_end and spec.colours == "rgb"
    return f"make one for it with {export_command(spec, f'--graph {spec.graph}', '--rgb' if rgb else '')}"


def export_command(spec: ModelSpec, *options: str) -> str:
    """Return the command that makes a file for all engines out of the same weights as another one."""
    card = shipped().get(spec.model)
    ours = card is not None and read_spec(card.onnx).training == spec.training
    parts = [
        f"edgefuse export {spec.model if ours else 'YOUR_CHECKPOINT'}",
        {"fp16": "--fp16", "int8": "--int8 --calib-ir … --calib-vis …"}.get(spec.precision, ""),
        "--size {}x{}".format(*spec.size) if spec.size else "",
        *options,
        "--for-tensorrt",
    ]
    return " ".join(filter(None, parts))


def open_engine(
    model: str | Path, engine: str | None = None, threads: int | None = None, *, rebuild: bool = True
) -> OpensFile:
    """Open a model with an engine.

    Args:
        model: name of a shipped model, `.onnx` file, or `.engine` file for TensorRT alone.
        engine: name in `ENGINES`; None: TensorRT for its files, else the first that can be used here.
        threads: CPU threads for one frame; None: all cores.
        rebuild: False: TensorRT raises rather than build an engine that fits this machine.

    Raises:
        BackendError: the engine is unknown, not installed or cannot run here, or none is installed.
        ModelError: not a readable model of ours.
    """
    if engine is None and str(model).endswith(".engine"):
        engine = "tensorrt"
    if engine == "onnxruntime":
        logger.warning("the engine 'onnxruntime' is now called 'cpu' or 'cuda'")
        engine = None
    if engine is not None:
        if engine not in ENGINES:
            raise BackendError(unknown_name("engine", engine, ENGINES))
        if missing := ENGINES[engine].missing():
            raise BackendError(f"engine {engine} cannot be used: {missing}")
        return ENGINES[engine](file_for(model, engine), threads, rebuild=rebuild)
    usable = [name for name, kind in ENGINES.items() if kind.missing() is None]
    if not usable:
        raise BackendError(
            f"no inference engine is installed: {INSTALL_HINTS['cpu']} (NVIDIA GPUs: {INSTALL_HINTS['gpu']}; "
            f"Intel: {INSTALL_HINTS['openvino']}; a Jetson: NVIDIA's own build of onnxruntime-gpu)"
        )
    if usable[0] == "cuda":
        try:
            return CudaEngine(file_for(model, "cuda"), threads)
        except BackendError as error:
            logger.warning("running on the CPU: %s", error)
        return CpuEngine(file_for(model, "cpu"), threads)
    return ENGINES[usable[0]](file_for(model, usable[0]), threads, rebuild=rebuild)
