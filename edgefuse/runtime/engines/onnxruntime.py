"""ONNX Runtime on the CPU and, by its CUDA provider, on an NVIDIA GPU.

Left to itself ONNX Runtime runs on the CPU whenever the GPU provider cannot load, and says so only in its
log. Here the provider that was asked for runs, or an error says what is missing.
"""

import ctypes
import logging
import re
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from edgefuse.errors import BackendError, InputError, ModelError, first_line
from edgefuse.files import model_argument
from edgefuse.packages import INSTALL_HINTS, stay_offline
from edgefuse.runtime.engines.base import Arrays, DeviceArray, OpensFile, loading_reason
from edgefuse.spec import read_spec

logger = logging.getLogger(__name__)

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
CUDA_OPTIONS = {"use_tf32": "0"}
"""float32 in the graph means float32: TF32, which is on by default, has half's ten bits."""

HEAVY = frozenset({"Conv", "ConvTranspose", "FusedConv", "QLinearConv", "ConvInteger", "MatMul", "Gemm"})
"""Operators that hold nearly all of the arithmetic: none of them may fall to the CPU. Arithmetic on shapes
may: ONNX Runtime puts it there on purpose."""

TOO_NEW = {
    "opset": r"Opset (\d+) is under development.* is till opset (\d+)",
    "IR version": r"Unsupported model IR version: (\d+), max supported IR version: (\d+)",
}
"""What ONNX Runtime says of files that are newer than itself."""

BEFORE_REASON = re.compile(
    r"^\[ONNXRuntimeError\] : \d+ : \w+ : "
    r"|.*\.(?:h|cc):\d+ (?:.*\) |\S+ )"
    r"|Load model from .*? failed:"
)
"""Codes, paths, and the C++ where an error arose: enough to fill a line before its reason is said."""

LOADING_HINTS = {
    r"libcuda\.": "install NVIDIA's driver, until nvidia-smi shows the GPU",
    r"libcudnn": "pip install 'onnxruntime-gpu[cudnn]'",
    r"libcu|libnv": "pip install 'onnxruntime-gpu[cuda,cudnn]'",
}
"""What brings a missing library, by the beginning of its name."""


class CpuEngine(OpensFile):
    """Runs a file with ONNX Runtime on the CPU."""

    package = "onnxruntime"
    extra = "cpu"
    provider: ClassVar[str] = CPU
    settings: ClassVar[dict[str, str]] = {}
    name: ClassVar[str] = "cpu"
    memory: ClassVar[str] = "cpu"
    """Where arrays must be for `run_on_device`."""

    def __init__(self, path: Path, threads: int | None = None, *, rebuild: bool = True) -> None:  # noqa: ARG002
        stay_offline()
        import onnxruntime as ort

        self.spec = read_spec(path)
        self.device = f"ONNX Runtime on {self.name}"
        self._prepare(ort, path)
        options = ort.SessionOptions()
        options.log_severity_level = 4  # what goes wrong, the errors below say
        # Idle workers that spin take the cores from capture, decoding and encoding.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        if threads is not None:
            options.intra_op_num_threads = threads
        providers = [(self.provider, self.settings)]
        try:
            self._session = ort.InferenceSession(
                model_argument(path), options, providers=providers, enable_fallback=0
            )
        except Exception as error:  # ORT's exceptions share no base class but Exception
            raise self._refused(path, loading_reason(_reason(error, ort.__version__))) from None
        self._check_placement(path)

    def run(self, inputs: Arrays) -> NDArray[Any]:
        """Run the model once, see `Engine.run`."""
        try:
            return self._session.run(None, inputs)[0]
        except Exception as error:  # as above
            raise self.failed(inputs, first_line(error)) from None

    def run_on_device(
        self, inputs: Mapping[str, DeviceArray | NDArray[Any]], out: DeviceArray | None = None
    ) -> DeviceArray:
        """Run the model once on arrays that lie where it computes, see `Engine.run_on_device`."""
        binding, name = self._session.io_binding(), self.spec.outputs()[0].name
        try:
            for key, value in inputs.items():
                if isinstance(value, DeviceArray):
                    binding.bind_input(key, *self._place(key, value))
                else:
                    binding.bind_cpu_input(key, value)
            if out is None:
                binding.bind_output(name, self.memory)
            else:
                binding.bind_output(name, *self._place(name, out))
            self._session.run_with_iobinding(binding)
            (answer,) = binding.get_outputs()
        except InputError:
            raise
        except Exception as error:  # as above
            raise self.failed(inputs, first_line(error)) from None
        if out is not None:
            return out
        dtype = np.dtype(self.spec.outputs()[0].dtype)
        return DeviceArray(answer.data_ptr(), tuple(answer.shape()), dtype, self.memory, 0, answer)

    def _place(self, name: str, array: DeviceArray) -> tuple[str, int, Any, tuple[int, ...], int]:
        """Return what binds an array."""
        if array.device != self.memory:
            raise InputError(
                f"{name} is in the memory of {array.device}, and {self.device} needs it elsewhere"
            )
        return array.device, array.device_id, array.dtype.type, array.shape, array.pointer

    def close(self) -> None:
        """Give the session's memory back."""
        self._session = None

    def _prepare(self, ort: ModuleType, path: Path) -> None:
        """Load what the provider needs."""

    def _refused(self, path: Path, reason: str) -> Exception:
        return ModelError(f"{path} is not a model that ONNX Runtime can load: {reason}")

    def _check_placement(self, path: Path) -> None:
        """See that the large nodes are where they should be."""


