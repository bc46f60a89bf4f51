"""Holds the building and running of engines to the real Python bindings of TensorRT 10 and 11 and of CUDA.

No GPU: NVIDIA's libraries are stubs, see `contract.py`. One subprocess a major version.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from edgefuse.weights import model_file
from tests.bindings import MAJORS, environment
from tests.contract import Argument, Signature, signatures

SCRIPT = Path(__file__).with_name("contract_tensorrt.py")
GONE_IN_11 = ("a flag", "a creation flag", "an attribute", "a class", "a setting")
WRONG_IN_BOTH = ("a method", "a count", "a name", "a type", "a missing one", "a read-only property")


@pytest.fixture(scope="module", params=MAJORS)
def ask(request, tmp_path_factory):
    """Runs the script with the bindings of one major version and returns it and the answer."""
    folder = tmp_path_factory.mktemp(f"tensorrt{request.param}")
    env = {**environment(folder, request.param), "EDGEFUSE_CACHE": str(folder)}

    def run(argument):
        command = [sys.executable, "-W", "error", str(SCRIPT), str(argument)]
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        return request.param, json.loads(done.stdout)

    return run


def test_an_engine_is_built_inspected_loaded_and_run(ask):
    major, answer = ask(model_file("nano"))
    assert answer["version"].startswith(f"{major}.")
    assert answer["complaints"] == []
    assert answer["layers"]["fp16"] == 2
    assert answer["shapes"] == [[1, 1, 64, 96], [1, 1, 480, 640]]
    assert answer["phases"][-1] == ["Building Engine", 2, 2]
    assert answer["left"] == 0, "memory that was not freed"
    assert "serves [1, 2, 64, 64] to [1, 2, 1088, 1920]" in answer["errors"][0]
    assert "no such operator" in answer["errors"][1]
    needed = {"IExecutionContext.set_tensor_address", "IExecutionContext.execute_async_v3", "cudaHostAlloc"}
    assert needed <= set(answer["called"])


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
