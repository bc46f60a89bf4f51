"""The check of a machine's GPU: how its checks end and what they compare, with the CPU in the GPU's place."""

import contextlib
import ctypes
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bench import gpu_check
from bench.gpu_check import Failure, Found, Result, Skip, agree, isolate, judge, judge_losses, main, report
from edgefuse.errors import BackendError
from edgefuse.runtime.engines.base import DeviceArray
from edgefuse.runtime.engines.onnxruntime import CpuEngine


def raises(error: BaseException) -> Callable[[], Found]:
    def check() -> Found:
        raise error

    return check


@pytest.mark.parametrize(
    ("error", "outcome", "detail"),
    [
        (Skip("torch is not installed"), "skipped", "torch is not installed"),
        (Failure("the answer is 3"), "failed", "the answer is 3"),
        (BackendError("no kernel"), "failed", "no kernel"),
        (KeyError("x"), "failed", "KeyError: 'x'"),
    ],
)
def test_a_check_ends_whatever_it_raises(error: Exception, outcome: str, detail: str) -> None:
    result = judge("a", raises(error))
    assert (result.outcome, result.detail, result.numbers) == (outcome, detail, {})


def test_what_passed_keeps_its_numbers() -> None:
    result = judge("a", lambda: ("as\nthe CPU", {"ms": 1.5}))
    assert (result.outcome, result.detail, result.numbers) == ("passed", "as the CPU", {"ms": 1.5})


@pytest.mark.parametrize(
    ("code", "detail"),
    [
        ("import os; os.kill(os.getpid(), 11)", "signal 11"),
        ("import sys; sys.exit('no such library')", "exit status 1: no such library"),
        ("import sys; open(sys.argv[1], 'w').write('{')", "exit status 0: it said nothing"),
    ],
)
def test_a_process_that_crashes_is_a_failure(code: str, detail: str) -> None:
    result = isolate("a", [sys.executable, "-c", code], 30)
    assert result.outcome == "failed"
    assert detail in result.detail


def test_a_process_that_hangs_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    hangs = [sys.executable, "-c", "import time; time.sleep(60)"]
    cut = isolate("a", hangs, 0.5)
    assert (cut.outcome, cut.detail[:32]) == ("skipped", "the 300 s for all checks were us")
    monkeypatch.setattr(gpu_check, "ONE", 0.5)
    for name, outcome in (("a", "failed"), ("tensorrt-nano", "unfinished"), ("train-compile", "unfinished")):
        result = isolate(name, hangs, 200)
        assert (result.outcome, result.detail) == (outcome, "it took longer than 0.5 s")


ANSWER = json.dumps({"name": "a", "outcome": "passed", "numbers": {"ms": 2.0}})
ANSWERS = (
    f"import subprocess, sys, time; open(sys.argv[1], 'w').write({ANSWER!r}); print('a library speaks');"
)
SLEEPS = "[sys.executable, '-c', 'import time; time.sleep(60)']"


@pytest.mark.parametrize("then", ["", f"subprocess.Popen({SLEEPS})", f"subprocess.run({SLEEPS})"])
def test_an_answer_is_read_though_a_child_keeps_the_output_open(
    then: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_check, "ONE", 2.0)
    start = time.monotonic()
    found = isolate("a", [sys.executable, "-c", ANSWERS + then], 200)
    assert time.monotonic() - start < 30
    assert found == Result("a", "passed", numbers={"ms": 2.0})


class Driver:
    """A driver whose memory is the host's, and whose every second event comes 2.5 ms after the first."""

    def __init__(self, fails: str = "") -> None:
        self.fails, self.made = fails, 0
        self.recorded, self.memory = list[tuple[int, int]](), dict[int, Any]()
        self.called = list[str]()

    def __getattr__(self, name: str) -> Callable[..., int]:
        self.called.append(name)
        return lambda *_: 700 if name == self.fails else 0

    def _give(self, out: Any, *_: Any) -> int:
        self.made += 1
        out._obj.value = self.made
        return 700 if self.fails == "made" else 0

    cuDevicePrimaryCtxRetain = cuStreamCreate = cuEventCreate = _give  # noqa: N815

    def cuMemAlloc_v2(self, out: Any, size: Any) -> int:  # noqa: N802
        block = ctypes.create_string_buffer(size.value)
        out._obj.value = ctypes.addressof(block)
        self.memory[ctypes.addressof(block)] = block
        return 0

    def cuMemcpyHtoD_v2(self, to: Any, source: Any, size: Any) -> int:  # noqa: N802
        ctypes.memmove(self.memory[to.value], source, size.value)
        return 0

    def cuMemcpyDtoH_v2(self, to: Any, source: Any, size: Any) -> int:  # noqa: N802
        ctypes.memmove(to, self.memory[source.value], size.value)
        return 0

    def cuEventRecord(self, event: Any, stream: Any) -> int:  # noqa: N802
        self.recorded.append((event.value, stream.value))
        return 0

    def cuEventElapsedTime(self, out: Any, start: Any, end: Any) -> int:  # noqa: N802
        assert self.recorded[-2:] == [(start.value, 42), (end.value, 42)]
        out._obj.value = 2.5
        return 0


