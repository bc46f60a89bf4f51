"""Score shipped models and every baseline on the test sets, clean and degraded: docs/quality.json.

    python -m bench.quality --data FOLDER

FOLDER holds roadscene/test, llvip/test and m3svd/0115_1834, each with ir/ and vis/. The JSON is written after
each part. `make figures` brings the numbers into README and docs. `--only nano` measures one model anew.
"""

import datetime
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import typer

from edgefuse.evaluate import BASELINES, Candidate, Settings, as_dict, baseline, evaluate, model

OUT = Path(__file__).parents[1] / "docs" / "quality.json"
SETS = {"roadscene/test": False, "m3svd/0115_1834": True, "llvip/test": False}
"""Folder of each set, and whether it is a video."""
MODELS = ("nano", "cnn")
"""The default, and the paper's network."""
DEGRADED_MODELS = ("nano",)
DEGRADED_METRICS = ("VIF", "Qabf", "Target")
DEGRADED_PAIRS = 20
"""Of a set, evenly spread: every condition fuses and scores all of them once more."""


def main(
    data: Path = typer.Option(...), out: Path = OUT, only: str = "", jobs: int = 1, clean: bool = True
) -> None:
    """Measure, and write the JSON; without `clean`, degraded sources alone."""
    facts = json.loads(out.read_text("utf-8")) if out.exists() else {"sets": {}}
    for degraded in (False, True) if clean else (True,):
        for name, video in SETS.items():
            names = [n for n in (*(DEGRADED_MODELS if degraded else MODELS), *BASELINES) if only in ("", n)]
            if names and not (degraded and video):
                settings = (
                    Settings(metrics=DEGRADED_METRICS, robust=True) if degraded else Settings(video=video)
                )
                found = _measured(data / name, names, settings, jobs, f"{name}{', degraded' * degraded}")
                part = facts["sets"].setdefault(name, {}).setdefault("degraded" if degraded else "clean", {})
                _merge(part, found, bool(only))
                facts |= {"measured": datetime.date.today().isoformat(), "commit": _commit()}
                out.write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n", "utf-8")


def _measured(folder: Path, names: list[str], settings: Settings, jobs: int, title: str) -> dict[str, Any]:
    candidates = [_candidate(name) for name in names]
    result = evaluate(
        *(folder / "ir", folder / "vis", candidates, settings),
        limit=DEGRADED_PAIRS if settings.robust else None,
        jobs=jobs,
        progress=_progress(title),
    )
    found = as_dict(result)
    means = {"clean": {c["name"]: c["mean"] for c in found["candidates"]}, **found["degraded"]}
    return {"pairs": len(found["pairs"]), "columns": list(found["columns"]), "means": means} | (
        {"level_changes": found["level_changes"]} if settings.robust else {}
    )


def _candidate(name: str) -> Candidate:
    return baseline(name) if name in BASELINES else model(name)


def _merge(part: dict[str, Any], found: dict[str, Any], keep: bool) -> None:
    """Put what was measured into what there is; with `keep`, beside the candidates that there are."""
    if keep:
        for condition, rows in found["means"].items():
            before = part.get("means", {}).get(condition, {})
            rows.update({name: row for name, row in before.items() if name not in rows})
        if "level_changes" in found:
            found["level_changes"] = {**part.get("level_changes", {}), **found["level_changes"]}
    part |= found


def _commit() -> str:
    command = ["git", "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def _progress(title: str) -> Callable[[int, int], None]:
    def say(done: int, total: int) -> None:
        print(f"{title}: {done} of {total}", flush=True)

    return say


if __name__ == "__main__":
    typer.run(main)
