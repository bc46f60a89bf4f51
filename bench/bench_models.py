"""All networks in all precisions on both engines; and the published ones beside a naive export of them.

    make bench-models    # about half an hour; writes docs/benchmarks.md and docs/benchmarks.json

The weights are random: the time does not depend on them. Nor does it on the steps between the levels of the
int8 files, in which every convolution is in int8; a file of `edgefuse export --int8` may keep some in float.
"""

import contextlib
import io
import time
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from bench.plain_networks import plain
from edgefuse.export.graph import build_graph, make_spec
from edgefuse.export.quantize import insert_pairs, quantizable
from edgefuse.runtime.backends import ENGINES, Backend
from edgefuse.train.checkpoint import Checkpoint
from edgefuse.train.models import build_model

Measure: TypeAlias = Callable[[Callable[[], Any]], None]
MODELS = ("nano", "cnn", "transformer")
"""`gan` is not measured: its network is the `cnn`."""
PRECISIONS = ("fp32", "fp16", "int8")
RUN_ON = ("onnxruntime", "openvino")
SIZES = ((640, 480), (1280, 1024))
THREADS = (1, 2)
ROUNDS = 5
"""Of a naive export and ours, by turns."""


@cache
def built(model: str, size: tuple[int, int], precision: str = "fp32", *, naive: bool = False) -> bytes:
    """Return the file of a core graph, with random weights."""
    torch.manual_seed(0)
    network = build_model(model).eval()
    spec = make_spec(Checkpoint(model, {}, 0, {}), network, size, precision)
    if naive:
        graph = _naive(plain(network), size)
    else:
        graph = build_graph(network, spec, _all_in_int8 if precision == "int8" else None)
    onnx.helper.set_model_props(graph, spec.to_metadata())
    content: bytes = graph.SerializeToString()
    return content


def _naive(network: nn.Module, size: tuple[int, int]) -> onnx.ModelProto:
    """Export as torch does if it is told nothing more."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            network,
            (torch.from_numpy(frame(size)),),
            dynamo=True,
            input_names=["sources"],
            output_names=["fused"],
        )
    assert program is not None
    graph: onnx.ModelProto = program.model_proto
    return graph


def _all_in_int8(graph: onnx.ModelProto, peak: int) -> None:
    layers = quantizable(graph)
    insert_pairs(graph, {layer.input[0]: peak / 32 for layer in layers}, {layer.name for layer in layers})


@pytest.fixture
def backend(tmp_path: Path) -> Callable[..., Backend]:
    """Return what opens a graph with an engine."""

    def backend(graph: bytes, engine: str, threads: int) -> Backend:
        pytest.importorskip(engine)
        file = tmp_path / f"{len(graph)}.onnx"
        file.write_bytes(graph)
        return ENGINES[engine](file, threads)

    return backend


def frame(size: tuple[int, int]) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.random.default_rng(0).random((1, 2, size[1], size[0]), np.float32)


# Cases that share a file follow each other.
@pytest.mark.parametrize("threads", THREADS)
@pytest.mark.parametrize("engine", RUN_ON)
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize("model", MODELS)
def test_model(
    measure: Measure,
    benchmark: Any,
    backend: Callable[..., Backend],
    model: str,
    size: tuple[int, int],
    precision: str,
    engine: str,
    threads: int,
) -> None:
    """The network alone."""
    network, x = backend(built(model, size, precision), engine, threads), frame(size)
    facts = {"model": model, "size": size, "precision": precision, "engine": engine, "threads": threads}
    started, worked = time.perf_counter(), time.process_time()
    measure(lambda: network.run(x))
    share = (time.process_time() - worked) / (time.perf_counter() - started)
    benchmark.extra_info["model"] = facts | {"cores_used": share}


@pytest.mark.parametrize("threads", THREADS)
@pytest.mark.parametrize("engine", RUN_ON)
@pytest.mark.parametrize("model", ["cnn", "transformer"])
def test_naive(
    benchmark: Any, backend: Callable[..., Backend], model: str, engine: str, threads: int
) -> None:
    """A published network at 640x480 beside its naive export, by turns; both give the same answer."""
    size = SIZES[0]
    network, x = backend(built(model, size), engine, threads), frame(size)
    naive = backend(built(model, size, naive=True), engine, threads)
    np.testing.assert_allclose(network.run(x), naive.run(x).clip(0, 1), atol=1e-4)
    times = []

    def run_naive() -> None:
        start = time.perf_counter()
        naive.run(x)
        times.append(time.perf_counter() - start)

    benchmark.pedantic(lambda: network.run(x), setup=run_naive, rounds=ROUNDS, iterations=1)
    facts = {"model": model, "size": size, "precision": "fp32", "engine": engine, "threads": threads}
    benchmark.extra_info |= {"naive": facts, "naive_times": times}
