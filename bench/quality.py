"""Score shipped models and every baseline on the test sets, clean and degraded: docs/quality.json.

    python -m bench.quality --data FOLDER                       # what is missing or has changed
    python -m bench.quality --data FOLDER --peer theirs.onnx    # others beside them, in a file of one's own

FOLDER holds roadscene/test, llvip/test and m3svd/0115_1834, each with ir/ and vis/. What was measured
is skipped, unless its model file has changed: an interrupted run continues, and new weights are measured
alone. `make figures` brings the numbers into README and docs.

A peer is an ONNX file, or a folder of fused images with a folder in it for each set, such as roadscene.test.
Its rows are entered beside the others; `--out` keeps them out of the documents.
"""

import datetime
import hashlib
import json
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import typer

from edgefuse import evaluate as evaluation
from edgefuse.evaluate import BASELINES, Candidate, Settings, as_dict
from edgefuse.evaluate.candidates import named
from edgefuse.weights import model_file, shipped

OUT = Path(__file__).parents[1] / "docs" / "quality.json"
MODELS = ("nano", "cnn")
"""The default, and the paper's network."""


class Part(NamedTuple):
    """What is measured at once."""

    set: str
    kind: str
    settings: Settings
    models: tuple[str, ...]
    pairs: int | None = None
    """Evenly spread over the set; None: all."""


ROBUST = Settings(metrics=("VIF", "Qabf", "Target"), robust=True)
PARTS = (
    Part("roadscene/test", "clean", Settings(), MODELS),
    Part("llvip/test", "clean", Settings(), MODELS),
    Part("m3svd/0115_1834", "clean", Settings(video=True), MODELS),
    Part("roadscene/test", "degraded", ROBUST, MODELS[:1], 20),
    Part("llvip/test", "degraded", ROBUST, MODELS[:1], 6),
)


def main(
    data: Path = typer.Option(...),
    out: Path = OUT,
    only: list[str] = typer.Option([], help="Method to measure; repeatable.", show_default="all"),
    skip: list[str] = typer.Option([], help="Method to leave out; repeatable."),
    peer: list[str] = typer.Option([], help="Folder of fused images, or ONNX file; repeatable."),
    jobs: int = 1,
) -> None:
    """Measure what is missing, and write the JSON after each method."""
    facts = json.loads(out.read_text("utf-8")) if out.exists() else {"sets": {}}
    commit = _commit()  # before the JSON is written, which makes the checkout a changed one
    for part in PARTS:
        place = facts["sets"].setdefault(part.set, {}).setdefault(part.kind, {})
        for name in [*part.models, *BASELINES, *peer]:
            candidate = _candidate(name, part.set)
            if candidate is None or candidate.name in skip or (only and candidate.name not in only):
                continue
            if part.kind == "degraded" and not candidate.fuses:
                continue
            source = {"pairs": part.pairs, "weights": _weights(candidate)}
            known = place.get("measured", {}).get(candidate.name)
            if known is not None and {key: known[key] for key in source} == source:
                continue
            _enter(place, candidate.name, _measured(data, part, candidate, jobs))
            place["measured"][candidate.name] = {
                "date": datetime.date.today().isoformat(),
                "commit": commit,
                **source,
            }
            out.write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n", "utf-8")


def _candidate(name: str, set_name: str) -> Candidate | None:
    """Return what a name means for a set; None: a folder that has nothing of it."""
    candidate = named(name)
    if candidate.fuses:
        return candidate
    inner = Path(candidate.source) / set_name.replace("/", ".")
    return replace(candidate, source=str(inner)) if inner.is_dir() else None


def _weights(candidate: Candidate) -> str | None:
    """Return a hash of a model's file; by a shipped name the file in fp32 stands for all."""
    if candidate.kind != "model":
        return None
    source = candidate.source.partition("?")[0]
    file = model_file(source if source in shipped() else Path(source))
    return hashlib.sha256(file.read_bytes()).hexdigest()[:12]


def _measured(data: Path, part: Part, candidate: Candidate, jobs: int) -> dict[str, Any]:
    found = as_dict(
        evaluation.evaluate(
            *(data / part.set / "ir", data / part.set / "vis", [candidate], part.settings),
            limit=part.pairs,
            jobs=jobs,
            progress=_progress(f"{part.set}, {part.kind}, {candidate.name}"),
        )
    )
    means = {"clean": {c["name"]: c["mean"] for c in found["candidates"]}, **found["degraded"]}
    return {"pairs": len(found["pairs"]), "columns": list(found["columns"]), "means": means} | (
        {"level_changes": found["level_changes"]} if part.settings.robust else {}
    )


def _enter(part: dict[str, Any], name: str, found: dict[str, Any]) -> None:
    """Put what was measured of one method beside the others, which keep their order."""
    if part.get("pairs", found["pairs"]) != found["pairs"]:
        part.clear()  # means of other pairs are not to be compared
    part |= {key: found[key] for key in ("pairs", "columns")}
    part.setdefault("measured", {})
    for condition, row in found["means"].items():
        part.setdefault("means", {}).setdefault(condition, {})[name] = row[name]
    if "level_changes" in found:
        part.setdefault("level_changes", {})[name] = found["level_changes"][name]


def _commit() -> str:
    command = ["git", "describe", "--always", "--dirty", "--abbrev=7"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def _progress(title: str) -> Callable[[int, int], None]:
    def say(done: int, total: int) -> None:
        if done in (1, total):
            print(f"{title}: {done} of {total}", flush=True)

    return say


if __name__ == "__main__":
    typer.run(main)
