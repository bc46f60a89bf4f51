"""Whether every extra can be installed from wheels alone, by Python and processor: a table for the docs.

    python -m tools.install_matrix [--write docs/install.md]

It asks the package index for metadata by `uv pip compile` (pip install uv) and downloads no packages. What an
extra resolves to changes from day to day, so no test runs it.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from datetime import date
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
PYTHONS = ("3.10", "3.12", "3.14")
PLATFORMS = {"x86-64": "x86_64-manylinux_2_28", "aarch64": "aarch64-manylinux_2_31"}
"""Processor → the glibc that wheels of PyAV and OpenVINO need, of 2018 and 2020; manylinux2014 is older."""
SOURCES = ("tensorrt-cu12", "tensorrt-cu13")
"""Packages that are no wheels themselves, but only name some."""
EXTRAS = ("", "cpu", "gpu", "openvino", "serve", "train", "export", "ray", "tensorrt-cu12", "tensorrt-cu13")
MARK = "<!-- install matrix -->\n"


def resolves(extra: str, python: str, platform: str) -> tuple[bool, str]:
    """Return whether an extra resolves to wheels only, and the number of packages or the reason."""
    uv = shutil.which("uv", path=str(Path(sys.executable).parent)) or shutil.which("uv") or "uv"
    with tempfile.TemporaryDirectory() as folder:
        wanted = Path(folder) / "requirements.in"
        wanted.write_text("\n".join(requirements(extra)) + "\n", "utf-8")
        command = [
            uv, "pip", "compile", str(wanted), "--only-binary", ":all:", "--quiet", "--no-header",
            "--python-version", python, "--python-platform", platform,
            *(word for name in SOURCES for word in ("--no-binary", name)),
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return True, str(len(re.findall(r"^[\w.-]+==", done.stdout, re.MULTILINE)))
    return False, " ".join(done.stderr.split())[:160]


def requirements(extra: str) -> list[str]:
    """Return what the base and an extra need."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *(extras[extra] if extra else ())]
    return [line for each in wanted for line in (extras["opencv"] if each == "edgefuse[opencv]" else [each])]


def table(extras: Sequence[str]) -> list[str]:
    """Return the lines of the table, and below them the reason of everything that does not resolve."""
    heads = [f"{python} {name}" for name in PLATFORMS for python in PYTHONS]
    lines = [f"| extra | {' | '.join(heads)} |", "| --- |" + " --- |" * len(heads)]
    reasons: dict[tuple[str, str], str] = {}
    for extra in extras:
        cells = []
        for name, platform in PLATFORMS.items():
            for python in PYTHONS:
                found, text = resolves(extra, python, platform)
                cells.append(text if found else "–")
                print(extra or "base", python, name, cells[-1], text, file=sys.stderr)
                if not found:
                    reasons[extra, name] = text
        lines.append(f"| {f'`{extra}`' if extra else 'base'} | {' | '.join(cells)} |")
    told = (f"- `{extra}` on {name}: {text}" for (extra, name), text in reasons.items())
    return [*lines, "", *told]


def main() -> None:
    """Print the table, or write it into a document."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--write", type=Path)
    parser.add_argument("--extras", nargs="*", default=EXTRAS)
    args = parser.parse_args()
    path = args.write
    text = "\n".join([f"Asked on {date.today()}.", "", *table(args.extras)]) + "\n"
    if path is None:
        print(text)
    else:
        before = path.read_text("utf-8").partition(MARK)[0]
        path.write_text(before + MARK + text, "utf-8")


if __name__ == "__main__":
    main()
