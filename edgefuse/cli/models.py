"""The commands about model files: `edgefuse models`, `inspect`, `wrap` and `import-weights`."""

from contextlib import suppress
from pathlib import Path

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


def import_weights(
    file: Path = typer.Argument(..., help="Checkpoint that the paper's authors released, such as CNN.model."),
    model: str = typer.Option(..., help="The network in it: cnn, gan or transformer."),
    out: Path = typer.Option(..., help="The .pt file to write."),
) -> None:
    """Import a checkpoint of the paper's authors.

    It can then be exported, evaluated or fine-tuned.
    """
    from edgefuse.errors import InputError
    from edgefuse.packages import require

    require("train", "torch", "safetensors")
    from edgefuse.train.checkpoint import import_released, save_checkpoint

    if out.suffix != ".pt":
        raise InputError(f"cannot write {out}: the suffix must be .pt")
    save_checkpoint(out, import_released(file, model))
    stdout().say(f"Wrote {out}. Next: edgefuse export {out}")
