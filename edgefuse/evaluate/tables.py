"""An evaluation as tables for the terminal."""

import math
from typing import NamedTuple

from rich.markup import escape
from rich.table import Table

from edgefuse.degrade import DEGRADATIONS
from edgefuse.evaluate.compare import FEWEST, Comparison
from edgefuse.evaluate.run import Evaluation
from edgefuse.evaluate.summary import (
    Mean,
    best,
    judging,
    level_changes,
    places,
    summarise,
    summarise_degraded,
)
from edgefuse.metrics import FLICKER, PROTOCOLS, measure_named

__all__ = [
    "Titled",
    "compare_table",
    "counted",
    "degradations",
    "level_table",
    "notes",
    "resampling",
    "robust_tables",
    "summary_table",
]


class Titled(NamedTuple):
    """A table, and the lines above and below it. They may be longer than the terminal is wide."""

    title: str
    table: Table
    caption: str


def summary_table(evaluation: Evaluation, stacked: bool = False) -> Titled:
    """Return the means of every candidate, the best of each column and the best worst-served source marked.

    Args:
        evaluation: the scores.
        stacked: put the worst-served source's mean below the total and not beside it, for narrow terminals.
    """
    settings, summary = evaluation.settings, summarise(evaluation)
    winners = {c: (best(summary, c), best(summary, c, "worst_source")) for c in settings.columns}
    table = _table()
    for column in settings.columns:
        arrow = "↑" if measure_named(column).higher_is_better else "↓"
        table.add_column(f"{column} {arrow}", justify="right", no_wrap=True)
    for candidate in evaluation.candidates:
        name = candidate.name
        cells = [_cell(summary[name][c], c, stacked, *(name in w for w in winners[c])) for c in winners]
        table.add_row(escape(name), *cells)
    return Titled(
        f"{escape(str(evaluation.ir))} + {escape(str(evaluation.vis))}: {counted(evaluation)}, "
        f"protocol [bold]{settings.protocol}[/]",
        table,
        f"{PROTOCOLS[settings.protocol].summary}. Means over the pairs; "
        + " ".join(["the second number is that of the source that is served worse.", *notes(evaluation)]),
    )


def counted(evaluation: Evaluation) -> str:
    """Return how many pairs were scored, in words."""
    return f"{len(evaluation.pairs)} pair{'s' * (len(evaluation.pairs) != 1)}"


def notes(evaluation: Evaluation) -> list[str]:
    """Return sentences on what a table of the means does not show: empty columns and what was passed over."""
    found = []
    defined = {c for pair in evaluation.pairs for row in pair.scores.values() for c in row}
    if "Target" not in defined:
        found.append("Target is – because no infrared image has a thermal target.")
    if evaluation.settings.video and FLICKER.name not in defined:
        scored = {pair.stem for pair in evaluation.pairs}
        follows = any(pair.before in scored for pair in evaluation.pairs)
        why = (
            "less than a quarter of every frame is at rest"
            if follows
            else "no two frames in a row were scored"
        )
        found.append(f"{FLICKER.name} is – because {why}.")
    if count := evaluation.passed_over:
        what = "1 stem that lacks" if count == 1 else f"{count} stems that lack"
        found.append(f"The limit passed over {what} a counterpart in some folder.")
    return found


def robust_tables(evaluation: Evaluation, stacked: bool = False) -> list[Titled]:
    """Return for each judging column a table of what is fused from clean and from degraded sources.

    Args:
        evaluation: the scores.
        stacked: as for `summary_table`.
    """
    clean, degraded = summarise(evaluation), summarise_degraded(evaluation)
    tables = []
    for column in judging(evaluation) if degraded else ():
        table = _table()
        for name in ("clean", *degraded):
            table.add_column(name, justify="right", no_wrap=True)
        for candidate in evaluation.candidates:
            if candidate.fuses:
                means = [row[candidate.name][column] for row in (clean, *degraded.values())]
                table.add_row(escape(candidate.name), *(_cell(m, column, stacked) for m in means))
        title = (
            f"{column} against the clean sources, {counted(evaluation)}, "
            f"protocol [bold]{evaluation.settings.protocol}[/]"
        )
        note = "The second number is that of the source that is served worse."
        tables.append(Titled(title, table, note if measure_named(column).by_source else ""))
    return tables


def level_table(evaluation: Evaluation) -> Titled:
    """Return how much each candidate depends on how bright infrared happens to be."""
    rows = level_changes(evaluation)
    table = _table()
    for name in next(iter(rows.values()), {}):
        table.add_column(f"{name} %" if "VIF" in name else name, justify="right", no_wrap=True)
    for name, row in rows.items():
        table.add_row(escape(name), *("–" if math.isnan(value) else f"{value:.1f}" for value in row.values()))
    return Titled(
        "Change of the output, RMS grey levels, when only infrared's level changes; lower is better",
        table,
        "VIF_ir and VIF_vis: mean change of what each unchanged source keeps, percent.",
    )


def degradations() -> str:
    """Return what the columns of `robust_tables` stand for."""
    return "; ".join(f"[bold]{d.name}[/]: {d.summary}" for d in DEGRADATIONS.values()) + "."


def compare_table(comparison: Comparison) -> Titled:
    """Return the paired differences of two candidates."""
    a, b = comparison.a, comparison.b
    table = _table()
    for column in (a, b, "difference", "95 % interval", f"{b} better", "pairs"):
        table.add_column(escape(column), justify="right")
    for column, d in comparison.columns.items():
        digits = places(column)
        colour = "green" if (d.mean > 0) == measure_named(column).higher_is_better else "red"
        mean = f"{d.mean:+.{digits}f}"
        interval = "–" if math.isnan(d.low) else f"{d.low:+.{digits}f} … {d.high:+.{digits}f}"
        table.add_row(
            column,
            _number(d.a, column),
            _number(d.b, column),
            f"[bold {colour}]{mean}[/]" if d.certain else mean,
            interval,
            f"{d.wins:.0%}",
            str(d.pairs),
        )
    return Titled(
        f"{escape(b)} minus {escape(a)}, pair by pair, protocol [bold]{comparison.protocol}[/]",
        table,
        resampling(comparison),
    )


def resampling(comparison: Comparison) -> str:
    """Return in words how the intervals of a comparison were made."""
    longest = max((d.block for d in comparison.columns.values()), default=1)
    what = "the pairs" if longest == 1 else f"blocks of up to {longest} consecutive frames"
    missing = any(math.isnan(d.low) for d in comparison.columns.values())
    return (
        f"95 % interval of the mean difference, from resampling {what}; in colour where it leaves out 0."
        + f" None from fewer than {FEWEST} pairs, or blocks of frames." * missing
    )


def _table() -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("", no_wrap=True)
    return table


def _cell(mean: Mean, column: str, stacked: bool, wins: bool = False, worst_wins: bool = False) -> str:
    total, worst_source = _number(mean.total, column), ""
    if not math.isnan(mean.worst_source):
        style = "green" if worst_wins else "dim"
        worst_source = f"[{style}]{_number(mean.worst_source, column)}[/]"
    between = "\n" if worst_source and stacked else " " * bool(worst_source)
    return (f"[bold green]{total}[/]" if wins else total) + between + worst_source


def _number(value: float, column: str) -> str:
    return "–" if math.isnan(value) else f"{value:.{places(column)}f}"
