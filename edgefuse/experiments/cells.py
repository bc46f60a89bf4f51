"""One training of an experiment, and what came of it; done once, then read from the experiment's folder."""

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from edgefuse.errors import InputError
from edgefuse.evaluate.candidates import FuseFunction, read_grey, read_grey_infrared
from edgefuse.files import replace_file
from edgefuse.images import Image
from edgefuse.metrics import CORE_METRICS, score
from edgefuse.pairs import pair_folders
from edgefuse.runtime.engines.fuser import Fuser
from edgefuse.settings import to_plain
from edgefuse.train.cache import ImageCache, cache_folders
from edgefuse.train.checkpoint import load_checkpoint, restore_model
from edgefuse.train.config import Paradigm, TrainConfig
from edgefuse.train.data import TrainingSet, training_set
from edgefuse.train.loop import FREE, MOVED, train
from edgefuse.train.losses import Batch, active_losses, total_loss
from edgefuse.train.machine import SINGLE_PROCESS, DistributedContext
from edgefuse.train.models.base import FusionNetwork, TorchEngine
from edgefuse.train.record import CsvLog, Progress

VALIDATED = 8
"""Most pairs that a curve over the steps is of."""
POINTS = 8
"""Steps at which a run is looked at."""
TRAINED_PATCHES, TEST_PATCHES = 16, 48
"""Most patches that the learning curves are of."""

Scores = dict[str, float]
"""Mean of each of the five metrics."""
PairScores = dict[str, list[float]]
"""Of each of the five metrics, the values of all pairs of a test set, in the order of their stems."""


