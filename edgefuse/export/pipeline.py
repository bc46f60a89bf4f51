"""The whole export: checkpoint in, proven ONNX file out."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from edgefuse.errors import InputError, ModelError
from edgefuse.export.calibrate import METHODS
from edgefuse.export.compact import store_phases_once
from edgefuse.export.gates import Gates, failed_path
from edgefuse.export.graph import OPSET, build_graph, make_spec, save_graph
from edgefuse.export.layers import layer_precisions
from edgefuse.export.quantize import quantize
from edgefuse.export.receipt import Pair, Receipt, compare, extreme_pairs
from edgefuse.export.tensorrt import casts_outermost
from edgefuse.files import check_writable
from edgefuse.images import MIN_SIDE, fit_size, luma
from edgefuse.metrics import CORE_METRICS
from edgefuse.runtime.backends import load_backend
from edgefuse.runtime.fuser import network_input
from edgefuse.spec import ModelSpec
from edgefuse.train.backend import TorchBackend
from edgefuse.train.checkpoint import load_checkpoint, restore_model
from edgefuse.train.models import FusionNetwork

__all__ = ["Calibration", "export"]

MARGIN = 2.0
"""dB above the gate that the layers of an int8 file are chosen for: other pairs lose more than these."""

MORE = 2
"""How many more layers stay in float, one by one, as long as nothing but a metric fails its gate."""

LARGEST = 1024
"""Longest side of a picture that ranges are measured on; larger ones are scaled down."""


@dataclass(frozen=True)
class Calibration:
    """What the ranges of an int8 file come from."""

    pairs: list[Pair]
    source: str
    """What the pairs are, for the receipt."""
    method: str = next(iter(METHODS))
    """Name in `calibrate.METHODS`."""

    def __post_init__(self) -> None:
        if not self.pairs:
            raise InputError(
                "no calibration pairs: int8 needs some real ones, give --calib-ir and --calib-vis"
            )


def export(
    checkpoint_path: Path,
    out: Path,
    pairs: list[Pair],
    compared_on: str,
    *,
    fp16: bool = False,
    int8: Calibration | None = None,
    size: tuple[int, int] | None = None,
    graph: str = "core",
    colours: str = "bgr",
    opset: int = OPSET,
    tensorrt: bool = False,
    gates: Gates | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> tuple[ModelSpec, Receipt]:
    """Write a checkpoint as an ONNX file, run the file beside the checkpoint, and note the outcome in it.

    It is run by ONNX Runtime on the CPU, whatever else is installed: that computes in the graph's own
    precision, where CUDA's default is TF32 and OpenVINO's, on some CPUs, bfloat16.

    Args:
        checkpoint_path: `.pt` or `.safetensors` file.
        out: the `.onnx` file; replaced if it exists and the new one passes its gates.
        pairs: what both are run on.
        compared_on: what the pairs are, for the receipt.
        fp16: half-precision arithmetic; input and output stay as they are.
        int8: 8-bit arithmetic, calibrated on these pairs.
        size: fixed width and height; None: any batch, height and width.
        graph: `core` or `deploy`, see `ModelSpec`.
        colours: `bgr` or `rgb`, of a deploy graph's images.
        opset: ONNX operator set.
        tensorrt: arrange the graph as TensorRT needs it: all kernels constants, and see `casts_outermost`.
        gates: how far the file may be from its checkpoint; None: the default limits.
        progress: called with what is being done.

    Returns:
        The file's spec, and the receipt. If that did not pass, the file is `failed_path(out)`, and what
        was at `out` is as it was.

    Raises:
        ModelError: the checkpoint cannot be read.
        InputError: a size that does not fit, fp16 and int8 together, or a file that cannot be written.
        BackendError: ONNX Runtime is not installed.
    """
    if fp16 and int8:
        raise InputError("--fp16 and --int8 exclude each other: choose one precision")
    check_writable(out)
    if checkpoint_path.suffix == ".onnx":
        raise ModelError(
            f"{checkpoint_path} is an exported file: give the .pt or .safetensors file that it was made of"
        )
    checkpoint = load_checkpoint(checkpoint_path)
    model = restore_model(checkpoint, checkpoint_path)
    precision = "fp16" if fp16 else "int8" if int8 else "fp32"
    spec = make_spec(checkpoint, model, size, precision, graph=graph, colours=colours, opset=opset)
    gates = gates or Gates()
    reference = TorchBackend(model, checkpoint.model)
    for more in range(MORE + 1):
        progress("Tracing")
        built, kept = _build(model, spec, int8, gates, progress, tensorrt, more)
        if tensorrt and graph == "deploy":
            casts_outermost(built)
        progress("Comparing with the checkpoint")
        facts: dict[str, Any] = {
            "layers": layer_precisions(built),
            "kept": kept,
            "calibration": f"{int8.source}, {int8.method}" if int8 else "",
        }
        if not tensorrt and int8 is None:  # TensorRT and Q/DQ pairs want kernels as constants
            store_phases_once(built)
        with tempfile.TemporaryDirectory() as scratch:  # nothing unproven ever has the final name
            save_graph(built, spec, trial := Path(scratch) / out.name)
            proven = load_backend(trial, provider="cpu")
            receipt = compare(proven, reference, pairs, compared_on, gates, **facts)
        failed = {gate["name"] for gate in receipt.gates if not gate["passed"]}
        # A metric can lose although the levels are close: MI does where equal levels become unequal ones.
        if not failed or not failed <= set(CORE_METRICS):
            break
    spec = replace(spec, receipt=receipt.to_dict())
    save_graph(built, spec, out if receipt.passed else failed_path(out))
    if receipt.passed:
        failed_path(out).unlink(missing_ok=True)  # of an earlier attempt
    return spec, receipt


def _build(
    model: FusionNetwork,
    spec: ModelSpec,
    int8: Calibration | None,
    gates: Gates,
    progress: Callable[[str], None],
    tensorrt: bool,
    more: int,
) -> tuple[onnx.ModelProto, list[str]]:
    """Return the graph and the names of layers that an int8 one keeps in float."""
    kept: list[str] = []

    def rework(core: onnx.ModelProto, peak: int) -> None:
        assert int8 is not None
        inputs = []
        # A glowing body at night is beyond what ordinary pairs hold, and a value out of range is clipped.
        extremes = extreme_pairs(spec.size or (64, 64))
        for pair in (*int8.pairs, *extremes):
            grey = luma(pair.vis)
            size = spec.size or _within(LARGEST, grey.shape[1], grey.shape[0])
            x = network_input(fit_size(pair.ir, size), fit_size(grey, size), spec.multiple)
            inputs.append(x * np.float32(peak))
        target = (40.0 if gates.min_psnr is None else gates.min_psnr) + MARGIN
        ordinary = inputs[: len(int8.pairs)] if more else []
        kept.extend(
            quantize(
                core, inputs, int8.method, target, peak, progress, not tensorrt, more=more, ordinary=ordinary
            )
        )

    return build_graph(model, spec, rework if int8 else None), kept


def _within(largest: int, width: int, height: int) -> tuple[int, int]:
    """Return a size of the same proportions whose sides are at most `largest`, and at least `MIN_SIDE`."""
    factor = min(1.0, largest / max(width, height))
    return max(MIN_SIDE, round(factor * width)), max(MIN_SIDE, round(factor * height))
