"""Enter a report of bench_models.py into docs/benchmarks.json; `make figures` makes the tables of it.

    python -m bench.write_benchmarks bench-models.json

Cases of the report replace the same cases of earlier ones, so that a part can be measured alone, such as
`-k nano`. Each case knows its run: day, commit, machine. A table with cases of several runs says so.
"""

import datetime
import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable
from itertools import chain
from pathlib import Path
from typing import Any

from bench.graphs import cost
from edgefuse.runtime.timing import percentiles
from edgefuse.tables import Cell, Column, Table, as_markdown
from edgefuse.tables import Row as Line

OUT = Path(__file__).parents[1] / "docs" / "benchmarks.json"
ENGINES = {"cpu": "ONNX Runtime", "openvino": "OpenVINO"}
PACKAGES = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}
NETWORKS = ("nano", "cnn", "transformer")
IDLE = 0.9
"""Share of a core that one thread gets on a machine that does nothing else, at least."""
Row = dict[str, Any]


def enter(report: Path, document: Path = OUT) -> None:
    """Enter the cases of a report of pytest-benchmark, and what the networks cost on any machine."""
    content = json.loads(report.read_text())
    facts = json.loads(document.read_text("utf-8")) if document.exists() else {"sessions": {}, "rows": []}
    commit = ["git", "describe", "--always", "--dirty", "--abbrev=7"]
    name = content["datetime"][:16]
    rows = [_row(entry["extra_info"]) | {"session": name} for entry in content["benchmarks"]]
    facts["sessions"][name] = {
        "date": datetime.datetime.fromisoformat(content["datetime"]).date().isoformat(),
        "commit": subprocess.run(commit, capture_output=True, text=True, check=True).stdout.strip(),
        "machine": content["machine_info"]["edgefuse"],
        "one_thread_gets": statistics.median(
            [row["cores_used"] for row in rows if row["threads"] == 1] or [1.0]
        ),
    }
    old = {json.dumps(_key(row)): row for row in facts["rows"]}
    facts["rows"] = list((old | {json.dumps(_key(row)): row for row in rows}).values())
    kept = {row["session"] for row in facts["rows"]}
    facts["sessions"] = {key: session for key, session in facts["sessions"].items() if key in kept}
    facts["networks"] = {network: cost(network) for network in NETWORKS}
    document.write_text(json.dumps(facts, indent=1) + "\n", "utf-8")


def _row(extra: dict[str, Any]) -> Row:
    """Return the facts of a case with what its times come to: milliseconds, and ratios turn by turn."""
    row = dict(extra["facts"])
    turns = {name: [statistics.median(turn) for turn in times] for name, times in extra["times"].items()}
    for name, times in extra["times"].items():
        seen = list(chain(*times))
        median, p95, _ = (round(1000 * value, 3) for value in percentiles(seen))
        row[name] = {"median": median, "least": round(1000 * min(seen), 3), "p95": p95, "runs": len(seen)}
        if "naive" in turns and name != "naive":
            ratios = [slow / fast for slow, fast in zip(turns["naive"], turns[name], strict=True)]
            row[name]["ratio"] = [round(value, 2) for value in statistics.quantiles(ratios, n=4)]
    return row


def _key(row: Row) -> list[Any]:
    return [row.get(k) for k in ("table", "model", "size", "precision", "engine", "form", "threads")]


def table(name: str, facts: dict[str, Any]) -> str:
    """Return one of TABLES as Markdown, with the line that says when and on what it was measured."""
    rows = [row for row in facts["rows"] if row["table"] == ("peak" if name == "networks" else name)]
    sessions = dict.fromkeys(row["session"] for row in rows)
    caption = _caption([facts["sessions"][session] for session in sessions]) if sessions else ""
    return f"{as_markdown(TABLES[name](rows, facts))}\n{caption}\n"


def _caption(sessions: list[dict[str, Any]]) -> str:
    texts = []
    for run in sessions:
        machine = run["machine"]
        versions = [f"{name} {machine['versions'][key]}" for key, name in PACKAGES.items()]
        text = (
            f"{run['date']} at commit {run['commit']} on {machine['cpu']}, {machine['usable_cores']} cores, "
        )
        text += ", ".join(versions)
        if run["one_thread_gets"] < IDLE:
            text += f" (busy with other work: one thread got {run['one_thread_gets']:.0%} of a core)"
        texts.append(text + (f"; {run['note']}" if "note" in run else ""))
    return f"Measured {'; other rows '.join(texts)}. `make bench-models`."


