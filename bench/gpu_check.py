"""Try on this machine's GPU what is installed here, and print one table and a JSON to paste into a report.

    python -m bench.gpu_check [--out gpu-check.json] [CHECK ...]

It takes about five minutes at most and no network. Each check runs in a process of its own and ends as
passed, failed (with the reason), skipped (with what is missing) or, of a build that takes too long,
unfinished; also where it crashes or hangs. Answers
are compared with the CPU's under the gates of `edgefuse export`. Exit status: 0 nothing failed,
1 a check failed, 2 wrong usage.
"""

import argparse
import contextlib
import ctypes
import importlib.metadata
import json
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from edgefuse.errors import EdgefuseError
from edgefuse.packages import is_installed

SECONDS = 300.0
"""For all checks together."""
ONE = 150.0
"""For one of them, which hangs if it takes longer."""
BUILDS = ("tensorrt-", "train-compile")
"""Beginnings of the names of checks that build something, which on a small machine can take longer."""
PACKAGES = (
    "edgefuse", "numpy", "opencv-python", "opencv-python-headless", "onnxruntime", "onnxruntime-gpu",
    "tensorrt", "tensorrt-cu12", "tensorrt-cu13", "cuda-python", "cuda-bindings", "cupy", "cupy-cuda12x",
    "cupy-cuda13x", "nvidia-cudnn-cu12", "nvidia-cudnn-cu13", "torch", "triton", "onnx",
)  # fmt: skip
HEIGHT, WIDTH = 480, 640
DEVICE = "cuda"
HALF = "-fp16"
"""End of the name of a model's file in half precision, which is not shipped."""
MODELS = ("nano", "nano-int8", f"nano{HALF}", "cnn", "transformer")
BATCH, PATCH, STEPS = 8, 64, 20
LOSS_TOLERANCE = {"fp32": 1e-3, "bf16": 5e-2, "fp16": 1e-2}
"""How far the first step's loss may be from the CPU's in float32, as a share of it."""


OUTCOMES = ("passed", "failed", "skipped", "unfinished")


class Skip(Exception):  # noqa: N818 - it is no error
    """What the check needs is not on this machine; the message says what."""


class Failure(Exception):  # noqa: N818
    """What was found is wrong; the message is the sentence for the report."""


@dataclass(frozen=True)
class Result:
    """How a check ended."""

    name: str
    outcome: str
    """One of `OUTCOMES`."""
    detail: str = ""
    """The reason, or what was compared."""
    numbers: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0


Found = tuple[str, dict[str, float]]
"""What was compared, in words, and the numbers."""


def judge(name: str, check: Callable[[], Found]) -> Result:
    """Run a check here, whatever it raises."""
    start = time.perf_counter()
    outcome, numbers = "failed", dict[str, float]()
    try:
        detail, numbers = check()
        outcome = "passed"
    except Skip as reason:
        outcome, detail = "skipped", str(reason)
    except (Failure, EdgefuseError) as error:
        detail = str(error)
    except Exception as error:  # anything that a library raises is a finding
        detail = f"{type(error).__name__}: {error}"
    return Result(
        name, outcome, " ".join(detail.split())[:500], numbers, round(time.perf_counter() - start, 1)
    )


