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
    """Print a systemd unit for a stream.

    The unit has a watchdog. Such as: edgefuse service -- --ir cam0 --vis cam1
    """
    from edgefuse.runtime.cameras.camera import check_distinct
    from edgefuse.runtime.service import make_unit
    from edgefuse.runtime.sources.base import Spec

    words = args[1:] if args[0] == "stream" else args
    group: Any = context.find_root().command
    with group.commands["stream"].make_context("edgefuse stream", [*words]) as parsed:
        if parsed.params.get("show"):
            raise InputError("a service has no display: leave --show out, or look at it with --serve 8080")
        ir, vis, file = (str(parsed.params.get(name) or "") for name in ("ir", "vis", "config"))
        if not file and not (ir and vis):
            raise InputError(f"{'--vis' if ir else '--ir'} is missing: a service needs both cameras")
        if ir and vis and "${" not in ir + vis:  # what stands for a secret is not known yet
            check_distinct(Spec.parse(ir), Spec.parse(vis))
    typer.echo(
        make_unit(words, folder.absolute(), user or getpass.getuser(), environment.absolute()), nl=False
    )
