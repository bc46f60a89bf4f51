"""The documentation: every command in it works, every link leads somewhere, and the site can be built."""

import contextlib
import importlib.metadata as metadata
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import click
import pytest
import typer
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from edgefuse.cli import app
from edgefuse.images import write_image
from edgefuse.runtime.config import StreamConfig
from edgefuse.runtime.engines import ENGINES
from edgefuse.settings import from_plain
from edgefuse.sim import Rig, RigConfig
from tests.support.command_line import run

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
LINE = re.compile(r"^(edgefuse [a-z-]|make |python3? -m |python |pip install |sudo |python3 -m venv)")


class Command(NamedTuple):
    """A line of a block in a document."""

    document: str
    text: str

    def __str__(self) -> str:
        return f"{self.document}: {self.text}"


def commands() -> Iterator[Command]:
    for document in DOCUMENTS:
        for language, block in FENCE.findall(document.read_text("utf-8")):
            if language in ("", "sh"):
                for line in block.replace("\\\n", " ").splitlines():
                    if LINE.match(line):
                        yield Command(document.name, " ".join(line.split()))


ALL = list(dict.fromkeys(commands()))
OURS = [each for each in ALL if each.text.startswith("edgefuse ") and "$(" not in each.text]
OTHERS = [command for command in ALL if not command.text.startswith("edgefuse ")]


def words_of(command: Command) -> list[str]:
    """Return what the shell would give to `edgefuse`: without comments, redirections and `…`."""
    words = [word for word in shlex.split(command.text, comments=True)[1:] if word != "…"]
    return words[: words.index(">")] if ">" in words else words


@pytest.mark.parametrize("command", OURS, ids=str)
def test_every_option_in_the_documents_is_there(command: Command) -> None:
    name, *rest = words_of(command)
    group: Any = typer.main.get_command(app)
    assert name in group.commands, command
    with (
        contextlib.suppress(click.exceptions.Exit, typer.Exit),
        group.commands[name].make_context(name, rest, resilient_parsing=False),
    ):
        pass


@pytest.mark.parametrize("command", OTHERS, ids=str)
def test_every_other_command_names_what_there_is(command: Command) -> None:
    words = shlex.split(command.text, comments=True)
    if words[0] == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
        assert words[1] in targets
    elif words[1:2] == ["-m"] and words[2].startswith("bench."):
        assert (ROOT / f"{words[2].replace('.', '/')}.py").exists()
    elif words[1:3] == ["-m", "pytest"]:
        assert all((ROOT / word).exists() for word in words if word.startswith(("bench/", "tests/")))
    elif words[0] == "python" and words[1].endswith(".py"):
        assert (ROOT / words[1]).exists()
    elif words[0] == "pip":
        for extras in re.findall(r"'\.\[([\w,-]+)\]'", command.text):
            assert set(extras.split(",")) <= set(PROJECT["optional-dependencies"])


def test_every_engine_is_in_both_tables_of_what_was_proven() -> None:
    tables = [
        re.findall(
            r"^\| engine \| network graphs.*?\n\n.*?\n\n", (ROOT / name).read_text("utf-8"), re.M | re.S
        )
        for name in ("README.md", "docs/tensorrt.md")
    ]
    assert tables[0] == tables[1]
    assert all(f"| `{engine}`" in tables[0][0] for engine in ENGINES)


def test_blocks_of_python_can_be_parsed() -> None:
    for document in DOCUMENTS:
        for language, block in FENCE.findall(document.read_text("utf-8")):
            if language == "python":
                compile(block, str(document), "exec")


def test_the_site_file_in_the_documents_has_known_keys() -> None:
    blocks = FENCE.findall((ROOT / "docs/streaming.md").read_text("utf-8"))
    (site,) = (text for language, text in blocks if language == "toml")
    assert from_plain(StreamConfig, tomllib.loads(site), "site.toml").serve == "0.0.0.0:8080"


# --- run


