"""Looking into an exported file without running it, and its spec and report as a table for people."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
from rich.markup import escape
from rich.table import Table

from edgefuse.errors import ModelError, first_line
from edgefuse.export.graph import layer_precisions
from edgefuse.export.verify import failed_path, sentence
from edgefuse.metrics import CORE_METRICS
from edgefuse.runtime.engines.engine_cache import Sidecar, read_sidecar
from edgefuse.spec import ModelSpec


def inspect_file(path: Path) -> tuple[ModelSpec, dict[str, int]]:
    """Return a file's spec, report included, and the number of its layers by precision.

    Raises:
        ModelError: missing, damaged (its report, too) or cut off, not ours, or one that reads data outside
            its folder.
    """
    if not path.is_file():
        raise ModelError(f"no such model file: {path}")
    if path.suffix == ".engine":
        sidecar = read_sidecar(path)
        return sidecar.spec, sidecar.layers
    try:
        graph = onnx.load(path, load_external_data=False)
    except Exception as error:  # protobuf's errors share no base class but Exception
        raise ModelError(f"{path} is not a readable ONNX file: {first_line(error)}") from None
    _check_external(graph, path)
    spec = ModelSpec.from_metadata({entry.key: entry.value for entry in graph.metadata_props}, path)
    try:
        return spec, layer_precisions(graph)
    except onnx.shape_inference.InferenceError as error:
        raise ModelError(f"{path} is not a valid ONNX graph: {first_line(error)}") from None


def _check_external(graph: onnx.ModelProto, path: Path) -> None:
    folder = path.parent.resolve()
    for tensor in _tensors(graph):
        for entry in tensor.external_data:
            place = (folder / entry.value).resolve()
            if entry.key == "location" and not place.is_relative_to(folder):
                raise ModelError(
                    f"{path} keeps weights in {entry.value}, outside its folder, which is not read: "
                    "use a file written by `edgefuse export`, which holds all of its weights"
                )


def _tensors(message: Any) -> Iterator[onnx.TensorProto]:
    """Find the tensors anywhere in a file: initializers, sparse ones, nodes' attributes, graphs in graphs."""
    if isinstance(message, onnx.TensorProto):
        yield message
        return
    for field, value in message.ListFields():
        if field.message_type is not None:
            for part in [value] if hasattr(value, "ListFields") else value:
                yield from _tensors(part)


def table(path: Path, spec: ModelSpec, layers: dict[str, int] | None = None) -> Table:
    """Return a table of what a file takes and gives, and how far it is from its checkpoint.

    Args:
        path: the file.
        spec: its spec, report included.
        layers: number of layers by precision; None: as the report says.
    """
    rows = Table(title=escape(str(path)), show_header=False, title_justify="left")
    engine = _engine_rows(read_sidecar(path)) if path.suffix == ".engine" else []
    for name, text in (*_spec_rows(path, spec), *engine, *_report_rows(spec, layers)):
        rows.add_row(name, escape(text))
    return rows


def failure(out: Path, spec: ModelSpec) -> str | None:
    """Return the sentence about the first gate that a file fails; None if it passes all.

    Args:
        out: the file that was asked for.
        spec: its spec, report included.
    """
    report = spec.verification
    for gate in report.gates if report else ():
        if not gate.passed:
            earlier = f"; the earlier {out.name} is unchanged" if out.exists() else ""
            few = gate.name.startswith("layers in")
            reason = f"computes too little in {spec.precision}" if few else "is too far from its checkpoint"
            hint = "; the others lose more than min_psnr allows" if report and report.kept and few else ""
            return (
                f"{failed_path(out)} {reason}, so {out.name} was not written: "
                f"{sentence(gate, spec.end_to_end)}{hint}{earlier}"
            )
    return None


def _spec_rows(path: Path, spec: ModelSpec) -> list[tuple[str, str]]:
    size = f"{path.stat().st_size / 1000:.1f} kB, {spec.precision}, ONNX opset {spec.opset}"
    rows = [
        ("model", f"{spec.model}, trained for {spec.training.get('steps', '?')} steps"),
        ("file", f"{size}, {spec.graph} graph, written by edgefuse {spec.version or '?'}"),
        *(("input", str(tensor)) for tensor in spec.inputs()),
        *(("output", str(tensor)) for tensor in spec.outputs()),
    ]
    if spec.engines:
        rows.append(("engines", ", ".join(spec.engines)))
    if spec.size is None:
        others = f"any multiple of {spec.size_divisor}; `fuse` and `stream` pad others"
        rows.append(("sizes", "any; padded inside" if spec.end_to_end else others))
    return rows


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


def _report_rows(spec: ModelSpec, layers: dict[str, int] | None) -> list[tuple[str, str]]:
    report = spec.verification
    rows = []
    counted = layers if layers is not None or report is None else report.layers
    if counted:
        rows.append(("layers", ", ".join(f"{count} {name}" for name, count in counted.items())))
    if report is None:
        return [*rows, ("verification", "none")]
    if report.int8_share is not None:
        share = f"{report.int8_share:.0%} of the multiplications in ONNX Runtime on a CPU"
        rows.append(("in 8 bits", share))
    if report.kept:
        rows.append(("kept in float", f"{', '.join(report.kept)} (lose too much in int8)"))
    if report.calibration:
        rows.append(("calibrated on", report.calibration))
    if report.of:
        rows.append(("verification", f"of the ONNX file {report.of}; this engine was not compared"))
    psnr = "infinite" if report.psnr is None else f"{report.psnr:.1f} dB"
    rows += [
        ("compared on", f"{report.compared_on} ({', '.join(report.sizes[:4])})"),
        ("max difference", f"{report.max_difference:.2e}"),
        ("lowest PSNR", f"{psnr} ({report.worst})"),
        ("lowest SSIM", f"{report.ssim:.5f}"),
    ]
    if metrics := report.metrics:  # JSON has sorted them
        changes = ", ".join(f"{name} {metrics[name]:+.4f}" for name in CORE_METRICS if name in metrics)
        rows.append(("metrics change", changes))
    rows.append(("run by", f"{report.run_on}{_remark(spec.precision, report.run_on)}"))
    for gate in report.gates:
        rows.append(("gate", f"{sentence(gate, spec.end_to_end)}: {'passed' if gate.passed else 'FAILED'}"))
    return rows


def _remark(precision: str, device: str) -> str:
    """Say what a CPU's answers do not prove."""
    if precision == "fp16" and device.endswith("cpu"):
        return ", which checks rounding, not a GPU's kernels"
    return ""