def isolate(name: str, command: Sequence[str], seconds: float) -> Result:
    """Run a check's process, which may crash or hang, and read its answer.

    The answer comes in a file, whose path is the last argument: a process that the check started, such as a
    compiler's, can keep the output open for ever.
    """
    start = time.perf_counter()

    def ended(outcome: str, reason: str) -> Result:
        return Result(name, outcome, reason, seconds=round(time.perf_counter() - start, 1))

    if seconds <= 0:
        return ended("skipped", f"the {SECONDS:.0f} s for all checks were used up")
    limit = min(seconds, ONE)
    with tempfile.TemporaryDirectory() as folder, open(Path(folder) / "output", "w+b") as output:
        answer = Path(folder) / "answer.json"
        try:
            process = subprocess.Popen(
                [*command, str(answer)], stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            )
        except OSError as error:
            return ended("failed", f"its process could not be started: {error}")
        late = False
        try:
            process.wait(timeout=limit)
        except subprocess.TimeoutExpired:
            late = True
        finally:
            _end(process)
        with contextlib.suppress(OSError, ValueError, TypeError):
            return Result(**json.loads(answer.read_text("utf-8")))
        output.seek(0)
        said = output.read().decode("utf-8", "replace")
    if late and limit < ONE:
        return ended("skipped", f"the {SECONDS:.0f} s for all checks were used up while it ran: run it alone")
    if late:
        slow = name.startswith(BUILDS)
        return ended("unfinished" if slow else "failed", f"it took longer than {ONE:g} s")
    code = process.returncode
    how = f"signal {-code}" if code < 0 else f"exit status {code}"
    last = (said.strip().splitlines() or ["it said nothing"])[-1][:300]
    return ended("failed", f"its process ended with {how}: {last}")


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End a process with those that it started."""
    with contextlib.suppress(OSError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
    process.wait()


# What is compared.


def pair() -> tuple[Any, Any]:
    """Two smooth random pictures, uint8 `[HEIGHT, WIDTH]`."""
    import cv2

    rng = np.random.default_rng(0)
    coarse = (rng.integers(0, 256, (HEIGHT // 16, WIDTH // 16), dtype=np.uint8) for _ in range(2))
    ir, vis = (cv2.resize(image, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC) for image in coarse)
    return ir, vis


def agree(mine: Any, wanted: Any, precision: str) -> dict[str, float]:
    """Compare two answers, 0..255, under the gate of that precision."""
    from edgefuse.export.config import Gates

    if not np.isfinite(mine).all():
        raise Failure("the answer has values that are not finite")
    difference = np.abs(np.asarray(mine, np.float64) - wanted) / 255
    largest, mean_square = float(difference.max()), float(np.mean(difference**2))
    psnr = float(min(-10 * np.log10(max(mean_square, 1e-20)), 200.0))
    gates = Gates()
    if precision == "fp32" and largest > gates.max_difference:
        raise Failure(
            f"the answer differs from the CPU's by {largest:.2g}, at most {gates.max_difference:g} is allowed"
        )
    if precision != "fp32" and psnr < gates.psnr(precision):
        raise Failure(
            f"the answer has {psnr:.1f} dB to the CPU's, {precision} needs {gates.psnr(precision):g} dB"
        )
    return {"largest_difference": largest, "psnr_db": round(psnr, 1)}


def clock(run: Callable[[], object], seconds: float = 2.0) -> float:
    """Return the median time of a call that waits for its answer, ms."""
    for _ in range(5):
        run()
    times, end = list[float](), time.perf_counter() + seconds
    while len(times) < 5 or time.perf_counter() < end:
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return round(float(np.median(times)) * 1000, 3)


class Gpu:
    """A stream, memory and CUDA events, by the driver alone, which every machine with a GPU has.

    Args:
        driver: the library, as ctypes loads it.
    """

    def __init__(self, driver: Any) -> None:
        self._driver = driver
        device = ctypes.c_int()
        self._call("cuInit", 0)
        self._call("cuDeviceGet", ctypes.byref(device), 0)
        context = self._made("cuDevicePrimaryCtxRetain", device)  # that of CUDA's runtime
        self._call("cuCtxSetCurrent", ctypes.c_void_p(context))
        self.stream = self._made("cuStreamCreate", 1)  # one that does not wait for the default one
        self._events = [ctypes.c_void_p(self._made("cuEventCreate", 0)) for _ in range(2)]

    def _call(self, name: str, *arguments: Any) -> None:
        if error := getattr(self._driver, name)(*arguments):
            raise Failure(f"{name} of the driver answers with error {error}")

    def _made(self, name: str, *arguments: Any) -> int:
        handle = ctypes.c_void_p()
        self._call(name, ctypes.byref(handle), *arguments)
        return handle.value or 0

    def put(self, array: Any) -> Any:
        """Return a copy of a NumPy array on the GPU, which is never freed."""
        from edgefuse.runtime.engines.base import DeviceArray

        size = ctypes.c_size_t(array.nbytes)
        address = self._made("cuMemAlloc_v2", size)
        self._call("cuMemcpyHtoD_v2", ctypes.c_uint64(address), ctypes.c_void_p(array.ctypes.data), size)
        self._call("cuCtxSynchronize")  # a copy of plain memory can go on, and other streams do not wait
        return DeviceArray(address, array.shape, array.dtype, "cuda")

    def get(self, array: Any) -> Any:
        """Return a copy of an array on the GPU as NumPy's."""
        copy = np.empty(array.shape, array.dtype)
        to, source = ctypes.c_void_p(copy.ctypes.data), ctypes.c_uint64(array.pointer)
        self._call("cuMemcpyDtoH_v2", to, source, ctypes.c_size_t(copy.nbytes))
        return copy

    def time(self, run: Callable[[], object], stream: int, calls: int = 20) -> float:
        """Return the median time of the work that a call puts on a stream, ms.

        Calls follow each other between two events and nothing waits, so that the host's time is hidden as
        long as it is the shorter one.
        """
        start, end = self._events
        for _ in range(5):
            run()
        times = []
        for _ in range(5):
            self._call("cuEventRecord", start, ctypes.c_void_p(stream))
            for _ in range(calls):
                run()
            self._call("cuEventRecord", end, ctypes.c_void_p(stream))
            self._call("cuEventSynchronize", end)
            took = ctypes.c_float()
            self._call("cuEventElapsedTime", ctypes.byref(took), start, end)
            times.append(took.value / calls)
        return round(float(np.median(times)), 3)


