"""OpenVINO on the CPU."""

import subprocess
import sys
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from edgefuse.errors import ModelError, first_line
from edgefuse.files import model_argument, read_bytes
from edgefuse.packages import stay_offline
from edgefuse.runtime.engines.base import Arrays, OpensFile, loading_reason
from edgefuse.spec import read_operators, read_spec

# fmt: off
TRIED = frozenset((
    "Abs", "Add", "BatchNormalization", "Cast", "Clip", "Concat", "ConstantOfShape", "Conv", "DepthToSpace",
    "DequantizeLinear", "Div", "Expand", "EyeLike", "Gather", "Gelu", "Identity", "LeakyRelu", "MatMul",
    "Max", "Min", "Mul", "Neg", "Pad", "Pow", "QuantizeLinear", "Reciprocal", "ReduceMean", "ReduceSum",
    "Relu", "Reshape", "Resize", "Round", "Shape", "Sigmoid", "Slice", "Softmax", "SpaceToDepth", "Split",
    "Sqrt", "Squeeze", "Sub", "Tanh", "Transpose", "Unsqueeze",
))
# fmt: on
"""Operators of our own files."""
READ = """
from edgefuse.packages import stay_offline
stay_offline()
import sys, openvino
openvino.Core().read_model(sys.argv[1])
"""


class OpenVinoEngine(OpensFile):
    """Runs a file with OpenVINO on the CPU, tuned for the latency of single frames.

    Left alone, OpenVINO computes in bfloat16 where the CPU multiplies it: off by up to 0.003 of white. Only
    files in fp16 let it, and `device` says so.
    """

    package = "openvino"
    extra = "openvino"

    def __init__(self, path: Path, threads: int | None = None, *, rebuild: bool = True) -> None:  # noqa: ARG002
        stay_offline()
        import openvino as ov

        content = read_bytes(path)
        self.spec = read_spec(path, content)
        _check_operators(path, content)
        settings: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY"}
        if threads is not None:
            settings["INFERENCE_NUM_THREADS"] = threads
        if self.spec.precision != "fp16":
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

    def run(self, inputs: Arrays) -> NDArray[Any]:
        """Run the model once, see `Engine.run`."""
        try:
            return self._request.infer(inputs)[0]
        except RuntimeError as error:
            raise self.failed(inputs, first_line(error, last=True)) from None

    def close(self) -> None:
        """Give the model's memory back."""
        self._request = None


def _check_operators(path: Path, content: bytes) -> None:
    """Raise `ModelError` if OpenVINO crashes on a file, as it does on operators that it does not know.

    A file with others than those of our own files is read by another process first.
    """
    others = read_operators(content) - TRIED
    if not others or not sys.executable:
        return
    done = subprocess.run([sys.executable, "-c", READ, str(path)], capture_output=True, check=False)
    if done.returncode < 0 or done.returncode > 1:
        named = ", ".join(sorted(others)[:3])
        raise ModelError(
            f"{path} is not a model that OpenVINO can load: it crashes on it, maybe for an operator that it "
            f"does not know, such as {named!r}: use --engine cpu, or export it with edgefuse"
        )
