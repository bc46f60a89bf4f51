"""An evaluation as files for other programs: JSON with everything, CSV with one row a pair and candidate."""

import csv
import json
import math
from pathlib import Path
from typing import Any

from edgefuse.evaluate.compare import Comparison
from edgefuse.evaluate.run import Evaluation
from edgefuse.evaluate.summary import summarise, summarise_degraded
from edgefuse.files import replace_file
from edgefuse.metrics import MEASURES, PROTOCOLS, Parts

__all__ = ["as_dict", "write_csv", "write_json"]


def as_dict(evaluation: Evaluation, comparison: Comparison | None = None) -> dict[str, Any]:
    """Return an evaluation as plain values for JSON; what is undefined is None.

    Args:
        evaluation: the scores.
        comparison: from `compare`.
    """
    settings, means = evaluation.settings, summarise(evaluation)
    result = {
        "protocol": {"name": settings.protocol, "summary": PROTOCOLS[settings.protocol].summary},
        "ir": str(evaluation.ir),
        "vis": str(evaluation.vis),
        "columns": {
            c: {
                "title": MEASURES[c].title,
                "unit": MEASURES[c].unit,
                "higher_is_better": MEASURES[c].higher_is_better,
            }
            for c in settings.columns
        },
        "candidates": [
            {
                "name": c.name,
                "kind": c.kind,
                "source": c.source,
                "mean": {column: mean._asdict() for column, mean in means[c.name].items()},
            }
            for c in evaluation.candidates
        ],
        "degraded": summarise_degraded(evaluation),
        "compare": _compared(comparison) if comparison else None,
        "pairs": [
            {
                "stem": pair.stem,
                "scores": {
                    name: {column: parts._asdict() for column, parts in row.items()}
                    for name, row in pair.scores.items()
                },
                "degraded": pair.degraded,
            }
            for pair in evaluation.pairs
        ],
        "problems": [problem._asdict() for problem in evaluation.problems],
    }
    return _without_nan(result)


def write_json(path: Path, evaluation: Evaluation, comparison: Comparison | None = None) -> None:
    """Write `as_dict` to a file; `InputError` if it cannot be written."""
    text = json.dumps(as_dict(evaluation, comparison), indent=1, ensure_ascii=False, allow_nan=False)
    replace_file(path, lambda partial: partial.write_text(text + "\n", "utf-8"))


def write_csv(path: Path, evaluation: Evaluation) -> None:
    """Write one row a pair and candidate; `InputError` if it cannot be written.

    Columns: protocol, stem, candidate, then each measure, followed by its parts as NAME_ir and NAME_vis if it
    has any. What is undefined is empty.
    """
    columns = evaluation.settings.columns
    header = ["protocol", "stem", "candidate"]
    for column in columns:
        header += [column, *((f"{column}_ir", f"{column}_vis") if MEASURES[column].by_source else ())]

    def write(partial: Path) -> None:
        with partial.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, header, restval="")
            writer.writeheader()
            for pair in evaluation.pairs:
                for name, row in pair.scores.items():
                    fixed = {"protocol": evaluation.settings.protocol, "stem": pair.stem, "candidate": name}
                    writer.writerow({**fixed, **_flat(row)})

    replace_file(path, write)


def _compared(comparison: Comparison) -> dict[str, Any]:
    columns = {column: difference._asdict() for column, difference in comparison.columns.items()}
    return {"a": comparison.a, "b": comparison.b, "columns": columns}


def _flat(row: dict[str, Parts]) -> dict[str, float]:
    cells = {}
    for column, parts in row.items():
        cells[column] = parts.total
        if parts.ir is not None and parts.vis is not None:
            cells |= {f"{column}_ir": parts.ir, f"{column}_vis": parts.vis}
    return cells


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value
