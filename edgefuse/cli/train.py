"""`edgefuse train`."""

import os
import threading
from dataclasses import replace
from pathlib import Path

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from edgefuse.cli.settings import configured

__all__ = ["train"]


DATA, METHOD, LOSSES, RUN = "Images", "Method", "Losses", "Run"


def train(
    context: typer.Context,
    config_file: Path | None = typer.Option(
        None,
        "--config",
        help="Settings as in a run's config.json, or a recipe: nano, nano-l; options that are given as "
        "well come before them.",
        rich_help_panel=RUN,
    ),
    paradigm: str = typer.Option(
        "aptp",
        help="Which images meet: sptp (strictly paired: equal file stems), uptp (never the paired ones), "
        "aptp (all combinations; needs no aligned pairs).",
        rich_help_panel=METHOD,
    ),
    ir: list[Path] = typer.Option(
        [],
        help="Folder of infrared images, or a video; may be given several times.",
        rich_help_panel=DATA,
    ),
    vis: list[Path] = typer.Option(
        [],
        help="Folder of visible images, or a video; may be given several times.",
        rich_help_panel=DATA,
    ),
    base: int | None = typer.Option(
        None, help="Use only so many images a side.", show_default="all", rich_help_panel=DATA
    ),
    pairs: int | None = typer.Option(
        None,
        help="Pairs drawn per epoch.",
        show_default="all possible, at most 15,000",
        rich_help_panel=DATA,
    ),
    aligned: float = typer.Option(
        0.0,
        help="Share of the pairs drawn from those of equal file stems, which are few in aptp.",
        rich_help_panel=DATA,
    ),
    val_ir: list[Path] = typer.Option(
        [], help="Infrared folder to validate on, aligned with --val-vis by stem.", rich_help_panel=DATA
    ),
    val_vis: list[Path] = typer.Option([], help="Visible folder to validate on.", rich_help_panel=DATA),
    hold_out: int = typer.Option(
        0, help="Validate on so many aligned pairs of the training folders.", rich_help_panel=DATA
    ),
    model: str = typer.Option(
        "nano", help="Network to train: nano, nano-l, cnn, transformer or gan.", rich_help_panel=METHOD
    ),
    steps: int = typer.Option(6000, help="Training steps.", rich_help_panel=METHOD),
    batch: int = typer.Option(
        8, help="Patches per step; under torchrun, of each process.", rich_help_panel=METHOD
    ),
    patch: int = typer.Option(128, help="Side of a patch, in pixels.", rich_help_panel=METHOD),
    spoil: float = typer.Option(
        0.0,
        help="Share of the patches that the network sees with sensor noise, out of focus, misaligned, at "
        "another gain or without one camera, and should fuse as if they were not.",
        rich_help_panel=METHOD,
    ),
    lr: float = typer.Option(1e-3, help="Peak learning rate.", rich_help_panel=METHOD),
    ema: float = typer.Option(
        0.999,
        help="Decay of the moving average of the weights, which is kept; 0: none.",
        rich_help_panel=METHOD,
    ),
    teacher: str | None = typer.Option(
        None,
        help="Want what this model makes of the clean images, a checkpoint or a shipped model, instead of "
        "what the losses of the paper ask for.",
        show_default="none",
        rich_help_panel=METHOD,
    ),
    init: str | None = typer.Option(
        None,
        help="Begin with these weights, which must fit: a checkpoint or a shipped model.",
        show_default="random weights",
        rich_help_panel=METHOD,
    ),
    seed: int = typer.Option(0, help="Same seed, same machine: same weights.", rich_help_panel=METHOD),
    alpha: float = typer.Option(1.0, help="Weight of the gradient loss.", rich_help_panel=LOSSES),
    beta: float = typer.Option(0.2, help="Weight of the SSIM loss.", rich_help_panel=LOSSES),
    lambda_: float = typer.Option(
        0.01, "--lambda", help="Weight of the adversarial loss (gan).", rich_help_panel=LOSSES
    ),
    gradient_scale: str = typer.Option(
        "image",
        help="What gradients are stretched to 0..1 by before they are compared: image, batch, none.",
        rich_help_panel=LOSSES,
    ),
    gradient_target: str = typer.Option(
        "weighted",
        help="Which gradient is wanted: the two sources' weighted by their own size, or the larger of them.",
        rich_help_panel=LOSSES,
    ),
    intensity_power: float = typer.Option(
        1.0,
        help="Power of the intensities that weigh the sources; above 1 the brighter one counts for more.",
        rich_help_panel=LOSSES,
    ),
    ssim_weights: str = typer.Option(
        "image",
        help="What the sources' weights in the SSIM loss come from: each image, or the means over the batch.",
        rich_help_panel=LOSSES,
    ),
    fallback: float = typer.Option(
        0.0,
        help="Beside a teacher: weight of the SSIM with visible where infrared is noisy.",
        rich_help_panel=LOSSES,
    ),
    precision: str = typer.Option(
        "auto",
        help="fp32, bf16, fp16 (GPU only), or auto: bf16 where the processor computes in it.",
        rich_help_panel=RUN,
    ),
    compile_: bool = typer.Option(
        False, "--compile", help="Compile the network with torch.compile.", rich_help_panel=RUN
    ),
    threads: int | None = typer.Option(
        None, help="CPU threads.", show_default="all cores", rich_help_panel=RUN
    ),
    out: Path | None = typer.Option(
        None, help="Run folder.", show_default="runs/MODEL-PARADIGM-SEED", rich_help_panel=RUN
    ),
    resume: bool = typer.Option(
        False, "--resume", help="Go on from the run folder's checkpoint.", rich_help_panel=RUN
    ),
    checkpoint_minutes: float = typer.Option(
        5.0, help="Minutes between two checkpoints.", rich_help_panel=RUN
    ),
    sample_every: int = typer.Option(
        500, help="Steps between two pictures of sample fusions, and two validations.", rich_help_panel=RUN
    ),
) -> None:
    """Train a fusion network on infrared and visible images that need not be aligned.

    Without folders it trains on the simulated rig. Ctrl-C writes a checkpoint and ends; --resume goes on.
    On K GPUs: torchrun --nproc-per-node=K -m edgefuse train …
    """
    from edgefuse.cli.needs import needs

    needs("train", "torch", "safetensors", "matplotlib")
    import torch

    from edgefuse.cli.signals import stopping_on_signals
    from edgefuse.runtime.backends import check_threads
    from edgefuse.train.data import training_set
    from edgefuse.train.loop import train as run
    from edgefuse.train.parallel import describe_processes, team
    from edgefuse.train.record import Progress as Step

    check_threads(threads)
    if threads is not None:
        torch.set_num_threads(threads)
    config = configured(context, config_file)
    console = Console(quiet=int(os.environ.get("RANK", 0)) > 0)
    if not config.ir:
        console.print("No folders given: training on frames of the simulated rig.")
    data = training_set(config)
    # What an unset --pairs came to belongs to the record of the run.
    config = replace(config, pairs=data.pairs)
    folder = out or Path("runs") / f"{config.model}-{config.paradigm}-{config.seed}"
    console.print(data.describe())

    if config.processes > 1:
        console.print(describe_processes(config))

    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[losses]}"), TimeRemainingColumn())
    stop = threading.Event()

    hidden = not console.is_terminal
    with (
        stopping_on_signals(lambda _: stop.set()),
        team() as here,
        Progress(*columns, console=console, disable=hidden) as bar,
    ):
        task = bar.add_task("train", total=config.steps, losses="")

        def show(now: Step) -> None:
            losses = "  ".join(f"{name} {value:.4f}" for name, value in now.losses.items())
            losses += f"  {now.pairs_per_second:.0f} pairs/s"
            bar.update(task, completed=now.step, losses=losses)
            if not console.is_terminal and now.step % 500 == 0:  # a log file gets lines instead of a bar
                console.print(f"step {now.step}/{config.steps}  {losses}")

        result = run(
            config,
            data,
            folder,
            resume=resume,
            checkpoint_minutes=checkpoint_minutes,
            sample_every=sample_every,
            on_progress=show,
            stop=stop,
            team=here,
        )
    if result.suffix == ".pt":
        console.print(f"Stopped; checkpoint in {result}. The same command with --resume goes on.")
    else:
        console.print(
            f"Weights in {result}; losses in {folder / 'loss.png'}; samples in {folder / 'samples'}"
        )
        console.print(f"Next: edgefuse export {result}")
