"""Bring the numbers that benches wrote as JSON into the tables of README and docs: `make figures`.

In a document, `<!-- figures: NAME -->` and `<!-- end of figures -->` stand around what a function of FIGURES
makes. Nothing between them is written by hand, and a test fails where a document differs from its JSON.
"""

import json
import math
import re
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from bench.experiments import FIGURES as EXPERIMENTS
from bench.mutation import FIGURES as MUTATION
from bench.quality import MODELS
from bench.write_benchmarks import TABLES as BENCHMARK_TABLES
from bench.write_benchmarks import table as benchmark_table
from edgefuse.evaluate import BASELINES, Candidate, Mean, baseline, folder, model
from edgefuse.evaluate.tables import column_of, level_rows, mean_rows
from edgefuse.tables import Cell, Column, Row, Table, as_markdown

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
BLOCK = re.compile(r"(<!-- figures: ([\w/., -]+) -->\n).*?(<!-- end of figures -->)", re.DOTALL)
SHORT = ("VIF", "VIF_ir", "VIF_vis", "Qabf", "SSIM", "Qcb", "Detail_vis", "Target")
NOT_MEASURED = "Not measured yet: `python -m bench.quality --data FOLDER`.\n"
PEER_SETS = ("roadscene/test", "llvip/test", "llvip/test, 6 pairs")
CITED = ("EN", "MI", "VIF", "VIF_ir", "VIF_vis", "Qabf", "SSIM", "Qcb", "Qcv")


def documents() -> list[Path]:
    """Return every document that has figures in it."""
    files = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]
    return [path for path in files if BLOCK.search(path.read_text("utf-8"))]


def filled(text: str) -> str:
    """Return a document with its figures as the JSON has them."""
    return BLOCK.sub(lambda found: f"{found[1]}{FIGURES[found[2]]()}{found[3]}", text)


def _json(name: str) -> dict[str, Any]:
    return json.loads((DOCS / name).read_text("utf-8"))


def _quality(set_name: str, columns: Iterable[str] = ()) -> str:
    """Return the means of a set on clean sources: of all methods, so that the best is the best of all."""
    part = _part(set_name, "clean")
    rows = part["means"]["clean"]
    chosen = list(columns or part["columns"])
    means = {column: {name: _mean(row[column]) for name, row in rows.items()} for column in chosen}
    table = Table("", [column_of(c) for c in chosen], mean_rows(_candidates(rows), means))
    return _captioned(table, f"{set_name}, {part['pairs']} pairs", part, rows)


def _degraded(set_name: str, column: str) -> str:
    """Return one column of a set over all conditions."""
    if not (part := _part(set_name, "degraded")):
        return NOT_MEASURED
    means = {
        condition: {name: _mean(row[column]) for name, row in rows.items()}
        for condition, rows in part["means"].items()
        if all(column in row for row in rows.values())
    }
    rows = part["means"]["clean"]
    table = Table("", [Column(c) for c in means], mean_rows(_candidates(rows), means, measure=column))
    return _captioned(table, f"{column_of(column)}, {set_name}, {part['pairs']} pairs", part, rows)


def _levels(set_name: str) -> str:
    if not (part := _part(set_name, "degraded")):
        return NOT_MEASURED
    changes = {c.name: part["level_changes"][c.name] for c in _candidates(part["level_changes"])}
    table = Table("", *level_rows(_candidates(changes), changes))
    caption = f"Change of the output, RMS grey levels, {set_name}, {part['pairs']} pairs"
    return _captioned(table, caption, part, changes)


def _peers(set_name: str) -> str:
    """Return the published networks of a set, in one table with what was measured here on the same images."""
    cited = _json("peers.json")["sets"][set_name]
    measured = _json("quality.json")["sets"].get(set_name, {}).get("clean")
    columns = [c for c in CITED if any(c in row for row in cited)]
    theirs = {f"{row['name']} †": {c: _cited(row, c) for c in columns} for row in cited}
    rows = measured["means"]["clean"] if measured else {}
    means = {c: {name: _mean(row[c]) for name, row in rows.items()} for c in columns}
    for column, known in means.items():
        known.update({name: row[column] for name, row in theirs.items()})
    facts = {f"{row['name']} †": [Cell(row["output"]), Cell(row["source"])] for row in cited}
    candidates = [*_candidates(rows), *(folder(name, name) for name in theirs)]
    lines = [
        Row(row.label, [*row.cells, *facts.get(row.label, [Cell(""), Cell("this project")])], row.aside)
        for row in mean_rows(candidates, means)
    ]
    table = Table("", [*map(column_of, columns), Column("output"), Column("source")], lines)
    if not measured:
        return as_markdown(table)
    return _captioned(table, f"{set_name}, {cited[0]['pairs']} pairs", measured, rows)


