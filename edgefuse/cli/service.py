"""`edgefuse service`."""

import getpass
from pathlib import Path
from typing import Any

import typer

from edgefuse.errors import InputError


def service(
    context: typer.Context,
    args: list[str] = typer.Argument(
        metavar="-- STREAM-OPTIONS", help="Options of `edgefuse stream`, after two dashes."
    ),
    user: str | None = typer.Option(None, "--user", metavar="NAME", help="Who runs it. [you]"),
    folder: Path = typer.Option(
        Path(), "--folder", metavar="FOLDER", help="Where it runs, for relative paths. [the current one]"
    ),
    environment: Path = typer.Option(
        Path("/etc/edgefuse.env"),
        "--env-file",
        metavar="FILE",
        help="Lines NAME=value, for ${NAME} in sources.",
    ),
) -> None:
    """Print the systemd unit of a stream, with a watchdog: edgefuse service -- --ir cam0 --vis cam1."""
    from edgefuse.runtime.service import make_unit

    words = args[1:] if args[0] == "stream" else args
    group: Any = context.find_root().command
    with group.commands["stream"].make_context("edgefuse stream", [*words]) as parsed:
        if parsed.params.get("show"):
            raise InputError("a service has no display: leave --show out, or look at it with --serve 8080")
    typer.echo(
        make_unit(words, folder.absolute(), user or getpass.getuser(), environment.absolute()), nl=False
    )
