"""`edgefuse reproduce`."""

from pathlib import Path

import typer
from rich.console import Console

from edgefuse.errors import InputError

__all__ = ["reproduce"]


def reproduce(
    experiment: str = typer.Argument(help="table1, table2, table3, table4, fig2 or fig3 of the paper."),
    train: list[Path] = typer.Option(..., help="Training set: a folder with ir/ and vis/ in it; repeatable."),
    test: list[Path] = typer.Option(..., help="Test set: a folder with ir/ and vis/ in it; repeatable."),
    model: list[str] = typer.Option(
        ["cnn", "transformer", "gan"], help="Network; repeatable. table2, table3 and fig3 take the first."
    ),
    base: list[int] = typer.Option(
        [15, 30, 60, 150], help="Base images; repeatable. All but table3 take the largest."
    ),
    steps: int = typer.Option(1000, help="Training steps of every row."),
    seeds: int = typer.Option(3, help="Trainings of every row."),
    batch: int = typer.Option(8, help="Patches per step."),
    patch: int = typer.Option(128, help="Side of a patch, in pixels."),
    lr: float = typer.Option(1e-3, help="Peak learning rate."),
    gradient_scale: str = typer.Option("image", help="As in `edgefuse train`."),
    precision: str = typer.Option("auto", help="As in `edgefuse train`."),
    protocol: str = typer.Option("field", help="Of the metrics: field, paper or strict."),
    limit: int | None = typer.Option(None, help="Score so many pairs of a test set.", show_default="all"),
    others: list[Path] = typer.Option(
        [], help="Folder of images that another method fused, for table4; repeatable."
    ),
    threads: int | None = typer.Option(None, help="CPU threads.", show_default="all cores"),
    out: Path | None = typer.Option(None, help="Folder.", show_default="experiments/EXPERIMENT"),
) -> None:
    """Rerun an experiment of the paper on sets of your own.

    Every row is trained for the same number of steps. Interrupted, the same command goes on.
    """
    from edgefuse.cli.needs import needs

    needs("train", "torch", "safetensors", "matplotlib")
    import torch

    from edgefuse.runtime.backends import check_threads
    from edgefuse.train.config import TrainConfig
    from edgefuse.train.experiments.cells import pair_set
    from edgefuse.train.experiments.run import Experiment
    from edgefuse.train.experiments.run import reproduce as run
    from edgefuse.train.losses import LossConfig
    from edgefuse.train.parallel import team
    from edgefuse.train.precision import resolve_precision
    from edgefuse.train.record import Progress

    check_threads(threads)
    if threads is not None:
        torch.set_num_threads(threads)
    asked = Experiment(
        name=experiment,
        train=tuple(map(pair_set, train)),
        tests=tuple(map(pair_set, test)),
        models=tuple(model[:1] if experiment in ("table2", "table3", "fig3") else model),
        bases=tuple(sorted(base)),
        seeds=seeds,
        budget=TrainConfig(
            steps=steps,
            batch=batch,
            patch=patch,
            learning_rate=lr,
            precision=resolve_precision(precision),
            losses=LossConfig(gradient_scale=gradient_scale),
        ),
        protocol=protocol,
        limit=limit,
        others=tuple(others),
    )
    console = Console()
    trainings = len(asked.rows()) * seeds
    console.print(f"{trainings} trainings of {steps} steps")

    def show(name: str, now: Progress) -> None:
        if now.step % 500 == 0 or now.step == steps:
            speed = f"{now.pairs_per_second:.0f} pairs/s"
            console.print(f"{name}: step {now.step}, loss {now.losses['total']:.4f}, {speed}")

    with team() as here:
        if here.size > 1:
            raise InputError("reproduce runs in one process: start it without torchrun")
        report = run(asked, out or Path("experiments") / experiment, show, here)
    console.print(report.read_text("utf-8"), markup=False, highlight=False, soft_wrap=True)
    console.print(f"Report in {report}")
