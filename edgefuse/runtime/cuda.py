"""The little of CUDA that running an engine needs: a stream, pinned memory, the GPU's name."""

import ctypes
import math
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgefuse.errors import BackendError

__all__ = ["Buffer", "check", "import_cuda", "new_stream", "versions"]


def import_cuda() -> ModuleType:
    """Return cuda-python's runtime API.

    Raises:
        BackendError: it is not installed, or too old.
    """
    try:
        from cuda.bindings import runtime
    except ImportError:
        raise BackendError(
            "cuda-python is not installed: pip install 'cuda-python>=12.6' (13 with CUDA 13)"
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


def versions(cuda: Any) -> dict[str, str]:
    """Return `cuda`, `driver`, `gpu` and `sm` of the current device, as a `Machine` holds them.

    Raises:
        BackendError: there is no driver, or no GPU.
    """
    device = check(cuda, cuda.cudaGetDevice())
    properties = check(cuda, cuda.cudaGetDeviceProperties(device))
    name = properties.name
    return {
        "cuda": _version(check(cuda, cuda.cudaRuntimeGetVersion())),
        "driver": _version(check(cuda, cuda.cudaDriverGetVersion())),
        "gpu": name.decode().rstrip("\0") if isinstance(name, bytes) else str(name),
        "sm": f"{properties.major}.{properties.minor}",
    }


def _version(number: int) -> str:
    """12090 means 12.9."""
    return f"{number // 1000}.{number % 1000 // 10}"


def new_stream(cuda: Any) -> Any:
    """Create a stream that does not wait for the default one."""
    return check(cuda, cuda.cudaStreamCreateWithFlags(cuda.cudaStreamNonBlocking))


class Buffer:
    """Memory on the GPU and its page-locked twin on the host, from which copies run asynchronously.

    It grows when a larger array is asked for, and stays as it is otherwise.
    """

    def __init__(self, cuda: Any, dtype: Any) -> None:
        self._cuda, self._dtype, self._size = cuda, np.dtype(dtype), 0
        self._pinned: int | None = None
        self.device: int | None = None
        """Address on the GPU."""
        self.host: NDArray[Any] = np.empty(0, self._dtype)
        """The twin on the host, in the shape last asked for."""

    def reshape(self, shape: tuple[int, ...]) -> None:
        """Make room for an array of this shape."""
        size = math.prod(shape) * self._dtype.itemsize
        if size > self._size:
            self.free()
            self._pinned = check(self._cuda, self._cuda.cudaHostAlloc(size, self._cuda.cudaHostAllocDefault))
            self.device = int(check(self._cuda, self._cuda.cudaMalloc(size)))
            self._size = size
        if self._pinned is not None:
            raw = (ctypes.c_uint8 * size).from_address(int(self._pinned))
            self.host = np.frombuffer(raw, self._dtype).reshape(shape)

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
        self.host, self._size = np.empty(0, self._dtype), 0
        if self._pinned is not None:
            self._cuda.cudaFreeHost(self._pinned)
        if self.device is not None:
            self._cuda.cudaFree(self.device)
        self._pinned = self.device = None
