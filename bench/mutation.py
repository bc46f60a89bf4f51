"""Put small faults into the code and see whether its tests notice: docs/mutation.json, with mutmut.

    pip install mutmut
    python -m bench.mutation losses sampler    # or none: all modules

Of each module's mutants a sample is run, chosen by a fixed seed; those that only change a message's words are
left out. What survives is listed with its change. Changes that no test can notice are in equivalent.json,
each with its reason. The tests run without reference data beside the project. The work is done in copies in
`--work`; a run that was killed continues there.
"""

import ast
import datetime
import difflib
import importlib
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import typer

from edgefuse.tables import Cell, Column, Row, Table, as_markdown

ROOT = Path(__file__).parents[1]
OUT, EQUIVALENT = ROOT / "docs" / "mutation.json", ROOT / "bench" / "equivalent.json"
WORK = Path(tempfile.gettempdir()) / "mutation"
SURVIVED = (0, 5, 33)
"""Exit codes of a mutant: its tests passed, none was selected, none reaches the function."""


NO_CACHES = """

def pytest_runtest_setup():
    for name, module in list(sys.modules.items()):
        for value in list(vars(module).values()) if name.startswith("edgefuse.") else ():
            getattr(value, "cache_clear", int)()
    if "edgefuse.images" in sys.modules:
        sys.modules["edgefuse.images"]._WARNED.clear()
"""
"""For the copy's conftest.py: a mutant runs in a fork of a process that has run the tests, and what is kept
there would hide it."""


class Module(NamedTuple):
    """Files of the package, or single classes of them, and the tests that should notice a fault in them."""

    files: tuple[str, ...]
    """`file.py`, or `file.py::Class`."""
    tests: tuple[str, ...]


METRICS = ("statistics", "fidelity", "edges", "structure", "windows", "detail", "perceptual", "scorer")
GATES = (
    "gates", "one_wrong_pair_among_right_ones_fails", "one_wrong_extreme_among_right_ones_fails",
    "one_pair_may_not_lose_what_the_others_gain", "a_gate_that_nothing_was_measured_for_fails",
    "equal_answers_have_an_infinite_psnr", "pairs_to_compare_on", "a_gate_is_one_sentence",
    "a_share_of_layers_is_a_sentence_without_a_pair", "extremes_are_white_black_and_white_on_black",
    "a_report_says_on_what_and_how_far_apart", "another_engine_may_not_be_wrong_on_one_pair",
    "pairs_are_brought_to_the_size_that_a_file_takes", "an_engine_that_cannot_be_used_here_is_not_compared",
    "each_precision_of_another_engine_has_its_limit",
    "an_end_to_end_graph_is_compared_as_images_in_grey_levels",
)  # fmt: skip
PATCHES = (
    "aligned_pairs_are_cropped_at_one_place_and_others_apart",
    "epochs_follow_one_another_and_each_is_drawn_afresh",
    "processes_share_the_patches_of_a_step", "pairs_of_unequal_sizes_are_not_taken_for_aligned",
    "images_smaller_than_a_patch_are_named", "held_out_pairs_are_validated_on_and_never_trained_on",
    "aligned_pairs_need_equal_stems", "partners_of_another_size_are_said_to_be_cropped_apart",
    "validation_may_have_folders_of_its_own", "samples_are_aligned_pairs_or_any_cut_to_one_size",
    "images_go_to_a_gpu_if_they_fill_half_of_it_at_most", "bits_are_those_of_the_configuration",
    "a_patch_lies_where_the_chances_say",
)  # fmt: skip
CHECKPOINTS = ("damaged_checkpoints_are_named", "nothing_in_a_checkpoint_is_executed")
MODULES = {
    "metrics": Module(
        tuple(f"metrics/{name}.py" for name in METRICS),
        ("test_metrics.py", "test_metrics_properties.py", "test_metrics_targets.py"),
    ),
    "losses": Module(("train/losses.py",), ("test_losses.py",)),
    "sampler": Module(
        ("train/data.py",),
        (
            "test_pairing.py",
            *(f"test_train.py::test_{name}" for name in PATCHES),
            "test_experiments.py::test_a_base_of_patches_never_changes",
        ),
    ),
    "synchronisers": Module(
        ("runtime/live/pairing.py", "runtime/cameras/clock.py"), ("test_pairing_in_time.py",)
    ),
    "agc": Module(
        (
            "thermal.py",
            "runtime/cameras/camera.py::StillDetector",
            "runtime/cameras/camera.py::ThermalPreprocess",
        ),
        ("test_thermal.py", "test_images.py"),
    ),
    "palettes": Module(("palettes.py",), ("test_images.py",)),
    "supervisor": Module(
        ("runtime/live/capture.py::Supervisor", "runtime/cameras/camera.py::Health"), ("test_supervise.py",)
    ),
    "sinks": Module(
        (
            "runtime/sinks/video.py::VideoOut",
            "runtime/sinks/naming.py",
            "runtime/sinks/pictures.py::ImageSequence",
            "runtime/sinks/pictures.py::Still",
            "runtime/sinks/pictures.py::RawOut",
            "runtime/sinks/base.py::SinkWriter",
        ),
        ("test_sinks.py", "test_sink_series.py", "test_sink_writer.py"),
    ),
    "gates": Module(
        ("export/verify.py",),
        (
            *(f"test_export.py::test_{name}" for name in GATES),
            "test_export_int8.py::test_the_share_in_8_bits_counts_multiplications",
        ),
    ),
    "checkpoints": Module(
        ("train/checkpoint.py",),
        (
            "test_checkpoints.py",
            "test_models.py",
            *(f"test_train.py::test_{name}" for name in CHECKPOINTS),
        ),
    ),
}


