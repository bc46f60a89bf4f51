"""Smaller files: kernels whose phases repeat each other are stored once.

A convolution into phases (`edgefuse.train.models.folding.into_phases`) holds the same k×k kernel four times,
each at another place among zeros. In the file stands the one kernel, and how to pad and put together the
rest, which engines compute once, when they load the file.
"""

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

__all__ = ["store_phases_once"]

PLACES = [(row, column) for row in range(2) for column in range(2)]
LEAST_BYTES = 4096
"""What is smaller than this stays as it is."""


def store_phases_once(graph: onnx.ModelProto) -> None:
    """Replace the constants of a graph that are kernels into 2×2 phases, in place. Bit for bit the same."""
    kept, nodes = [], []
    for tensor in graph.graph.initializer:
        weight = numpy_helper.to_array(tensor)
        kernel = _kernel(weight)
        if kernel is None:
            kept.append(tensor)
            continue
        kept.append(numpy_helper.from_array(kernel, f"{tensor.name}_once"))
        nodes += _repeat(tensor.name, weight.shape, kept)
    del graph.graph.initializer[:]
    graph.graph.initializer.extend(kept)
    others = list(graph.graph.node)
    del graph.graph.node[:]
    graph.graph.node.extend([*nodes, *others])


def _kernel(weight: NDArray[np.generic]) -> NDArray[np.generic] | None:
    """Return the `[O, I, k, k]` that a `[4 O, I, k + 1, k + 1]` is the phases of; None: it is not."""
    if weight.ndim != 4 or len(weight) % 4 or weight.shape[2] != weight.shape[3] or weight.shape[2] < 3:
        return None
    if weight.nbytes < LEAST_BYTES:
        return None
    side = weight.shape[2] - 1
    phases = weight.reshape(-1, 4, *weight.shape[1:])
    kernel = np.ascontiguousarray(phases[:, 0, :, :side, :side])
    rebuilt = np.zeros_like(phases)
    for place, (row, column) in enumerate(PLACES):
        rebuilt[:, place, :, row : row + side, column : column + side] = kernel
    return kernel if np.array_equal(rebuilt, phases) else None


def _repeat(name: str, shape: tuple[int, ...], constants: list[onnx.TensorProto]) -> list[onnx.NodeProto]:
    """Return the nodes that make the phases of `NAME_once`; what they read is added to the constants."""
    nodes, parts = [], []
    for place, (row, column) in enumerate(PLACES):
        pads = np.array([0, 0, row, column, 0, 0, 1 - row, 1 - column], np.int64)
        constants.append(numpy_helper.from_array(pads, f"{name}_pads_{place}"))
        parts.append(f"{name}_phase_{place}")
        nodes.append(
            helper.make_node("Pad", [f"{name}_once", f"{name}_pads_{place}"], [parts[-1]], parts[-1])
        )
    # The phases of one output channel follow each other: beside each other on the second axis, they do.
    constants.append(numpy_helper.from_array(np.array(shape, np.int64), f"{name}_shape"))
    nodes.append(helper.make_node("Concat", parts, [f"{name}_phases"], f"{name}_phases", axis=1))
    nodes.append(helper.make_node("Reshape", [f"{name}_phases", f"{name}_shape"], [name], f"{name}_all"))
    return nodes
