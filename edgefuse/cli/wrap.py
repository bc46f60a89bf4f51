"""`edgefuse wrap`."""

from pathlib import Path

import typer

from edgefuse.cli.console import stdout


def wrap(
    file: str = typer.Argument(
        ..., help="ONNX file of another project; with options: 'FILE.onnx?order=vis,ir&range=-1,1'."
    ),
    out: Path = typer.Option(..., help="The .onnx file to write."),
    force: bool = typer.Option(False, "--force", help="Replace a file of another model."),
) -> None:
    """Make a model file of another project's ONNX.

    `fuse` and `stream` take the file. The network takes two images of one or three channels, or one
    input of two channels. Which is infrared follows from the names of the inputs (else it comes first),
    and values are 0 to 1, unless order= and range= say otherwise.
    """
    from edgefuse.packages import require

    require("export", "onnx", "torch")
    from edgefuse.export.foreign import wrap_foreign

    spec = wrap_foreign(file, out, force=force)
    sides = "pictures of any size" if spec.size is None else f"pictures of {spec.size[0]}x{spec.size[1]}"
    stdout().say(
        f"Wrote {out}, which takes {sides}. Next: edgefuse fuse --model {out} --ir … --vis … --out …"
    )
