"""What an inference engine is."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from numpy.typing import NDArray

from edgefuse.errors import BackendError, InputError
from edgefuse.packages import INSTALL_HINTS, is_installed
from edgefuse.runtime.engines.device import DeviceArray
from edgefuse.spec import ModelSpec

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
