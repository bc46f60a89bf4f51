"""Running TensorRT engines, 10.x and 11.x alike, without torch.

Checked against the real Python bindings of TensorRT 10.16 and 11.4 and of CUDA 12.9 and 13, with stubs in
place of NVIDIA's libraries: that it runs on a GPU has not been tried.
"""

import contextlib
import logging
import threading
import weakref
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgefuse.errors import BackendError, InputError, ModelError
from edgefuse.runtime.cuda import Buffer, check, import_cuda, new_stream, versions
from edgefuse.runtime.engine_cache import usable_engine
from edgefuse.runtime.sidecar import BuildOptions, Machine

__all__ = ["Engine", "TensorRtBackend", "TensorRtLog", "import_tensorrt", "this_machine"]

logger = logging.getLogger(__name__)


def import_tensorrt() -> ModuleType:
    """Return TensorRT's Python module.

    Raises:
        BackendError: it is not installed, cannot load its libraries, or is older than 10.3.
    """
    try:
        import tensorrt
    except ImportError as error:
        reason = str(error).strip().splitlines()[0]
        raise BackendError(
            f"TensorRT cannot be loaded ({reason}): pip install tensorrt (on a Jetson: "
            "apt install python3-libnvinfer, and a virtual environment with --system-site-packages)"
        ) from None
    module: ModuleType = tensorrt
    if tuple(map(int, module.__version__.split(".")[:2])) < (10, 3):
        raise BackendError(f"TensorRT {module.__version__} is too old: 10.3 or later is needed")
    return module


def this_machine() -> Machine:
    """Return what an engine built here is bound to.

    Raises:
        BackendError: TensorRT, cuda-python, the driver or the GPU is missing.
    """
    return Machine(tensorrt=import_tensorrt().__version__, **versions(import_cuda()))


class TensorRtLog:
    """TensorRT's messages: warnings and errors go to `logging`, and the last error is kept for ours."""

    def __init__(self, trt: Any) -> None:
        severity, outer = trt.ILogger.Severity, self
        loud = (severity.INTERNAL_ERROR, severity.ERROR)

        class Log(trt.ILogger):  # type: ignore[misc]
            def __init__(self) -> None:
                trt.ILogger.__init__(self)

            def log(self, severity: Any, msg: str) -> None:
                if severity in loud:
                    outer.last_error = " ".join(msg.split())[:300]
                    logger.error("TensorRT: %s", msg)
                elif severity == trt.ILogger.Severity.WARNING:
                    logger.warning("TensorRT: %s", msg)

        self.last_error = "it gave no reason"
        self.logger = Log()
        """What TensorRT's constructors take; it must live as long as they do."""