def find_gpu() -> Gpu:
    """Return this machine's GPU."""
    try:
        driver, count = ctypes.CDLL("libcuda.so.1"), ctypes.c_int()
        found = driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0
    except (OSError, AttributeError):
        found = False
    if not found or not count.value:
        raise Skip("no NVIDIA GPU or driver is found here")
    return Gpu(driver)


def open_on(engine: str, file: Path, gpu: Gpu) -> tuple[Any, int]:
    """Open a file; return the engine, and the stream that it computes on."""
    from edgefuse.runtime.engines.engine_cache import BuildOptions, SizeRange
    from edgefuse.runtime.engines.onnxruntime import CudaEngine
    from edgefuse.runtime.engines.tensorrt import TensorRtEngine

    if engine == "tensorrt":
        # Of the one size, which is built the quickest.
        built = TensorRtEngine(file, options=BuildOptions(SizeRange.parse(f"{WIDTH}x{HEIGHT}")))
        return built, int(built._stream)

    class OnStream(CudaEngine):
        settings: ClassVar[dict[str, str]] = {
            **CudaEngine.settings,
            "user_compute_stream": str(gpu.stream),
        }

    return OnStream(file), gpu.stream


def queued(opened: Any, inputs: dict[str, Any], answer: Any) -> Callable[[], object]:
    """Return what puts one run on the engine's stream, and does not wait for it."""
    opened.run_on_device(inputs, answer)  # which also tells TensorRT where the arrays are
    session = getattr(opened, "_session", None)
    if session is None:
        execute: Callable[[], object] = opened._execute
        return execute
    import onnxruntime

    binding, options = session.io_binding(), onnxruntime.RunOptions()
    options.add_run_config_entry("disable_synchronize_execution_providers", "1")
    for name, array in inputs.items():
        binding.bind_input(name, *opened._place(name, array))
    output = opened.spec.outputs()[0].name
    binding.bind_output(output, *opened._place(output, answer))
    return partial(session.run_with_iobinding, binding, options)


def file_of(model: str, engine: str, folder: Path) -> Path:
    """Return a shipped model's file, or the one in half precision, which is made if it can be."""
    from edgefuse.runtime.engines import file_for
    from edgefuse.weights import checkpoint_file, model_file

    if not model.endswith(HALF):
        return file_for(model_file(model), engine)
    for package in ("torch", "safetensors", "onnx", "onnxscript"):
        if not is_installed(package):
            raise Skip(f"{package} is not installed, which the export in half precision needs")
    from edgefuse.export.pipeline import export
    from edgefuse.export.verify import simulated_pairs

    described, pairs = simulated_pairs((320, 240), 1)
    out = folder / f"{model}.onnx"
    if out.exists():  # another check made it
        return file_for(out, engine)
    spec = export(checkpoint_file(model.removesuffix(HALF)), out, pairs, described, fp16=True)
    if not out.exists():
        raise Failure(f"the export in half precision fails its gates: {spec.verification}")
    return file_for(out, engine)