def main(
    modules: list[str] = typer.Argument(None, help="Modules; all by default."),
    sample: int = typer.Option(60, help="Mutants of each module to run."),
    seed: int = 0,
    work: Path = WORK,
) -> None:
    """Run the sample of each module, and write the JSON after it."""
    facts = json.loads(OUT.read_text("utf-8")) if OUT.exists() else {}
    for name in modules or MODULES:
        commit = _commit()
        found = _run(MODULES[name], work.resolve() / name, sample, seed)
        facts[name] = {
            "files": MODULES[name].files,
            "tests": MODULES[name].tests,
            "date": datetime.date.today().isoformat(),
            "commit": commit,
            **found,
        }
        OUT.write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n", "utf-8")
        print(f"{name}: {found['killed']} of {found['sample']} noticed")
        for survivor in found["survivors"]:
            print(f"--- {survivor['name']}\n{survivor['change']}")


def _commit() -> str:
    """Return the commit that is about to be tried: the answers of modules before do not count as changes."""
    changes = ["git", "status", "--porcelain", "--untracked-files=no", "--", ".", ":!docs/mutation.json"]
    dirty = "-dirty" if subprocess.run(changes, capture_output=True, check=True, cwd=ROOT).stdout else ""
    describe = ["git", "describe", "--always", "--abbrev=7"]
    said = subprocess.run(describe, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    return said.strip() + dirty


def _run(module: Module, folder: Path, sample: int, seed: int) -> dict[str, Any]:
    places = [f"edgefuse/{file}".partition("::") for file in module.files]
    files = list(dict.fromkeys(file for file, _, _ in places))
    _copy(folder, files, [f"tests/{file}" for file in module.tests])
    os.chdir(folder)  # mutmut reads its settings there, when it is imported
    changes = {
        name: change
        for file, _, owner in places
        for name, change in _mutants(file)
        if not owner or f"ǁ{owner}ǁ" in name
    }
    chosen = sorted(random.Random(seed).sample(sorted(changes), min(sample, len(changes))))
    if not changes:
        raise SystemExit(f"{files} have no functions to put faults into")
    mutmut = [sys.executable, "-m", "mutmut", "run", "--max-children", "1", *chosen]
    done = subprocess.run(mutmut, capture_output=True, text=True)
    codes: dict[str, int | None] = {}
    for file in files:
        meta = Path("mutants") / f"{file}.meta"
        codes |= json.loads(meta.read_text())["exit_code_by_key"] if meta.exists() else {}
    os.chdir(ROOT)
    if missing := [name for name in chosen if codes.get(name) is None]:
        raise SystemExit(f"{len(missing)} mutants did not run:\n{done.stdout[-3000:]}\n{done.stderr[-2000:]}")
    survivors = [name for name in chosen if codes[name] in SURVIVED]
    return {
        "mutants": len(changes),
        "sample": len(chosen),
        "seed": seed,
        "killed": len(chosen) - len(survivors),
        "survivors": [{"name": name, "change": changes[name]} for name in survivors],
    }


def _copy(folder: Path, files: list[str], tests: list[str]) -> None:
    """Copy the project, with settings for mutmut, to where it may write."""
    for name in ("edgefuse", "tests", "bench"):
        shutil.copytree(
            ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True
        )
    settings = {
        "source_paths": ["edgefuse"],
        "only_mutate": files,
        "pytest_add_cli_args_test_selection": tests,
        "pytest_add_cli_args": ["-p", "no:cacheprovider"],
        "also_copy": ["bench"],
    }
    with (folder / "tests" / "conftest.py").open("a", encoding="utf-8") as conftest:
        conftest.write(NO_CACHES)
    lines = [f"{key} = {json.dumps(value)}" for key, value in settings.items()]
    lines += ["use_git_change_detection = false", "use_setproctitle = false"]
    project = (ROOT / "pyproject.toml").read_text("utf-8")
    (folder / "pyproject.toml").write_text("\n".join([project, "[tool.mutmut]", *lines]) + "\n", "utf-8")


def _mutants(file: str) -> Iterator[tuple[str, str]]:
    """Yield the name and the change of each mutant of a file but those of messages."""
    mutate = importlib.import_module("mutmut.mutation.file_mutation").mutate_file_contents
    full_name = importlib.import_module("mutmut.utils.format_utils").get_mutant_name
    made = mutate(file, Path(file).read_text("utf-8"))
    functions = {
        node.name: node
        for node in ast.walk(ast.parse(made.code))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    for name in made.mutant_names:
        before, after = functions[f"{name.rpartition('__mutmut_')[0]}__mutmut_orig"], functions[name]
        if _without_messages(before) != _without_messages(after):
            yield full_name(Path(file), name), _change(before, after)


def _without_messages(function: ast.AST) -> str:
    """Return a function's code without its name and the texts that people read, which have spaces."""

    class Shorten(ast.NodeTransformer):
        def visit_Constant(self, node: ast.Constant) -> ast.Constant:
            text = isinstance(node.value, str) and " " in node.value
            return ast.Constant("message") if text else node

    return ast.unparse(Shorten().visit(ast.parse(ast.unparse(function)))).partition("(")[2]


def _change(before: ast.AST, after: ast.AST) -> str:
    old, new = (re.sub(r"^def \w+", "def …", ast.unparse(node)).splitlines() for node in (before, after))
    diff = list(difflib.unified_diff(old, new, n=0, lineterm=""))[2:]
    return "\n".join(line for line in diff if not line.startswith("@@"))


def scores() -> str:
    """Return the score of each module: what was noticed, of what can be."""
    facts, reasons = json.loads(OUT.read_text("utf-8")), json.loads(EQUIVALENT.read_text("utf-8"))
    rows = []
    for name, module in MODULES.items():
        if name not in facts:
            files = ", ".join(f"`{file}`" for file in module.files)
            rows.append(Row(name, [Cell(files), *[Cell("–")] * 5, Cell("not run")]))
            continue
        found = facts[name]
        equivalent = sum(survivor["change"] in reasons for survivor in found["survivors"])
        killable = found["sample"] - equivalent
        texts = [
            ", ".join(f"`{file}`" for file in found["files"]),
            f"{found['mutants']:,}",
            str(found["sample"]),
        ]
        texts += [str(found["killed"]), str(equivalent), f"{found['killed'] / killable:.0%}"]
        texts += [f"{found['date']} at {found['commit']}"]
        rows.append(Row(name, [*map(Cell, texts)]))
    heads = ("files", "faults", "put in", "noticed", "equivalent", "noticed of the others", "measured")
    return as_markdown(Table("", [*map(Column, heads)], rows))


def equivalents() -> str:
    """Return the changes that no test can notice, with the reason of each."""
    reasons: dict[str, str] = json.loads(EQUIVALENT.read_text("utf-8"))
    rows = [
        Row(f"`{change.splitlines()[-1].lstrip('+ ')}`", [Cell(reason)]) for change, reason in reasons.items()
    ]
    return as_markdown(Table("", [Column("why it is the same")], rows))


def survivors() -> str:
    """Return what no test noticed."""
    facts, reasons = json.loads(OUT.read_text("utf-8")), json.loads(EQUIVALENT.read_text("utf-8"))
    rows = [
        Row(module, [Cell(f"`{line.lstrip('-+ ')}`") for line in _ends(survivor["change"])])
        for module, found in facts.items()
        for survivor in found["survivors"]
        if survivor["change"] not in reasons
    ]
    return as_markdown(Table("", [Column("instead of"), Column("stood")], rows))


def _ends(change: str) -> tuple[str, str]:
    """Return the first line that was there and the first that stood in its place."""
    lines = change.splitlines()
    return next(x for x in lines if x[0] == "-"), next((x for x in lines if x[0] == "+"), "+ nothing")


FIGURES = {"scores": scores, "equivalents": equivalents, "survivors": survivors}


if __name__ == "__main__":
    typer.run(main)
