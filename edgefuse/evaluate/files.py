"""An evaluation as files for other programs: JSON with everything, CSV with one row a pair and candidate."""

import csv
import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edgefuse.errors import InputError
from edgefuse.evaluate.run import Evaluation
from edgefuse.evaluate.summary import Comparison, Mean, level_changes, summarise, summarise_degraded
from edgefuse.evaluate.tables import spread_table
from edgefuse.files import readable, replace_file
from edgefuse.metrics import CHANGE, PROTOCOLS, Parts, measure_named
from edgefuse.tables import TEXT_FORMATS

__all__ = ["as_dict", "check_table_file", "write_csv", "write_json", "write_table"]

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
