"""`edgefuse fuse`."""

from pathlib import Path

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from edgefuse.weights import DEFAULT_MODEL

__all__ = ["fuse"]


def fuse(
    ir: Path = typer.Option(..., help="Infrared image, or folder of them (8 or 16 bit, white = hot)."),
    vis: Path = typer.Option(..., help="Visible image, or folder; pairs have equal file stems."),
    out: Path = typer.Option(..., help="Image to write, or folder for the fused images."),
    model: str = typer.Option(
        DEFAULT_MODEL, help="Shipped model (see `edgefuse models`), .onnx or .engine file."
    ),
    threads: int | None = typer.Option(None, help="CPU threads.", show_default="all cores"),
    engine: str | None = typer.Option(
        None, help="onnxruntime, openvino or tensorrt.", show_default="the first that is installed"
    ),
    provider: str | None = typer.Option(
        None, help="ONNX Runtime's: cpu, cuda or tensorrt.", show_default="the GPU if it can be used"
    ),
    no_rebuild: bool = typer.Option(
        False, "--no-rebuild", help="Refuse a TensorRT engine of another machine instead of rebuilding it."
    ),
) -> None:
    """Fuse an infrared and a visible image, or two folders of them, in colour."""
    from edgefuse.batch import fuse_files, plan
    from edgefuse.runtime.fuser import Fuser

    console = Console(stderr=True)
    jobs = plan(ir, vis, out)
    fuser = Fuser(model, threads, engine, provider=provider, rebuild=not no_rebuild)
    for side, stems in (("visible", jobs.only_ir), ("infrared", jobs.only_vis)):
        if stems:
            shown = ", ".join(stems[:10]) + (f" and {len(stems) - 10} more" if len(stems) > 10 else "")
            console.print(f"[yellow]No {side} image for:[/] {shown}")
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=len(jobs.files))
        for path in fuse_files(jobs, fuser):
            bar.update(task, advance=1, description=path.name)
    console.print(f"Wrote {len(jobs.files)} fused image{'s' * (len(jobs.files) != 1)}: {out}")