@dataclass(frozen=True)
class PairSet:
    """A folder with `ir/` and `vis/`, images of equal stem being aligned."""

    name: str
    ir: Path
    vis: Path

    def pairs(self, limit: int | None = None) -> list[tuple[str, Image, Image]]:
        """Read (stem, infrared, luma), uint8 `[H, W]` each, of `limit` pairs spread over the set, or all."""
        pairs = pair_folders(self.ir, self.vis).pairs
        if limit is not None and limit < len(pairs):
            pairs = [pairs[k * len(pairs) // limit] for k in range(limit)]
        return [(stem, read_grey_infrared(ir), read_grey(vis)) for stem, ir, vis in pairs]

    def __len__(self) -> int:
        """Return the number of aligned pairs."""
        return len(pair_folders(self.ir, self.vis).pairs)


def pair_set(folder: Path) -> PairSet:
    """Take a folder for a set, named by its last two parts.

    Raises:
        InputError: it has no `ir` or no `vis` in it.
    """
    for side in ("ir", "vis"):
        if not (folder / side).is_dir():
            raise InputError(f"{folder} has no folder {side!r}: a set is a folder with ir and vis in it")
    return PairSet("/".join(folder.resolve().parts[-2:]), folder / "ir", folder / "vis")


@dataclass(frozen=True)
class Cell:
    """What is trained on what."""

    model: str
    paradigm: Paradigm
    ir: PairSet
    vis: PairSet
    base: int | None = None
    pairs: int | None = None

    def config(self, budget: TrainConfig, seed: int, epochs: float | None = None) -> TrainConfig:
        """Return the settings of its training; what the cell leaves open is as in `budget`.

        With `epochs`, it is trained for that many, at most for the steps of the budget: an epoch draws as
        many pairs as the cell has, so that more pairs mean more steps.
        """
        steps = budget.steps
        if epochs is not None:
            steps = min(steps, math.ceil(epochs * (self.pairs or len(self.ir)) / budget.batch))
        return replace(
            budget,
            model=self.model,
            paradigm=self.paradigm,
            ir=(str(self.ir.ir),),
            vis=(str(self.vis.vis),),
            base=self.base,
            pairs=self.pairs,
            steps=steps,
            seed=seed,
        )


def run_name(cell: Cell, config: TrainConfig) -> str:
    """Return the name of a run and of its folder."""
    sets = "+".join(dict.fromkeys((cell.ir.name, cell.vis.name))).replace("/", ".")
    size = f"{cell.base or 'all'}-{config.base_of}-{cell.pairs or 'all'}"
    return f"{cell.model}-{cell.paradigm}-{sets}-{size}-{config.steps}-{config.seed}"


class Results:
    """What came of the runs of an experiment, in a JSON file that is written after every run.

    A run that was killed is resumed from its checkpoint, one that is in the file is not repeated.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.runs: dict[str, dict[str, Any]] = json.loads(path.read_text("utf-8")) if path.exists() else {}

    def save(self, name: str, run: dict[str, Any]) -> None:
        """Enter a run, one line of the file."""
        self.runs[name] = run
        lines = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in self.runs.items()]
        text = "{\n" + ",\n".join(lines) + "\n}\n"
        replace_file(self.path, lambda partial: partial.write_text(text, "utf-8"))


def run_cell(
    cell: Cell,
    config: TrainConfig,
    tests: list[PairSet],
    results: Results,
    *,
    protocol: str = "field",
    limit: int | None = None,
    on_progress: Callable[[Progress], None] = lambda _: None,
    context: DistributedContext = SINGLE_PROCESS,
) -> dict[str, PairScores]:
    """Train a cell, unless that was done before, and return its scores by test set.

    Args:
        cell: what to train.
        config: how, see `Cell.config`.
        tests: the test sets; the first one gives the patches of the learning curve.
        results: where what came of it is entered; the run folders are beside it, in `runs`.
        protocol: a name in `edgefuse.metrics.PROTOCOLS`.
        limit: pairs of each test set to score.
        on_progress: called with the mean losses every few steps.
        context: of one process; says where to train.
    """
    name = run_name(cell, config)
    folder = results.path.parent / "runs" / name
    run = results.runs.get(name)
    settings = _digest(config)
    if run is not None and run["settings"] != settings:
        raise InputError(
            f"{results.path} has {name} with other settings of the training: give another --out, or the same "
            "settings"
        )
    if run is None:
        run = results.runs[name] = _train(cell, config, tests[0], folder, on_progress, context)
    keys = {test.name: f"{test.name} {protocol} {limit or 'all'}" for test in tests}
    missing = [test for test in tests if keys[test.name] not in run["scores"]]
    if missing:
        weights = folder / f"{cell.model}.safetensors"
        fuser = Fuser(TorchEngine(restore_model(load_checkpoint(weights), weights), cell.model))
        for test in missing:
            found = score_pairs(lambda _, ir, vis: fuser(ir, vis), _pairs(test, limit), protocol)
            run["scores"][keys[test.name]] = {k: [round(v, 5) for v in values] for k, values in found.items()}
        results.save(name, run)
    return {test: run["scores"][key] for test, key in keys.items()}


def _train(
    cell: Cell,
    config: TrainConfig,
    test: PairSet,
    folder: Path,
    on_progress: Callable[[Progress], None],
    context: DistributedContext,
) -> dict[str, Any]:
    started = time.process_time()
    data = training_set(config, _images(cell.ir, cell.vis))
    config = replace(config, pairs=data.pairs)
    data.validation = data.validation[:: -(-len(data.validation) // VALIDATED) or 1]
    curve = LearningCurve(config, data, test, folder)
    train(config, data, folder, resume=True, on_progress=on_progress, on_step=curve, context=context)
    return {
        "model": cell.model,
        "paradigm": cell.paradigm,
        "ir": cell.ir.name,
        "vis": cell.vis.name,
        "base": cell.base,
        "base_of": config.base_of,
        "pairs": data.pairs,
        "distinct": data.distinct_pairs(config.steps),
        "steps": config.steps,
        "seed": config.seed,
        "settings": _digest(config),
        "cpu_s": round(time.process_time() - started, 1),
        "curve": curve.log.rows(),
        "scores": {},
    }


def _digest(config: TrainConfig) -> str:
    """Return a hash of the settings that decide the weights; which images they are, the run's name says."""
    plain = {key: value for key, value in to_plain(config).items() if key not in FREE + MOVED + ("pairs",)}
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:12]


@cache
def _images(ir: PairSet, vis: PairSet) -> tuple[ImageCache, ImageCache]:
    return cache_folders((ir.ir,), (vis.vis,))


@cache
def _pairs(test: PairSet, limit: int | None) -> list[tuple[str, Image, Image]]:
    return test.pairs(limit)


class LearningCurve:
    """Loss and VIF of trained and of test patches while a network is trained, as `curve.csv`.

    All are aligned pairs where there are any, whatever the paradigm trains on.
    """

    def __init__(self, config: TrainConfig, data: TrainingSet, test: PairSet, folder: Path) -> None:
        pairs = data.pairing.aligned() or data.pairing.sample(TRAINED_PATCHES, "curve")
        count = min(TRAINED_PATCHES, len(pairs))
        chosen = [pairs[k * len(pairs) // count] for k in range(count)]
        of_test = [patch for _, *pair in _pairs(test, TEST_PATCHES) for patch in _middle(pair, config.patch)]
        self.patches = {"train": data.patches(chosen, config.steps), "test": torch.stack(of_test)}
        self.losses = active_losses(config.losses, teacher=False, adversarial=False)
        self.config, self.every = config, max(1, config.steps // POINTS)
        folder.mkdir(parents=True, exist_ok=True)
        columns = ("step", *(f"{name}_{value}" for name in self.patches for value in ("loss", "VIF")))
        self.log = CsvLog(folder / "curve.csv", columns, config.steps)  # keeps what an interrupted run left
        self.known = {row["step"] for row in self.log.rows()}

    def __call__(self, step: int, network: FusionNetwork) -> None:
        """Look at the network if it is time to."""
        if step in self.known or (step % self.every and step != self.config.steps):
            return
        row: dict[str, float] = {"step": step}
        for name, patches in self.patches.items():
            row[f"{name}_loss"], row[f"{name}_VIF"] = self._look(network, patches)
        self.log.append(row)

    def _look(self, network: FusionNetwork, patches: Tensor) -> tuple[float, float]:
        x = patches.to(next(network.parameters()).device).float() / 255
        with torch.no_grad():
            fused = network(x).clamp(0, 1)
            loss, _ = total_loss(Batch(fused, x[:, :1], x[:, 1:]), self.config.losses, self.losses)
        grey = (fused[:, 0] * 255).round().byte().cpu().numpy()
        scores = [
            score(one, ir, vis, "field", ("VIF",))["VIF"]
            for one, (ir, vis) in zip(grey, patches.numpy(), strict=True)
        ]
        return round(float(loss), 6), round(float(np.mean(scores)), 5)


def _middle(pair: list[Image], side: int) -> Iterator[Tensor]:
    """Yield the patch `[2, side, side]` in the middle of a pair, if that is large enough."""
    top, left = ((size - side) // 2 for size in pair[0].shape[:2])
    if min(top, left) >= 0:
        yield torch.from_numpy(np.stack(pair)[:, top : top + side, left : left + side].copy())


def score_pairs(fuse: FuseFunction, pairs: list[tuple[str, Image, Image]], protocol: str) -> PairScores:
    """Return the five metrics of the pairs of a set."""
    scores = [score(fuse(stem, ir, vis), ir, vis, protocol, CORE_METRICS) for stem, ir, vis in pairs]
    return {name: [values[name] for values in scores] for name in CORE_METRICS}


def means(scores: PairScores) -> Scores:
    """Return the means over the pairs."""
    return {name: float(np.mean(values)) for name, values in scores.items()}