NOT_RUN = {
    "tensorrt": "needs an NVIDIA GPU; bench/gpu_check.py runs it there",
    "my.engine": "needs an NVIDIA GPU; bench/gpu_check.py runs it there",
    "import-weights": "needs the authors' files",
    "cnn.pt": "needs the authors' files",
    "transformer.pt": "needs the authors' files",
    "theirs.onnx": "needs a model of others; tests/test_foreign.py runs one",
    "reproduce": "takes hours; tests/test_experiments.py runs it small",
    "--config cnn": "takes hours; tests/test_settings.py reads the recipe",
    "runs/cnn-aptp-0": "continues the one above",
    "doctor": "depends on the machine; tests/test_doctor.py runs it",
    "scores.json --engine-cluster": "as the one above; tests/test_cluster.py scores on a cluster",
}
"""Part of a command → why it is not run here. Its options are checked above."""
TINY = {
    "train": "--steps 1 --batch 1 --patch 32 --set precision=fp32 --set threads=1",
    "bench": "--size 32x32 --rounds 2 --seconds 0.05",
    "stream": "--duration 20",
    "record": "--duration 1",
}
CAMERAS = ("cam0", "cam1", "rtsp:")


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with what the documents' commands take for granted."""
    folder = tmp_path_factory.mktemp("docs")
    rig = Rig(RigConfig(size=(128, 96)))
    folders = ["", "my/", "roadscene/train/", "roadscene/test/", "llvip/train/", "m3svd/0114_1609/"]
    for k in range(3):
        for place in folders:
            for role in ("ir", "vis"):
                (folder / place / role).mkdir(parents=True, exist_ok=True)
                write_image(folder / place / role / f"{k}.png", rig.frame(role, 20 * k))
        for place in ("theirs", "folder"):
            (folder / place).mkdir(exist_ok=True)
            write_image(folder / place / f"{k}.png", rig.frame("vis", 20 * k))
    weights = ROOT / "edgefuse" / "weights"
    for name in ("my.onnx", "nano.onnx"):
        shutil.copy(weights / "nano.onnx", folder / name)
    for name in ("my.safetensors", "runs/nano-aptp-0/nano.safetensors"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(weights / "nano.safetensors", folder / name)
    sims = [f'{role} = "sim?size=64x48&frames=9&seed={n}"' for n, role in enumerate(("ir", "vis"))]
    (folder / "site.toml").write_text("\n".join(sims))
    (folder / "FILE").write_text('{"seed": 1, "ir": ["ir"], "vis": ["vis"]}')
    blocks = FENCE.findall((ROOT / "docs/training.md").read_text("utf-8"))
    (folder / "my.py").write_text(next(text for _, text in blocks if text.startswith("# my.py")))
    for role in ("ir", "vis"):
        one = "ir" if role == "vis" else "vis"
        sources = [f"--{role}", "sim?size=64x48&frames=9", f"--{one}", "sim?size=64x48&frames=9&seed=2"]
        assert run(folder, "stream", *sources, "--out", f"{role}.mp4") == 0
    return folder


def made_tiny(words: list[str]) -> list[str]:
    """Return a command that does the same with simulated cameras and little work."""
    name, *rest = words
    rest = [word for word in rest if word not in ("--show",)]
    simulated = []
    for before, word in zip([name, *rest], rest, strict=False):
        live = before in ("--ir", "--vis") and (
            word in CAMERAS or "cam0?" in word or word.startswith("rtsp:")
        )
        size = "320x240" if name == "calibrate" else "64x48"
        frames = "" if name == "record" else "&frames=12"
        simulated.append(f"sim?size={size}{frames}" if live and name != "service" else word)
    if name == "export":
        simulated = ["64x48" if word == "640x480" else word for word in simulated]
    if "--serve" in simulated and name == "stream":
        at = simulated.index("--serve") + 1
        simulated[at : at + 1] = ["0"]
    extra = shlex.split(TINY.get(name, ""))
    if name == "train" and "--model" not in rest:  # each a run of its own
        extra += ["--out", f"runs/{abs(hash(tuple(words)))}"]
    return [name, *simulated, *extra]


RUNNABLE = [command for command in OURS if not any(part in command.text for part in NOT_RUN)]


@pytest.mark.slow
@pytest.mark.usefixtures("traced_once")
@pytest.mark.filterwarnings("ignore:.*deprecated:DeprecationWarning:ray", "ignore::ResourceWarning:ray")
@pytest.mark.parametrize("command", RUNNABLE, ids=str)
def test_every_command_runs(command: Command, workspace: Path) -> None:
    words = made_tiny(words_of(command))
    if "--rig" in words and not (workspace / "rig.json").exists():
        cameras = ["--ir", "sim?size=320x240&frames=12", "--vis", "sim?size=320x240&frames=12"]
        assert run(workspace, "calibrate", *cameras, "--out", "rig.json") == 0
    if "--resume" in words and words[0] == "fuse":  # only what such a run has begun
        shutil.rmtree(workspace / "fused", ignore_errors=True)
    if words[0] == "record":  # into a new folder only
        shutil.rmtree(workspace / "rec", ignore_errors=True)
    assert run(workspace, *words) == 0, shlex.join(words)


# --- the site, and what it needs


@pytest.mark.slow
def test_the_site_is_built_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="the extra docs is not installed")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert "Fuse one pair" in (tmp_path / "api.html").read_text("utf-8")
    for page in tmp_path.glob("*.html"):
        loaded = re.findall(r'<(?:script|img|link)[^>]+(?:src|href)="(https?:[^"]+)', page.read_text("utf-8"))
        assert not loaded, page


def test_every_page_is_reached_from_the_readme() -> None:
    """Not only from the site's menu, which whoever reads the files does not see."""
    reached, todo = set[Path](), [ROOT / "README.md"]
    while todo:
        document = todo.pop()
        if document in reached or not document.exists():
            continue
        reached.add(document)
        targets = re.findall(r"\]\(([^)#:]+\.md)", document.read_text("utf-8"))
        todo += [(document.parent / target).resolve() for target in targets]
    assert not {page.name for page in DOCUMENTS if page not in reached}


OWN: dict[str, list[str]] = {"": PROJECT["dependencies"], **PROJECT["optional-dependencies"]}


def test_versions_of_everything_that_development_needs_are_pinned() -> None:
    pinned = {
        canonicalize_name(line.partition("==")[0])
        for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines()
        if "==" in line
    }
    missing, seen, todo = set(), set[tuple[str, str]](), [("edgefuse", "dev")]
    while todo:
        name, extra = todo.pop()
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        try:
            required = OWN[extra] if name == "edgefuse" else metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue
        if name not in pinned | {"edgefuse"}:
            missing.add(name)
        for requirement in map(Requirement, required):
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                todo += [(canonicalize_name(requirement.name), each) for each in ("", *requirement.extras)]
    assert not missing - {"setuptools"}, "python -m venv brings that"
