"""`edgefuse train`."""

import threading
from dataclasses import replace
from pathlib import Path

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

__all__ = ["train"]


def train(
    paradigm: str = typer.Option(
        "aptp",
        help="Which images meet: sptp (strictly paired: equal file stems), uptp (never the paired ones), "
        "aptp (all combinations; needs no aligned pairs).",
    ),
    ir: list[Path] = typer.Option(
        [], help="Folder of infrared images, or a video; may be given several times."
    ),
    vis: list[Path] = typer.Option(
        [], help="Folder of visible images, or a video; may be given several times."
    ),
    model: str = typer.Option("nano", help="Network to train: nano, cnn, transformer or gan."),
    base: int | None = typer.Option(None, help="Use only so many images a side.", show_default="all"),
    pairs: int | None = typer.Option(
        None, help="Pairs drawn per epoch.", show_default="all possible, at most 15,000"
    ),
    steps: int = typer.Option(6000, help="Training steps."),
    batch: int = typer.Option(8, help="Patches per step."),
    patch: int = typer.Option(128, help="Side of a patch, in pixels."),
    lr: float = typer.Option(1e-3, help="Peak learning rate."),
    alpha: float = typer.Option(1.0, help="Weight of the gradient loss."),
    beta: float = typer.Option(0.2, help="Weight of the SSIM loss."),
    gradient_scale: str = typer.Option(
        "image", help="What gradients are stretched to 0..1 by before they are compared: image, batch, none."
    ),
    init: str | None = typer.Option(
        None, help="Begin with these weights: a checkpoint or a shipped model.", show_default="random weights"
    ),
    seed: int = typer.Option(0, help="Same seed, same machine: same weights."),
    threads: int | None = typer.Option(None, help="CPU threads.", show_default="all cores"),
    out: Path | None = typer.Option(None, help="Run folder.", show_default="runs/MODEL-PARADIGM-SEED"),
    resume: bool = typer.Option(False, "--resume", help="Go on from the run folder's checkpoint."),
    checkpoint_minutes: float = typer.Option(5.0, help="Minutes between two checkpoints."),
    sample_every: int = typer.Option(500, help="Steps between two pictures of sample fusions."),
) -> None:
    """Train a fusion network on infrared and visible images that need not be aligned.

    Without folders it trains on the simulated rig. Ctrl-C writes a checkpoint and ends; --resume goes on.
    """
    from edgefuse.cli.needs import needs

    needs("train", "torch", "safetensors", "matplotlib")
    import torch

    from edgefuse.cli.signals import stopping_on_signals
    from edgefuse.runtime.backends import check_threads
    from edgefuse.train.config import TrainConfig
    from edgefuse.train.data import training_set
    from edgefuse.train.loop import train as run
    from edgefuse.train.losses import LossConfig
    from edgefuse.train.record import Progress as Step

    config = TrainConfig(
        model=model,
        paradigm=paradigm,
        ir=tuple(map(str, ir)),
        vis=tuple(map(str, vis)),
        base=base,
        pairs=pairs,
        steps=steps,
        batch=batch,
        patch=patch,
        learning_rate=lr,
        losses=LossConfig(gradient=alpha, ssim=beta, gradient_scale=gradient_scale),
        seed=seed,
        init=init,
    )
    check_threads(threads)
    if threads is not None:
        torch.set_num_threads(threads)
    console = Console()
    if not ir:
        console.print("No folders given: training on frames of the simulated rig.")
    data = training_set(config)
    # What an unset --pairs came to belongs to the record of the run.
    config = replace(config, pairs=data.pairs)
    folder = out or Path("runs") / f"{model}-{paradigm}-{seed}"
    console.print(data.describe())

    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[losses]}"), TimeRemainingColumn())
    stop = threading.Event()

    hidden = not console.is_terminal
    with (
        stopping_on_signals(lambda _: stop.set()),
        Progress(*columns, console=console, disable=hidden) as bar,
    ):
        task = bar.add_task("train", total=steps, losses="")

        def show(now: Step) -> None:
            losses = "  ".join(f"{name} {value:.4f}" for name, value in now.losses.items())
            losses += f"  {now.pairs_per_second:.0f} pairs/s"
            bar.update(task, completed=now.step, losses=losses)
            if not console.is_terminal and now.step % 500 == 0:  # a log file gets lines instead of a bar
                console.print(f"step {now.step}/{steps}  {losses}")

        result = run(
            config,
            data,
            folder,
            resume=resume,
            checkpoint_minutes=checkpoint_minutes,
            sample_every=sample_every,
            on_progress=show,
            stop=stop,
        )
    if stop.is_set() and result.suffix == ".pt":
        console.print(f"Stopped; checkpoint in {result}. The same command with --resume goes on.")
    else:
        console.print(
            f"Weights in {result}; losses in {folder / 'loss.png'}; samples in {folder / 'samples'}"
        )
        console.print(f"Next: edgefuse export {result}")
