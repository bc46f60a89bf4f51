"""`edgefuse reproduce`."""

from pathlib import Path

import typer

from edgefuse.cli.console import stdout
from edgefuse.cli.options import with_settings
from edgefuse.errors import InputError, counted
from edgefuse.train.config import TrainConfig


@with_settings(TrainConfig, {"Training": "steps base_of"}, name="budget", defaults={"steps": 1000})
def reproduce(
    budget: TrainConfig,
    experiment: str = typer.Argument(help="table1, table2, table3, table4, fig2 or fig3 of the paper."),
    train: list[Path] = typer.Option(..., help="Training set: a folder with ir/ and vis/ in it; repeatable."),
    test: list[Path] = typer.Option(..., help="Test set: a folder with ir/ and vis/ in it; repeatable."),
    model: list[str] = typer.Option(
        ["cnn", "transformer", "gan"],
        help="Network, a name or FILE.py:CLASS; repeatable. table2, table3, fig3 take the first.",
    ),
    base: list[int] = typer.Option(
        [15, 30, 60, 150], help="Base images; repeatable. All but table3 take the largest."
    ),
    epochs: float | None = typer.Option(
        None,
        help="Train every row for this number of epochs of its pairs, but not beyond --steps.",
        show_default="all rows for --steps",
    ),
    seeds: int = typer.Option(3, help="Training runs per row."),
    protocol: str = typer.Option("field", help="Protocol of the metrics: field, paper or strict."),
    limit: int | None = typer.Option(None, help="Pairs to score per test set.", show_default="all"),
    others: list[Path] = typer.Option(
        [], help="Folder of images that another method fused, for table4; repeatable."
    ),
    out: Path | None = typer.Option(None, help="Report folder.", show_default="experiments/EXPERIMENT"),
) -> None:
    """Rerun an experiment of the paper on your own sets.

    Every row is trained for the same number of steps, or epochs. Interrupted, the same command continues.
    """
    from edgefuse.packages import require

    require("train", "torch", "safetensors", "matplotlib")
    import torch

    from edgefuse.experiments.cells import pair_set
    from edgefuse.experiments.run import Experiment
    from edgefuse.experiments.run import reproduce as run
    from edgefuse.memory import keep_heap
    from edgefuse.runtime.engines import check_threads
    from edgefuse.train.machine import distributed
    from edgefuse.train.models import add_model
    from edgefuse.train.record import Progress

    keep_heap()
    check_threads(budget.threads)
    if budget.threads is not None:
        torch.set_num_threads(budget.threads)
    asked = Experiment(
        name=experiment,
        train=tuple(map(pair_set, train)),
        tests=tuple(map(pair_set, test)),
        models=tuple(map(add_model, model[:1] if experiment in ("table2", "table3", "fig3") else model)),
        bases=tuple(sorted(base)),
        seeds=seeds,
        budget=budget,
        epochs=epochs,
        protocol=protocol,
        limit=limit,
        others=tuple(others),
    )
    console = stdout()
    trainings = len(asked.rows()) * seeds
    length = f"{counted(budget.steps, 'step')}" if epochs is None else f"{epochs:g} epochs"
    console.say(f"{counted(trainings, 'training')} of {length}")

    def show(name: str, now: Progress) -> None:
        if now.step % 500 == 0:
            speed = f"{now.pairs_per_second:.0f} pairs/s"
            console.say(f"{name}: step {now.step}, loss {now.losses['total']:.4f}, {speed}")

    with distributed() as context:
        if context.size > 1:
            raise InputError("reproduce runs in one process: start it without torchrun")
        report = run(asked, out or Path("experiments") / experiment, show, context)
    console.say(report.read_text("utf-8"))
    console.say(f"Report in {report}")
