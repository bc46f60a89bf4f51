"""CUDA's libraries as stubs, for the GPU build of ONNX Runtime that is in a folder."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

SOURCE = Path(__file__).with_name("cuda_stub.c")
ROOT = Path(__file__).parents[2]
FOLDER = Path(os.environ.get("EDGEFUSE_ORT_GPU") or ROOT / ".ort-gpu")
"""Where `make test-gpu-placement` puts the package, or where it is already."""


def environment(stubs: Path) -> dict[str, str]:
    """The environment of a process that imports the GPU build over stubs, which are put into a folder."""
    plugin = FOLDER / "onnxruntime" / "capi" / "libonnxruntime_providers_cuda.so"
    if not plugin.is_file():
        pytest.skip(f"no GPU build of ONNX Runtime in {FOLDER}: `make test-gpu-placement` downloads it")
    if missing := [tool for tool in ("gcc", "nm", "readelf") if shutil.which(tool) is None]:
        pytest.skip(f"no {missing[0]}, which makes the stubs")
    for library, symbols in _missing_symbols(plugin).items():
        _compile(stubs / library, symbols)
    paths = {"LD_LIBRARY_PATH": [stubs], "PYTHONPATH": [FOLDER, ROOT]}
    return {
        **os.environ,
        **{k: os.pathsep.join(filter(None, [*map(str, v), os.environ.get(k)])) for k, v in paths.items()},
    }


def _missing_symbols(plugin: Path) -> dict[str, set[str]]:
    """What the plug-in takes from each of NVIDIA's libraries: linked, or looked up while it runs."""
    linked = re.findall(r"NEEDED.*\[(lib(?:cu|nv)[^\]]*)\]", _run("readelf", "-d", plugin))
    wanted = re.findall(
        r" U (\w+)(?:@(lib\w+\.so\.\d+))?$", _run("nm", "-D", "--undefined-only", plugin), re.M
    )
    driver = next(name for name in linked if name.startswith("libcuda."))
    symbols = {name: {symbol for symbol, version in wanted if version == name} for name in linked}
    symbols[driver] = {symbol for symbol, version in wanted if not version and re.match("cu[A-Z]", symbol)}
    looked_up = re.findall(rb"\0(cudnn[A-Z]\w+)(?=\0)", plugin.read_bytes())
    return {**symbols, "libcudnn.so.9": {name.decode() for name in looked_up}}


def _compile(library: Path, symbols: set[str]) -> None:
    rest = library.with_suffix(".c")
    # What SOURCE has is stronger.
    rest.write_text(
        "".join(f"__attribute__((weak)) int {s}(void) {{ return 0; }}\n" for s in sorted(symbols))
    )
    versions = library.with_suffix(".map")
    versions.write_text(f"{library.name} {{ global: *; }};\n")
    options = (
        [] if library.name.startswith(("libcuda.", "libcudnn.")) else [f"-Wl,--version-script={versions}"]
    )
    _run(
        "gcc", "-w", "-shared", "-fPIC", f"-Wl,-soname,{library.name}", *options, "-o", library, SOURCE, rest
    )


def _run(*command: object) -> str:
    return subprocess.run([*map(str, command)], check=True, capture_output=True, text=True).stdout
