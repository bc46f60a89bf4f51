"""OpenVINO on the CPU."""

from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from edgefuse.errors import ModelError
from edgefuse.files import model_argument
from edgefuse.packages import stay_offline
from edgefuse.runtime.engines.base import Arrays, OpensFile, first_line, loading_reason
from edgefuse.spec import ModelSpec, read_spec

__all__ = ["OpenVinoEngine"]


class OpenVinoEngine(OpensFile):
    """Runs a file with OpenVINO on the CPU, tuned for the latency of single frames.

    Where the CPU multiplies bfloat16, OpenVINO computes float32 files in it, which `device` says.
    """

    package = "openvino"
    extra = "openvino"

    def __init__(self, path: Path, threads: int | None = None, *, rebuild: bool = True) -> None:  # noqa: ARG002
        stay_offline()
        import openvino as ov

        self.spec = read_spec(path)
        settings: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY"}
        if threads is not None:
            settings["INFERENCE_NUM_THREADS"] = threads
        if self.spec.precision == "int8":  # what is not in 8 bits is light, and rounded sources need float32
            settings["INFERENCE_PRECISION_HINT"] = "f32"
        try:
            core = ov.Core()
            compiled = core.compile_model(core.read_model(model_argument(path)), "CPU", settings)
            self._request: Any = compiled.create_infer_request()
        except RuntimeError as error:
            reason = loading_reason(first_line(error, last=True))
            raise ModelError(f"{path} is not a model that OpenVINO can load: {reason}") from None
        precision = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        self.device = "OpenVINO on cpu" + (", in bf16" if precision == "bf16" else "")

    @classmethod
    def prefers(cls, spec: ModelSpec) -> bool:  # noqa: ARG003
        """Return that int8 files are faster."""
        return True

    def run(self, inputs: Arrays) -> NDArray[Any]:
        """Run the model once, see `Engine.run`."""
        try:
            return self._request.infer(inputs)[0]
        except RuntimeError as error:
            raise self.failed(inputs, first_line(error, last=True)) from None

    def close(self) -> None:
        """Give the model's memory back."""
        self._request = None
