"""`edgefuse models`."""

from contextlib import suppress

import typer
from rich.table import Table

from edgefuse.cli.console import stdout


def models(
    as_json: bool = typer.Option(False, "--json", help="Print everything as JSON."),
) -> None:
    """List the shipped models.

    With size, licence of the training data and measured quality.
    """
    import msgspec

    from edgefuse.errors import BackendError
    from edgefuse.runtime.engines import ENGINES, file_for
    from edgefuse.weights import DEFAULT_MODEL, shipped

    console = stdout()
    found = []
    for card in shipped().values():
        default = card.name == DEFAULT_MODEL
        files = [path for path in (card.onnx, card.int8, card.safetensors) if path is not None]
        taken = {}
        for engine in ENGINES:
            with suppress(BackendError):  # no file of this model is for it
                taken[engine] = file_for(card.name, engine).name
        known = {path.name: path.stat().st_size for path in files}
        found.append(msgspec.to_builtins(card) | {"default": default, "files": known, "takes": taken})
        table = Table(show_header=False, title_justify="left", box=None, padding=(0, 2, 0, 0))
        table.title = f"[bold]{card.name}[/]{' (default)' if default else ''}: {card.summary}"
        sizes = ", ".join(f"{name} {size / 1000:.0f} kB" for name, size in known.items())
        table.add_row("size", f"{card.parameters:,} weights; {sizes}")
        by_file = {name: [e for e in taken if taken[e] == name] for name in dict.fromkeys(taken.values())}
        faster = ", ".join(f"{speed:.2f} on {engine}" for engine, speed in card.int8_speed.items())
        if faster:
            table.add_row("int8", f"times as fast as fp32: {faster}")
        table.add_row("takes", "; ".join(f"{name} on {', '.join(on)}" for name, on in by_file.items()))
        table.add_row("training", card.training["summary"])
        table.add_row("licence", card.licence)
        for data, quality in card.quality.items():
            table.add_row(data, "  ".join(f"{metric} {value:.3f}" for metric, value in quality.items()))
        if not as_json:
            console.print(table, "", sep="\n")
    if as_json:
        stdout().say_json(found)
    else:
        console.print("Quality: mean over all pairs, protocol `field`; reproduce with `edgefuse evaluate`.")
