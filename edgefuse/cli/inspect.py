"""`edgefuse inspect`."""

from pathlib import Path

import typer

from edgefuse.cli.console import stdout


def inspect(
    file: Path = typer.Argument(
        help=".onnx or .engine file from `edgefuse export`, or a shipped model's name."
    ),
    as_json: bool = typer.Option(False, "--json", help="Print everything as JSON."),
) -> None:
    """Print what a model file says of itself.

    What it takes and gives, how it was verified, and its layers by precision.
    """
    import msgspec

    from edgefuse.packages import require
    from edgefuse.weights import model_file

    require("export", "onnx")
    from edgefuse.export.report import inspect_file, table
    from edgefuse.runtime.engines.engine_cache import read_sidecar

    path = model_file(str(file))
    spec, layers = inspect_file(path)
    if as_json:
        known = msgspec.to_builtins(read_sidecar(path) if path.suffix == ".engine" else spec)
        stdout().say_json({**known, "layers": layers})
    else:
        stdout().print(table(path, spec, layers))
