"""Fetches NVIDIA's real Python bindings and makes them load without NVIDIA's libraries."""

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import pytest

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgefuse-tests"
STUB = Path(__file__).with_name("tensorrt_stub.c")
MAJORS = {
    10: ("tensorrt-cu12-bindings==10.16.1.11", "cuda-bindings==12.9.10", "cuda-pathfinder==1.9.0"),
    11: ("tensorrt-cu13-bindings==11.4.0.106", "cuda-bindings==13.5.0", "cuda-pathfinder==1.9.0"),
}


def unpacked(requirement: str) -> Path:
    """The folder of an unpacked wheel, kept between runs; skips the test where it can't be had."""
    folder = CACHE / f"{requirement.replace('==', '-')}-py{sys.version_info[0]}{sys.version_info[1]}"
    if folder.is_dir():
        return folder
    with tempfile.TemporaryDirectory() as scratch:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--quiet"]
        command += ["--retries", "1", "--timeout", "20", "--dest", scratch, requirement]
        try:
            subprocess.run(command, check=True, capture_output=True, timeout=240)
        except (OSError, subprocess.SubprocessError) as error:
            pytest.skip(f"{requirement} can't be downloaded here: {type(error).__name__}")
        (wheel,) = Path(scratch).glob("*.whl")
        CACHE.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(dir=CACHE))
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(partial)
        try:
            partial.rename(folder)
        except OSError:  # another run was faster
            shutil.rmtree(partial)
    return folder


def stub_libraries(folder: Path, major: int) -> Path:
    """Build TensorRT's three libraries out of the stub; skips the test without a compiler."""
    if shutil.which("gcc") is None:
        pytest.skip("no gcc to build the stub libraries with")
    for name in ("nvinfer", "nvinfer_plugin", "nvonnxparser"):
        library = f"lib{name}.so.{major}"
        command = [
            "gcc",
            "-shared",
            "-fPIC",
            f"-Wl,-soname,{library}",
            "-o",
            str(folder / library),
            str(STUB),
        ]
        subprocess.run(command, check=True, capture_output=True, timeout=60)
    return folder


def environment(libraries: Path, major: int) -> dict[str, str]:
    """The environment in which a subprocess imports `tensorrt_bindings` and `cuda.bindings`."""
    folders = [str(unpacked(requirement)) for requirement in MAJORS[major]]
    if sys.platform != "linux":
        pytest.skip("the stub libraries are for Linux")
    root = str(Path(__file__).parents[2])
    # cuda is a package in two wheels, without __init__: both folders serve it.
    path = os.pathsep.join([*folders, root])
    return {**os.environ, "PYTHONPATH": path, "LD_LIBRARY_PATH": str(stub_libraries(libraries, major))}
