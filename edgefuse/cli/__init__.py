"""The command line: one file a command; a command parses, calls one library function and prints.

Heavy modules are imported inside the commands, so that `edgefuse --help` answers at once.
"""

import logging
import sys
from importlib import import_module

import typer
from rich.console import Console
from rich.logging import RichHandler

from edgefuse.cli.options import Command
from edgefuse.errors import EdgefuseError

__all__ = ["app", "main"]

# Name of the command → the module in this package, which holds a function of the module's name.
COMMANDS = {
    "stream": "stream",
    "record": "record",
    "calibrate": "calibrate",
    "fuse": "fuse",
    "train": "train",
    "export": "export",
    "evaluate": "evaluate",
    "inspect": "inspect",
    "models": "models",
    "import-weights": "import_weights",
    "reproduce": "reproduce",
    "settings": "settings",
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
        False, "--version", callback=_version, is_eager=True, help="Print the version and leave."
    ),
) -> None:
    """Fuse an infrared and a visible camera into one picture, live."""


for _name, _module in COMMANDS.items():
    app.command(_name, cls=Command)(getattr(import_module(f"edgefuse.cli.{_module}"), _module))


def main() -> None:
    """Run the command line; known errors become one sentence on stderr and exit status 1."""
    # Both places are accepted: `edgefuse --debug fuse …` and `edgefuse fuse … --debug`.
    debug = "--debug" in sys.argv[1:]
    args = ["--debug", *(a for a in sys.argv[1:] if a != "--debug")] if debug else sys.argv[1:]
    stderr = Console(stderr=True)
    logger = logging.getLogger("edgefuse")
    logger.handlers = [RichHandler(console=stderr, show_time=False, show_path=False, markup=False)]
    logger.setLevel(logging.DEBUG if debug else logging.INFO)
    try:
        app(args=args, prog_name="edgefuse")
    except (EdgefuseError, OSError) as error:
        if debug:
            raise
        stderr.print(f"[bold red]error:[/] {_sentence(error)}", highlight=False, soft_wrap=True)
        sys.exit(1)
    except Exception as error:
        if debug:
            raise
        name = type(error).__name__
        stderr.print(
            f"[bold red]error:[/] this is a bug in edgefuse ({name}: {_sentence(error)}); "
            "please report it with what --debug shows",
            highlight=False,
            soft_wrap=True,
        )
        sys.exit(70)  # EX_SOFTWARE


def _sentence(error: Exception) -> str:
    from rich.markup import escape

    if isinstance(error, OSError) and error.strerror:
        return escape(f"{error.filename}: {error.strerror}" if error.filename else error.strerror)
    return escape(str(error))