class Engine:
    """A deserialised engine with its buffers and its own stream; it serves one thread at a time.

    Args:
        path: an engine file that fits this machine, see `usable_engine`.

    Raises:
        BackendError: TensorRT refuses the file, or memory is short.
    """

    def __init__(self, path: Path) -> None:
        trt, cuda = import_tensorrt(), import_cuda()
        self._cuda, self._lock = cuda, threading.Lock()
        self._log = TensorRtLog(trt)
        try:
            self._runtime = trt.Runtime(self._log.logger)
        except TypeError:  # what the binding makes of a null pointer
            raise BackendError(f"TensorRT cannot start: {self._log.last_error}") from None
        engine = self._runtime.deserialize_cuda_engine(path.read_bytes())
        context = engine.create_execution_context() if engine is not None else None
        if engine is None or context is None:
            raise BackendError(f"TensorRT cannot load {path}: {self._log.last_error}")
        self._engine, self._context = engine, context
        names = [engine.get_tensor_name(k) for k in range(engine.num_io_tensors)]
        inputs = {n for n in names if engine.get_tensor_mode(n) == trt.TensorIOMode.INPUT}
        self.inputs = [n for n in names if n in inputs]
        self.outputs = [n for n in names if n not in inputs]
        self._shapes: dict[str, tuple[int, ...]] = {}
        with contextlib.ExitStack() as stack:
            self._stream = new_stream(cuda)
            stack.callback(cuda.cudaStreamDestroy, self._stream)
            self._buffers = {n: Buffer(cuda, trt.nptype(engine.get_tensor_dtype(n))) for n in names}
            for buffer in self._buffers.values():
                stack.callback(buffer.free)
            self._free = weakref.finalize(self, stack.pop_all().close)

    def __call__(self, arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Run the engine once.

        Args:
            arrays: one for each of `inputs`, of the engine's dtypes.

        Returns:
            A new array for each of `outputs`.

        Raises:
            ModelError: other inputs than the engine's.
            InputError: a shape outside the engine's profile.
            BackendError: TensorRT or CUDA fails, or the engine is closed.
        """
        with self._lock:
            if not self._free.alive:
                raise BackendError("the engine is closed: open it again")
            if arrays.keys() != set(self.inputs):
                raise ModelError(f"the engine takes {self.inputs}, not {list(arrays)}")
            shapes = {name: tuple(arrays[name].shape) for name in self.inputs}
            if shapes != self._shapes:
                self._set_shapes(shapes)
            for name in self.inputs:
                buffer = self._buffers[name]
                np.copyto(buffer.host, arrays[name], casting="no")
                buffer.upload(self._stream)
            if not self._context.execute_async_v3(int(self._stream)):
                raise BackendError(f"TensorRT failed on a frame: {self._log.last_error}")
            for name in self.outputs:
                self._buffers[name].download(self._stream)
            check(self._cuda, self._cuda.cudaStreamSynchronize(self._stream))
            return {name: self._buffers[name].host.copy() for name in self.outputs}

    def _set_shapes(self, shapes: dict[str, tuple[int, ...]]) -> None:
        """Tell TensorRT the input shapes and where all tensors lie; once for frames of one size."""
        self._shapes = {}  # whatever fails below leaves nothing that looks valid
        for name, shape in shapes.items():
            if not self._context.set_input_shape(name, shape):
                raise InputError(f"{name} {list(shape)} does not fit the engine, {self._served(name)}")
        for name in (*self.inputs, *self.outputs):
            buffer = self._buffers[name]
            buffer.reshape(tuple(self._context.get_tensor_shape(name)))
            if not self._context.set_tensor_address(name, buffer.device):
                raise BackendError(f"TensorRT refuses the buffer of {name}: {self._log.last_error}")
        self._shapes = shapes

    def _served(self, name: str) -> str:
        shape = list(self._engine.get_tensor_shape(name))
        if -1 not in shape:
            return f"which is built for {shape} alone: export with another --size, or without it"
        low, _, high = self._engine.get_tensor_profile_shape(name, 0)
        return f"which serves {list(low)} to {list(high)}: export it with a wider range"

    def close(self) -> None:
        """Free the stream and the buffers; the engine cannot be used any more."""
        with self._lock:
            self._free()


class TensorRtBackend:
    """Runs an engine, or an ONNX file that is built into one on first use.

    Args:
        path: `.engine` with its sidecar, or `.onnx`, both written by `edgefuse export`.
        threads: accepted for the other engines' sake; the GPU does the work.
        rebuild: False: raise instead of building where no engine fits this machine.
        options: of an engine built from an ONNX file.

    Raises:
        BackendError: TensorRT, cuda-python or a GPU is missing, or the build fails.
        ModelError: not a model of ours, or one that may not be rebuilt.
        GateError: a rebuilt engine does not compute in its graph's precision.
        InputError: a file or cache that cannot be read or written.
    """

    def __init__(
        self,
        path: Path,
        threads: int | None = None,  # noqa: ARG002
        *,
        rebuild: bool = True,
        options: BuildOptions | None = None,
    ) -> None:
        from edgefuse.runtime.tensorrt_build import build_engine

        machine = this_machine()
        file, self.sidecar = usable_engine(path, machine, build_engine, options, rebuild=rebuild)
        self.engine = Engine(file)
        self.spec = self.sidecar.spec
        self.device = f"TensorRT {machine.tensorrt} on {machine.gpu}"

    def run(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Map `[1, 2, H, W]` (infrared, visible luma) in [0, 1] to the fused `[1, 1, H, W]` in [0, 1]."""
        return self.engine({"sources": x})["fused"]

    def run_images(self, ir: NDArray[np.uint8], vis: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Map uint8 `[N, H, W, 1]` and `[N, H, W, 3]`, colours in the spec's order, to `[N, H, W, 3]`."""
        return self.engine({"ir": ir, "vis": vis})["fused"]

    def close(self) -> None:
        """Free the GPU's memory."""
        self.engine.close()
