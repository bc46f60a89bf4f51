"""`edgefuse export`."""

from pathlib import Path

import typer
from rich.console import Console
from rich.table import Table

__all__ = ["export"]


def export(
    checkpoint: str = typer.Argument(
        None, help="Checkpoint (.pt, .safetensors) or a shipped model's name.", show_default="default model"
    ),
    fp16: bool = typer.Option(False, "--fp16", help="Half-precision arithmetic inside; float32 in and out."),
    size: str | None = typer.Option(
        None, help="Fix the graph to this width x height, such as 640x480.", show_default="any size"
    ),
    out: Path | None = typer.Option(None, help="The .onnx file to write.", show_default="MODEL[-fp16].onnx"),
    pairs_ir: Path | None = typer.Option(None, help="Infrared folder to compare file and checkpoint on."),
    pairs_vis: Path | None = typer.Option(None, help="Visible folder, paired by file stem."),
) -> None:
    """Write a checkpoint as an ONNX file that runs without torch, and prove it.

    The file is run beside the checkpoint, on the given pairs or on frames of the simulated rig. The exit
    status is not 0 if they differ by more than the gate allows.
    """
    from edgefuse.cli.needs import needs
    from edgefuse.errors import InputError
    from edgefuse.images import parse_size
    from edgefuse.weights import DEFAULT_MODEL, checkpoint_file

    needs("export", "torch", "safetensors", "onnx", "onnxscript")
    from edgefuse.export.pipeline import export as run
    from edgefuse.export.receipt import GateError, folder_pairs, simulated_pairs

    source = checkpoint_file(checkpoint or DEFAULT_MODEL)
    wanted = parse_size(size) if size else None
    target = out or Path(f"{source.stem}{'-fp16' if fp16 else ''}.onnx")
    if target.suffix != ".onnx":
        raise InputError(f"cannot write {target}: the suffix must be .onnx")
    if bool(pairs_ir) != bool(pairs_vis):
        raise InputError("give both --pairs-ir and --pairs-vis, or neither to compare on the simulated rig")
    compared_on, pairs = (
        folder_pairs(pairs_ir, pairs_vis) if pairs_ir and pairs_vis else simulated_pairs(wanted)
    )
    console = Console()
    with console.status(f"Exporting {source.name} …"):
        spec, receipt = run(source, target, pairs, compared_on, fp16=fp16, size=wanted)

    table = Table(title=str(target), show_header=False, title_justify="left")
    table.add_row("model", f"{spec.model}, trained for {spec.training.get('steps', '?')} steps")
    table.add_row("file", f"{target.stat().st_size / 1000:.1f} kB, {spec.precision}, ONNX opset {spec.opset}")
    shape = "H, W" if spec.size is None else f"{spec.size[1]}, {spec.size[0]}"
    table.add_row("input", f"sources float32 [1, 2, {shape}] in [0, 1]: infrared, visible luma")
    table.add_row("output", f"fused float32 [1, 1, {shape}] in [0, 1]")
    if spec.size is None:
        table.add_row("sizes", f"any multiple of {spec.multiple}; `fuse` and `stream` pad others")
    table.add_row("compared on", receipt.compared_on)
    table.add_row("max difference", f"{receipt.max_difference:.2e}")
    table.add_row("lowest PSNR", f"{receipt.psnr:.1f} dB ({receipt.worst})")
    table.add_row("gate", f"{receipt.gate}: {'passed' if receipt.passed else 'FAILED'}")
    console.print(table)
    if not receipt.passed:
        raise GateError(
            f"{target} is too far from {source} ({receipt.gate}): largest difference "
            f"{receipt.max_difference:.2e}, PSNR {receipt.psnr:.1f} dB on {receipt.worst!r}"
        )
