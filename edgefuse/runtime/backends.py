"""Inference engines behind one small Protocol. None of them needs torch."""

import logging
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from edgefuse.errors import BackendError, InputError, ModelError, unknown_name
from edgefuse.images import Image
from edgefuse.runtime.providers import PROVIDERS, open_session, provider_in_use
from edgefuse.runtime.tensorrt import TensorRtBackend
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

logger = logging.getLogger(__name__)

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
    """Runs a file with ONNX Runtime.

    Args:
        path: an ONNX file written by `edgefuse export`.
        threads: CPU threads for one frame; None: all cores.
        provider: name in `PROVIDERS`, which runs or raises; None: the GPU where the installed build has
            CUDA and it loads, else the CPU.

    Raises:
        ModelError: not a readable model of ours.
        BackendError: an unknown provider, or one that cannot run here.
    """

    def __init__(self, path: Path, threads: int | None = None, provider: str | None = None) -> None:
        self._session = _session(path, threads, provider)
        self._spec = ModelSpec.from_metadata(self._session.get_modelmeta().custom_metadata_map, path)
        self._device = provider_in_use(self._session)

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


def _session(path: Path, threads: int | None, provider: str | None) -> Any:
    import onnxruntime as ort

    def options() -> Any:
        options = ort.SessionOptions()
        options.log_severity_level = 4
        # Idle workers that spin take the cores from capture, decoding and encoding.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if threads is not None:
            options.intra_op_num_threads = threads
        return options

    if provider is None and PROVIDERS["cuda"].name in ort.get_available_providers():
        try:
            return open_session(path, "cuda", options())
        except BackendError as error:
            logger.warning("running on the CPU: %s", error)
    return open_session(path, provider or "cpu", options())


class OpenVinoBackend:
    """Runs a file with OpenVINO on the CPU, tuned for the latency of single frames.

    Where the CPU multiplies bfloat16, OpenVINO computes float32 files in it, which `device` says.

    Args:
        path: an ONNX file written by `edgefuse export`.
        threads: CPU threads for one frame; None: all cores.

    Raises:
        ModelError: not a readable model of ours.
    """

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
            compiled = core.compile_model(model, "CPU", settings)
            self._request: Any = compiled.create_infer_request()
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1][:160]
            raise ModelError(f"{path} is not a model that OpenVINO can load: {reason}") from None
        precision = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        self.device = "OpenVINO on cpu" + (", in bf16" if precision == "bf16" else "")
        """Where it really runs, and in what."""
        self.spec = ModelSpec.from_metadata(metadata, path)

    def run(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Map `[1, 2, H, W]` (infrared, visible luma) in [0, 1] to the fused `[1, 1, H, W]` in [0, 1]."""
        return self._infer([x])

    def run_images(self, ir: Image, vis: Image) -> Image:
        """Map uint8 `[N, H, W, 1]` and `[N, H, W, 3]`, colours in the spec's order, to `[N, H, W, 3]`."""
        return self._infer({"ir": ir, "vis": vis})

    def _infer(self, inputs: Any) -> NDArray[Any]:
        try:
            return self._request.infer(inputs)[0]
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1][:160]
            raise BackendError(f"{self.spec.model} could not be run with OpenVINO: {reason}") from None


ENGINES: dict[str, type[OnnxRuntimeBackend] | type[OpenVinoBackend] | type[TensorRtBackend]] = {
    "onnxruntime": OnnxRuntimeBackend,
    "openvino": OpenVinoBackend,
    "tensorrt": TensorRtBackend,
}
"""By the name of the package that each needs, in order of preference."""
EXTRAS = {"onnxruntime": "cpu", "openvino": "openvino", "tensorrt": "tensorrt"}
"""What installs them."""


def check_threads(threads: int | None) -> None:
    """Raise `InputError` unless `threads` is None or a number that engines can be trusted with."""
    if threads is not None and not 1 <= threads <= MAX_THREADS:
        raise InputError(f"threads is {threads}, it must be from 1 to {MAX_THREADS}")


def load_backend(
    path: Path,
    engine: str | None = None,
    threads: int | None = None,
    *,
    provider: str | None = None,
    rebuild: bool = True,
) -> Backend:
    """Open a model file with an engine.

    Args:
        path: `.onnx`, or `.engine` for TensorRT alone.
        engine: name in `ENGINES`; None: TensorRT for its files, else the first that is installed.
        threads: CPU threads for one frame; None: all cores.
        provider: of ONNX Runtime, see there.
        rebuild: False: TensorRT raises rather than build an engine that fits this machine.

    Raises:
        BackendError: the engine or provider is unknown, not installed or cannot run here, or none is.
        ModelError: not a readable model of ours.
    """
    if engine is None and path.suffix == ".engine":
        engine = "tensorrt"
    if engine is None and provider is not None:
        engine = "onnxruntime"
    if engine is not None and engine not in ENGINES:
        raise BackendError(unknown_name("engine", engine, ENGINES))
    installed = [name for name in ([engine] if engine else ENGINES) if _is_installed(name)]
    if not installed:
        mend = f": pip install 'edgefuse[{EXTRAS[engine]}]'" if engine else ""
        raise BackendError(f"{engine} is not installed{mend}" if engine else MISSING_ENGINE)
    chosen = ENGINES[installed[0]]
    if provider is not None and chosen is not OnnxRuntimeBackend:
        raise BackendError(f"{installed[0]} has no providers: leave out {provider!r}, or use onnxruntime")
    if chosen is OnnxRuntimeBackend:
        return OnnxRuntimeBackend(path, threads, provider)
    if chosen is TensorRtBackend:
        return TensorRtBackend(path, rebuild=rebuild)
    return chosen(path, threads)


def _is_installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ValueError:  # what find_spec says of a package that is blocked in sys.modules
        return False
