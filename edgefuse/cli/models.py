"""`edgefuse models`."""

from rich.table import Table

from edgefuse.cli.console import stdout

__all__ = ["models"]


def models() -> None:
    """List the shipped models: size, licence of the training data, measured quality."""
    from edgefuse.weights import DEFAULT_MODEL, shipped

    console = stdout()
    for card in shipped().values():
        table = Table(show_header=False, title_justify="left", box=None, padding=(0, 2, 0, 0))
        table.title = (
            f"[bold]{card.name}[/]{' (default)' if card.name == DEFAULT_MODEL else ''}: {card.summary}"
        )
        table.add_row(
            "size", f"{card.parameters:,} weights, {card.onnx.stat().st_size / 1000:.0f} kB as ONNX"
        )
        if card.int8 is not None:
            table.add_row("int8", f"{card.name}-int8, {card.int8.stat().st_size / 1000:.0f} kB, for OpenVINO")
        table.add_row("training", card.training["summary"])
        table.add_row("licence", card.licence)
        for data, quality in card.quality.items():
            table.add_row(data, "  ".join(f"{metric} {value:.3f}" for metric, value in quality.items()))
        console.print(table, "", sep="\n")
    console.print("Quality: mean over all pairs, protocol `field`; reproduce with `edgefuse evaluate`.")