def engine_agrees(engine: str, model: str) -> Found:
    """Run a file with an engine and with the CPU: on arrays of the host, and on arrays of the GPU."""
    from edgefuse.images import measure_levels
    from edgefuse.runtime.engines import ENGINES
    from edgefuse.runtime.engines.engine_cache import cache_folder, writable_folder
    from edgefuse.runtime.engines.fuser import Fuser, network_input

    for needed in (engine, "cpu"):
        if missing := ENGINES[needed].missing():
            raise Skip(missing)
    if engine == "tensorrt" and not (is_installed("cuda") and is_installed("cuda.bindings")):
        raise Skip("cuda-python is not installed, or is older than cuda.bindings: see docs/tensorrt.md")
    gpu = find_gpu()
    ir, vis = pair()
    file = file_of(model, engine, writable_folder(cache_folder()))
    opened, stream = open_on(engine, file, gpu)
    with Fuser(file, engine="cpu") as cpu, Fuser(opened) as fuser:
        spec = fuser.spec
        wanted = cpu.fuse_unrounded(ir, vis)
        numbers = agree(fuser.fuse_unrounded(ir, vis), wanted, spec.precision)
        numbers["ms_with_copies"] = clock(lambda: fuser.fuse_luma(ir, vis))
        inputs = {"sources": gpu.put(network_input(ir, vis, spec.size_divisor))}
        if spec.levels:
            inputs["levels"] = gpu.put(measure_levels(ir, vis)[None, : spec.level_count])
        answer = opened.run_on_device(inputs)
        fused = gpu.get(answer)[0, 0, :HEIGHT, :WIDTH] * np.float32(255)
        numbers["psnr_db_on_gpu"] = agree(fused, wanted, spec.precision)["psnr_db"]
        numbers["ms_on_gpu"] = gpu.time(queued(opened, inputs, answer), stream)
    return (
        f"against cpu, {WIDTH}x{HEIGHT}; on_gpu: of arrays there, runs in a row between CUDA events",
        numbers,
    )


# torch. The network and the patches are the same on both.


def torch_on_gpu() -> Any:
    """Return torch, if it has a GPU."""
    for package in ("torch", "safetensors"):
        if not is_installed(package):
            raise Skip(f"{package} is not installed")
    import torch

    if torch.version.cuda is None:
        raise Skip(f"torch {torch.__version__} is built without CUDA")
    if not torch.cuda.is_available():
        raise Skip(f"torch {torch.__version__} is built for CUDA {torch.version.cuda} and finds no GPU")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    return torch


def by_events(torch: Any, run: Callable[[], object], calls: int = 20) -> float:
    """Return the median time of a call's work on the GPU, as `Gpu.time` does, ms."""
    for _ in range(5):
        run()
    torch.cuda.synchronize()
    times = []
    for _ in range(5):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(calls):
            run()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) / calls)
    return round(float(np.median(times)), 3)


def check_torch() -> Found:
    """A network's answer."""
    torch = torch_on_gpu()
    from edgefuse.train.checkpoint import load_checkpoint, restore_model
    from edgefuse.weights import checkpoint_file

    ir, vis = pair()
    x = torch.from_numpy(np.stack((ir, vis))[None].astype(np.float32) / 255)
    network = restore_model(load_checkpoint(checkpoint_file("cnn"))).eval()
    with torch.inference_mode():
        wanted = network(x).clamp(0, 1).numpy() * 255
        network, on_gpu = network.to(DEVICE), x.to(DEVICE)
        numbers = agree(network(on_gpu).clamp(0, 1).float().cpu().numpy() * 255, wanted, "fp32")
        numbers["ms"] = by_events(torch, lambda: network(on_gpu))
    return f"cnn against the CPU, {WIDTH}x{HEIGHT}, time by CUDA events", numbers


