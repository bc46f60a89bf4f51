"""An exported file's spec and receipt as a table for people."""

from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from edgefuse.export.gates import failed_path, sentence
from edgefuse.metrics import CORE_METRICS
from edgefuse.runtime.sidecar import Sidecar, read_sidecar
from edgefuse.spec import ModelSpec

__all__ = ["failure", "table"]


def table(path: Path, spec: ModelSpec, layers: dict[str, int] | None = None) -> Table:
    """Return a table of what a file takes and gives, and how far it is from its checkpoint.

    Args:
        path: the file.
        spec: its spec, receipt included.
        layers: number of layers by precision; None: as the receipt says.
    """
    rows = Table(title=escape(str(path)), show_header=False, title_justify="left")
    engine = _engine_rows(read_sidecar(path)) if path.suffix == ".engine" else []
    for name, text in (*_spec_rows(path, spec), *engine, *_receipt_rows(spec, layers)):
        rows.add_row(name, escape(text))
    return rows


def failure(out: Path, spec: ModelSpec) -> str | None:
    """Return the sentence about the first gate that a file fails; None if it passes all.

    Args:
        out: the file that was asked for.
        spec: its spec, receipt included.
    """
    for gate in spec.receipt["gates"]:
        if not gate["passed"]:
            earlier = f"; the earlier {out.name} is as it was" if out.exists() else ""
            short = gate["name"].startswith("layers in")
            reason = f"is hardly {spec.precision}" if short else "is too far from its checkpoint"
            mend = "; the others lose more than --min-psnr allows" if spec.receipt["kept"] and short else ""
            return (
                f"{failed_path(out)} {reason} and therefore not called {out.name}: "
                f"{sentence(gate, spec.graph == 'deploy')}{mend}{earlier}"
            )
    return None


def _spec_rows(path: Path, spec: ModelSpec) -> list[tuple[str, str]]:
    size = f"{path.stat().st_size / 1000:.1f} kB, {spec.precision}, ONNX opset {spec.opset}"
    sides = "H, W" if spec.size is None else f"{spec.size[1]}, {spec.size[0]}"
    batch = "N" if spec.size is None else "1"
    rows = [
        ("model", f"{spec.model}, trained for {spec.training.get('steps', '?')} steps"),
        ("file", f"{size}, {spec.graph} graph, written by edgefuse {spec.version or '?'}"),
    ]
    if spec.graph == "deploy":
        rows += [
            ("input", f"ir uint8 [{batch}, {sides}, 1]: infrared, white = hot"),
            ("input", f"vis uint8 [{batch}, {sides}, 3]: visible, {', '.join(spec.colours.upper())}"),
            ("output", f"fused uint8 [{batch}, {sides}, 3], colours in the same order"),
        ]
        any_size = "any; padded inside"
    else:
        rows += [
            ("input", f"sources float32 [{batch}, 2, {sides}] in [0, 1]: infrared, visible luma"),
            ("output", f"fused float32 [{batch}, 1, {sides}] in [0, 1]"),
        ]
        any_size = f"any multiple of {spec.multiple}; `fuse` and `stream` pad others"
    return [*rows, ("sizes", any_size)] if spec.size is None else rows


def _engine_rows(sidecar: Sidecar) -> list[tuple[str, str]]:
    machine, options = sidecar.machine, sidecar.options
    versions = f"TensorRT {machine.tensorrt}, CUDA {machine.cuda} (driver {machine.driver})"
    rows = [
        ("engine for", f"{machine.gpu} (compute capability {machine.sm}), {versions}"),
        ("built from", f"{sidecar.onnx}, SHA-256 {sidecar.onnx_sha256[:16]}…"),
        ("built with", f"{options.workspace_mb} MB workspace, optimisation level {options.level}"),
    ]
    for name, profile in sidecar.profiles.items():
        shapes = ", ".join(str(list(shape)) for shape in (profile.min, profile.opt, profile.max))
        rows.append(("profile", f"{name}: {shapes} (smallest, usual, largest)"))
    return rows


def _receipt_rows(spec: ModelSpec, layers: dict[str, int] | None) -> list[tuple[str, str]]:
    receipt: dict[str, Any] = spec.receipt
    rows = []
    counted = receipt.get("layers") if layers is None else layers
    if counted:
        rows.append(("layers", ", ".join(f"{count} {name}" for name, count in counted.items())))
    if receipt.get("kept"):
        rows.append(("kept in float", f"{', '.join(receipt['kept'])} (lose too much in int8)"))
    if receipt.get("calibration"):
        rows.append(("calibrated on", receipt["calibration"]))
    if not receipt:
        return [*rows, ("receipt", "none")]
    if "of" in receipt:
        rows.append(("receipt", f"of the ONNX file {receipt['of']}; this engine was not compared"))
    psnr = receipt["psnr"]
    rows += [
        ("compared on", f"{receipt['compared_on']} ({', '.join(receipt['sizes'][:4])})"),
        ("max difference", f"{receipt['max_difference']:.2e}"),
        ("lowest PSNR", f"{'infinite' if psnr is None else f'{psnr:.1f} dB'} ({receipt['worst']})"),
        ("lowest SSIM", f"{receipt['ssim']:.5f}"),
    ]
    if metrics := receipt["metrics"]:  # JSON has sorted them
        changes = ", ".join(f"{name} {metrics[name]:+.4f}" for name in CORE_METRICS if name in metrics)
        rows.append(("metrics change", changes))
    rows.append(("run by", f"{receipt['run_on']}{_remark(spec.precision, receipt['run_on'])}"))
    for gate in receipt["gates"]:
        outcome = "passed" if gate["passed"] else "FAILED"
        rows.append(("gate", f"{sentence(gate, spec.graph == 'deploy')}: {outcome}"))
    return rows


def _remark(precision: str, device: str) -> str:
    """Say what a CPU's answers do not prove."""
    if precision == "fp16" and device.endswith("cpu"):
        return ", which checks rounding, not a GPU's kernels"
    if precision == "int8" and device == "ONNX Runtime on cpu":
        return ", which multiplies in float between the int8 values: it checks rounding, not int8 kernels"
    return ""
