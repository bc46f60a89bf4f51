"""Inference engines behind one small Protocol. None of them needs torch."""

from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgefuse.errors import BackendError, ModelError
from edgefuse.spec import ModelSpec

__all__ = ["Backend", "OnnxRuntimeBackend"]

MISSING_ENGINE = (
    "no inference engine is installed: pip install 'edgefuse[cpu]' (or 'edgefuse[gpu]' for NVIDIA GPUs; "
    "on a Jetson install NVIDIA's own build of onnxruntime-gpu)"
)


class Backend(Protocol):
    """Something that runs one model file."""

    @property
    def spec(self) -> ModelSpec:
        """What the model takes and gives."""

    @property
    def device(self) -> str:
        """Where it really runs, to show to people, such as `ONNX Runtime on cpu`."""

    def run(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Map `[1, 2, H, W]` (infrared, visible luma) in [0, 1] to the fused `[1, 1, H, W]` in [0, 1]."""


class OnnxRuntimeBackend:
    """ONNX Runtime; on the GPU where the installed build has CUDA, else on the CPU.

    Args:
        path: an ONNX file written by `edgefuse export`.
        threads: CPU threads for one frame; None: all cores.

    Raises:
        BackendError: ONNX Runtime is not installed.
        ModelError: not a readable model of ours.
    """

    def __init__(self, path: Path, threads: int | None = None) -> None:
        try:
            import onnxruntime as ort
        except ImportError:
            raise BackendError(MISSING_ENGINE) from None
        options = ort.SessionOptions()
        options.log_severity_level = 4
        # Idle workers that spin take the cores from capture, decoding and encoding.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if threads is not None:
            options.intra_op_num_threads = threads
        wanted = [("CUDAExecutionProvider", "cuda"), ("CPUExecutionProvider", "cpu")]
        providers = [name for name, _ in wanted if name in ort.get_available_providers()]
        try:
            self._session: Any = ort.InferenceSession(str(path), options, providers=providers)
        except Exception as error:  # ORT's exceptions share no base class but Exception
            reason = (str(error).strip() or type(error).__name__).splitlines()[0][:160]
            raise ModelError(f"{path} is not a model that ONNX Runtime can load: {reason}") from None
        self._spec = ModelSpec.from_metadata(self._session.get_modelmeta().custom_metadata_map, path)
        self._input = self._session.get_inputs()[0].name
        self._device = dict(wanted)[self._session.get_providers()[0]]

    @property
    def spec(self) -> ModelSpec:
        """What the model takes and gives."""
        return self._spec

    @property
    def device(self) -> str:
        """Where it really runs."""
        return f"ONNX Runtime on {self._device}"

    def run(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Map `[1, 2, H, W]` (infrared, visible luma) in [0, 1] to the fused `[1, 1, H, W]` in [0, 1]."""
        return self._session.run(None, {self._input: x})[0]
