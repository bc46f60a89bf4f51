import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import edgefuse
from edgefuse.cli import COMMANDS
from edgefuse.packages import is_installed

ROOT = Path(__file__).parents[1]


def loaded_after(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(' '.join(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(result.stdout.split())


def test_importing_the_package_loads_nothing_heavy() -> None:
    assert not loaded_after("import edgefuse") & {"numpy", "cv2", "torch", "onnxruntime", "typer", "rich"}


@pytest.mark.parametrize(
    "statement",
    [
        "import edgefuse.runtime.live, edgefuse.batch, edgefuse.sim",
        "import edgefuse.metrics, edgefuse.evaluate",
        "from edgefuse import Fuser; Fuser()",
        "import edgefuse.cli",
    ],
)
def test_running_never_loads_torch(statement: str) -> None:
    assert not loaded_after(statement) & {"torch", "onnx", "matplotlib"}


def test_the_command_line_answers_before_anything_heavy_is_loaded() -> None:
    assert not loaded_after("import edgefuse.cli") & {"numpy", "cv2", "av", "torch", "onnxruntime"}


def test_library_code_never_loads_typer() -> None:
    training = ", edgefuse.train.loop" * is_installed("torch")
    assert "typer" not in loaded_after(
        f"import edgefuse.runtime.live, edgefuse.batch, edgefuse.evaluate{training}"
    )


def test_a_python_that_is_too_old_is_answered_in_one_sentence(tmp_path: Path) -> None:
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    shutil.copy(ROOT / "Makefile", tmp_path)
    for name in ("pyproject.toml", "constraints.txt"):
        (tmp_path / name).touch()
    old = tmp_path / "python3.8"
    old.write_text("#!/bin/sh\ncase $1 in -c) exit 1;; *) mkdir .venv;; esac\n")
    old.chmod(0o755)
    done = subprocess.run(
        ["make", "demo", f"PYTHON={old}"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert f"edgefuse needs Python 3.10 or newer, and {old} is older: make PYTHON=python3.12" in done.stdout
    assert not (tmp_path / ".venv").exists()


def test_unknown_attribute_names_what_there_is() -> None:
    with pytest.raises(AttributeError, match=r"'Fusor'.*Fuser"):
        edgefuse.Fusor  # noqa: B018


def test_the_base_installation_has_no_engine_and_no_opencv() -> None:
    # Wheels of engines, and of OpenCV, overwrite each other's files, so each is an extra of its own.
    listed = re.search(r"^dependencies = \[\n(.*?)^\]", (ROOT / "pyproject.toml").read_text(), re.M | re.S)
    assert listed is not None
    names = set(re.findall(r'"([a-z0-9-]+)>', listed[1]))
    pictures = {"numpy", "av", "pillow", "simplejpeg"}
    assert names == pictures | {"typer", "rich", "jinja2", "msgspec", "tomli"}


MOST_OF_A_FILE, MOST_OF_A_FUNCTION = 450, 60  # lines


def functions_of(path: Path) -> dict[str, int]:
    """Return name → lines of each function; of a command, its options and help do not count."""
    found = {}
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            command = path.parent.name == "cli" and node.name.replace("_", "-") in COMMANDS
            first = node.body[1].lineno if command else node.lineno
            found[f"{path}:{node.name}"] = (node.end_lineno or first) - first + 1
    return found


def test_no_file_and_no_function_is_too_long() -> None:
    files = sorted((ROOT / "edgefuse").rglob("*.py"))
    assert files
    long = [path for path in files if len(path.read_text("utf-8").splitlines()) > MOST_OF_A_FILE]
    assert not long
    functions = {name: lines for path in files for name, lines in functions_of(path).items()}
    assert {name: lines for name, lines in functions.items() if lines > MOST_OF_A_FUNCTION} == {}
