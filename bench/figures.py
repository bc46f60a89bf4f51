"""Bring the numbers that benches wrote as JSON into the tables of README and docs: `make figures`.

In a document, `<!-- figures: NAME -->` and `<!-- end of figures -->` stand around what a function of FIGURES
makes. Nothing between them is written by hand, and a test fails where a document differs from its JSON.
"""

import json
import math
import re
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

from bench.write_benchmarks import TABLES as BENCHMARK_TABLES
from edgefuse.evaluate import BASELINES, Candidate, Mean, baseline, model
from edgefuse.evaluate.tables import column_of, level_rows, mean_rows, number
from edgefuse.tables import Cell, Column, Row, Table, as_markdown

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
BLOCK = re.compile(r"(<!-- figures: ([\w/.-]+) -->\n).*?(<!-- end of figures -->)", re.DOTALL)
SHORT = ("VIF", "VIF_ir", "VIF_vis", "Qabf", "SSIM", "Qcb", "Detail_vis", "Target")
SHORT_ROWS = ("nano", "cnn", "maximum", "laplacian", "matched-laplacian-vis", "copy-ir")


def documents() -> list[Path]:
    """Return every document that has figures in it."""
    files = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]
    return [path for path in files if BLOCK.search(path.read_text("utf-8"))]


def filled(text: str) -> str:
    """Return a document with its figures as the JSON has them."""
    return BLOCK.sub(lambda found: f"{found[1]}{FIGURES[found[2]]()}{found[3]}", text)


def _json(name: str) -> dict[str, Any]:
    return json.loads((DOCS / name).read_text("utf-8"))


def _quality(set_name: str, columns: Iterable[str] = (), names: Iterable[str] = ()) -> str:
    """Return the means of a set on clean sources."""
    found = _json("quality.json")
    part = found["sets"][set_name]["clean"]
    rows = {name: row for name, row in part["means"]["clean"].items() if not names or name in names}
    chosen = list(columns or part["columns"])
    means = {column: {name: _mean(row[column]) for name, row in rows.items()} for column in chosen}
    table = Table("", [column_of(c) for c in chosen], mean_rows(_candidates(rows), means))
    return _captioned(table, f"{set_name}, {part['pairs']} pairs", found)


def _degraded(set_name: str, column: str) -> str:
    """Return one column of a set over all conditions."""
    found = _json("quality.json")
    part = found["sets"][set_name]["degraded"]
    means = {
        condition: {name: _mean(row[column]) for name, row in rows.items()}
        for condition, rows in part["means"].items()
        if all(column in row for row in rows.values())
    }
    table = Table(
        "", [Column(c) for c in means], mean_rows(_candidates(means["noise"]), means, measure=column)
    )
    return _captioned(table, f"{column_of(column)}, {set_name}, {part['pairs']} pairs", found)


def _levels(set_name: str) -> str:
    found = _json("quality.json")
    part = found["sets"][set_name]["degraded"]
    changes = part["level_changes"]
    table = Table("", *level_rows(_candidates(changes), changes))
    return _captioned(
        table, f"Change of the output, RMS grey levels, {set_name}, {part['pairs']} pairs", found
    )


def _peers(set_name: str) -> str:
    rows = _json("peers.json")["sets"][set_name]
    columns = [
        c for c in ("EN", "MI", "VIF", "VIF_ir", "VIF_vis", "Qabf", "SSIM", "Qcb", "Qcv") if _has(rows, c)
    ]
    table = Table(
        "",
        [*(column_of(c) for c in columns), Column("output"), Column("source")],
        [
            Row(
                row["name"],
                [
                    *(Cell(number(row.get(c, math.nan), c)) for c in columns),
                    *(Cell(row[key]) for key in ("output", "source")),
                ],
            )
            for row in rows
        ],
    )
    return as_markdown(table)


def _has(rows: list[dict[str, Any]], column: str) -> bool:
    return any(column in row for row in rows)


def _benchmark(name: str) -> str:
    facts = _json("benchmarks.json")
    rows = [row for row in facts["rows"] if row["table"] == name]
    return "".join(f"{line}\n" for line in BENCHMARK_TABLES[name](rows) if line.startswith("|"))


def _captioned(table: Table, caption: str, found: dict[str, Any]) -> str:
    where = f"measured {found['measured']} at commit {found['commit']}"
    return f"{as_markdown(table)}\n{caption}; {where}, `python -m bench.quality`.\n"


def _candidates(names: Iterable[str]) -> list[Candidate]:
    return [baseline(name) if name in BASELINES else model(name) for name in names]


def _mean(values: dict[str, Any]) -> Mean:
    known: dict[str, Any] = {key: math.nan if value is None else value for key, value in values.items()}
    return Mean(**known)


FIGURES: dict[str, Callable[[], str]] = {
    **{f"benchmarks/{name}": partial(_benchmark, name) for name in BENCHMARK_TABLES},
    **{f"peers/{name}": partial(_peers, name) for name in ("roadscene/test", "llvip/test")},
}
for _set in ("roadscene/test", "llvip/test", "m3svd/0115_1834"):
    FIGURES[f"quality/{_set}"] = partial(_quality, _set)
    FIGURES[f"short/{_set}"] = partial(_quality, _set, SHORT, SHORT_ROWS)
for _set in ("roadscene/test", "llvip/test"):
    FIGURES[f"level/{_set}"] = partial(_levels, _set)
    for _column in ("VIF", "VIF_ir", "VIF_vis", "Qabf", "Target", "Change"):
        FIGURES[f"degraded/{_set}/{_column}"] = partial(_degraded, _set, _column)


def main() -> None:
    """Write the documents."""
    for path in documents():
        text = path.read_text("utf-8")
        if (new := filled(text)) != text:
            path.write_text(new, "utf-8")
            print(f"{path.relative_to(ROOT)}: figures are new")


if __name__ == "__main__":
    main()
