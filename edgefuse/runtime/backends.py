"""Inference engines behind one small Protocol. None of them needs torch."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from edgefuse.errors import BackendError, InputError, ModelError, unknown_name
from edgefuse.images import Image
from edgefuse.spec import METADATA_KEY, ModelSpec

__all__ = [
    "ENGINES",
    "Backend",
    "DeployBackend",
    "OnnxRuntimeBackend",
    "OpenVinoBackend",
    "check_threads",
    "load_backend",
]

MISSING_ENGINE = (
    "no inference engine is installed: pip install 'edgefuse[cpu]' (or 'edgefuse[gpu]' for NVIDIA GPUs, "
    "'edgefuse[openvino]' for Intel; on a Jetson install NVIDIA's own build of onnxruntime-gpu)"
)


MAX_THREADS = 256
"""More would only burden the machine."""


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


@runtime_checkable
class DeployBackend(Backend, Protocol):
    """A backend that also runs deploy graphs."""

    def run_images(self, ir: Image, vis: Image) -> Image:
        """Map uint8 `[N, H, W, 1]` and `[N, H, W, 3]`, colours in the spec's order, to `[N, H, W, 3]`."""


class OnnxRuntimeBackend:
    """Runs a file with ONNX Runtime; on the GPU where the installed build has CUDA, else on the CPU.

    Args:
        path: an ONNX file written by `edgefuse export`.
        threads: CPU threads for one frame; None: all cores.

    Raises:
        ModelError: not a readable model of ours.
    """

    def __init__(self, path: Path, threads: int | None = None) -> None:
        import onnxruntime as ort

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
        return self._run({"sources": x})

    def run_images(self, ir: Image, vis: Image) -> Image:
        """Map uint8 `[N, H, W, 1]` and `[N, H, W, 3]`, colours in the spec's order, to `[N, H, W, 3]`."""
        return self._run({"ir": ir, "vis": vis})

    def _run(self, inputs: dict[str, NDArray[Any]]) -> NDArray[Any]:
        try:
            return self._session.run(None, inputs)[0]
        except Exception as error:  # ORT's exceptions share no base class but Exception
            shapes = " and ".join(str(value.shape) for value in inputs.values())
            raise BackendError(f"{self._spec.model} could not be run on {shapes}: {error}") from None


class OpenVinoBackend:
    """Runs a file with OpenVINO on the CPU, tuned for the latency of single frames.

    Args:
        path: an ONNX file written by `edgefuse export`.
        threads: CPU threads for one frame; None: all cores.

    Raises:
        ModelError: not a readable model of ours.
    """

    device = "OpenVINO on cpu"

    def __init__(self, path: Path, threads: int | None = None) -> None:
        import openvino as ov

        core = ov.Core()
        settings: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY"}
        if threads is not None:
            settings["INFERENCE_NUM_THREADS"] = threads
        try:
            model = core.read_model(path)
            # The ONNX reader keeps a file's metadata here.
            note = ["framework", METADATA_KEY]
            metadata = {METADATA_KEY: model.get_rt_info(note).value} if model.has_rt_info(note) else {}
            self._request: Any = core.compile_model(model, "CPU", settings).create_infer_request()
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1][:160]
            raise ModelError(f"{path} is not a model that OpenVINO can load: {reason}") from None
        self.spec = ModelSpec.from_metadata(metadata, path)

    def run(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Map `[1, 2, H, W]` (infrared, visible luma) in [0, 1] to the fused `[1, 1, H, W]` in [0, 1]."""
        return self._request.infer([x])[0]

    def run_images(self, ir: Image, vis: Image) -> Image:
        """Map uint8 `[N, H, W, 1]` and `[N, H, W, 3]`, colours in the spec's order, to `[N, H, W, 3]`."""
        return self._request.infer({"ir": ir, "vis": vis})[0]


ENGINES: dict[str, type[OnnxRuntimeBackend] | type[OpenVinoBackend]] = {
    "onnxruntime": OnnxRuntimeBackend,
    "openvino": OpenVinoBackend,
}
"""By the name of the package that each needs, in order of preference."""


def check_threads(threads: int | None) -> None:
    """Raise `InputError` unless `threads` is None or a number that engines can be trusted with."""
    if threads is not None and not 1 <= threads <= MAX_THREADS:
        raise InputError(f"threads is {threads}, it must be from 1 to {MAX_THREADS}")


def load_backend(path: Path, engine: str | None = None, threads: int | None = None) -> Backend:
    """Open a model file with an engine; None: the first one that is installed.

    Raises:
        BackendError: the engine is unknown or not installed, or none is.
        ModelError: not a readable model of ours.
    """
    if engine is not None and engine not in ENGINES:
        raise BackendError(unknown_name("engine", engine, ENGINES))
    installed = [name for name in ([engine] if engine else ENGINES) if _is_installed(name)]
    if not installed:
        raise BackendError(f"{engine} is not installed" if engine else MISSING_ENGINE)
    return ENGINES[installed[0]](path, threads)


def _is_installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ValueError:  # what find_spec says of a package that is blocked in sys.modules
        return False
