"""Running TensorRT engines, 10.x and 11.x alike, without torch.

Checked against the real Python bindings of TensorRT 10.16 and 11.4 and of CUDA 12.9 and 13, with stubs in
place of NVIDIA's libraries: that it runs on a GPU has not been tried.
"""

import contextlib
import ctypes
import logging
import math
import threading
import weakref
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgefuse.errors import BackendError, InputError, ModelError, first_line
from edgefuse.runtime.engines.base import Arrays, DeviceArray, OpensFile
from edgefuse.runtime.engines.engine_cache import BuildOptions, Machine, Sidecar, SizeRange, resolve_engine

logger = logging.getLogger(__name__)


def import_tensorrt() -> ModuleType:
    """Return TensorRT's Python module.

    Raises:
        BackendError: it is not installed, cannot load its libraries, or is older than 10.3.
    """
    try:
        import tensorrt
    except ImportError as error:
        raise BackendError(
            f"TensorRT cannot be loaded ({first_line(error)}): pip install tensorrt (on a Jetson: "
            "apt install python3-libnvinfer, and a virtual environment with --system-site-packages)"
        ) from None
    module: ModuleType = tensorrt
    if tuple(map(int, module.__version__.split(".")[:2])) < (10, 3):
        raise BackendError(f"TensorRT {module.__version__} is too old: 10.3 or later is needed")
    return module


def import_cuda() -> ModuleType:
    """Return cuda-python's runtime API.

    Raises:
        BackendError: it is not installed, or too old.
    """
    try:
        from cuda.bindings import runtime
    except ImportError:
        raise BackendError(
            "cuda-python is not installed: pip install 'cuda-python>=12.8,<13' (13 with CUDA 13)"
        ) from None
    return runtime


def check(cuda: Any, answer: tuple[Any, ...]) -> Any:
    """Take the value out of a CUDA call's answer (error, value).

    Raises:
        BackendError: the call failed; the message is CUDA's own.
    """
    error, *values = answer
    if error != cuda.cudaError_t.cudaSuccess:
        _, text = cuda.cudaGetErrorString(error)
        reason = text.decode() if isinstance(text, bytes) else text
        raise BackendError(f"CUDA failed: {reason}: see whether nvidia-smi shows the GPU and enough memory")
    return values[0] if values else None


def this_machine() -> Machine:
    """Return what an engine built here is bound to.

    Raises:
        BackendError: TensorRT, cuda-python, the driver or the GPU is missing.
    """
    trt, cuda = import_tensorrt(), import_cuda()
    device = check(cuda, cuda.cudaGetDevice())
    properties = check(cuda, cuda.cudaGetDeviceProperties(device))
    name = properties.name
    return Machine(
        tensorrt=trt.__version__,
        cuda=_version(check(cuda, cuda.cudaRuntimeGetVersion())),
        driver=_version(check(cuda, cuda.cudaDriverGetVersion())),
        gpu=name.decode().rstrip("\0") if isinstance(name, bytes) else str(name),
        sm=f"{properties.major}.{properties.minor}",
        multiprocessors=str(properties.multiProcessorCount),
    )


def _version(number: int) -> str:
    """12090 means 12.9."""
    return f"{number // 1000}.{number % 1000 // 10}"


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


class Buffer:
    """Memory on the GPU and its page-locked twin on the host, from which copies run asynchronously.

    It grows when a larger array is asked for, and stays as it is otherwise.
    """

    def __init__(self, cuda: Any, dtype: Any) -> None:
        self._cuda, self.dtype, self._size = cuda, np.dtype(dtype), 0
        self._pinned: int | None = None
        self.device: int | None = None
        """Address on the GPU."""
        self.host: NDArray[Any] = np.empty(0, self.dtype)
        """The twin on the host, in the shape last asked for."""

    def reshape(self, shape: tuple[int, ...]) -> None:
        """Make room for an array of this shape."""
        size = math.prod(shape) * self.dtype.itemsize
        if size > self._size:
            self.free()
            self._pinned = check(self._cuda, self._cuda.cudaHostAlloc(size, self._cuda.cudaHostAllocDefault))
            self.device = int(check(self._cuda, self._cuda.cudaMalloc(size)))
            self._size = size
        if self._pinned is not None:
            raw = (ctypes.c_uint8 * size).from_address(int(self._pinned))
            self.host = np.frombuffer(raw, self.dtype).reshape(shape)

    def upload(self, stream: Any) -> None:
        """Start the copy from the host to the GPU."""
        self._copy(self.device, self._pinned, "cudaMemcpyHostToDevice", stream)

    def download(self, stream: Any) -> None:
        """Start the copy from the GPU to the host."""
        self._copy(self._pinned, self.device, "cudaMemcpyDeviceToHost", stream)

    def _copy(self, to: Any, source: Any, direction: str, stream: Any) -> None:
        kind = getattr(self._cuda.cudaMemcpyKind, direction)
        check(self._cuda, self._cuda.cudaMemcpyAsync(to, source, self.host.nbytes, kind, stream))

    def free(self) -> None:
        """Give the memory back; `host` must not be used any more."""
        self.host, self._size = np.empty(0, self.dtype), 0
        if self._pinned is not None:
            self._cuda.cudaFreeHost(self._pinned)
        if self.device is not None:
            self._cuda.cudaFree(self.device)
        self._pinned = self.device = None


