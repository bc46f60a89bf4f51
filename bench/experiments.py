"""The figures of docs/experiments.md, from what `edgefuse reproduce` entered into results.json files.

python -m bench.experiments FOLDER    # takes over FOLDER/PART/results.json, draws the curves
make figures                          # brings the tables into the page
"""

import datetime
import json
import statistics
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgefuse.experiments.grids import improvement, published
from edgefuse.metrics import CORE_METRICS
from edgefuse.tables import Cell, Column, Row, Table, as_markdown

DOCS = Path(__file__).parents[1] / "docs"
OUT = DOCS / "experiments.json"
EPOCHS, CAP = 100, 3000
"""The runs that hold epochs equal, and the most steps of one of them."""
LENGTHS = ("100 epochs", "400 steps", "1,500 steps", "6,000 steps")
BASES = (15, 30, 60, 150)
SEEDS = 5
PARTS = ("pairing", "table1-steps", "table1-epochs", "table2")
"""Folders of results; the first is the grid of Table 3."""
KEPT = ("paradigm", "ir", "vis", "base", "base_of", "pairs", "distinct", "steps", "seed")
RESAMPLES = 10_000
LITTLE = 1.0
"""Percent: a gain that is not worth a statement about its order."""

Run = dict[str, Any]


class Pairing(NamedTuple):
    """The runs of both paradigms with one base and length; equal places of the two lists have one seed."""

    sptp: list[Run]
    aptp: list[Run]

    @property
    def seeds(self) -> int:
        """How many seeds both have."""
        return len(self.sptp)

    def scores(self, metric: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the scores `[seeds, pairs]` of both."""
        both = [np.array([_scores(run)[metric] for run in runs]) for runs in self]
        return both[0], both[1]

    def gains(self) -> list[float]:
        """Return for each seed the mean relative gain of the five metrics, in percent, as the paper does."""
        return [improvement(_means(old), _means(new)) for old, new in zip(*self, strict=True)]


def _scores(run: Run, test: str = "") -> dict[str, list[float]]:
    """Return the scores of all pairs of the test set whose name begins so: of the only one, if not told."""
    (scores,) = (scores for name, scores in run["scores"].items() if name.startswith(test))
    return scores


def _means(run: Run, test: str = "") -> dict[str, float]:
    return {metric: float(np.mean(values)) for metric, values in _scores(run, test).items()}


def _part(name: str) -> dict[str, Any]:
    """Return a part's `date`, `commit` and `runs`."""
    return json.loads(OUT.read_text("utf-8"))[name]


def length_of(run: Run) -> list[str]:
    """Return which lengths a run is of: one may end at the steps of another length by its epochs."""
    steps = {400: "400 steps", 1500: "1,500 steps", 6000: "6,000 steps"}
    found = [steps[run["steps"]]] if run["steps"] in steps else []
    by_epochs = min(CAP, -(-EPOCHS * run["pairs"] // 8))
    return [*found, *(["100 epochs"] if run["steps"] == by_epochs else [])]


def pairings() -> dict[tuple[str, str, int], Pairing]:
    """Return all pairings that have a seed, by what the base is of, length and base."""
    runs = list(_part("pairing")["runs"].values())
    found = {}
    for of in ("patches", "images"):
        for length in LENGTHS:
            for base in BASES:
                here = {
                    (run["paradigm"], run["seed"]): run
                    for run in runs
                    if (run["base_of"], run["base"]) == (of, base) and length in length_of(run)
                }
                seeds = sorted({s for p, s in here if p == "sptp"} & {s for p, s in here if p == "aptp"})
                if seeds:
                    found[of, length, base] = Pairing(
                        *([here[p, s] for s in seeds] for p in ("sptp", "aptp"))
                    )
    return found


def gains() -> str:
    """Return APTP's mean gain over SPTP, one column a base, with the paper's."""
    known = pairings()
    rows = [Row("the paper, 100 epochs of patches", [Cell(f"{gain:+.2f}") for gain in papers_gains()])]
    for of, length in dict.fromkeys((of, length) for of, length, _ in known):
        cells = [known.get((of, length, base)) for base in BASES]
        rows.append(Row(f"{of}, {length}", [_gain(cell) for cell in cells]))
    return _captioned(Table("", [Column(f"base {base}") for base in BASES], rows))


def _captioned(table: Table, part: str = "pairing") -> str:
    facts = _part(part)
    where = f"to {facts['date']} with the code of commit {facts['commit']}"
    return f"{as_markdown(table)}\nTrained and measured {where}, by the commands of this page.\n"


def papers_gains() -> list[float]:
    """Return the gains that the paper prints for its bases."""
    printed = {row.base: row.gain for row in published("table3") if row.gain is not None}
    return [printed[base] for base in BASES]


def _gain(pairing: Pairing | None) -> Cell:
    if pairing is None:
        return Cell("not run")
    return Cell(f"{_spread(pairing.gains(), '+.1f')} ({_seeds(pairing.seeds)})")


def _seeds(count: int) -> str:
    return f"{count} seed{'s' * (count > 1)}"


def answer() -> str:
    """Return the answer in three sentences: epochs equal, steps equal, and images in place of patches."""
    known = pairings()
    steps = [length for length in reversed(LENGTHS) if length.endswith("steps")]
    texts = [
        "**Epochs equal, as in the paper**, on fixed patches: APTP "
        f"{_sentence(known, 'patches', LENGTHS[0])}.",
        *(
            f"**Steps equal** ({length}), on the same patches: APTP {_sentence(known, 'patches', length)}."
            for length in _first([length for length in steps if _bases(known, "patches", length)])
        ),
        *(
            f"**Fresh crops of whole images** in place of fixed patches, {length}: APTP "
            f"{_sentence(known, 'images', length)}."
            for length in [
                LENGTHS[0],
                *_first([length for length in steps if _bases(known, "images", length)]),
            ]
            if _bases(known, "images", length)
        ),
    ]
    runs = sum(2 * pairing.seeds for pairing in known.values())
    if runs < (full := 2 * 2 * len(LENGTHS) * len(BASES) * SEEDS):
        texts.append(
            f"Of the {full} trainings of the whole grid, {runs} have been run: take it as provisional."
        )
    return "\n\n".join(texts) + "\n"


def _first(lengths: list[str]) -> list[str]:
    return lengths[:1]


def _bases(known: dict[tuple[str, str, int], Pairing], of: str, length: str) -> list[int]:
    return [base for base in BASES if (of, length, base) in known]


def _sentence(known: dict[tuple[str, str, int], Pairing], of: str, length: str) -> str:
    """Say what APTP gains, whether that falls as the base grows, and how many steps more it takes."""
    bases = _bases(known, of, length)
    means = [statistics.mean(known[of, length, base].gains()) for base in bases]
    seeds = {known[of, length, base].seeds for base in bases}
    values = ", ".join(f"{gain:+.1f} %" for gain in means)
    text = f"against SPTP {values} at base {', '.join(map(str, bases))}"
    text += f" ({_seeds(min(seeds))}{' at least' * (len(seeds) > 1)})"
    if bases == list(BASES):
        falls = all(a > b for a, b in pairwise(means))
        if max(map(abs, means)) < LITTLE:
            text += f", less than {LITTLE:g} % either way"
        else:
            text += (
                ", the less the larger the base, as in the paper"
                if falls
                else ", not less and less as in the paper"
            )
    old, new = (known[of, length, bases[0]].sptp[0]["steps"], known[of, length, bases[0]].aptp[0]["steps"])
    return text + (
        f"; at base {bases[0]} it takes {new:,} steps where SPTP takes {old:,}" if old != new else ""
    )


def tests() -> str:
    """Return the differences of APTP and SPTP, paired by seed and image, with 95 % intervals."""
    rows = []
    for (of, length, base), pairing in pairings().items():
        cells = [Cell(str(pairing.seeds))]
        for metric in CORE_METRICS:
            old, new = pairing.scores(metric)
            difference = (new - old).mean(0)  # of each image, over the seeds
            low, high = interval(difference)
            certain = low > 0 or high < 0
            text = f"{difference.mean():+.3f} ({low:+.3f} … {high:+.3f})"
            cells.append(Cell(text, "best" if certain else ""))
        rows.append(Row(f"{of}, {length}, base {base}", cells))
    return _captioned(Table("", [Column("seeds"), *map(Column, CORE_METRICS)], rows))


def interval(differences: NDArray[np.float64]) -> tuple[float, float]:
    """Return the 95 % interval of the mean, from resampling the images."""
    places = np.random.default_rng(0).integers(0, len(differences), (RESAMPLES, len(differences)))
    low, high = np.percentile(differences[places].mean(1), (2.5, 97.5))
    return float(low), float(high)


def cells() -> str:
    """Return all runs: steps, pairs, scores, and loss and VIF of trained and of test patches."""
    rows = []
    for (of, length, base), pairing in pairings().items():
        for name, runs in zip(("sptp", "aptp"), pairing, strict=True):
            first = runs[0]
            texts = [f"{first['steps']:,}", f"{first['distinct']:,} of {first['pairs']:,}", str(len(runs))]
            texts += [_spread([float(np.mean(_scores(run)[m])) for run in runs]) for m in CORE_METRICS]
            for value in ("loss", "VIF"):
                ends = ([run["curve"][f"{side}_{value}"][-1] for run in runs] for side in SIDES)
                texts += [f"{statistics.mean(end):.3f}" for end in ends]
            rows.append(Row(f"{of}, {length}, base {base}, {name}", [*map(Cell, texts)]))
    heads = ["steps", "pairs drawn", "seeds", *CORE_METRICS]
    heads += [f"{value}, {side} patches" for value in ("loss", "VIF") for side in SIDES]
    return _captioned(Table("", [*map(Column, heads)], rows))


SIDES = ("train", "test")


def _spread(values: list[float], form: str = ".3f") -> str:
    spread = f" ± {statistics.stdev(values):{form.lstrip('+')}}" if len(values) > 1 else ""
    return f"{statistics.mean(values):{form}}{spread}"


def rows(part: str, test: str = "") -> str:
    """Return one row for each training of a part: its pairs, its scores, and the mean gain over its first."""
    groups: dict[tuple[Any, ...], list[Run]] = {}
    for run in sorted(_part(part)["runs"].values(), key=lambda run: run["seed"]):
        key = tuple(run[name] for name in ("paradigm", "ir", "vis", "base", "pairs"))
        groups.setdefault(key, []).append(run)
    means = {key: [_means(run, test) for run in runs] for key, runs in groups.items()}
    best = {m: max(statistics.mean(v[m] for v in each) for each in means.values()) for m in CORE_METRICS}
    old = next(iter(means.values()))
    table = []
    for key, new in means.items():
        paradigm, ir, vis, base, pairs = key
        run = groups[key][0]
        cells = [Cell(f"{value:,}") for value in (base, pairs, run["distinct"], run["steps"], len(new))]
        for metric in CORE_METRICS:
            values = [each[metric] for each in new]
            cells.append(Cell(_spread(values), "best" if statistics.mean(values) == best[metric] else ""))
        gains = [improvement(a, b) for a, b in zip(old, new, strict=True)]
        cells.append(Cell("" if new is old else _spread(gains, "+.1f")))
        table.append(Row(f"{paradigm}, {ir}" + f" × {vis}" * (ir != vis), cells))
    heads = ["base", "pairs", "drawn", "steps", "seeds", *CORE_METRICS, "mean gain, %"]
    return _captioned(Table("", [*map(Column, heads)], table), part)


FIGURES: dict[str, Callable[[], str]] = {
    "answer": answer,
    "gains": gains,
    "tests": tests,
    "cells": cells,
    "table1-steps": partial(rows, "table1-steps"),
    "table1-epochs": partial(rows, "table1-epochs"),
    "table2, roadscene/test": partial(rows, "table2", "roadscene/test"),
    "table2, llvip/test": partial(rows, "table2", "llvip/test"),
}


def draw(out: Path) -> None:
    """Draw loss and VIF of trained and of test patches over the steps, of all bases with equal steps."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    known = pairings()
    chosen = [length for length in reversed(LENGTHS) if ("patches", length, 15) in known]
    shown = [key for key in known if key[0] == "patches" and key[1] == chosen[0]] if chosen else []
    figure = Figure(figsize=(3.4 * max(1, len(shown)), 5.6), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(2, max(1, len(shown)), squeeze=False)
    for column, key in enumerate(shown):
        for name, runs in zip(("sptp", "aptp"), known[key], strict=True):
            color = {"sptp": "tab:blue", "aptp": "tab:green"}[name]
            for line, value in enumerate(("loss", "VIF")):
                for side, style in (("train", ":"), ("test", "-")):
                    curves = [run["curve"][f"{side}_{value}"] for run in runs]
                    steps = runs[0]["curve"]["step"]
                    label = f"{name}, {side} patches"
                    grid[line][column].plot(steps, np.mean(curves, 0), style, color=color, label=label)
                grid[line][column].set_title(f"base {key[2]}: {value}", fontsize=10)
                grid[line][column].grid(alpha=0.25)
        grid[1][column].set_xlabel("step", fontsize=8)
    if shown:
        figure.legend(
            *grid[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8
        )
        figure.suptitle(f"{shown[0][0]}, {shown[0][1]}")
    figure.savefig(out, dpi=90)


def _short(run: Run) -> Run:
    """Return what the page needs of a run: the curve by columns, numbers to five places."""

    def rounded(columns: dict[str, list[float]]) -> dict[str, list[float]]:
        return {name: [round(value, 5) for value in values] for name, values in columns.items()}

    curve = {name: [row[name] for row in run["curve"]] for name in run["curve"][0]}
    scores = {test: rounded(columns) for test, columns in run["scores"].items()}
    return {key: run[key] for key in KEPT} | {"curve": rounded(curve), "scores": scores}


def main(folder: Path, commit: str = "") -> None:
    """Take over the results; `commit` is that of the code which trained, the present one by default."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=7"]
    commit = commit or subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    known = json.loads(OUT.read_text("utf-8"))
    for part in PARTS:
        if (results := folder / part / "results.json").exists():
            date = datetime.date.fromtimestamp(results.stat().st_mtime).isoformat()
            runs = json.loads(results.read_text("utf-8"))
            short = {name: _short(run) for name, run in runs.items()}
            known[part] = {"date": date, "commit": commit, "runs": short}
    # One run a line, so that a new one changes a line only.
    parts = []
    for part, facts in known.items():
        lines = (
            f"{json.dumps(n)}: {json.dumps(run, separators=(',', ':'))}" for n, run in facts["runs"].items()
        )
        head = f'{json.dumps(part)}: {{"date": "{facts["date"]}", "commit": "{facts["commit"]}", "runs": {{\n'
        parts.append(head + ",\n".join(lines) + "\n}}")
    OUT.write_text("{\n" + ",\n".join(parts) + "\n}\n", "utf-8")
    draw(OUT.with_suffix(".png"))


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
