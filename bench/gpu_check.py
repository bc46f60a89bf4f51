"""Try on this machine's GPU what is installed here, and print one table and a JSON to paste into a report.

    python -m bench.gpu_check [--out gpu-check.json] [CHECK ...]

It takes about five minutes at most and no network. Each check runs in a process of its own and ends as
passed, failed (with the reason) or skipped (with what is missing), also where it crashes or hangs. Answers
are compared with the CPU's under the gates of `edgefuse export`. Exit status: 0 nothing failed,
1 a check failed, 2 wrong usage.
"""

import argparse
import contextlib
import importlib.metadata
import json
import os
import platform
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edgefuse.errors import EdgefuseError
from edgefuse.packages import is_installed

SECONDS = 300.0
"""For all checks together."""
MARK = "gpu_check result: "
"""Before a check's answer on its output, which libraries write to as well."""
PACKAGES = (
    "edgefuse", "numpy", "opencv-python", "onnxruntime", "onnxruntime-gpu", "tensorrt", "tensorrt-cu12",
    "tensorrt-cu13", "cuda-python", "cuda-bindings", "torch", "onnx",
)  # fmt: skip
HEIGHT, WIDTH = 480, 640
DEVICE = "cuda"
BATCH, PATCH, STEPS = 8, 64, 20
LOSS_TOLERANCE = {"fp32": 1e-3, "bf16": 5e-2, "fp16": 1e-2}
"""How far the first step's loss may be from the CPU's in float32, as a share of it."""


class Skip(Exception):  # noqa: N818 - it is no error
    """What the check needs is not on this machine; the message says what."""


class Failure(Exception):  # noqa: N818
    """What was found is wrong; the message is the sentence for the report."""


@dataclass(frozen=True)
class Result:
    """How a check ended."""

    name: str
    outcome: str
    """`passed`, `failed` or `skipped`."""
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
    """Run a check's process, which may crash or hang, and read its answer."""
    start = time.perf_counter()

    def failed(reason: str) -> Result:
        return Result(name, "failed", reason, seconds=round(time.perf_counter() - start, 1))

    if seconds <= 0:
        return Result(name, "skipped", f"the {SECONDS:.0f} s for all checks were used up")
    try:
        ended = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=seconds)
    except subprocess.TimeoutExpired:
        return failed(f"it took longer than {seconds:.3g} s")
    except OSError as error:
        return failed(f"its process could not be started: {error}")
    for line in reversed(ended.stdout.splitlines()):
        if line.startswith(MARK):
            with contextlib.suppress(ValueError, TypeError):
                return Result(**json.loads(line.removeprefix(MARK)))
    last = (ended.stderr.strip().splitlines() or ["it said nothing"])[-1][:300]
    how = f"signal {-ended.returncode}" if ended.returncode < 0 else f"exit status {ended.returncode}"
    return failed(f"its process ended with {how}: {last}")


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


def engine_agrees(engine: str, models: Sequence[str]) -> Found:
    """Fuse with an engine and with the CPU, the same files."""
    from edgefuse.errors import ModelError
    from edgefuse.runtime.engines import ENGINES, file_for
    from edgefuse.runtime.engines.fuser import Fuser

    for needed in (engine, "cpu"):
        if missing := ENGINES[needed].missing():
            raise Skip(missing)
    if not has_gpu():
        raise Skip("no NVIDIA GPU or driver is found here")
    ir, vis = pair()
    numbers, left_out = dict[str, float](), list[str]()
    for model in models:
        try:
            file = file_for(model, engine)
        except ModelError:
            left_out.append(model)
            continue
        with Fuser(file, engine="cpu") as cpu, Fuser(file, engine=engine) as gpu:
            found = agree(gpu.fuse_unrounded(ir, vis), cpu.fuse_unrounded(ir, vis), gpu.spec.precision)
            found["ms"] = clock(lambda fuser=gpu: fuser.fuse_luma(ir, vis))  # type: ignore[misc]
        numbers |= {f"{file.stem}_{key}": value for key, value in found.items()}
    if not numbers:
        raise Skip(f"no shipped file is arranged for {engine}")
    without = f"; not arranged for it: {', '.join(left_out)}" if left_out else ""
    return f"{engine} against cpu, {WIDTH}x{HEIGHT}, time by the host's clock{without}", numbers


def has_gpu() -> bool:
    """Return whether the CUDA driver's library is there and finds a device."""
    import ctypes

    try:
        driver, count = ctypes.CDLL("libcuda.so.1"), ctypes.c_int()
        return driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0 and count.value > 0
    except (OSError, AttributeError):
        return False


def check_onnxruntime() -> Found:
    """ONNX Runtime's CUDA provider."""
    return engine_agrees("cuda", ("nano", "cnn", "transformer", "gan"))


def check_tensorrt() -> Found:
    """TensorRT: engines are built, into a folder that goes away, and run."""
    if not (is_installed("cuda") and is_installed("cuda.bindings")):
        raise Skip("cuda-python is not installed, or is older than cuda.bindings: see docs/tensorrt.md")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["EDGEFUSE_CACHE"] = folder
        return engine_agrees("tensorrt", ("nano", "cnn"))


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


def by_events(torch: Any, run: Callable[[], object], calls: int = 50) -> float:
    """Return the median time of a call on the GPU, by CUDA events, ms."""
    for _ in range(5):
        run()
    torch.cuda.synchronize()
    times = []
    for _ in range(calls):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        run()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end))
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
    context = DistributedContext(device=torch.device(DEVICE, 0))
    how = "compiled, " if compiled else ""
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
    "onnxruntime-cuda": check_onnxruntime,
    "torch-cuda": check_torch,
    "train-fp32": lambda: training("fp32"),
    "train-bf16": lambda: training("bf16"),
    "train-fp16": lambda: training("fp16"),
    "train-ddp": check_ddp,
    "train-compile": lambda: training("fp32", compiled=True),
    "tensorrt": check_tensorrt,
}
"""The slowest last, so that a slow machine loses these."""


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
    tegra = Path("/etc/nv_tegra_release")
    with contextlib.suppress(OSError):
        if tegra.is_file():
            gpus.append(tegra.read_text("utf-8", "replace").splitlines()[0])
    system = {"python": platform.python_version(), "system": platform.platform(), "cores": os.cpu_count()}
    return {**system, "gpus": gpus, "packages": versions}


def run_all(names: Sequence[str], limit: float = SECONDS) -> Iterator[Result]:
    """Run checks one after the other, within the time for all."""
    end = time.monotonic() + limit
    for name in names:
        command = [sys.executable, "-m", "bench.gpu_check", "--inside", name]
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
    return int(any(result.outcome == "failed" for result in results))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the checks that were named, or all."""
    parser = argparse.ArgumentParser("bench.gpu_check", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("checks", nargs="*", metavar="CHECK", help=f"of {', '.join(CHECKS)}; none: all")
    parser.add_argument("--out", type=Path, help="file for the JSON, which is printed in any case")
    parser.add_argument("--inside", choices=CHECKS, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.inside:
        print("\n" + MARK + json.dumps(asdict(judge(given.inside, CHECKS[given.inside]))), flush=True)
        return 0
    if unknown := [name for name in given.checks if name not in CHECKS]:
        parser.error(f"no check is called {', '.join(unknown)}: there are {', '.join(CHECKS)}")
    results = []
    for result in run_all(given.checks or list(CHECKS)):
        print(f"{result.name}: {result.outcome}", file=sys.stderr, flush=True)
        results.append(result)
    return report(results, given.out)


if __name__ == "__main__":
    sys.exit(main())