def _cited(row: dict[str, Any], column: str) -> Mean:
    worst = row.get("worst_source_VIF", math.nan) if column == "VIF" else math.nan
    nan = math.nan
    return Mean(row.get(column, nan), nan, nan, worst, nan, row["pairs"])


def _peer_speed() -> str:
    """Return how long published networks take, of one machine and run."""
    speed = _json("peers.json")["speed"]
    rows = [
        Row(
            f"{row['name']} †",
            [Cell(f"{row['weights']:,}"), Cell(f"{1000 * row['median_s']:.0f}"), Cell(row["source"])],
        )
        for row in speed["rows"]
    ]
    return as_markdown(Table("", [Column("weights"), Column("ms"), Column("source")], rows))


def _benchmark(name: str) -> str:
    return benchmark_table(name, _json("benchmarks.json"))


REAL = ("single", "own", "consecutive", "scenes", "all", "tilted", "unrelated")


def _registration(groups: Sequence[str]) -> str:
    """Return how well known maps were found, one line for each kind of pictures."""
    found = _json("registration.json")
    errors = ("median px", "68 % px", "p95 px", "over 12 px")
    names = ("trials", "accepted", *errors, "s", "least z", "residual px", "not similarities", "k")
    columns = [Column(c) for c in names]
    lines = [
        Row(
            line["name"],
            [
                Cell(str(line["trials"])),
                Cell(f"{line['accepted'] / line['trials']:.0%}"),
                *(_number(line, key, 2) for key in ("median", "p68", "p95")),
                Cell(str(line["wrong"]) if "median" in line else ""),
                *(_number(line, key, 1) for key in ("seconds", "least_z", "residual")),
                Cell(str(line.get("more", ""))),
                _number(line, "k", 3) if line.get("k") else Cell(""),
            ],
        )
        for line in sorted(
            (line for line in found["rows"] if line["group"] in groups),
            key=lambda line: groups.index(line["group"]),
        )
    ]
    return _registered(Table("", columns, lines), found)


def _other_methods() -> str:
    """Return how other methods find the maps of the same pairs."""
    found = _json("registration.json")
    lines = [
        Row(
            line["name"],
            [
                Cell(str(line["trials"])),
                Cell(f"{(line['accepted'] - line['wrong']) / line['trials']:.0%}"),
                *(_number(line, key, 2) for key in ("median_near", "median")),
            ],
        )
        for line in found["rows"]
        if line["group"] == "baselines"
    ]
    columns = [Column(c) for c in ("trials", "within 12 px", "median of these", "median of all")]
    return _registered(Table("", columns, lines), found)


def _registered_quality() -> str:
    """Return what nano makes of pictures aligned by the true map, the one found, and none."""
    found = _json("registration.json")
    rows = [line for line in found["rows"] if line["group"] == "quality"]
    names = {"true": "true map", "found": "map found", "none": "resized only"}
    columns = [f"{metric} {key}" for metric in ("VIF", "Qabf", "SSIM") for key in names]
    lines = [Row(line["name"], [_number(line, column, 3) for column in columns]) for line in rows]
    heads = [Column(f"{column.split()[0]}, {names[column.split()[1]]}") for column in columns]
    return _registered(Table("", heads, lines), found)


def _told_residuals() -> str:
    """Return what the residual says of maps that were moved by known pixels."""
    found = _json("registration.json")
    rows = [line for line in found["rows"] if line["group"] == "residual"]
    keys = [key for key in rows[0] if key.startswith("residual ")] if rows else []
    lines = [Row(line["name"], [_number(line, key, 1) for key in keys]) for line in rows]
    return _registered(Table("", [Column(f"{key.split()[1]} px") for key in keys], lines), found)


def _number(line: dict[str, Any], key: str, digits: int) -> Cell:
    return Cell(f"{line[key]:.{digits}f}" if key in line else "")


def _registered(table: Table, found: dict[str, Any]) -> str:
    return f"{as_markdown(table)}\nmeasured {found['date']}, `{found['command']}`.\n"


def _part(set_name: str, kind: str) -> dict[str, Any]:
    part: dict[str, Any] = _json("quality.json")["sets"][set_name].get(kind, {})
    return part