class CudaEngine(CpuEngine):
    """Runs a file with ONNX Runtime on an NVIDIA GPU, or raises."""

    extra = "gpu"
    needs_arranging = True
    provider = CUDA
    settings = CUDA_OPTIONS
    name = memory = "cuda"

    @classmethod
    def missing(cls) -> str | None:
        """Say what is missing to use this engine, and what to do; None: nothing."""
        if super().missing():
            return f"onnxruntime-gpu is not installed: {INSTALL_HINTS['gpu']}"
        stay_offline()
        import onnxruntime as ort

        if CUDA in ort.get_available_providers():
            return None
        return (
            f"this ONNX Runtime {ort.__version__} is built without CUDA: pip uninstall onnxruntime, then "
            f"{INSTALL_HINTS['gpu']} (on a Jetson NVIDIA's own build of onnxruntime-gpu)"
        )

    def _prepare(self, ort: ModuleType, path: Path) -> None:
        if not sys.platform.startswith("linux"):
            return
        folder = Path(str(ort.__file__)).parent
        plugin = folder / "capi" / "libonnxruntime_providers_cuda.so"
        if reason := load_library(plugin, folder.parent / "nvidia"):
            raise BackendError(f"cuda cannot run {path}: {reason}")

    def _refused(self, path: Path, reason: str) -> Exception:
        hint = "see whether nvidia-smi shows the GPU and enough memory"
        return BackendError(f"cuda cannot run {path}: {reason}: {hint}")

    def _check_placement(self, path: Path) -> None:
        if self._session.get_providers()[0] != CUDA:
            raise self._refused(path, "ONNX Runtime could not use its CUDA provider")
        placed = getattr(self._session, "get_provider_graph_assignment_info", None)  # since 1.24
        if placed is None:
            _warn_of_unknown_placement()
            return
        on_cpu = [
            f"{node.op_type} {node.name}"
            for part in placed()
            if part.ep_name == CPU
            for node in part.get_nodes()
            if node.op_type in HEAVY
        ]
        if on_cpu:
            raise BackendError(
                f"cuda cannot run {path}: {len(on_cpu)} of its large nodes would run on the CPU, such as "
                f"{on_cpu[0]}: export it again with --for-tensorrt, or use --engine cpu"
            )


@cache
def _warn_of_unknown_placement() -> None:
    logger.warning(
        "this ONNX Runtime is older than 1.24 and does not tell what it runs on the GPU: a part of the model "
        "may run on the CPU, and slowly"
    )


def _reason(error: object, version: str) -> str:
    """Return why a file cannot be loaded."""
    for what, pattern in TOO_NEW.items():
        if found := re.search(pattern, str(error)):
            return (
                f"it has {what} {found[1]}, and ONNX Runtime {version} knows them up to {found[2]}: install "
                "a newer one, or export the model again"
            )
    return first_line(BEFORE_REASON.sub("", str(error)))


def load_library(library: Path, packages: Path) -> str | None:
    """Load a shared library, and before it what it needs out of NVIDIA's packages from pip.

    The loader does not look into those packages by itself.

    Args:
        library: file to load.
        packages: folder of NVIDIA's packages, with `*/lib/*.so.*`.

    Returns:
        What is missing and how to get it; None: it is loaded.
    """
    tried: set[str] = set()
    while True:
        try:
            ctypes.CDLL(str(library))
            return None
        except OSError as error:
            text = str(error)
        missing = text.partition(":")[0].strip()
        if missing == str(library) or ".so" not in missing:
            return f"{first_line(text)}: install onnxruntime-gpu again"
        found = next(packages.glob(f"*/lib/{missing}"), None)
        if found is None or missing in tried:
            return f"the library {missing} is missing: {_hint(missing)}"
        tried.add(missing)
        if reason := load_library(found, packages):
            return reason


def _hint(library: str) -> str:
    for beginning, hint in LOADING_HINTS.items():
        if re.match(beginning, library):
            return hint
    return "install your system's package that has it"
