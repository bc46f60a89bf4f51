"""What an inference engine is, and the arrays on devices that it takes."""

import ctypes
import math
import operator
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from edgefuse.errors import BackendError, InputError, first_line
from edgefuse.packages import INSTALL_HINTS, is_installed
from edgefuse.spec import ModelSpec

DEVICES = {1: "cpu", 2: "cuda", 3: "cpu"}
"""By DLPack's number; the third is memory of the host that is page-locked."""
CUDA_INTERFACE = "__cuda_array_interface__"
INTERFACES = {"__array_interface__": "cpu", CUDA_INTERFACE: "cuda"}
"""The device that an attribute of an array stands for."""
KINDS = {0: "i", 1: "u", 2: "f"}
"""NumPy's letter by DLPack's code."""


class _DLTensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


@dataclass(frozen=True)
class DeviceArray:
    """An array on a device, without gaps; torch and CuPy take it by `torch.as_tensor` and `cupy.asarray`."""

    pointer: int
    shape: tuple[int, ...]
    dtype: "np.dtype[Any]"
    device: str
    """`cpu` or `cuda`."""
    device_id: int = 0
    owner: Any = None
    """Keeps the memory alive."""
    writable: bool = True

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize

    def reshape(self, shape: tuple[int, ...]) -> "DeviceArray":
        """Return the same memory in another shape of the same size."""
        return replace(self, shape=shape, owner=self)

    def __getattr__(self, name: str) -> Any:
        # An array must have only the interface of the device that it is on.
        if name in INTERFACES and INTERFACES[name] == self.device:
            return {
                "shape": self.shape,
                "typestr": self.dtype.str,
                "data": (self.pointer, not self.writable),
                "strides": None,
                "version": 3,
            }
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")


def is_device_array(array: object) -> bool:
    """Return whether something is an array of another library than NumPy that can be read here."""
    return isinstance(array, DeviceArray) or (
        not isinstance(array, np.ndarray) and (_has(array, CUDA_INTERFACE) or _has(array, "__dlpack__"))
    )


def _has(array: object, name: str) -> bool:
    """Return whether an array has an attribute, also where reading it fails, as torch's with gradients."""
    try:
        return hasattr(array, name)
    except Exception:  # whatever its library raises
        return True


def as_device_array(array: Any, name: str) -> DeviceArray:
    """Return where an array lies; nothing is copied.

    What fills the array must be done: its library's stream is not waited for.

    Args:
        array: has `__cuda_array_interface__` or `__dlpack__`.
        name: to name it in errors.

    Raises:
        InputError: it has gaps, such as a slice, is on another GPU than the first, or cannot be read.
    """
    if isinstance(array, DeviceArray):
        found, strides = array, None
    else:
        try:
            found, strides = (_from_interface if _has(array, CUDA_INTERFACE) else _from_dlpack)(array)
        except Exception as error:  # whatever its library raises, or facts that make no sense
            reason = first_line(error)
            raise InputError(f"{name} cannot be read as an array of a device: {reason}") from None
    if strides is not None and 0 not in found.shape and tuple(strides) != _strides(found):
        raise InputError(
            f"{name} has gaps (shape {list(found.shape)}, strides {list(strides)}): copy it first"
        )
    if found.device == "cuda" and found.device_id != 0:
        raise InputError(
            f"{name} is on GPU {found.device_id}, and engines compute on GPU 0: copy it there, or choose "
            "the GPU of both with the environment variable CUDA_VISIBLE_DEVICES"
        )
    return found


Found = tuple[DeviceArray, Sequence[int] | None]
"""An array, and its strides in bytes; None: it has no gaps."""


def _from_interface(array: Any) -> Found:
    facts = array.__cuda_array_interface__
    pointer, read_only = facts["data"]
    shape = tuple(operator.index(side) for side in facts["shape"])
    if pointer < 0 or min(shape, default=1) < 0:
        raise ValueError(f"address {pointer}, shape {list(shape)}")
    number = int(array.__dlpack_device__()[1]) if _has(array, "__dlpack_device__") else 0
    dtype = np.dtype(facts["typestr"])
    strides = facts.get("strides")
    found = DeviceArray(operator.index(pointer), shape, dtype, "cuda", number, array, not read_only)
    return found, None if strides is None else tuple(map(operator.index, strides))