def _scale() -> str:
    """Return what archives take, by what was measured: processor time, storage, and rates on one machine."""
    found = _json("scale.json")
    rows = []
    for pairs in (10**6, 10**9):
        cells = []
        for what in ("fuse", "evaluate"):
            hours = pairs * found[f"{what}_cpu_s"] / 3600
            cells += [Cell(_hours(hours)), Cell(_hours(hours / 1000))]
        read, written = (pairs * found["bytes"][k] / 1e12 for k in ("ir", "fused"))
        read += pairs * found["bytes"]["vis"] / 1e12
        cells += [Cell(f"{read:,.1f} TB"), Cell(f"{written:,.1f} TB")]
        rows.append(Row(f"10{'⁶' if pairs == 10**6 else '⁹'}", cells))
    columns = ["fuse, one core", "1000 cores", "evaluate, one core", "1000 cores ", "read", "written"]
    cpu, score_cpu, cores = found["fuse_cpu_s"], found["evaluate_cpu_s"], found["cores"]
    each = sum(found["bytes"].values()) / cpu / 1e6
    lines = [
        as_markdown(Table("", [Column(c) for c in columns], rows)),
        f"640x480, `nano`, PNG: {1000 * cpu:.1f} ms of a core a pair to fuse, and",
        f"{1000 * score_cpu:.1f} ms to score `nano` and the maximum by twelve metrics. Each core that",
        f"fuses reads and writes {each:.0f} MB a second: a thousand of them want {each:.0f} GB a second",
        "of the storage, which is the bottleneck before the cores are.",
        "",
    ]
    load = found["machine"]["load"] or 0
    if load <= 1:
        lines += [_rates(found, what, cores / found[f"{what}_cpu_s"]) for what in ("fuse", "evaluate")]
    else:
        lines.append(
            f"Other programs kept the cores busy (load {load:.1f}): processor times are longer than on "
            "an idle machine,\nand how near rates come to the best is not stated."
        )
    lines += ["", f"Measured {found['measured']} on {found['pairs']} pairs, `python -m bench.scale --ray`."]
    return "\n".join(lines) + "\n"


def _rates(found: dict[str, Any], what: str, best: float) -> str:
    shares = (
        f"{way} {found[f'{what}_{way}']['steady']:.1f} ({found[f'{what}_{way}']['steady'] / best:.0%})"
        for way in ("processes", "ray")
        if f"{what}_{way}" in found
    )
    return f"- `{what}`, pairs a second on {found['cores']} cores: at best {best:.1f}; {', '.join(shares)}"


def _hours(hours: float) -> str:
    if hours < 1:
        return f"{3600 * hours:.0f} s"
    return f"{hours:.1f} h" if hours < 1000 else f"{hours / 24:,.0f} days"


def _captioned(table: Table, caption: str, part: dict[str, Any], names: Iterable[str]) -> str:
    """Return a table and the line below it: of what, and when and at which commits that was measured."""
    runs: dict[tuple[str, str], list[str]] = {}
    for candidate in _candidates(names):
        run = part["measured"][candidate.name]
        runs.setdefault((run["date"], run["commit"]), []).append(candidate.name)
    most = max(runs, key=lambda run: len(runs[run]))
    text = f"measured {most[0]} at commit {most[1]}"
    text += "".join(f", {' and '.join(of)} {run[0]} at {run[1]}" for run, of in runs.items() if run != most)
    return f"{as_markdown(table)}\n{caption}; {text}, `python -m bench.quality`.\n"


def _candidates(names: Iterable[str]) -> list[Candidate]:
    """Return the methods of these names in the order of all tables: ours, baselines, others."""
    order = [*MODELS, *BASELINES]
    known = sorted(names, key=lambda name: order.index(name) if name in order else len(order))
    return [baseline(name) if name in BASELINES else model(name) for name in known]


def _mean(values: dict[str, Any]) -> Mean:
    known: dict[str, Any] = {key: math.nan if value is None else value for key, value in values.items()}
    return Mean(**known)


FIGURES: dict[str, Callable[[], str]] = {
    "scale": _scale,
    **{f"benchmarks/{name}": partial(_benchmark, name) for name in BENCHMARK_TABLES},
    **{f"peers/{name}": partial(_peers, name) for name in PEER_SETS},
    "peers/speed": _peer_speed,
    **{f"mutation/{name}": figure for name, figure in MUTATION.items()},
    **{f"experiments/{name}": figure for name, figure in EXPERIMENTS.items()},
    "registration/real": partial(_registration, REAL),
    "registration/sim": partial(_registration, ("sim",)),
    "registration/methods": _other_methods,
    "registration/residual": _told_residuals,
    "registration/quality": _registered_quality,
}
for _set in ("roadscene/test", "llvip/test", "m3svd/0115_1834"):
    FIGURES[f"quality/{_set}"] = partial(_quality, _set)
    FIGURES[f"short/{_set}"] = partial(_quality, _set, SHORT)
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
