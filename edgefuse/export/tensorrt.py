"""From a proven ONNX file to a proven TensorRT engine for the GPU of this machine.

The build itself is in `edgefuse.runtime.tensorrt_build`, because a device builds engines for itself, too;
here its outcome is judged. No engine has been built on a GPU yet, see `edgefuse.runtime.tensorrt`.
"""

from pathlib import Path

from edgefuse.errors import InputError
from edgefuse.export.receipt import GateError
from edgefuse.runtime.sidecar import BuildOptions, Sidecar
from edgefuse.runtime.tensorrt_build import Progress, build_engine

__all__ = ["MIN_SHARE", "check_layers", "export_engine", "layer_share"]

MIN_SHARE = 0.25
"""Least share of computing layers in the precision that was asked for; sums and statistics stay in float."""


def export_engine(
    onnx: Path, out: Path, options: BuildOptions | None = None, progress: Progress | None = None
) -> Sidecar:
    """Build an engine from an exported ONNX file and see that its precision took.

    Args:
        onnx: file written by `edgefuse export`; its dtypes decide the engine's.
        out: the `.engine` file, with `.engine.json` beside it; replaced if it exists.
        options: sizes for open dimensions, workspace, optimisation level.
        progress: told how the build goes on.

    Raises:
        InputError: a file that cannot be read or written, another suffix, or sizes that do not fit.
        ModelError: an ONNX file that is not ours, or that TensorRT cannot parse.
        BackendError: no TensorRT, no GPU, or no engine within the workspace.
        GateError: half or int8 was asked for and did not take; the engine stays for inspection.
    """
    if out.suffix != ".engine":
        raise InputError(f"cannot write {out}: the suffix must be .engine")
    sidecar = build_engine(onnx, out, options, progress)
    check_layers(out, sidecar)
    return sidecar


def layer_share(sidecar: Sidecar) -> float:
    """Return the share of layers in the file's precision among those of any known one, 0 to 1."""
    known = {name: count for name, count in sidecar.layers.items() if name != "other"}
    return known.get(sidecar.spec.precision, 0) / max(1, sum(known.values()))


def check_layers(engine: Path, sidecar: Sidecar) -> None:
    """Raise `GateError` if an engine does not compute in the precision that its graph asks for."""
    share, precision = layer_share(sidecar), sidecar.spec.precision
    if precision != "fp32" and share < MIN_SHARE:
        counts = ", ".join(f"{count} {name}" for name, count in sidecar.layers.items() if count) or "none"
        raise GateError(
            f"{precision} did not take in {engine}: {share:.0%} of its layers compute in it, at least "
            f"{MIN_SHARE:.0%} must (layers: {counts}); see whether the GPU supports {precision}"
        )
