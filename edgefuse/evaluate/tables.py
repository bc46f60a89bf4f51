"""What stands in the tables of an evaluation and is marked in them, and its files for other programs."""

import csv
import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edgefuse.degrade import DEGRADATIONS
from edgefuse.errors import InputError, counted
from edgefuse.evaluate.candidates import Candidate
from edgefuse.evaluate.run import Evaluation
from edgefuse.evaluate.summary import (
    FEWEST,
    Comparison,
    Mean,
    best,
    judging,
    level_changes,
    places,
    summarise,
    summarise_degraded,
)
from edgefuse.files import readable, replace_file
from edgefuse.metrics import CHANGE, FLICKER, PROTOCOLS, Parts, measure_named
from edgefuse.tables import TEXT_FORMATS, Cell, Column, Row, Table

OVERLAP = "Infrared is aligned by the rig file, and only where it covers the visible image is scored. "
WORST_SOURCE = "the second number is that of the source that is served worse."


def summary_table(evaluation: Evaluation) -> Table:
    """Return the means of every candidate; the best total and the best worst-served source are marked."""
    settings, pairs = evaluation.settings, counted(len(evaluation.pairs), "pair")
    return Table(
        f"{evaluation.ir} + {evaluation.vis}: {pairs}, protocol {settings.protocol}",
        [column_of(column) for column in settings.columns],
        mean_rows(evaluation.candidates, {c: _means(evaluation, c) for c in settings.columns}),
        f"{PROTOCOLS[settings.protocol].summary}. "
        f"{OVERLAP if settings.rig else ''}Means over the pairs; "
        + " ".join([WORST_SOURCE, *_empty_columns(evaluation)]),
    )


def spread_table(evaluation: Evaluation) -> Table:
    """Return the same means, each with its standard deviation over the pairs, to be put into a paper."""
    table = summary_table(evaluation)
    columns = {column: _means(evaluation, column) for column in evaluation.settings.columns}
    return Table(table.title, table.columns, mean_rows(evaluation.candidates, columns, _spread_cell))


def robust_tables(evaluation: Evaluation) -> list[Table]:
    """Return for each judging column a table of what is fused from clean and from degraded sources."""
    clean, degraded = summarise(evaluation), summarise_degraded(evaluation)
    protocol, pairs = evaluation.settings.protocol, counted(len(evaluation.pairs), "pair")
    tables = []
    for column in [*judging(evaluation), CHANGE.name] if degraded else ():
        means = {name: {c: row[column] for c, row in rows.items()} for name, rows in degraded.items()}
        if column != CHANGE.name:
            means = {"clean": {c: row[column] for c, row in clean.items()}} | means
        against = "of the output" if column == CHANGE.name else "against the clean sources"
        tables.append(
            Table(
                f"{column_of(column)} {against}, {pairs}, protocol {protocol}",
                [Column(name, DEGRADATIONS[name].summary if name in DEGRADATIONS else "") for name in means],
                mean_rows(evaluation.candidates, means, measure=column),
                WORST_SOURCE.capitalize() if measure_named(column).by_source else "",
            )
        )
    return [*tables, *([level_table(evaluation)] if degraded else [])]


def level_table(evaluation: Evaluation) -> Table:
    """Return how much each candidate depends on how bright infrared happens to be."""
    columns, rows = level_rows(evaluation.candidates, level_changes(evaluation))
    return Table(
        "Change of the output, RMS grey levels, when only infrared's level changes",
        columns,
        rows,
        "VIF_ir and VIF_vis: mean change of what each unchanged source keeps, percent.",
    )


def level_rows(
    candidates: Iterable[Candidate], changes: dict[str, dict[str, float]]
) -> tuple[list[Column], list[Row]]:
    """Return the columns and rows of `level_changes`; the least of each column is marked."""
    shown = {name: {head: f"{value:.1f}" for head, value in row.items()} for name, row in changes.items()}
    heads = list(next(iter(changes.values()), {}))
    competing = [c.name for c in candidates if c.competes and c.name in shown]
    least = {h: min(float(shown[name][h]) for name in competing) for h in heads if competing}

    def cell(name: str, head: str) -> Cell:
        text = shown[name][head]
        best = name in competing and float(text) == least[head]
        return Cell("–" if text == "nan" else text, "best" if best else "")

    columns = [Column(f"{head} %" if "VIF" in head else head, arrow="↓") for head in heads]
    return columns, [Row(name, [cell(name, h) for h in heads], name not in competing) for name in shown]


def degradations() -> str:
    """Return what the columns of `robust_tables` stand for."""
    return "; ".join(f"{d.name}: {d.summary}" for d in DEGRADATIONS.values()) + "."


