"""The wheel, installed into an environment of its own, runs where there is next to nothing."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NOBODY = 65534
BARE = """\
set -e
for found in $(/sbin/ldconfig -p | sed -n 's/.* => //p' | grep /libGL.so.1$); do
  mount --bind /dev/null "$found"
done
exec setpriv --reuid={user} --regid={user} --clear-groups "$@"
"""
"""A shell without libGL, and, in a network namespace of its own, without network; then not root any more."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="needs Linux namespaces"),
]


@pytest.fixture(scope="module")
def installed() -> Iterator[Path]:
    """Build the wheel, install it with an engine and OpenCV; yield the environment's folder of programs."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield install(Path(name))


@pytest.fixture
def work() -> Iterator[Path]:
    """Yield a folder that others than root can read; those of pytest they cannot."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def install(folder: Path) -> Path:
    source = folder / "source"  # as in a checkout, without what lies about in this one
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", "constraints.txt"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "edgefuse", source / "edgefuse", ignore=shutil.ignore_patterns("__pycache__"))
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    built = subprocess.run(
        [*pip, "wheel", "--no-deps", "--wheel-dir", str(folder), str(source)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if built.returncode:
        pytest.skip(f"no package index: {built.stderr.strip().splitlines()[-1]}")
    (wheel,) = folder.glob("edgefuse-*.whl")
    subprocess.run([sys.executable, "-m", "venv", str(folder / "env")], check=True)
    programs = folder / "env" / "bin"
    pins = ["-c", str(ROOT / "constraints.txt")] if sys.version_info >= (3, 11) else []
    python = [str(programs / "python"), "-m", "pip", "--disable-pip-version-check", "--quiet"]
    headless = "opencv-python-headless==5.0.0.93" if pins else "opencv-python-headless"
    # As docs/install.md says for a machine without a desktop; compiling all modules would take half the time.
    packages = ["--no-compile", *pins, str(wheel), "onnxruntime", headless]
    subprocess.run([*python, "install", *packages], check=True, capture_output=True)
    return programs


def bare(installed: Path, work: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    """Run the installed `edgefuse` as nobody, with a read-only home, without display, libGL and network."""
    home = work / "home"
    home.mkdir(exist_ok=True)
    home.chmod(0o555)
    wrap = ["unshare", "--mount", "--net", "sh", "-c", BARE.format(user=NOBODY), "sh"]
    if os.geteuid() or subprocess.run([*wrap[:3], "true"], capture_output=True, check=False).returncode:
        pytest.skip("needs root, to take rights and devices away")
    return subprocess.run(
        [*wrap, str(installed / "edgefuse"), *words], cwd=work, capture_output=True, text=True, check=False,
        env={"HOME": str(home), "PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}, timeout=300,
    )  # fmt: skip


def test_it_fuses_as_nobody_with_nothing_around(installed: Path, work: Path) -> None:
    (work / "out").mkdir()
    (work / "out").chmod(0o777)
    sources = ["--ir", "sim?size=64x48&frames=10", "--vis", "sim?size=64x48&frames=10&seed=1"]
    done = bare(installed, work, "stream", *sources, "--out", "out/out.mp4")
    assert done.returncode == 0, done.stderr
    assert (work / "out" / "out.mp4").stat().st_size > 1000
    assert not list((work / "home").iterdir())


def test_it_knows_its_version_models_and_what_is_missing(installed: Path, work: Path) -> None:
    assert bare(installed, work, "--version").stdout.startswith("edgefuse 0.")
    assert "nano" in bare(installed, work, "models").stdout
    done = bare(installed, work, "train")
    assert done.returncode == 1
    assert "pip install torch" in done.stderr
    done = bare(installed, work, "doctor")
    assert "cpu: runs" in done.stdout
    assert "--serve 8080" in done.stdout, "there is no display"