def test_work_is_timed_on_its_stream_by_the_driver() -> None:
    driver = Driver()
    gpu, calls = gpu_check.Gpu(driver), list[int]()
    assert gpu.stream == 2
    assert gpu.time(lambda: calls.append(len(driver.recorded)), 42, calls=10) == 0.25
    assert calls == [0] * 5 + [k for k in (1, 3, 5, 7, 9) for _ in range(10)], (
        "runs in a row between two events"
    )
    assert driver.called.count("cuEventSynchronize") == 5
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    there = gpu.put(array)
    assert driver.called[-1] == "cuCtxSynchronize"
    assert (there.device, there.shape) == ("cuda", (3, 4))
    np.testing.assert_array_equal(gpu.get(there), array)
    for fails, words in (("cuInit", "cuInit of the driver answers with error 700"), ("made", "Retain")):
        with pytest.raises(Failure, match=words):
            gpu_check.Gpu(Driver(fails))


def test_without_time_left_a_check_is_skipped() -> None:
    assert isolate("a", ["/nowhere"], 0).outcome == "skipped"
    assert isolate("a", ["/nowhere"], 1).outcome == "failed"


def test_a_failure_is_reported(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    results = [
        Result("a", "passed", "x", {"ms": 1.0}),
        Result("b", "failed", "1 | 2"),
        Result("c", "skipped"),
    ]
    assert report(results, tmp_path / "out.json") == 1
    table, _, text = capsys.readouterr().out.partition("\n\n")
    assert "| b | failed | 0.0 | 1 \\| 2 |  |" in table
    assert json.loads(text) == json.loads((tmp_path / "out.json").read_text())
    assert [check["outcome"] for check in json.loads(text)["checks"]] == ["passed", "failed", "skipped"]
    assert report(results[::2], tmp_path / "none" / "out.json") == 0
    err = capsys.readouterr().err
    assert "could not be written" in err
    assert "1 passed, 0 failed, 1 skipped, 0 unfinished" in err


def test_without_a_gpu_a_check_is_skipped_with_a_reason() -> None:
    with contextlib.suppress(Skip):
        gpu_check.find_gpu()
        pytest.skip("this machine has a GPU")
    for name, check in gpu_check.CHECKS.items():
        result = judge(name, check)
        assert (result.outcome, bool(result.detail)) == ("skipped", True), result
    command = [sys.executable, "-m", "bench.gpu_check", "cuda-nano"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stderr
    assert "| cuda-nano | skipped |" in ended.stdout


def test_without_a_compiler_compiling_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_check, "torch_on_gpu", lambda: torch)
    monkeypatch.setattr(gpu_check, "is_installed", lambda package: True)
    monkeypatch.setattr("shutil.which", lambda name: None)
    result = judge("a", gpu_check.CHECKS["train-compile"])
    assert (result.outcome, "needs a C compiler" in result.detail) == ("skipped", True), result


def test_a_report_says_of_which_commit_it_is() -> None:
    facts = gpu_check.machine()
    assert re.fullmatch(r"[0-9a-f]{40}|", facts["commit"])
    assert facts["packages"]["numpy"] == np.__version__


def test_runs_of_tensorrt_are_queued_and_not_waited_for() -> None:
    calls = list[Any]()

    class TensorRt:
        def run_on_device(self, inputs: Any, out: Any) -> None:
            calls.append((inputs, out))

        def _execute(self) -> None:
            calls.append("queued")

    run = gpu_check.queued(TensorRt(), {"a": 1}, 2)
    run()
    run()
    assert calls == [({"a": 1}, 2), "queued", "queued"]


def test_an_unknown_check_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["nothing"])
    assert end.value.code == 2
    assert "no check is called nothing: there are cuda-nano, cuda-nano-int8" in capsys.readouterr().err