def compare_table(comparison: Comparison) -> Table:
    """Return the paired differences of two candidates."""
    a, b = comparison.a, comparison.b
    rows = []
    for column, d in comparison.columns.items():
        digits = places(column)
        better = (d.mean > 0) == measure_named(column).higher_is_better
        rows.append(
            Row(
                str(column_of(column)),
                [
                    Cell(number(d.a, column)),
                    Cell(number(d.b, column)),
                    Cell(f"{d.mean:+.{digits}f}", ("better" if better else "worse") if d.certain else ""),
                    Cell("–" if math.isnan(d.low) else f"{d.low:+.{digits}f} … {d.high:+.{digits}f}"),
                    Cell(f"{d.wins:.0%}"),
                    Cell(str(d.pairs)),
                ],
            )
        )
    longest = max((d.block for d in comparison.columns.values()), default=1)
    what = "the pairs" if longest == 1 else f"blocks of up to {longest} consecutive frames"
    missing = any(math.isnan(d.low) for d in comparison.columns.values())
    return Table(
        f"{b} minus {a}, pair by pair, protocol {comparison.protocol}",
        [Column(name) for name in (a, b, "difference", "95 % interval", f"{b} better", "pairs")],
        rows,
        f"95 % interval of the mean difference, from resampling {what}; in colour where it leaves out 0."
        + f" None from fewer than {FEWEST} pairs, or blocks of frames." * missing,
    )


def problem_table(evaluation: Evaluation) -> Table:
    """Return what was left out, and why."""
    rows = [Row(problem.stem, [Cell(problem.reason)]) for problem in evaluation.problems]
    return Table(f"Left out: {len(rows)} of the stems", [Column("why")], rows)


def number(value: float, column: str) -> str:
    """Return a value with the decimals of its column; a dash where it is undefined."""
    return "–" if math.isnan(value) else f"{value:.{places(column)}f}"


def unit(column: str) -> str:
    """Return the unit of a column in brackets, nothing for a ratio."""
    text = measure_named(column).unit
    return "" if text == "1" else f" ({text})"


def column_of(column: str) -> Column:
    """Return the head of a column, with its direction."""
    measure = measure_named(column)
    return Column(column, measure.title + unit(column), "↑" if measure.higher_is_better else "↓")


def _means(evaluation: Evaluation, column: str) -> dict[str, Mean]:
    return {name: row[column] for name, row in summarise(evaluation).items()}


def mean_rows(
    candidates: Iterable[Candidate],
    columns: dict[str, dict[str, Mean]],
    cell: Callable[[Mean, str, bool, bool], Cell] | None = None,
    measure: str | None = None,
) -> list[Row]:
    """Return a row for each candidate that has means; the best of each column is marked.

    Args:
        candidates: whose rows they are.
        columns: means by head of a column, then candidate.
        cell: (mean, column, whether it is the best, whether its worst-served source is the best) → cell.
        measure: what all columns hold; None: each what its head says.
    """
    fill = cell or _cell
    shared = [c for c in candidates if all(c.name in means for means in columns.values())]
    competing = {c.name for c in shared if c.competes}
    rows: dict[str, list[Cell]] = {c.name: [] for c in shared}
    for head, means in columns.items():
        column = measure or head
        judged = {name: mean for name, mean in means.items() if name in competing}
        winners = [best(judged, column, part) for part in ("total", "worst_source")]
        for name, cells in rows.items():
            cells.append(fill(means[name], column, *(name in w for w in winners)))
    return [Row(name, cells, name not in competing) for name, cells in rows.items()]


def _cell(mean: Mean, column: str, wins: bool, worst_wins: bool) -> Cell:
    small = "" if math.isnan(mean.worst_source) else number(mean.worst_source, column)
    return Cell(number(mean.total, column), "best" if wins else "", small, "best" if worst_wins else "")


def _spread_cell(mean: Mean, column: str, wins: bool, _worst_wins: bool) -> Cell:
    spread = "" if math.isnan(mean.spread) else f" ± {number(mean.spread, column)}"
    return Cell(number(mean.total, column) + spread, "best" if wins else "")


def _empty_columns(evaluation: Evaluation) -> Iterable[str]:
    """Sentences on what a table of the means does not show: empty columns and what was passed over."""
    defined = {c for pair in evaluation.pairs for row in pair.scores.values() for c in row}
    if "Target" not in defined:
        yield "Target is – because no infrared image has a thermal target."
    if evaluation.settings.video and FLICKER.name not in defined:
        scored = {pair.stem for pair in evaluation.pairs}
        follows = any(pair.before in scored for pair in evaluation.pairs)
        still = "less than a quarter of every frame is at rest"
        yield f"{FLICKER.name} is – because {still if follows else 'no two frames in a row were scored'}."
    if count := evaluation.passed_over:
        what = "1 stem that lacks" if count == 1 else f"{count} stems that lack"
        yield f"Not counted towards the limit: {what} a counterpart in some folder."


PARTS = ("ir", "vis", "worst_source")


