"""Write docs/benchmarks.md, and beside it its numbers as JSON, from a report of bench_models.py.

python bench/write_benchmarks.py bench-models.json docs/benchmarks.md
"""

import datetime
import json
import statistics
import sys
from pathlib import Path
from typing import Any

ENGINES = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}
IDLE = 0.9
"""Share of a core that one thread gets on a machine that does nothing else, at least."""


def write_document(report: Path, document: Path) -> None:
    """Write the tables of a report of pytest-benchmark, and beside them their numbers as JSON."""
    content = json.loads(report.read_text())
    rows, pairs = [], []
    for entry in content["benchmarks"]:
        times, extra = entry["stats"]["data"], entry["extra_info"]
        ours = {"median": statistics.median(times), "least": min(times), "rounds": len(times)}
        if "model" in extra:
            rows.append(extra["model"] | ours)
        if "naive" in extra:
            naive = extra["naive_times"]
            theirs = {"naive_median": statistics.median(naive), "naive_least": min(naive)}
            pairs.append(extra["naive"] | ours | theirs)
    machine = content["machine_info"]["edgefuse"]
    facts = {"measured": content["datetime"], "machine": machine, "models": rows, "naive": pairs}
    document.with_suffix(".json").write_text(json.dumps(facts, indent=1) + "\n")
    document.write_text("\n".join([*_head(facts), *_models(rows), *_naive(pairs)]) + "\n")


def _head(facts: dict[str, Any]) -> list[str]:
    machine, day = facts["machine"], datetime.datetime.fromisoformat(facts["measured"]).date()
    engines = ", ".join(f"{v} {machine['versions'].get(k, '')}" for k, v in ENGINES.items())
    lines = [
        "# Benchmarks",
        "",
        f"Milliseconds for one frame through the network alone, as a median, on {machine['cpu']}, ",
        f"{machine['usable_cores']} cores, {machine['ram_gb']} GB, {engines}, {day}.",
        "",
        "```",
        "make bench-models    # writes this file and benchmarks.json",
        "```",
        "",
        "The weights are random: the time does not depend on them. In the int8 files every convolution is in",
        "int8; a file of `edgefuse export --int8` may keep some in float. `gan` is the network of `cnn`.",
        "",
    ]
    shares = [row["cores_used"] for row in facts["models"] if row["threads"] == 1]
    if shares and statistics.median(shares) < IDLE:
        lines += [
            "**The machine was busy with other work**: one thread got "
            f"{100 * statistics.median(shares):.0f} % of a core, so all times are longer than on",
            "an idle one. The two networks of a row of the second table ran by turns.",
            "",
        ]
    return lines


def _models(rows: list[dict[str, Any]]) -> list[str]:
    columns = list(dict.fromkeys((row["engine"], row["threads"]) for row in rows))
    found = {(_case(row), row["engine"], row["threads"]): row["median"] for row in rows}
    title = " | ".join(f"{ENGINES[engine]}, {_threads(n)}" for engine, n in columns)
    lines = [f"| | {title} |", "|---|" + "---|" * len(columns)]
    for case in dict.fromkeys(map(_case, rows)):
        cells = [found.get((case, *column)) for column in columns]
        shown = " | ".join("" if cell is None else f"{1000 * cell:.1f}" for cell in cells)
        lines.append(f"| {case} | {shown} |")
    return [*lines, ""]


def _naive(pairs: list[dict[str, Any]]) -> list[str]:
    lines = [
        "## The published networks, exported naively and by edgefuse",
        "",
        "The naive export is torch's own, of the networks as the paper's authors describe them",
        "(`bench/plain_networks.py`), at 640x480. Both ran by turns; their answers agree to 1e-4.",
        "",
        "| | naive, ms | edgefuse, ms | ratio of the medians | ratio of the least |",
        "|---|---|---|---|---|",
    ]
    for pair in pairs:
        name = f"`{pair['model']}`, {ENGINES[pair['engine']]}, {_threads(pair['threads'])}"
        median, least = pair["naive_median"] / pair["median"], pair["naive_least"] / pair["least"]
        times = f"{1000 * pair['naive_median']:.0f} | {1000 * pair['median']:.0f}"
        lines.append(f"| {name} | {times} | {median:.1f} | {least:.1f} |")
    return lines


def _case(row: dict[str, Any]) -> str:
    return f"`{row['model']}` {row['size'][0]}x{row['size'][1]} {row['precision']}"


def _threads(count: int) -> str:
    return f"{count} thread{'s' * (count > 1)}"


if __name__ == "__main__":
    write_document(Path(sys.argv[1]), Path(sys.argv[2]))
