"""Running one experiment: train its rows over the seeds, then write table, figures and numbers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edgefuse.errors import InputError, counted, unknown_name
from edgefuse.evaluate.baselines import BASELINES
from edgefuse.evaluate.candidates import Candidate, baseline, folder
from edgefuse.experiments import figures
from edgefuse.experiments.cells import POINTS, PairSet, Results, means, run_cell, run_name, score_pairs
from edgefuse.experiments.grids import (
    GRIDS,
    Row,
    RowScores,
    improvement,
    others_table,
    relation,
    relations_table,
    rows_table,
)
from edgefuse.files import replace_file
from edgefuse.metrics import PROTOCOLS
from edgefuse.pairs import images_by_stem, pair_folders
from edgefuse.train.config import TrainConfig
from edgefuse.train.machine import SINGLE_PROCESS, DistributedContext
from edgefuse.train.models import MODELS
from edgefuse.train.record import Progress


@dataclass(frozen=True)
class Experiment:
    """What `edgefuse reproduce` runs.

    Raises:
        InputError: an unknown name, no sets, or sizes below 1.
    """

    name: str
    train: tuple[PairSet, ...]
    tests: tuple[PairSet, ...]
    models: tuple[str, ...]
    bases: tuple[int, ...]
    seeds: int
    budget: TrainConfig
    """Steps, patches, learning rate and losses of every training."""
    epochs: float | None = None
    """Train every row for so many, at most for the steps of the budget; None: all for these steps."""
    protocol: str = "field"
    limit: int | None = None
    """Pairs of each test set to score; None: all."""
    others: tuple[Path, ...] = ()
    """Folders of images that other methods fused, for table4."""

    def __post_init__(self) -> None:
        if self.name not in GRIDS:
            raise InputError(unknown_name("experiment", self.name, GRIDS))
        if not self.train or not self.tests:
            raise InputError("give at least one --train and one --test set")
        if self.protocol not in PROTOCOLS:
            raise InputError(unknown_name("protocol", self.protocol, PROTOCOLS))
        for model in self.models:
            if model not in MODELS:
                raise InputError(unknown_name("model", model, MODELS))
        if not self.models or not self.bases or min(*self.bases, self.seeds) < 1:
            raise InputError("give at least one model, base size and seed, all sizes at least 1")
        places: dict[str, Path] = {}
        for one in (*self.train, *self.tests):
            if places.setdefault(one.name, one.ir.resolve()) != one.ir.resolve():
                raise InputError(f"two sets are called {one.name}: a set is named by its last two folders")
        if self.limit is not None and self.limit < 1:
            raise InputError(f"--limit is {self.limit}, it must be at least 1")
        if self.epochs is not None and not self.epochs > 0:
            raise InputError(f"--epochs is {self.epochs:g}, it must be above 0")

    def rows(self) -> list[Row]:
        """Return what is to be trained."""
        return GRIDS[self.name](self.train, self.models, self.bases)

    def config(self, row: Row, seed: int) -> TrainConfig:
        """Return the settings of a training."""
        config = row.cell.config(self.budget, seed, self.epochs)
        if not self.name.startswith("fig"):
            return replace(config, sample_every=config.steps)
        first = self.tests[0]
        every = max(1, config.steps // POINTS)
        return replace(config, sample_every=every, val_ir=(str(first.ir),), val_vis=(str(first.vis),))

    def folder(self, row: Row, seed: int) -> str:
        """Return the name of a training's folder in `runs`."""
        return run_name(row.cell, self.config(row, seed))


def reproduce(
    experiment: Experiment,
    out: Path,
    on_progress: Callable[[str, Progress], None] = lambda _name, _step: None,
    context: DistributedContext = SINGLE_PROCESS,
) -> Path:
    """Run an experiment and return its report, a Markdown file.

    The folder gets the report, plots, `runs/` with every training, and `results.json` with what came of
    each, entered as soon as it is done: steps, pairs that were drawn, learning curve, scores of every test
    pair. Trainings that are in there are not repeated, so an interrupted experiment continues, and several
    experiments can share a folder.

    Args:
        experiment: what to run.
        out: the folder; made if it does not exist.
        on_progress: called every few steps with the name of the training and its losses.
        context: of one process; says where to train.
    """
    for test in experiment.tests:  # what cannot be scored fails before hours of training
        test.pairs(1)
        for candidate in _candidates(experiment, test):
            candidate.open()
        for path in experiment.others:
            fused = images_by_stem(_of_set(path, test))
            if missing := [stem for stem, _, _ in pair_folders(test.ir, test.vis).pairs if stem not in fused]:
                raise InputError(f"{path} has no image for {missing[0]!r} of {test.name}")
    out.mkdir(parents=True, exist_ok=True)
    rows, results = experiment.rows(), Results(out / "results.json")
    scores: list[RowScores] = [[] for _ in rows]
    for seed in range(experiment.seeds):  # all rows with one seed first: an answer comes early
        for row, seeds in zip(rows, scores, strict=True):
            config = experiment.config(row, seed)
            name = run_name(row.cell, config)
            found = run_cell(
                *(row.cell, config, list(experiment.tests), results),
                protocol=experiment.protocol,
                limit=experiment.limit,
                on_progress=lambda step, name=name: on_progress(name, step),  # type: ignore[misc]
                context=context,
            )
            seeds.append({test: means(values) for test, values in found.items()})
    _draw(experiment, rows, scores, out)
    report = out / f"{experiment.name}.md"
    text = _report(experiment, rows, scores, results)
    replace_file(report, lambda partial: partial.write_text(text, "utf-8"))
    return report