def as_dict(evaluation: Evaluation, comparison: Comparison | None = None) -> dict[str, Any]:
    """Return an evaluation as plain values for JSON; what is undefined is None.

    Args:
        evaluation: the scores.
        comparison: from `compare`.
    """
    settings, means = evaluation.settings, summarise(evaluation)
    result = {
        "protocol": {"name": settings.protocol, "summary": PROTOCOLS[settings.protocol].summary},
        "rig": settings.rig and asdict(settings.rig),
        "ir": str(evaluation.ir),
        "vis": str(evaluation.vis),
        "columns": {
            c: {
                "title": measure_named(c).title,
                "unit": measure_named(c).unit,
                "higher_is_better": measure_named(c).higher_is_better,
            }
            for c in settings.columns
        },
        "candidates": [
            {
                "name": c.name,
                "kind": c.kind,
                "source": c.source,
                "mean": _rows(means[c.name]),
            }
            for c in evaluation.candidates
        ],
        "degraded": {
            degradation: {name: _rows(row) for name, row in by_name.items()}
            for degradation, by_name in summarise_degraded(evaluation).items()
        },
        "level_changes": level_changes(evaluation),
        "compare": _compared(comparison) if comparison else None,
        "pairs": [
            {
                "stem": pair.stem,
                "scores": {name: _rows(row) for name, row in pair.scores.items()},
                "degraded": {
                    degradation: {name: _rows(row) for name, row in by_name.items()}
                    for degradation, by_name in pair.degraded.items()
                },
            }
            for pair in evaluation.pairs
        ],
        "problems": [problem._asdict() for problem in evaluation.problems],
    }
    return _storable(result)


def write_json(path: Path, evaluation: Evaluation, comparison: Comparison | None = None) -> None:
    """Write `as_dict` to a file; `InputError` if it cannot be written."""
    text = json.dumps(as_dict(evaluation, comparison), indent=1, ensure_ascii=False, allow_nan=False)
    replace_file(path, lambda partial: partial.write_text(text + "\n", "utf-8"))


def write_csv(path: Path, evaluation: Evaluation) -> None:
    """Write one row a pair and candidate; `InputError` if it cannot be written.

    Columns: protocol, stem, candidate, sources (`clean` or the name of a degradation), then each measure,
    followed by NAME_ir, NAME_vis and NAME_worst_source if it is by source. What is undefined is empty.
    """
    columns = [*evaluation.settings.columns, *([CHANGE.name] if evaluation.settings.robust else [])]
    header = ["protocol", "stem", "candidate", "sources"]
    for column in columns:
        header += [column, *(f"{column}_{part}" for part in PARTS if measure_named(column).by_source)]
    header = list(dict.fromkeys(header))  # VIF_ir is a measure and a part of VIF

    def write(partial: Path) -> None:
        with partial.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, header, restval="")
            writer.writeheader()
            for pair in evaluation.pairs:
                for sources, by_name in {"clean": pair.scores, **pair.degraded}.items():
                    for name, row in by_name.items():
                        fixed = (evaluation.settings.protocol, pair.stem, readable(name), sources)
                        writer.writerow({**dict(zip(header, fixed, strict=False)), **_flat(row)})

    replace_file(path, write)


def write_table(path: Path, evaluation: Evaluation) -> None:
    """Write the means with their standard deviations as Markdown, LaTeX or CSV, by the file's suffix.

    Raises:
        InputError: another suffix, or it cannot be written.
    """
    check_table_file(path)
    text = readable(TEXT_FORMATS[path.suffix.lower()](spread_table(evaluation)))
    replace_file(path, lambda partial: partial.write_text(text, "utf-8"))


def check_table_file(path: Path) -> None:
    """Raise `InputError` unless the suffix of a file is that of a format for tables."""
    if path.suffix.lower() not in TEXT_FORMATS:
        known = ", ".join(TEXT_FORMATS)
        raise InputError(
            f"{path}: a table is written as Markdown, LaTeX or CSV, so the suffix must be one of {known}"
        )


def _compared(comparison: Comparison) -> dict[str, Any]:
    columns = {column: difference._asdict() for column, difference in comparison.columns.items()}
    return {"a": comparison.a, "b": comparison.b, "columns": columns}


def _rows(row: Mapping[str, Parts | Mean]) -> dict[str, dict[str, Any]]:
    return {column: parts._asdict() for column, parts in row.items()}


def _flat(row: dict[str, Parts]) -> dict[str, float | None]:
    cells: dict[str, float | None] = {}
    for column, parts in row.items():
        cells[column] = parts.total
        if measure_named(column).by_source:
            cells |= {f"{column}_{part}": getattr(parts, part) for part in PARTS}
    return cells


def _storable(value: Any) -> Any:
    """Return plain values without what JSON lacks: NaN, and names that are not UTF-8."""
    if isinstance(value, dict):
        return {_storable(key): _storable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_storable(item) for item in value]
    if isinstance(value, str):
        return readable(value)
    return None if isinstance(value, float) and math.isnan(value) else value
