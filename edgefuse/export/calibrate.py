"""How large the values before each layer become on real pairs, and the int8 scale that follows.

The calibrators of ONNX Runtime keep all values of all images in memory; at full frames that is gigabytes.
Here each image leaves a histogram.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from edgefuse.errors import InputError, unknown_name

__all__ = ["METHODS", "Values", "find_scales", "measure"]

BINS = 4096
LEVELS = 127


@dataclass
class Values:
    """What was seen of one tensor: a histogram of absolute values."""

    top: float
    """Upper end of the last bin."""
    counts: NDArray[np.float64]
    negative: bool = False
    """Whether any was below 0."""


def measure(
    graph: onnx.ModelProto, tensors: Sequence[str], inputs: Sequence[NDArray[np.float32]]
) -> dict[str, Values]:
    """Run a core graph on network inputs `[1, 2, H, W]` and note the values of some tensors."""
    import onnxruntime as ort

    probe = onnx.ModelProto()
    probe.CopyFrom(graph)
    del probe.graph.output[:]
    probe.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in tensors
    )
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(probe.SerializeToString(), options, providers=["CPUExecutionProvider"])
    tops = dict.fromkeys(tensors, 1e-12)
    for x in inputs:
        for name, value in zip(tensors, session.run(None, {"sources": x}), strict=True):
            tops[name] = max(tops[name], float(np.abs(value).max()))
    seen = {name: Values(top, np.zeros(BINS)) for name, top in tops.items()}
    for x in inputs:
        for name, value in zip(tensors, session.run(None, {"sources": x}), strict=True):
            seen[name].negative |= bool(value.min() < 0)
            seen[name].counts += np.histogram(np.abs(value), BINS, (0, seen[name].top))[0]
    return seen


def find_scales(values: dict[str, Values], method: str) -> dict[str, float]:
    """Return the step between int8 levels of each tensor; level 0 is 0.

    Raises:
        InputError: the method is unknown.
    """
    if method not in METHODS:
        raise InputError(unknown_name("calibration method", method, METHODS))
    return {name: float(METHODS[method](value)) / LEVELS for name, value in values.items()}


def _largest(values: Values) -> float:
    return values.top


def _percentile(values: Values) -> float:
    """Leave out the largest of ten thousand values: rare ones saturate, the others get finer steps."""
    share = np.cumsum(values.counts) / values.counts.sum()
    return values.top * (1 + int(np.searchsorted(share, 0.9999))) / BINS


def _least_squares(values: Values) -> float:
    """Choose the range with the smallest mean squared error of rounding and saturation together."""
    centres = (np.arange(BINS) + 0.5) * (values.top / BINS)
    tops = values.top * np.linspace(0.2, 1, 81)
    errors = []
    for top in tops:
        step = top / LEVELS
        rounded = np.minimum(np.rint(centres / step), LEVELS) * step
        errors.append(float((values.counts * (centres - rounded) ** 2).sum()))
    return float(tops[int(np.argmin(errors))])


METHODS = {"mse": _least_squares, "minmax": _largest, "percentile": _percentile}
"""How the range of a tensor follows from its values, by name."""
