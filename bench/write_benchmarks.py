"""Write docs/benchmarks.md, and beside it its numbers as JSON, from a report of bench_models.py.

python -m bench.write_benchmarks bench-models.json docs/benchmarks.md

The tables stand between the marks of bench/figures.py, so that a test sees when one differs from the JSON.
"""

import datetime
import json
import statistics
import sys
from pathlib import Path
from typing import Any

from edgefuse.runtime.timing import percentiles

ENGINES = {"cpu": "ONNX Runtime", "openvino": "OpenVINO"}
PACKAGES = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}
IDLE = 0.9
"""Share of a core that one thread gets on a machine that does nothing else, at least."""
Row = dict[str, Any]


def write_document(report: Path, document: Path) -> None:
    """Write the tables of a report of pytest-benchmark, and beside them their numbers as JSON."""
    content = json.loads(report.read_text())
    rows = [_row(entry["extra_info"]) for entry in content["benchmarks"]]
    facts = {"measured": content["datetime"], "machine": content["machine_info"]["edgefuse"], "rows": rows}
    document.with_suffix(".json").write_text(json.dumps(facts, indent=1) + "\n")
    lines = _head(facts)
    for name, table in TABLES.items():
        if chosen := [row for row in rows if row["table"] == name]:
            lines += ["", *_marked(name, table(chosen))]
    document.write_text("\n".join(lines) + "\n")


def _marked(name: str, lines: list[str]) -> list[str]:
    first = next(k for k, line in enumerate(lines) if line.startswith("|"))
    return [*lines[:first], f"<!-- figures: benchmarks/{name} -->", *lines[first:], "<!-- end of figures -->"]


def _row(extra: dict[str, Any]) -> Row:
    """Return the facts of a case with what its times come to, in milliseconds."""
    row = dict(extra["facts"])
    for name, times in extra["times"].items():
        median, p95, _ = (round(1000 * value, 3) for value in percentiles(times))
        least = round(1000 * min(times), 3)
        row[name] = {"median": median, "least": least, "p95": p95, "runs": len(times)}
    return row


def _head(facts: dict[str, Any]) -> list[str]:
    machine, day = facts["machine"], datetime.datetime.fromisoformat(facts["measured"]).date()
    engines = ", ".join(f"{v} {machine['versions'].get(k, '')}" for k, v in PACKAGES.items())
    lines = [
        "# Benchmarks",
        "",
        f"On {machine['cpu']}, {machine['usable_cores']} cores, {machine['ram_gb']} GB, {engines}, {day}.",
        "",
        "```",
        "make bench-models    # writes this file and benchmarks.json",
        "```",
        "",
        "All times are milliseconds for one frame: the median, and in brackets the 95th percentile.",
        "`benchmarks.json` also has the least and the number of runs. `nano` has its shipped weights, the",
        "others random ones: the weights do not matter for the time, unless numbers become so small that the",
        "processor is slow on them, which random ones do not. `gan` is the network of `cnn`.",
    ]
    shares = [row["cores_used"] for row in facts["rows"] if row["threads"] == 1]
    if shares and statistics.median(shares) < IDLE:
        lines += [
            "",
            "**The machine was busy with other work**: one thread got "
            f"{100 * statistics.median(shares):.0f} % of a core, so all times are longer than on",
            "an idle one. What is in one row of the second to fourth table ran by turns.",
        ]
    return lines


def _models(rows: list[Row]) -> list[str]:
    columns = list(dict.fromkeys((row["engine"], row["threads"]) for row in rows))
    found = {(_case(row), row["engine"], row["threads"]): row for row in rows}
    title = " | ".join(f"{ENGINES[engine]}, {_threads(n)}" for engine, n in columns)
    lines = [
        "## The networks alone",
        "",
        "The int8 file of `nano` is the shipped one with its size fixed. In those of the others every",
        "convolution is in int8; `edgefuse export --int8` may keep some in float.",
        "",
        f"| | {title} |",
        "|---|" + "---|" * len(columns),
    ]
    for case in dict.fromkeys(map(_case, rows)):
        cells = [found.get((case, *column)) for column in columns]
        lines.append(f"| {case} | {' | '.join(_time(cell, 'run') if cell else '' for cell in cells)} |")
    return lines


def _deploy(rows: list[Row]) -> list[str]:
    lines = [
        "## The end-to-end graph and the network graph",
        "",
        "`nano` at 640x480 in ONNX Runtime, by turns. The limit is 1.15 times the network graph plus 0.5 ms.",
        "",
        "| | end to end | network | limit | met |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        limit = 1.15 * row["core"]["median"] + 0.5
        met = "yes" if row["deploy"]["median"] <= limit else "no"
        size = f"`{row['form']}`" if row["form"].startswith("--size") else "any size"
        case = f"{size}, {_threads(row['threads'])}"
        lines.append(f"| {case} | {_time(row, 'deploy')} | {_time(row, 'core')} | {limit:.2f} | {met} |")
    return lines


def _naive(rows: list[Row]) -> list[str]:
    lines = [
        "## The published networks, exported naively and by edgefuse",
        "",
        "The naive export is torch's own, of the networks as the paper's authors describe them",
        "(`bench/plain_networks.py`), at 640x480. Both ran by turns; their answers agree to 1e-4.",
        "",
        "| | naive | edgefuse | ratio of the medians | ratio of the least |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        case = f"`{row['model']}`, {ENGINES[row['engine']]}, {_threads(row['threads'])}"
        lines.append(f"| {case} | {_time(row, 'naive')} | {_time(row, 'ours')} | {_ratios(row, 'ours')} |")
    return lines


def _nano(rows: list[Row]) -> list[str]:
    lines = [
        "## `nano` and the published CNN, exported naively",
        "",
        "By turns in one run, at 640x480.",
        "",
        "| | naive `cnn` | `nano` | ratio of the medians | ratio of the least |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        for precision in ("fp32", "int8"):
            case = f"{precision}, {ENGINES[row['engine']]}, {_threads(row['threads'])}"
            times = f"{_time(row, 'naive')} | {_time(row, precision)}"
            lines.append(f"| {case} | {times} | {_ratios(row, precision)} |")
    return lines


def _time(row: Row, name: str) -> str:
    digits = 2 if row[name]["median"] < 10 else 1 if row[name]["median"] < 100 else 0
    return f"{row[name]['median']:.{digits}f} ({row[name]['p95']:.{digits}f})"


def _ratios(row: Row, name: str) -> str:
    return " | ".join(f"{row['naive'][which] / row[name][which]:.1f}" for which in ("median", "least"))


def _case(row: Row) -> str:
    return f"`{row['model']}` {row['size'][0]}x{row['size'][1]} {row['precision']}"


def _threads(count: int) -> str:
    return f"{count} thread{'s' * (count > 1)}"


TABLES = {"models": _models, "deploy": _deploy, "naive": _naive, "nano": _nano}
"""Rows of a report → lines of a section, by the name that the rows have."""


if __name__ == "__main__":
    write_document(Path(sys.argv[1]), Path(sys.argv[2]))
