"""`edgefuse train`."""

import os
import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import typer

from edgefuse.cli.console import progress, stdout
from edgefuse.cli.options import with_settings
from edgefuse.errors import InputError, unknown_name
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
    from edgefuse.memory import keep_heap
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