def test_answers_are_held_to_the_gates() -> None:
    wanted = np.full((8, 8), 100.0)
    assert agree(wanted, wanted, "fp32")["largest_difference"] == 0
    with pytest.raises(Failure, match=r"differs from the CPU's by 0\.0039"):
        agree(wanted + 1, wanted, "fp32")
    assert agree(wanted + 1, wanted, "int8")["psnr_db"] == 48.1
    with pytest.raises(Failure, match="fp16 needs 55 dB"):
        agree(wanted + 1, wanted, "fp16")
    with pytest.raises(Failure, match="not finite"):
        agree(np.where(wanted > 0, np.nan, 0), wanted, "int8")


def test_losses_must_begin_as_on_the_cpu_and_fall() -> None:
    assert judge_losses([1.0, 0.9], 1.0005, "fp32")["last_loss"] == 0.9
    for mine, words in (
        ([1.0, 0.9], "the first loss"),
        ([1.2, float("nan")], "finite"),
        ([1.2, 1.3], "went"),
    ):
        with pytest.raises(Failure, match=words):
            judge_losses(mine, 1.2, "fp32")


class Host:
    """The host's memory in the GPU's place."""

    stream = 42

    def put(self, array: Any) -> DeviceArray:
        return DeviceArray(array.ctypes.data, array.shape, array.dtype, "cpu", 0, array)

    def get(self, array: DeviceArray) -> Any:
        values = (ctypes.c_float * int(np.prod(array.shape))).from_address(array.pointer)
        return np.ctypeslib.as_array(values).reshape(array.shape).copy()

    def time(self, run: Callable[[], object], stream: int) -> float:
        assert stream == self.stream
        run()
        return 9.0


@pytest.fixture
def cpu_as_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Lets the checks run on the CPU, so that their own code is tried."""
    monkeypatch.setenv("EDGEFUSE_CACHE", str(tmp_path))
    monkeypatch.setattr(gpu_check, "DEVICE", "cpu")
    monkeypatch.setattr(gpu_check, "find_gpu", Host)
    monkeypatch.setattr(gpu_check, "open_on", lambda engine, file, gpu: (CpuEngine(file), gpu.stream))
    monkeypatch.setattr(gpu_check, "torch_on_gpu", lambda: torch)
    monkeypatch.setattr(gpu_check, "by_events", lambda torch, run: float(run() is None))
    monkeypatch.setattr(gpu_check, "clock", lambda run: float(run() is None))
    for name, value in {"WIDTH": 128, "HEIGHT": 96, "STEPS": 4, "BATCH": 2, "PATCH": 32}.items():
        monkeypatch.setattr(gpu_check, name, value)
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "0")  # so that the old state comes back afterwards
        monkeypatch.delenv(name)


@pytest.mark.slow
@pytest.mark.usefixtures("cpu_as_gpu")
@pytest.mark.parametrize("name", ["torch-cuda", "train-fp32", "train-bf16", "train-ddp"])
def test_the_cpu_in_the_gpus_place_passes(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.distributed, "is_nccl_available", lambda: True)  # gloo takes its place
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)
    result = judge(name, gpu_check.CHECKS[name])
    assert result.outcome == "passed", result


@pytest.mark.slow
@pytest.mark.usefixtures("cpu_as_gpu", "traced_once")
@pytest.mark.parametrize("model", ["nano", "nano-int8", "nano-fp16"])
def test_an_engine_is_compared_on_both_kinds_of_arrays(model: str) -> None:
    found = judge("a", lambda: gpu_check.engine_agrees("cpu", model))
    assert found.outcome == "passed", found
    assert found.numbers == {
        **{"largest_difference": 0.0, "psnr_db": 200.0, "psnr_db_on_gpu": 200.0},
        **{"ms_with_copies": 0.0, "ms_on_gpu": 9.0},
    }


@pytest.mark.usefixtures("cpu_as_gpu")
@pytest.mark.parametrize("wrong", ["run", "run_on_device"])
def test_a_wrong_answer_of_an_engine_is_noticed(wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Wrong(CpuEngine):
        def run(self, inputs: Any) -> Any:
            return super().run(inputs) + 0.1 * (wrong == "run")

        def run_on_device(self, inputs: Any, out: Any = None) -> Any:
            if wrong == "run_on_device":
                inputs = {**inputs, "levels": 1 - inputs["levels"].owner}
            return super().run_on_device(inputs, out)

    monkeypatch.setattr(gpu_check, "open_on", lambda engine, file, gpu: (Wrong(file), gpu.stream))
    found = judge("a", lambda: gpu_check.engine_agrees("cpu", "nano"))
    assert found.outcome == "failed", found
    assert "differs from the CPU's" in found.detail
