"""The commands that train: `edgefuse train`, and `edgefuse reproduce` for the paper's tables and figures."""

import os
import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import typer

from edgefuse.cli.console import progress, stdout
from edgefuse.cli.options import with_settings
from edgefuse.errors import InputError, counted, unknown_name
from edgefuse.packages import require
from edgefuse.train.config import TrainConfig

DATA, METHOD, RUN = "Images", "Method", "Run"
RECIPES = Path(__file__).parents[1] / "train" / "recipes"
"""Settings from folders to weights, by network; which shipped weights are of them, docs/models.md says."""


def settings_file(path: Path) -> Path:
    """Return the file that `--config` means: a file, or a shipped recipe."""
    if path.exists():
        return path
    shipped = {file.stem: file for file in RECIPES.glob("*.json")}
    if str(path) not in shipped:
        raise InputError(f"no such file of settings: {path}; {unknown_name('recipe', str(path), shipped)}")
    return shipped[str(path)]


def resumed_settings(given: Mapping[str, Any]) -> Path | None:
    """Return the settings of the run that --resume continues, unless --config says otherwise."""
    path = given["out"] and Path(given["out"]) / "config.json"
    return path if given["resume"] and path and path.exists() else None


def own_network(values: dict[str, Any]) -> None:
    """Enter a network that is named as FILE.py:CLASS among the others."""
    if ":" in str(values.get("model", "")):
        require("train", "torch")
        from edgefuse.train.models import add_model

        values["model"] = add_model(values["model"])


@with_settings(
    TrainConfig,
    {DATA: "ir vis rig val_ir val_vis", METHOD: "model paradigm steps batch patch seed"},
    files=settings_file,
    implied=resumed_settings,
    prepare=own_network,
)
def train(
    config: TrainConfig,
    out: Path | None = typer.Option(
        None, help="Run folder.", show_default="runs/MODEL-PARADIGM-SEED", rich_help_panel=RUN
    ),
    loss: list[str] = typer.Option(
        [],
        metavar="NAME=WEIGHT",
        help="Weight of a loss, or of one of your own, my.py:term=0.1; repeatable.",
        rich_help_panel=METHOD,
    ),
    resume: bool = typer.Option(
        False, "--resume", help="Continue from the run folder's checkpoint.", rich_help_panel=RUN
    ),
) -> None:
    """Train a fusion network.

    The images need not be aligned. Without folders it trains on the simulated rig. --config nano
    (cnn, transformer, gan) is the recipe of a model. Ctrl-C writes a checkpoint and ends; --resume
    continues.
    On K GPUs: torchrun --nproc-per-node=K -m edgefuse train …
    """
    require("train", "torch", "safetensors", "matplotlib")
    import torch

    from edgefuse.cli.console import stopping_on_signals
    from edgefuse.machine import keep_heap
    from edgefuse.runtime.engines import check_threads
    from edgefuse.train.data import training_set
    from edgefuse.train.loop import check_run_folder
    from edgefuse.train.loop import train as run
    from edgefuse.train.losses import add_loss
    from edgefuse.train.machine import describe_processes, distributed
    from edgefuse.train.record import Progress as Step

    keep_heap()
    check_threads(config.threads)
    if loss:
        weights = dict(map(add_loss, loss))
        config = replace(config, losses=config.losses.with_weights(weights))
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    config = replace(
        config,
        processes=int(os.environ.get("WORLD_SIZE", 1)),
    )
    console = stdout(quiet=int(os.environ.get("RANK", 0)) > 0)
    if not config.ir:
        console.say("No folders given: training on frames of the simulated rig.")
    folder = out or Path("runs") / f"{config.model}-{config.paradigm}-{config.seed}"
    check_run_folder(folder, resume=resume)
    data = training_set(config)
    # What an unset number of pairs came to belongs to the record of the run.
    config = replace(config, pairs=data.pairs)
    console.say(data.describe())
    if config.processes > 1:
        console.say(describe_processes(config))

    stop = threading.Event()
    with (
        stopping_on_signals(lambda _: stop.set()),
        distributed() as context,
        progress(console, "step", config.steps) as show,
    ):

        def on_progress(now: Step) -> None:
            losses = "  ".join(f"{name} {value:.4f}" for name, value in now.losses.items())
            show(now.step, text=f"{losses}  {now.pairs_per_second:.0f} pairs/s")

        result = run(config, data, folder, resume=resume, on_progress=on_progress, stop=stop, context=context)
    if result.suffix == ".pt":
        console.say(f"Stopped; checkpoint in {result}. The same command with --resume continues.")
        return
    console.say(f"Weights in {result}; losses in {folder / 'loss.png'}; samples in {folder / 'samples'}")
    console.say(f"Next: edgefuse export {result}")


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
    require("train", "torch", "safetensors", "matplotlib")
    import torch

    from edgefuse.experiments.cells import pair_set
    from edgefuse.experiments.run import Experiment
    from edgefuse.experiments.run import reproduce as run
    from edgefuse.machine import keep_heap
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
