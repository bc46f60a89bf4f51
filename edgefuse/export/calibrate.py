"""How large the values before each layer become on real pairs, and the int8 scale that follows.

The calibrators of ONNX Runtime keep all values of all images in memory; at full frames that is gigabytes.
Here each image leaves a histogram.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from edgefuse.errors import InputError, unknown_name

__all__ = ["METHODS", "Unsigned", "Values", "find_scales", "measure"]

BINS = 4096
LEVELS = 127


@dataclass
class Values:
    """What was seen of one tensor: a histogram of absolute values."""

    top: float
    """Upper end of the last bin."""
    counts: NDArray[np.float64]


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
            seen[name].counts += np.histogram(np.abs(value), BINS, (0, seen[name].top))[0]
    return seen


class Unsigned(float):
    """A step between levels 0 to 255, in place of -127 to 127."""


def find_scales(values: dict[str, Values], method: str, positive: Collection[str] = ()) -> dict[str, float]:
    """Return the step between the levels of each tensor; level 0 is 0. Those that are positive get all 256.

    Raises:
        InputError: the method is unknown.
    """
    if method not in METHODS:
        raise InputError(unknown_name("calibration method", method, METHODS))
    find = METHODS[method]
    steps = {name: find(value, LEVELS) / LEVELS for name, value in values.items() if name not in positive}
    return steps | {name: Unsigned(find(values[name], 255) / 255) for name in positive}


def _largest(values: Values, _: int) -> float:
    return values.top


def _percentile(values: Values, _: int) -> float:
    """Leave out the largest of ten thousand values: rare ones saturate, the others get finer steps."""
    share = np.cumsum(values.counts) / values.counts.sum()
    return values.top * (1 + int(np.searchsorted(share, 0.9999))) / BINS


def _least_squares(values: Values, levels: int) -> float:
    """Choose the range with the smallest mean squared error of rounding and saturation together."""
    centres = (np.arange(BINS) + 0.5) * (values.top / BINS)
    tops = values.top * np.linspace(0.2, 1, 81)
    errors = []
    for top in tops:
        step = top / levels
        rounded = np.minimum(np.rint(centres / step), levels) * step
        errors.append(float((values.counts * (centres - rounded) ** 2).sum()))
    return float(tops[int(np.argmin(errors))])


METHODS: dict[str, Callable[[Values, int], float]] = {
    "mse": _least_squares,
    "minmax": _largest,
    "percentile": _percentile,
}
"""How the range of a tensor follows from its values and the number of levels above 0, by name."""