class _Owner:
    """What memory on the GPU goes with."""


class TensorRtEngine(OpensFile):
    """Runs an engine, or an ONNX file that is built into one on first use.

    It has buffers and a stream of its own, and serves one thread at a time.

    Args:
        path: `.engine` with its sidecar, or `.onnx`, both written by `edgefuse export`.
        threads: accepted for the other engines' sake; the GPU does the work.
        rebuild: False: raise instead of building where no engine fits this machine.
        options: of an engine built from an ONNX file.

    Raises:
        BackendError: TensorRT, cuda-python or a GPU is missing, the build fails, or memory is short.
        ModelError: not a model of ours, or one that may not be rebuilt.
        InputError: a file or cache that cannot be read or written.
    """

    package = "tensorrt"
    extra = "tensorrt"
    needs_arranging = True

    def __init__(
        self,
        path: Path,
        threads: int | None = None,  # noqa: ARG002
        *,
        rebuild: bool = True,
        options: BuildOptions | None = None,
    ) -> None:
        machine = this_machine()
        trt, cuda = import_tensorrt(), import_cuda()
        self._cuda, self._lock, self._log = cuda, threading.Lock(), TensorRtLog(trt)
        try:
            self._runtime = trt.Runtime(self._log.logger)
        except TypeError:  # what the binding makes of a null pointer
            raise BackendError(f"TensorRT cannot start: {self._log.last_error}") from None

        self._machine, self._rebuild = machine, rebuild
        self._open(path, options)
        self.spec = self.sidecar.spec
        self.device = f"TensorRT {machine.tensorrt} on {machine.gpu}"
        engine = self._engine
        names = [engine.get_tensor_name(k) for k in range(engine.num_io_tensors)]
        inputs = {n for n in names if engine.get_tensor_mode(n) == trt.TensorIOMode.INPUT}
        self.inputs = [n for n in names if n in inputs]
        self.outputs = [n for n in names if n not in inputs]
        self._shapes: dict[str, tuple[int, ...]] = {}
        with contextlib.ExitStack() as stack:
            # A stream that does not wait for the default one.
            self._stream = check(cuda, cuda.cudaStreamCreateWithFlags(cuda.cudaStreamNonBlocking))
            stack.callback(cuda.cudaStreamDestroy, self._stream)
            self._buffers = {n: Buffer(cuda, trt.nptype(engine.get_tensor_dtype(n))) for n in names}
            for buffer in self._buffers.values():
                stack.callback(buffer.free)
            self._free = weakref.finalize(self, stack.pop_all().close)

    def _open(self, path: Path, options: BuildOptions | None) -> None:
        """Load an engine, which is built if need be."""
        from edgefuse.runtime.engines.tensorrt_build import build_engine

        refused: list[Path] = []
        built: list[Path] = []

        def build(onnx: Path, out: Path, options: BuildOptions) -> Sidecar:
            built.append(out)
            return build_engine(onnx, out, options)

        while True:
            file, self.sidecar = resolve_engine(
                path, self._machine, build, options, rebuild=self._rebuild, refused=refused
            )
            engine = self._runtime.deserialize_cuda_engine(file.read_bytes())
            if engine is not None or file in built or not self._rebuild:
                break
            refused.append(file)  # the one that was given, then one in the cache, which is built again
        context = engine.create_execution_context() if engine is not None else None
        if engine is None or context is None:
            raise BackendError(f"TensorRT cannot load {file}: {self._log.last_error}")
        self._engine, self._context, self._onnx = engine, context, file.parent / self.sidecar.onnx

    def run(self, inputs: Arrays) -> NDArray[Any]:
        """Run the engine once.

        Args:
            inputs: one array for each of the engine's inputs, of its dtypes.

        Returns:
            A new array.

        Raises:
            ModelError: other inputs than the engine's.
            InputError: a shape outside the engine's profile, and no engine may be built that serves it.
            BackendError: TensorRT or CUDA fails, or the engine is closed.
        """
        with self._lock:
            self._check_call(inputs)
            shapes = {name: tuple(inputs[name].shape) for name in self.inputs}
            if shapes != self._shapes:
                self._set_shapes(shapes)
            for name in self.inputs:
                buffer = self._buffers[name]
                np.copyto(buffer.host, inputs[name], casting="no")
                buffer.upload(self._stream)
            self._execute()
            for name in self.outputs:
                self._buffers[name].download(self._stream)
            check(self._cuda, self._cuda.cudaStreamSynchronize(self._stream))
            return self._buffers[self.outputs[0]].host.copy()

    def run_on_device(
        self, inputs: Mapping[str, DeviceArray | NDArray[Any]], out: DeviceArray | None = None
    ) -> DeviceArray:
        """Run the engine once on arrays of the GPU, see `Engine.run_on_device`."""
        with self._lock:
            self._check_call(inputs)
            self._shapes = {}  # the addresses of the next `run` are others
            self._set_input_shapes({name: tuple(inputs[name].shape) for name in self.inputs})
            (name,) = self.outputs
            shape = tuple(self._context.get_tensor_shape(name))
            if out is None:
                out = self._allocate(shape, self._buffers[name].dtype)
            for key, value in {**inputs, name: out}.items():
                buffer = self._buffers[key]
                if not isinstance(value, DeviceArray):
                    buffer.reshape(value.shape)
                    np.copyto(buffer.host, value, casting="no")
                    buffer.upload(self._stream)
                    address = buffer.device
                elif (value.device, value.dtype) == ("cuda", buffer.dtype):
                    address = value.pointer
                else:
                    wrong = f"{value.dtype} in the memory of {value.device}"
                    raise InputError(f"{key} is {wrong}, and it must be {buffer.dtype} of cuda")
                self._set_address(key, address)
            if out.shape != shape:
                raise InputError(f"out is {list(out.shape)}, and the answer is {list(shape)}")
            self._execute()
            check(self._cuda, self._cuda.cudaStreamSynchronize(self._stream))
            return out

    def _allocate(self, shape: tuple[int, ...], dtype: Any) -> DeviceArray:
        """Return new memory on the GPU, which goes with the last array that uses it."""
        address = int(check(self._cuda, self._cuda.cudaMalloc(math.prod(shape) * dtype.itemsize)))
        owner = _Owner()
        weakref.finalize(owner, self._cuda.cudaFree, address)
        return DeviceArray(address, shape, dtype, "cuda", 0, owner)

    def _check_call(self, inputs: Mapping[str, Any]) -> None:
        if not self._free.alive:
            raise BackendError("the engine is closed: open it again")
        if inputs.keys() != set(self.inputs):
            raise ModelError(f"the engine takes {self.inputs}, not {list(inputs)}")

    def _execute(self) -> None:
        if not self._context.execute_async_v3(int(self._stream)):
            raise BackendError(f"TensorRT failed on a frame: {self._log.last_error}")

    def _set_input_shapes(self, shapes: dict[str, tuple[int, ...]]) -> None:
        if (refused := self._refused(shapes)) is None:
            return
        wider = self._wider(shapes)
        if wider is not None and self._rebuild and self._onnx.exists():
            self._open(self._onnx, replace(self.sidecar.options, sizes=wider))
            refused = self._refused(shapes)
        if refused is not None:
            text = f"{refused} {list(shapes[refused])} does not fit the engine, {self._served(refused)}"
            raise InputError(text)

    def _refused(self, shapes: dict[str, tuple[int, ...]]) -> str | None:
        """Return the first input whose shape TensorRT does not take; None: it takes all."""
        return next((name for name in shapes if not self._context.set_input_shape(name, shapes[name])), None)

    def _wider(self, shapes: dict[str, tuple[int, ...]]) -> SizeRange | None:
        """Return the sizes that the engine serves and these; None: it is fixed, or serves them."""
        sizes, tensor = self.sidecar.options.sizes, self.spec.inputs()[0]
        given = dict(zip(tensor.shape, shapes[tensor.name], strict=True))
        if not {"N", "H", "W"} <= given.keys():
            return None
        width, height = given["W"], given["H"]
        low = min(width, sizes.min[0]), min(height, sizes.min[1])
        high = max(width, sizes.max[0]), max(height, sizes.max[1])
        wider = SizeRange(low, sizes.opt, high, max(given["N"], sizes.batch))
        return None if wider == sizes else wider

    def _set_address(self, name: str, address: int | None) -> None:
        if not self._context.set_tensor_address(name, address):
            raise BackendError(f"TensorRT refuses the buffer of {name}: {self._log.last_error}")

    def _set_shapes(self, shapes: dict[str, tuple[int, ...]]) -> None:
        """Tell TensorRT the input shapes and where all tensors lie; once for frames of one size."""
        self._shapes = {}  # whatever fails below leaves nothing that looks valid
        self._set_input_shapes(shapes)
        for name in (*self.inputs, *self.outputs):
            buffer = self._buffers[name]
            buffer.reshape(tuple(self._context.get_tensor_shape(name)))
            self._set_address(name, buffer.device)
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
