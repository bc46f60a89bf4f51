"""All networks in all precisions on both engines; deploy graphs, and naive exports, beside ours by turns.

    make bench-models    # about a quarter of an hour; writes docs/benchmarks.json and its tables

`nano` has its shipped weights, the others random ones: a convolution takes as long with any.
"""

import time
from collections.abc import Callable
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from bench.graphs import built, frame, naive
from bench.inputs import feeds
from edgefuse.packages import is_installed
from edgefuse.runtime.engines import ENGINES, Engine
from edgefuse.runtime.timing import percentiles

Work: TypeAlias = Callable[[], Any]
Open: TypeAlias = Callable[..., Engine]
MODELS = ("nano", "cnn", "transformer")
"""`gan` is not measured: its network is the `cnn`."""
PRECISIONS = ("fp32", "fp16", "int8")
RUN_ON = ("cpu", "openvino")
SIZES = ((640, 480), (1280, 1024))
SIZE = SIZES[0]
THREADS = (1, 2)

SECONDS = 3.0  # of measuring, per case
ROUNDS = (5, 100)  # at least, even if they take longer; at most
TURN = 0.05
"""Seconds that a network runs again and again before it is another one's turn: the first run after that of
another finds none of its data in the processor's caches. All runs count."""


@pytest.fixture
def backend(tmp_path: Path) -> Open:
    """Return what opens a graph with an engine."""

    def backend(graph: bytes, engine: str, threads: int) -> Engine:
        if not is_installed(ENGINES[engine].package):
            pytest.skip(f"{engine} is not installed")
        file = tmp_path / f"{len(list(tmp_path.iterdir()))}.onnx"
        file.write_bytes(graph)
        return ENGINES[engine](file, threads)

    return backend


@pytest.fixture
def measure(benchmark: Any) -> Callable[..., None]:
    """Return what times works by turns and notes the facts, and of each the times of every turn."""

    def measure(facts: dict[str, Any], **works: Work) -> None:
        times: dict[str, list[list[float]]] = {name: [] for name in works}

        def turns() -> None:
            for name, work in works.items():
                begun = time.perf_counter()
                times[name].append([])
                while (start := time.perf_counter()) < begun + TURN:
                    work()
                    times[name][-1].append(time.perf_counter() - start)

        turns()  # does not count
        once = sum(sum(chain(*seen)) for seen in times.values())
        for seen in times.values():
            seen.clear()
        least, most = ROUNDS
        started, worked = time.perf_counter(), time.process_time()
        benchmark.pedantic(turns, rounds=max(least, min(most, int(SECONDS / once))), iterations=1)
        share = (time.process_time() - worked) / (time.perf_counter() - started)
        stages = {}
        for name, seen in times.items():
            flat = list(chain(*seen))
            p50, p95, p99 = percentiles(flat)
            stages[name] = {"p50": p50, "p95": p95, "p99": p99, "count": len(flat)}
        benchmark.extra_info |= {"facts": facts | {"cores_used": share}, "times": times, "stages": stages}

    return measure


@pytest.mark.parametrize("threads", THREADS)
def test_peak(measure: Callable[..., None], threads: int) -> None:
    """What the processor gives at best: the product of two matrices in ONNX Runtime, in fp32."""
    side = 1024
    kinds = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [side, side]) for name in "abc"]
    graph = helper.make_graph([helper.make_node("MatMul", ["a", "b"], ["c"])], "peak", kinds[:2], kinds[2:])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    settings = ort.SessionOptions()
    settings.intra_op_num_threads = threads
    session = ort.InferenceSession(made.SerializeToString(), settings, ["CPUExecutionProvider"])
    fed = {name: np.random.default_rng(0).random((side, side), np.float32) for name in "ab"}
    facts = {"table": "peak", "threads": threads, "flops": 2 * side**3}
    measure(facts, run=lambda: session.run(None, fed))


# Cases that share a file follow each other.
@pytest.mark.parametrize("threads", THREADS)
@pytest.mark.parametrize("engine", RUN_ON)
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize("model", MODELS)
def test_model(
    measure: Callable[..., None],
    backend: Open,
    model: str,
    size: tuple[int, int],
    precision: str,
    engine: str,
    threads: int,
) -> None:
    """The network alone."""
    network, x = backend(built(model, size, precision), engine, threads), frame(size)
    facts = {"table": "models", "model": model, "size": size, "precision": precision}
    measure(
        facts | {"engine": engine, "threads": threads}, run=lambda: network.run(feeds(network, sources=x))
    )


@pytest.mark.parametrize("threads", THREADS)
@pytest.mark.parametrize("size", [SIZE, None], ids=["size", "dynamic"])
def test_deploy(
    measure: Callable[..., None], backend: Open, size: tuple[int, int] | None, threads: int
) -> None:
    """The end-to-end graph of `nano` beside its network graph, at 640x480 in ONNX Runtime."""
    core = backend(built("nano", size), "cpu", threads)
    deploy = backend(built("nano", size, graph="end_to_end"), "cpu", threads)
    x, (width, height) = frame(SIZE), SIZE
    levels = np.random.default_rng(1).integers(0, 256, (1, height, width, 4), np.uint8)
    ir, vis = np.ascontiguousarray(levels[..., :1]), np.ascontiguousarray(levels[..., 1:])
    facts = {"table": "deploy", "form": "--size 640x480" if size else "any size", "threads": threads}
    measure(
        facts,
        **{
            "core": partial(core.run, feeds(core, sources=x)),
            "deploy": partial(deploy.run, feeds(deploy, ir=ir, vis=vis)),
        },
    )


@pytest.mark.parametrize("threads", THREADS)
@pytest.mark.parametrize("engine", RUN_ON)
@pytest.mark.parametrize("model", ["cnn", "transformer"])
def test_naive(measure: Callable[..., None], backend: Open, model: str, engine: str, threads: int) -> None:
    """A published network at 640x480 beside its naive export; both give the same answer."""
    x = frame(SIZE)
    ours = backend(built(model, SIZE), engine, threads)
    theirs = backend(naive(model, SIZE), engine, threads)
    np.testing.assert_allclose(ours.run({"sources": x}), theirs.run({"sources": x}).clip(0, 1), atol=1e-4)
    facts = {"table": "naive", "model": model, "engine": engine, "threads": threads}
    measure(facts, naive=lambda: theirs.run({"sources": x}), ours=lambda: ours.run({"sources": x}))


@pytest.mark.parametrize("engine", RUN_ON)
def test_nano_beside_the_published_cnn(measure: Callable[..., None], backend: Open, engine: str) -> None:
    """`nano` at 640x480 beside the naive export of `cnn`, on 2 threads."""
    x = frame(SIZE)
    theirs = backend(naive("cnn", SIZE), engine, 2)
    single, eight = (backend(built("nano", SIZE, precision), engine, 2) for precision in ("fp32", "int8"))
    engines = {"naive": theirs, "fp32": single, "int8": eight}
    works = {name: partial(network.run, feeds(network, sources=x)) for name, network in engines.items()}
    measure({"table": "nano", "engine": engine, "threads": 2}, **works)
