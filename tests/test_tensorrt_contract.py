"""Holds the building and running of engines to the real Python bindings of TensorRT 10 and 11 and of CUDA.

No GPU: NVIDIA's libraries are stubs, see `contract.py`. One subprocess a major version.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from edgefuse.weights import model_file
from tests.support.bindings import MAJORS, environment
from tests.support.contract import Argument, Signature, signatures

SCRIPT = Path(__file__).parent / "support" / "contract_tensorrt.py"
GONE_IN_11 = ("a flag", "a creation flag", "an attribute", "a class", "a setting")
WRONG_IN_BOTH = (
    "a method",
    "a count",
    "a name",
    "a type",
    "a missing one",
    "a read-only property",
    "a property's type",
)

ERRORS = {
    "inputs": "the engine takes ['sources'], not ['ir', 'vis']",
    "shape": "which serves [1, 2, 64, 64] to [1, 2, 1088, 1920]: export it with a wider range",
    "static": "which is built for [1, 2, 64, 64] alone",
    "address": "TensorRT refuses the buffer of sources",
    "execute": "TensorRT failed on a frame",
    "engine": "TensorRT cannot load",
    "refused": "TensorRT cannot load the engine that it built",
    "context": "TensorRT cannot load",
    "parse": "cannot parse",
    "silent": "it gave no reason",
    "profile": "TensorRT refuses the size range",
    "build": "TensorRT found no engine",
    "inspect": "",
    "timings": "",
    "damaged timings": "",
    "memory": "CUDA failed: out of memory",
}
"""What goes wrong on purpose, and words of what is said then; nothing where the build goes on."""


@pytest.fixture(scope="module", params=MAJORS)
def ask(request, tmp_path_factory):
    """Runs the script with the bindings of one major version and returns it and the answer."""
    folder = tmp_path_factory.mktemp(f"tensorrt{request.param}")
    env = {**environment(folder, request.param), "EDGEFUSE_CACHE": str(folder)}

    def run(argument):
        command = [sys.executable, "-W", "error", str(SCRIPT), str(argument)]
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=600, check=False)
        assert done.returncode == 0, done.stderr
        return request.param, json.loads(done.stdout)

    return run


def test_an_engine_is_built_inspected_loaded_and_run(ask):
    major, answer = ask(model_file("nano"))
    assert answer["version"].startswith(f"{major}.")
    assert answer["complaints"] == []
    assert answer["layers"]["fp16"] == 2
    assert answer["shapes"] == [[1, 1, 64, 96], [1, 1, 480, 640], *[[1, 1, 64, 96]] * 2, [1, 1, 2160, 3840]]
    assert answer["large"] == [], "an engine for larger frames is built with what a device has"
    assert answer["phases"][-1] == ["Building Engine", 2, 2]
    assert answer["left"] == 0, "memory that was not freed"
    needed = {"IExecutionContext.set_tensor_address", "IExecutionContext.execute_async_v3", "cudaHostAlloc"}
    assert needed <= set(answer["called"])
    assert answer["used"] > 60
    assert answer["untried"] == [], "names of TensorRT or CUDA in lines that did not run"
    assert set(answer["errors"]) == set(ERRORS)
    for trouble, words in ERRORS.items():
        assert words in answer["errors"][trouble], trouble


def test_wrong_uses_are_noticed(ask):
    major, answer = ask("probes")
    for probe in WRONG_IN_BOTH:
        assert answer[probe] != "accepted", probe
    for probe in GONE_IN_11:
        assert (answer[probe] == "accepted") == (major == 10), answer[probe]


def test_signatures_are_read_from_docstrings():
    def pybind():
        """Overloaded function.

        1. f(self: m.C, name: str, sizes: tuple[int, int] = (1, 2)) -> bool
        """

    def cython():
        """f(dst, size_t count, kind: cudaMemcpyKind)

        Copies.
        """

    pybind.__doc__ = (pybind.__doc__ or "").replace("        ", "")
    (first,) = signatures(pybind, "f")
    assert first == Signature((Argument("name", "str"), Argument("sizes", "tuple[int, int]", True)), "bool")
    (second,) = signatures(cython, "f")
    kinds = (Argument("dst"), Argument("count", "size_t"), Argument("kind", "cudaMemcpyKind"))
    assert second == Signature(kinds, "")
