"""The paper's experiments: its own figures, and which trainings rerun a table or figure, the tables.

The figures (Tables 1 to 4 of "Beyond Strict Pairing", Deng et al., CVPR 2026, in `published.csv`) are of
images stretched to 0..255 each, on other test sets and after far longer training: what can be compared is how
rows of one table relate, not their values.
"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from itertools import permutations

import numpy as np

from edgefuse.errors import InputError
from edgefuse.experiments.cells import Cell, PairSet, Scores
from edgefuse.metrics import CORE_METRICS
from edgefuse.train.config import Paradigm


@dataclass(frozen=True)
class PublishedRow:
    """One row for one test set and network."""

    table: str
    test: str
    mode: str
    infrared: str
    visible: str
    base: int | None
    pairs: int | None
    model: str
    scores: dict[str, float]
    gain: float | None = None
    """What Table 3 prints as the mean gain over the row above, in percent."""


@cache
def published(table: str) -> tuple[PublishedRow, ...]:
    """Return the rows of `table1` to `table4`, in the paper's order."""
    text = (files(__package__) / "published.csv").read_text("utf-8")
    return tuple(
        PublishedRow(
            table,
            row["set"],
            row["mode"],
            row["infrared"],
            row["visible"],
            int(row["base"]) if row["base"] else None,
            int(row["pairs"]) if row["pairs"] else None,
            row["model"],
            {name: float(row[name]) for name in CORE_METRICS},
            float(row["gain"]) if row["gain"] else None,
        )
        for row in csv.DictReader(text.splitlines())
        if row["table"] == table
    )


@dataclass(frozen=True)
class Row:
    """A training, and the paper's scores in the same place of its table, on MSRS."""

    cell: Cell
    paper: dict[str, float] | None
    gain: float | None = None
    """What the paper prints as its mean gain over the row above, in percent; None: nothing."""


def table1(sets: Sequence[PairSet], models: Sequence[str], bases: Sequence[int]) -> list[Row]:
    """SPTP, UPTP and APTP on the largest base, as many pairs as images, then 50 and 100 times as many.

    The paper's row of 15,000 strictly paired images needs such a set, and is left out.
    """
    one, base = sets[0], max(bases)
    settings: list[tuple[Paradigm, int]] = [
        ("sptp", 1),
        ("uptp", 1),
        ("uptp", 50),
        ("uptp", 100),
        ("aptp", 100),
    ]
    return [
        Row(Cell(model, mode, one, one, base, base * times), _paper("table1", mode, model, 150, 150 * times))
        for model in models
        for mode, times in settings
    ]


def table2(sets: Sequence[PairSet], models: Sequence[str], bases: Sequence[int]) -> list[Row]:
    """SPTP on every set, then UPTP with infrared images of one set and visible images of another.

    All have the base of the smallest set, so that only the images differ. The paper's sets are others, so
    no row of its table belongs to one of these.
    """
    if len(sets) < 2:
        raise InputError("table2 crosses sets: give --train at least twice")
    base = min(max(bases), *map(len, sets))
    strict = [Cell(models[0], "sptp", one, one, base, base) for one in sets]
    crossed = [Cell(models[0], "uptp", ir, vis, base, 50 * base) for ir, vis in permutations(sets, 2)]
    return [Row(cell, None) for cell in strict + crossed]


def table3(sets: Sequence[PairSet], models: Sequence[str], bases: Sequence[int]) -> list[Row]:
    """SPTP on few pairs, and APTP on all combinations of the same few images."""
    one = sets[0]

    def few(base: int) -> list[tuple[Paradigm, int]]:
        return [("sptp", base), ("aptp", base * base)]

    return [
        Row(
            Cell(model, mode, one, one, base, pairs),
            _paper("table3", mode, model, base, pairs),
            _printed_gain(mode, model, base),
        )
        for model in models
        for base in bases
        for mode, pairs in few(base)
    ]


def table4(sets: Sequence[PairSet], models: Sequence[str], bases: Sequence[int]) -> list[Row]:
    """The networks, trained by APTP on infrared images of the last set and visible ones of the first."""
    ir, vis = sets[-1], sets[0]
    base = min(max(bases), len(ir), len(vis))
    return [Row(Cell(model, "aptp", ir, vis, base, 100 * base), None) for model in models]


