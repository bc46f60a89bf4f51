"""One training of an experiment, and its scores on the test sets; done once, then read from its folder."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from edgefuse.errors import InputError
from edgefuse.evaluate.candidates import FuseFunction, read_grey
from edgefuse.files import replace_file
from edgefuse.images import Image
from edgefuse.metrics import CORE_METRICS, score
from edgefuse.pairs import pair_folders
from edgefuse.runtime.engines.fuser import Fuser
from edgefuse.train.checkpoint import load_checkpoint, restore_model
from edgefuse.train.config import Paradigm, TrainConfig
from edgefuse.train.data import training_set
from edgefuse.train.loop import train
from edgefuse.train.machine import SINGLE_PROCESS, DistributedContext
from edgefuse.train.models.base import TorchEngine
from edgefuse.train.record import Progress

__all__ = ["Cell", "PairSet", "Scores", "pair_set", "run_cell", "score_pairs"]

VALIDATED = 8
"""Most pairs that a curve over the steps is of."""

Scores = dict[str, float]
"""Mean of each of the five metrics."""


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
        return [(stem, read_grey(ir, infrared=True), read_grey(vis)) for stem, ir, vis in pairs]

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

    def folder(self, seed: int) -> str:
        """Return the name of its run folder."""
        sets = "+".join(dict.fromkeys((self.ir.name, self.vis.name))).replace("/", ".")
        return f"{self.model}-{self.paradigm}-{sets}-{self.base or 'all'}-{self.pairs or 'all'}-{seed}"

    def config(self, budget: TrainConfig, seed: int) -> TrainConfig:
        """Return the settings of its training; what the cell leaves open is as in `budget`."""
        return replace(
            budget,
            model=self.model,
            paradigm=self.paradigm,
            ir=(str(self.ir.ir),),
            vis=(str(self.vis.vis),),
            base=self.base,
            pairs=self.pairs,
            seed=seed,
        )


def run_cell(
    cell: Cell,
    budget: TrainConfig,
    seed: int,
    tests: list[PairSet],
    runs: Path,
    *,
    protocol: str = "field",
    limit: int | None = None,
    sample_every: int | None = None,
    on_progress: Callable[[Progress], None] = lambda _: None,
    context: DistributedContext = SINGLE_PROCESS,
) -> dict[str, Scores]:
    """Train a cell, unless that was done before, and return its scores by test set.

    Args:
        cell: what to train.
        budget: steps, patches, learning rate and whatever else the cell leaves open.
        seed: of the base images, the pairs and the weights.
        tests: the test sets.
        runs: where the run folders are; one that was interrupted is resumed.
        protocol: a name in `edgefuse.metrics.PROTOCOLS`.
        limit: pairs of each test set to score.
        sample_every: steps between two sets of sample fusions; none but the last by default.
        on_progress: called with the mean losses every few steps.
        context: of one process; says where to train.
    """
    config = replace(cell.config(budget, seed), sample_every=sample_every or budget.steps)
    folder = runs / cell.folder(seed)
    weights = folder / f"{cell.model}.safetensors"
    data = training_set(config)
    config = replace(config, pairs=data.pairs)
    data.validation = data.validation[:: -(-len(data.validation) // VALIDATED) or 1]
    train(
        config,
        data,
        folder,
        resume=True,
        on_progress=on_progress,
        context=context,
    )
    known = folder / "scores.json"
    scores: dict[str, Scores] = json.loads(known.read_text("utf-8")) if known.exists() else {}
    fuser = Fuser(TorchEngine(restore_model(load_checkpoint(weights), weights), cell.model))
    for test in tests:
        key = _key(test, protocol, limit)
        if key not in scores:
            scores[key] = score_pairs(lambda _, ir, vis: fuser(ir, vis), test.pairs(limit), protocol)
            replace_file(known, partial(_write_json, scores))
    return {test.name: scores[_key(test, protocol, limit)] for test in tests}


def _key(test: PairSet, protocol: str, limit: int | None) -> str:
    return f"{test.ir.parent.resolve()} {protocol} {limit or 'all'}"


def _write_json(values: dict[str, Scores], path: Path) -> None:
    path.write_text(json.dumps(values, indent=2) + "\n", "utf-8")


def score_pairs(fuse: FuseFunction, pairs: list[tuple[str, Image, Image]], protocol: str) -> Scores:
    """Return the means of the five metrics over the pairs of a set."""
    scores = [score(fuse(stem, ir, vis), ir, vis, protocol, CORE_METRICS) for stem, ir, vis in pairs]
    return {name: float(np.mean([values[name] for values in scores])) for name in CORE_METRICS}