def _draw(experiment: Experiment, rows: Sequence[Row], results: Sequence[RowScores], out: Path) -> None:
    name, runs = experiment.name, out / "runs"
    if name == "table3":
        for test in experiment.tests:
            for model in experiment.models:
                chosen = [k for k, row in enumerate(rows) if row.cell.model == model]
                figures.metric_against_base(
                    [rows[k] for k in chosen],
                    [results[k] for k in chosen],
                    test.name,
                    out / f"table3-{model}-{test.name.replace('/', '.')}.png",
                )
    if name == "fig2":
        folders = [[runs / experiment.folder(row, s) for s in range(experiment.seeds)] for row in rows]
        figures.convergence(rows, folders, out / "fig2.png")
    if name == "fig3":
        ((_, ir, _), *_) = experiment.tests[0].pairs(1)
        shape = ir.shape[0], ir.shape[1]
        figures.evolution(rows, [runs / experiment.folder(row, 0) for row in rows], shape, out / "fig3.png")


def _report(
    experiment: Experiment, rows: Sequence[Row], scores: Sequence[RowScores], results: Results
) -> str:
    budget = experiment.budget
    length = f"{budget.steps:,} steps"
    if experiment.epochs is not None:
        length = f"{experiment.epochs:g} epochs, at most {length},"
    parts = [
        f"# {experiment.name}",
        f"{length} of {budget.batch} patches of {budget.patch}×{budget.patch} for every row, its base of "
        f"{budget.base_of}, {counted(experiment.seeds, 'seed')} (mean ± standard deviation); protocol "
        f"`{experiment.protocol}`. The paper's figures are those of its own sets, with every image stretched "
        "to 0..255.",
    ]
    drawn = [
        (run["steps"], run["distinct"]) for run in (results.runs[experiment.folder(row, 0)] for row in rows)
    ]
    for test in experiment.tests:
        shown = min(experiment.limit or len(test), len(test))
        parts += [f"## {test.name} ({counted(shown, 'pair')})", rows_table(rows, drawn, scores, test.name)]
        if lines := _relations(experiment, rows, scores, test.name):
            parts += ["Seed by seed:", relations_table(lines)]
        if experiment.name == "table4":
            parts.append(others_table(_others(experiment, test), test.name))
    return "\n\n".join(parts) + "\n"


def _relations(
    experiment: Experiment, rows: Sequence[Row], results: Sequence[RowScores], test: str
) -> list[list[str]]:
    """Compare the rows that the paper compares: one that is strictly paired with the next of its base."""
    lines: list[list[str]] = []
    strict: int | None = None
    for k, row in enumerate(rows):
        cell = row.cell
        if cell.paradigm == "sptp":
            strict = k
            continue
        if strict is None:
            continue
        before = rows[strict].cell
        if (before.model, before.base) != (cell.model, cell.base) or experiment.name == "table2":
            continue
        title = f"{cell.model}, base {cell.base}: {cell.paradigm} of {cell.pairs} pairs over sptp"
        old, gain = rows[strict].paper, row.gain
        if gain is None and old and row.paper:
            gain = improvement(old, row.paper)
        lines.append(relation(title, results[strict], results[k], test, gain))
    return lines


def _others(experiment: Experiment, test: PairSet) -> dict[str, dict[str, float]]:
    pairs = test.pairs(experiment.limit)
    chosen = _candidates(experiment, test)
    return {c.name: means(score_pairs(c.open(), pairs, experiment.protocol)) for c in chosen}


def _candidates(experiment: Experiment, test: PairSet) -> list[Candidate]:
    """Return the baseline fusions and the folders of other methods, with a subfolder a test set or none."""
    others = [replace(folder(_of_set(path, test)), name=path.name) for path in experiment.others]
    return [*(baseline(name) for name in BASELINES), *others]


def _of_set(path: Path, test: PairSet) -> Path:
    inner = path / test.name.replace("/", ".")
    return inner if inner.is_dir() else path