def losses(torch: Any, context: Any, precision: Any, steps: int, compiled: bool = False) -> list[float]:
    """Train on the same patches again and again; return each step's loss."""
    from edgefuse.train.config import TrainConfig
    from edgefuse.train.trainer import Trainer

    config = TrainConfig(
        model="cnn", steps=10 * STEPS, batch=BATCH, patch=PATCH, precision=precision, compile=compiled
    )
    patches = torch.from_numpy(
        np.stack([part[:PATCH, k * PATCH : (k + 1) * PATCH] for k in range(BATCH) for part in pair()])
    ).reshape(BATCH, 2, PATCH, PATCH)
    trainer = Trainer(config, context)
    return [float(trainer.step(patches, step)[0]["total"]) for step in range(steps)]


def learns(torch: Any, context: Any, precision: str, compiled: bool = False) -> dict[str, float]:
    """Train for some steps: the loss begins as on the CPU, stays finite and falls."""
    from edgefuse.train.machine import SINGLE_PROCESS

    (wanted,) = losses(torch, SINGLE_PROCESS, "fp32", 1)
    start = time.perf_counter()
    mine = losses(torch, context, precision, STEPS, compiled)
    took = time.perf_counter() - start
    return judge_losses(mine, wanted, precision) | {"training_s": round(took, 2)}


def judge_losses(mine: Sequence[float], wanted: float, precision: str) -> dict[str, float]:
    """Raise `Failure` unless the losses begin at `wanted`, stay finite and fall."""
    if not np.isfinite(mine).all():
        raise Failure(f"training in {precision}: a loss is not finite")
    allowed = LOSS_TOLERANCE[precision] * abs(wanted)
    if abs(mine[0] - wanted) > allowed:
        raise Failure(
            f"training in {precision}: the first loss is {mine[0]:.5f}, the CPU's {wanted:.5f}, "
            f"and they may differ by {allowed:.2g}"
        )
    if mine[-1] >= mine[0]:
        raise Failure(f"training in {precision}: the loss went from {mine[0]:.5f} to {mine[-1]:.5f}")
    return {"first_loss": mine[0], "cpu_first_loss": wanted, "last_loss": mine[-1]}


def training(precision: str, compiled: bool = False) -> Found:
    """Train on the GPU in this process."""
    torch = torch_on_gpu()
    from edgefuse.train.machine import DistributedContext

    if precision == "bf16" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise Skip("this GPU has no bf16 arithmetic")
    if compiled and not is_installed("triton"):
        raise Skip("torch.compile needs triton, which is not installed")
    if compiled and not any(map(shutil.which, filter(None, (os.environ.get("CC"), "cc", "gcc", "clang")))):
        raise Skip("torch.compile needs a C compiler, and none is found: apt-get install gcc")
    context = DistributedContext(device=torch.device(DEVICE, 0))
    how = "compiled, " if compiled else "" if precision == "fp32" else "AMP in "
    return f"cnn, {how}{precision}, {STEPS} steps", learns(torch, context, precision, compiled)


def check_ddp() -> Found:
    """The process group of torchrun with one process, over NCCL."""
    torch = torch_on_gpu()
    if not torch.distributed.is_available() or not torch.distributed.is_nccl_available():
        raise Skip("torch is built without NCCL")
    from edgefuse.train.machine import distributed

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    os.environ |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1"}
    os.environ["MASTER_PORT"] = str(port)
    with distributed() as context:
        # Alone, training exchanges nothing.
        sent = torch.arange(4.0, device=context.device)
        torch.distributed.all_reduce(sent)
        if sent.tolist() != [0, 1, 2, 3]:
            raise Failure(f"one process's sum of 0, 1, 2, 3 over NCCL is {sent.tolist()}")
        return f"cnn, fp32, {STEPS} steps, NCCL with one process", learns(torch, context, "fp32")


CHECKS: dict[str, Callable[[], Found]] = {
    **{f"cuda-{model}": partial(engine_agrees, "cuda", model) for model in MODELS},
    "torch-cuda": check_torch,
    **{f"tensorrt-{model}": partial(engine_agrees, "tensorrt", model) for model in MODELS},
    **{f"train-{precision}": partial(training, precision) for precision in LOSS_TOLERANCE},
    "train-ddp": check_ddp,
    "train-compile": partial(training, "fp32", compiled=True),
}
"""What devices need comes first, so that a slow machine loses training."""


