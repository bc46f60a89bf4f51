"""`edgefuse settings`."""

from importlib import import_module
from typing import Literal

import typer
from rich.markup import escape
from rich.table import Table

from edgefuse.cli.console import stdout
from edgefuse.settings import listing

# Command → where the dataclass of its settings is.
KINDS = {
    "train": ("edgefuse.train.config", "TrainConfig"),
    "stream": ("edgefuse.runtime.config", "StreamConfig"),
    "export": ("edgefuse.export.config", "ExportConfig"),
}


def settings(
    command: Literal["train", "stream", "export"] = typer.Argument(help="Command: train, stream or export."),
) -> None:
    """List the settings of a command.

    For --config FILE and --set KEY=VALUE: name, type, default, meaning.
    """
    module, kind = KINDS[command]
    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("setting", "type", "default", "meaning"):
        table.add_column(column, overflow="fold")
    for each in listing(getattr(import_module(module), kind)):
        table.add_row(each.name, each.type_name, escape(each.shown), escape(each.metadata.get("help", "")))
    stdout().print(table)
