"""`edgefuse inspect`."""

from pathlib import Path

import typer

from edgefuse.cli.console import stdout

__all__ = ["inspect"]


def inspect(
    file: Path = typer.Argument(
        help=".onnx or .engine file from `edgefuse export`, or a shipped model's name."
    ),
    as_json: bool = typer.Option(False, "--json", help="Print the spec and receipt as JSON."),
) -> None:
    """Print what an exported file takes and gives, its receipt, and its layers by precision."""
    import json
    from dataclasses import asdict

    from edgefuse.packages import require
    from edgefuse.weights import model_file, shipped

    require("export", "onnx")
    from edgefuse.export.inspect import inspect_file
    from edgefuse.export.report import table
    from edgefuse.runtime.sidecar import read_sidecar

    path = model_file(str(file)) if str(file) in shipped() else file
    spec, layers = inspect_file(path)
    if as_json:
        values = asdict(read_sidecar(path)) if path.suffix == ".engine" else asdict(spec)
        typer.echo(json.dumps({**values, "layers": layers}, indent=2))
    else:
        stdout().print(table(path, spec, layers))