def _networks(_rows: list[Row], facts: dict[str, Any]) -> Table:
    peak = {
        row["threads"]: row["flops"] / row["run"]["median"] for row in facts["rows"] if row["table"] == "peak"
    }
    times = {
        row["model"]: row["run"]["median"]
        for row in facts["rows"]
        if (row["table"], row["threads"], row.get("precision"), row.get("engine"))
        == ("models", 1, "fp32", "cpu")
        and row["size"] == [640, 480]
    }
    lines = []
    for name, costs in facts["networks"].items():
        share = "–"
        if 1 in peak and name in times:
            share = f"{2 * costs['multiplications'] / times[name] / peak[1]:.0%}"
        cells = [
            f"{costs['weights']:,}",
            f"{costs['multiplications'] / 1e9:.2f}",
            f"{costs['bytes'] / 1e6:.0f}",
            share,
        ]
        lines.append(Line(f"`{name}`", [*map(Cell, cells)]))
    heads = ("weights", "multiplications (10⁹)", "bytes moved (10⁶)", "of the peak")
    return Table("", [*map(Column, heads)], lines)


def _models(rows: list[Row], _facts: dict[str, Any]) -> Table:
    columns = list(dict.fromkeys((row["engine"], row["threads"]) for row in rows))
    found = {(_case(row), row["engine"], row["threads"]): row for row in rows}
    lines = [
        Line(case, [_time(found.get((case, *column)), "run") for column in columns])
        for case in dict.fromkeys(map(_case, rows))
    ]
    return Table("", [Column(f"{ENGINES[engine]}, {_threads(n)}") for engine, n in columns], lines)


def _deploy(rows: list[Row], _facts: dict[str, Any]) -> Table:
    lines = []
    for row in rows:
        limit = 1.15 * row["core"]["median"] + 0.5
        met = "yes" if row["deploy"]["median"] <= limit else "no"
        size = f"`{row['form']}`" if row["form"].startswith("--size") else "any size"
        cells = [_time(row, "deploy"), _time(row, "core"), Cell(f"{limit:.2f}"), Cell(met)]
        lines.append(Line(f"{size}, {_threads(row['threads'])}", cells))
    return Table("", [*map(Column, ("end to end", "network", "limit", "met"))], lines)


def _ratio_table(theirs: str, ours: str, cases: Iterable[tuple[str, Row, str]]) -> Table:
    lines = []
    for case, row, name in cases:
        if "ratio" in row[name]:
            low, middle, high = row[name]["ratio"]
            ratio = f"{middle:.1f} ({low:.1f} … {high:.1f})"
        else:
            ratio = f"{row['naive']['median'] / row[name]['median']:.1f}"
        lines.append(Line(case, [_time(row, "naive"), _time(row, name), Cell(ratio)]))
    return Table("", [Column(theirs), Column(ours), Column("times as long (quartiles)")], lines)


def _naive(rows: list[Row], _facts: dict[str, Any]) -> Table:
    cases = [
        (f"`{row['model']}`, {ENGINES[row['engine']]}, {_threads(row['threads'])}", row, "ours")
        for row in rows
    ]
    return _ratio_table("naive", "edgefuse", cases)


def _nano(rows: list[Row], _facts: dict[str, Any]) -> Table:
    """Return the ratios in fp32 first: those in 8 bits compare two precisions."""
    cases = [
        (f"`nano` in {precision}, {ENGINES[row['engine']]}, {_threads(row['threads'])}", row, precision)
        for precision in ("fp32", "int8")
        for row in rows
    ]
    return _ratio_table("naive `cnn` in fp32", "`nano`", cases)


def _time(row: Row | None, name: str) -> Cell:
    if row is None:
        return Cell("")
    digits = 2 if row[name]["median"] < 10 else 1 if row[name]["median"] < 100 else 0
    return Cell(f"{row[name]['median']:.{digits}f} ({row[name]['p95']:.{digits}f})")


def _case(row: Row) -> str:
    return f"`{row['model']}` {row['size'][0]}x{row['size'][1]} {row['precision']}"


def _threads(count: int) -> str:
    return f"{count} thread{'s' * (count > 1)}"


TABLES: dict[str, Callable[[list[Row], dict[str, Any]], Table]] = {
    "networks": _networks,
    "models": _models,
    "deploy": _deploy,
    "naive": _naive,
    "nano": _nano,
}
"""Rows of a report and all facts → a section's table, by the name that the rows have."""


if __name__ == "__main__":
    enter(Path(sys.argv[1]))