# The report.


def machine() -> dict[str, Any]:
    """Return what the report says of this machine."""
    versions = {}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    command = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    try:
        asked = subprocess.run(command, capture_output=True, text=True, timeout=20)
        gpus = asked.stdout.strip().splitlines() if asked.returncode == 0 else []
    except (OSError, subprocess.SubprocessError):
        gpus = []
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    commit = ""
    with contextlib.suppress(OSError, subprocess.SubprocessError):  # none, or no repository
        asked = subprocess.run(command, capture_output=True, text=True, timeout=20)
        commit = asked.stdout.strip() if asked.returncode == 0 else ""
    tegra = Path("/etc/nv_tegra_release")
    with contextlib.suppress(OSError):
        if tegra.is_file():
            gpus.append(tegra.read_text("utf-8", "replace").splitlines()[0])
    system = {"python": platform.python_version(), "system": platform.platform(), "cores": os.cpu_count()}
    return {**system, "commit": commit, "gpus": gpus, "packages": versions}


def run_all(names: Sequence[str], limit: float = SECONDS) -> Iterator[Result]:
    """Run checks one after the other, within the time for all; engines and their timings are shared."""
    end = time.monotonic() + limit
    with tempfile.TemporaryDirectory() as folder:
        os.environ["EDGEFUSE_CACHE"] = folder
        for name in names:
            command = [sys.executable, "-m", "bench.gpu_check", "--inside", name, "--answer"]
            yield isolate(name, command, end - time.monotonic())


def lines(results: Sequence[Result]) -> Iterator[str]:
    """Return the table, Markdown."""
    yield "| check | outcome | s | what | numbers |"
    yield "|---|---|---:|---|---|"
    for result in results:
        numbers = ", ".join(f"{key} {value:.5g}" for key, value in result.numbers.items())
        detail = result.detail.replace("|", "\\|")
        yield f"| {result.name} | {result.outcome} | {result.seconds:.1f} | {detail} | {numbers} |"


def report(results: Sequence[Result], out: Path | None) -> int:
    """Print the table and the JSON, write it too if `out` is given; return the exit status."""
    text = json.dumps({"machine": machine(), "checks": [asdict(result) for result in results]}, indent=1)
    print("\n".join(lines(results)), text, sep="\n\n")
    if out is not None:
        try:
            out.write_text(text + "\n", "utf-8")
        except OSError as error:
            print(f"{out} could not be written: {error.strerror}: copy the JSON from above", file=sys.stderr)
    counts = Counter(result.outcome for result in results)
    print(", ".join(f"{counts[outcome]} {outcome}" for outcome in OUTCOMES), file=sys.stderr)
    return int(counts["failed"] > 0)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the checks that were named, or all."""
    parser = argparse.ArgumentParser("bench.gpu_check", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("checks", nargs="*", metavar="CHECK", help=f"of {', '.join(CHECKS)}; none: all")
    parser.add_argument("--out", type=Path, help="file for the JSON, which is printed in any case")
    parser.add_argument("--inside", choices=CHECKS, help=argparse.SUPPRESS)
    parser.add_argument("--answer", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.inside:
        partial_answer = given.answer.with_suffix(".partial")
        partial_answer.write_text(json.dumps(asdict(judge(given.inside, CHECKS[given.inside]))), "utf-8")
        partial_answer.replace(given.answer)
        return 0
    if unknown := [name for name in given.checks if name not in CHECKS]:
        parser.error(f"no check is called {', '.join(unknown)}: there are {', '.join(CHECKS)}")
    results = list[Result]()
    with contextlib.suppress(KeyboardInterrupt):  # Ctrl-C: what there is
        for result in run_all(given.checks or list(CHECKS)):
            print(f"{result.name}: {result.outcome}", file=sys.stderr, flush=True)
            results.append(result)
    return report(results, given.out)


if __name__ == "__main__":
    sys.exit(main())