def fig2(sets: Sequence[PairSet], models: Sequence[str], bases: Sequence[int]) -> list[Row]:
    """SPTP against UPTP on the largest base, for every network."""
    one, base = sets[0], max(bases)
    modes: tuple[Paradigm, ...] = ("sptp", "uptp")
    return [Row(Cell(model, mode, one, one, base, base), None) for model in models for mode in modes]


def fig3(sets: Sequence[PairSet], models: Sequence[str], bases: Sequence[int]) -> list[Row]:
    """SPTP against UPTP for the first network."""
    return fig2(sets, models[:1], bases)


GRIDS = {"table1": table1, "table2": table2, "table3": table3, "table4": table4, "fig2": fig2, "fig3": fig3}
"""What each experiment trains. All take the training sets, the networks and the base sizes."""


def _paper(table: str, mode: str, model: str, base: int, pairs: int) -> dict[str, float] | None:
    for row in published(table):
        if (row.test, row.mode, row.model, row.base, row.pairs) == ("MSRS", mode, model, base, pairs):
            return row.scores
    return None


def _printed_gain(mode: str, model: str, base: int) -> float | None:
    rows = (row for row in published("table3") if (row.mode, row.model, row.base) == (mode, model, base))
    return next((row.gain for row in rows), None)


RowScores = list[dict[str, Scores]]
"""Of one row: scores by test set, for every seed."""


def rows_table(
    rows: Sequence[Row], drawn: Sequence[tuple[int, int]], results: Sequence[RowScores], test: str
) -> str:
    """Return mean ± standard deviation over the seeds, one row of the table a training.

    `drawn` has the steps of each and the different pairs that they drew.
    """
    paper = any(row.paper for row in rows)
    head = ["network", "mode", "infrared", "visible", "base", "pairs", "drawn", "steps", *CORE_METRICS]
    lines = [head + [f"paper {name}" for name in CORE_METRICS] * paper]
    for row, (steps, distinct), seeds in zip(rows, drawn, results, strict=True):
        cell = row.cell
        own = [cell.model, cell.paradigm, cell.ir.name, cell.vis.name, str(cell.base), str(cell.pairs)]
        own += [str(distinct), str(steps)]
        own += [_spread([scores[test][name] for scores in seeds]) for name in CORE_METRICS]
        if paper:
            own += [f"{row.paper[name]:.2f}" if row.paper else "–" for name in CORE_METRICS]
        lines.append(own)
    return _markdown(lines, 4)


def relation(title: str, before: RowScores, after: RowScores, test: str, paper: float | None) -> list[str]:
    """Return a table row of what changes from one training to another, seed by seed, and the paper's gain."""
    values = [title]
    for name in CORE_METRICS:
        gains = [new[test][name] - old[test][name] for old, new in zip(before, after, strict=True)]
        values.append(_spread(gains, sign="+"))
    gains = [improvement(old[test], new[test]) for old, new in zip(before, after, strict=True)]
    values.append(_spread(gains, sign="+", digits=1) + " %")
    return [*values, "–" if paper is None else f"{paper:+.2f} %"]


def improvement(before: Scores, after: Scores) -> float:
    """Return the mean relative gain of the five metrics in percent, the paper's "Avg. Imp." (Table 3)."""
    return float(np.mean([100 * (after[name] / before[name] - 1) for name in CORE_METRICS]))


def relations_table(lines: list[list[str]]) -> str:
    """Return `relation`s as one table."""
    return _markdown([["", *CORE_METRICS, "mean gain", "paper's"], *lines], 1)


def others_table(scores: dict[str, Scores], test: str) -> str:
    """Return methods that were not trained here, and the paper's rows where the test set is one of its."""
    lines = [["method", *CORE_METRICS]]
    lines += [[name, *(f"{values[m]:.3f}" for m in CORE_METRICS)] for name, values in scores.items()]
    for row in published("table4"):
        if row.test.lower() in test.lower():
            figures = (f"{row.scores[m]:.2f}" for m in CORE_METRICS)
            lines.append([f"{row.model} (the paper's figures)", *figures])
    return _markdown(lines, 1)


def _spread(values: Sequence[float], sign: str = "", digits: int = 3) -> str:
    text = f"{np.mean(values):{sign}.{digits}f}"
    return text if len(values) == 1 else f"{text} ± {np.std(values, ddof=1):.{digits}f}"


def _markdown(lines: list[list[str]], names: int) -> str:
    rule = ["---"] * names + ["---:"] * (len(lines[0]) - names)
    return "\n".join("| " + " | ".join(line) + " |" for line in [lines[0], rule, *lines[1:]])
