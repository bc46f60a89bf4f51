"""`edgefuse import-weights`."""

from pathlib import Path

import typer

from edgefuse.cli.console import stdout


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