def _from_dlpack(array: Any) -> Found:
    capsule = array.__dlpack__()
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    tensor = _DLTensor.from_address(pointer(capsule, b"dltensor"))
    if tensor.code not in KINDS or tensor.lanes != 1 or tensor.device not in DEVICES:
        raise TypeError("its type or device is not known: uint8 on a GPU is needed")
    dtype = np.dtype(f"{KINDS[tensor.code]}{tensor.bits // 8}")
    shape = tuple(tensor.shape[k] for k in range(tensor.ndim))
    strides = (
        tuple(dtype.itemsize * tensor.strides[k] for k in range(tensor.ndim)) if tensor.strides else None
    )
    address = (tensor.data or 0) + tensor.byte_offset
    # The capsule, which nobody takes over, frees the memory when it goes.
    found = DeviceArray(address, shape, dtype, DEVICES[tensor.device], tensor.device_id, (array, capsule))
    return found, strides


def _strides(array: DeviceArray) -> tuple[int, ...]:
    """Return the strides in bytes of an array without gaps."""
    return tuple(math.prod(array.shape[k + 1 :]) * array.dtype.itemsize for k in range(len(array.shape)))


MAX_THREADS = 256
"""More would only burden the machine."""

Arrays = Mapping[str, NDArray[Any]]
"""One array for each input of a graph, by name."""


class Engine(ABC):
    """Something that runs one model. It serves one thread at a time."""

    spec: ModelSpec
    """What the model takes and gives."""
    device: str
    """Where it really runs, to show to people, such as `ONNX Runtime on cpu`."""

    @abstractmethod
    def run(self, inputs: Arrays) -> NDArray[Any]:
        """Run the model once.

        Args:
            inputs: an array for each of `spec.inputs()`, of its dtype and shape.

        Returns:
            The one of `spec.outputs()`; the caller may keep and change it.

        Raises:
            BackendError: the engine fails, or does not take these shapes.
        """

    def run_on_device(
        self,
        inputs: Mapping[str, DeviceArray | NDArray[Any]],  # noqa: ARG002
        out: DeviceArray | None = None,  # noqa: ARG002
    ) -> DeviceArray:
        """Run the model once on arrays that lie where it computes.

        Args:
            inputs: as for `run`; small ones may be NumPy's.
            out: gets the answer; None: new memory.

        Returns:
            The answer, complete; `out` if it is given.

        Raises:
            InputError: an array is elsewhere, or of another shape or dtype.
            BackendError: as for `run`; or the engine takes NumPy arrays alone.
        """
        raise BackendError(f"{self.device} takes NumPy arrays alone: use --engine cuda or tensorrt")

    def close(self) -> None:
        """Give memory back; the engine cannot be used any more. Can be called twice."""
        return


class OpensFile(Engine):
    """An engine that opens model files: what `ENGINES` holds.

    Args:
        path: a file written by `edgefuse export`.
        threads: CPU threads for one frame; None: all cores.
        rebuild: False: raise rather than build what fits this machine.

    Raises:
        ModelError: not a readable model of ours.
        BackendError: the engine cannot run here.
    """

    package: ClassVar[str]
    """The Python package that it needs."""
    extra: ClassVar[str]
    """The extra of ours that installs it."""
    needs_arranging: ClassVar[bool] = False
    """Whether it takes only files whose spec names it."""

    @abstractmethod
    def __init__(self, path: Path, threads: int | None = None, *, rebuild: bool = True) -> None: ...

    @classmethod
    def missing(cls) -> str | None:
        """Say what is missing to use this engine, and what to do; None: nothing."""
        if is_installed(cls.package):
            return None
        hint = INSTALL_HINTS.get(cls.extra, f"pip install {cls.package}")
        return f"{cls.package} is not installed: {hint}"

    def failed(self, inputs: Mapping[str, Any], reason: object) -> BackendError:
        """Return the error of a run that failed."""
        shapes = " and ".join(str(list(value.shape)) for value in inputs.values())
        return BackendError(f"{self.spec.model} could not be run on {shapes} by {self.device}: {reason}")


def check_threads(threads: int | None) -> None:
    """Raise `InputError` unless `threads` is None or a number that engines can be trusted with."""
    if threads is not None and not 1 <= threads <= MAX_THREADS:
        raise InputError(f"threads is {threads}, it must be from 1 to {MAX_THREADS}")


def loading_reason(reason: str) -> str:
    """Return the reason why a file cannot be loaded, with what to do where its weights are elsewhere."""
    if "external" in reason.lower():
        return f"{reason}: its weights are in a file of their own, which must lie beside it, whole"
    return reason
