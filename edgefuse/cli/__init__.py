"""The command line: a command is a function that parses, calls one library function and prints.

Heavy modules are imported inside the commands, so that `edgefuse --help` answers at once.
"""

import sys
from importlib import import_module

import typer

from edgefuse.cli.console import guarded
from edgefuse.cli.options import Command

# Name of the command → the module in this package that has a function of that name.
COMMANDS = {
    "stream": "stream",
    "record": "record",
    "calibrate": "calibrate",
    "fuse": "fuse",
    "train": "train",
    "export": "export",
    "evaluate": "evaluate",
    "inspect": "models",
    "bench": "machine",
    "models": "models",
    "import-weights": "models",
    "wrap": "models",
    "reproduce": "train",
    "settings": "options",
    "service": "machine",
    "doctor": "machine",
}

app = typer.Typer(
    help="Fuse an infrared and a visible camera into one picture, live.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def _version(wanted: bool) -> None:
    if wanted:
        from edgefuse import __version__

        typer.echo(f"edgefuse {__version__}")
        raise typer.Exit


@app.callback()
def options(
    debug: bool = typer.Option(False, "--debug", help="Show the traceback of an error."),
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Print the version and exit."
    ),
) -> None:
    """Fuse an infrared and a visible camera into one picture, live."""


for _name, _module in COMMANDS.items():
    _function = getattr(import_module(f"edgefuse.cli.{_module}"), _name.replace("-", "_"))
    app.command(_name, cls=Command)(_function)


def main() -> None:
    """Run the command line; errors become one sentence on stderr and an exit code, see `ExitCode`."""
    # Both places are accepted: `edgefuse --debug fuse …` and `edgefuse fuse … --debug`.
    debug = "--debug" in sys.argv[1:]
    args = ["--debug", *(a for a in sys.argv[1:] if a != "--debug")] if debug else sys.argv[1:]
    guarded(lambda: app(args=args, prog_name="edgefuse"), debug=debug)
