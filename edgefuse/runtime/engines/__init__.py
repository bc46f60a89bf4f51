"""Inference engines by name, behind one small class. None of them needs torch."""

import logging
from pathlib import Path

from edgefuse.errors import BackendError, unknown_name
from edgefuse.runtime.engines.base import Engine, OpensFile, check_threads
from edgefuse.runtime.engines.onnxruntime import CpuEngine, CudaEngine
from edgefuse.runtime.engines.openvino import OpenVinoEngine
from edgefuse.runtime.engines.tensorrt import TensorRtEngine

__all__ = ["ENGINES", "Engine", "OpensFile", "check_threads", "open_engine"]

logger = logging.getLogger(__name__)

ENGINES: dict[str, type[OpensFile]] = {
    "cuda": CudaEngine,
    "cpu": CpuEngine,
    "openvino": OpenVinoEngine,
    "tensorrt": TensorRtEngine,
}
"""In order of preference."""


def open_engine(
    path: Path, engine: str | None = None, threads: int | None = None, *, rebuild: bool = True
) -> OpensFile:
    """Open a model file with an engine.

    Args:
        path: `.onnx`, or `.engine` for TensorRT alone.
        engine: name in `ENGINES`; None: TensorRT for its files, else the first that can be used here.
        threads: CPU threads for one frame; None: all cores.
        rebuild: False: TensorRT raises rather than build an engine that fits this machine.

    Raises:
        BackendError: the engine is unknown, not installed or cannot run here, or none is installed.
        ModelError: not a readable model of ours.
    """
    if engine is None and path.suffix == ".engine":
        engine = "tensorrt"
    if engine == "onnxruntime":
        logger.warning("the engine 'onnxruntime' is now called 'cpu' or 'cuda'")
        engine = None
    if engine is not None:
        if engine not in ENGINES:
            raise BackendError(unknown_name("engine", engine, ENGINES))
        if missing := ENGINES[engine].missing():
            raise BackendError(f"engine {engine} cannot be used: {missing}")
        return ENGINES[engine](path, threads, rebuild=rebuild)
    usable = [name for name, kind in ENGINES.items() if kind.missing() is None]
    if not usable:
        raise BackendError(
            "no inference engine is installed: pip install 'edgefuse[cpu]' (or 'edgefuse[gpu]' for NVIDIA "
            "GPUs, 'edgefuse[openvino]' for Intel; on a Jetson install NVIDIA's own build of onnxruntime-gpu)"
        )
    if usable[0] == "cuda":
        try:
            return CudaEngine(path, threads)
        except BackendError as error:
            logger.warning("running on the CPU: %s", error)
        return CpuEngine(path, threads)
    return ENGINES[usable[0]](path, threads, rebuild=rebuild)
