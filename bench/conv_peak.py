"""How near a model comes to what ONNX Runtime gives on this machine for one large convolution.

    python -m bench.conv_peak [--model nano] [--size 640x480] [--threads 1] [--rounds 40]

Three 3×3 convolutions of 64 to 64 channels at 160×120 are the peak: in fp32, and in int8 between Q/DQ pairs.
The model's multiplications are those of its convolutions; its time is that of all it does. All take turns, so
that other work on the machine slows each alike.
"""

import argparse
import json
import math
import statistics
import time
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from bench.graphs import built, frame
from edgefuse.export.quantize import insert_pairs
from edgefuse.images import parse_size

CHANNELS, HEIGHT, WIDTH = 64, 120, 160


def convolution(precision: str) -> onnx.ModelProto:
    """Return a graph of one large convolution; in int8 with float ends, as in a model."""
    kernel = np.random.default_rng(0).standard_normal((CHANNELS, CHANNELS, 3, 3)).astype(np.float32)
    sides: list[int | str] = [1, CHANNELS, HEIGHT, WIDTH]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, sides) for name in ("sources", "fused")]
    nodes = [
        helper.make_node("Conv", ["sources", "kernel"], ["a"], "first", pads=[1] * 4),
        helper.make_node("Conv", ["a", "kernel"], ["b"], "second", pads=[1] * 4),
        helper.make_node("Conv", ["b", "kernel"], ["c"], "third", pads=[1] * 4),
        helper.make_node("Neg", ["c"], ["fused"]),
    ]
    graph = helper.make_graph(nodes, "peak", ends[:1], ends[1:], [numpy_helper.from_array(kernel, "kernel")])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    if precision == "int8":
        steps = {"sources": 1 / 32, "a": 1.0, "b": 24.0, "c": 600.0}
        insert_pairs(made, steps, {"first", "second", "third"})
    return made


def multiplications(made: onnx.ModelProto) -> int:
    """Return the multiplications of a graph's convolutions, of one frame of fixed size."""
    graph = onnx.shape_inference.infer_shapes(made, data_prop=True).graph
    sides = {
        value.name: [side.dim_value for side in value.type.tensor_type.shape.dim]
        for value in (*graph.value_info, *graph.output)
    }
    kernels = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in kernels:
            kernels[node.output[0]] = kernels[node.input[0]]
    layers = [node for node in graph.node if node.op_type == "Conv"]
    return sum(math.prod(kernels[n.input[1]][1:]) * math.prod(sides[n.output[0]]) for n in layers)


def measure(model: str, size: tuple[int, int], threads: int, rounds: int) -> dict[str, Any]:
    """Run the convolutions and the model in turn; return their rates and the model's shares."""
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 4
    graphs: dict[str, onnx.ModelProto] = {}
    for precision in ("fp32", "int8"):
        graphs[f"convolution {precision}"] = convolution(precision)
        graphs[f"{model} {precision}"] = onnx.ModelProto.FromString(built(model, size, precision))
    works = {}
    for name, made in graphs.items():
        session = ort.InferenceSession(made.SerializeToString(), options, ["CPUExecutionProvider"])
        sources = (
            frame(size) if name.startswith(model) else np.zeros((1, CHANNELS, HEIGHT, WIDTH), np.float32)
        )
        levels = {v.name: np.full((1, v.shape[1]), 0.3, np.float32) for v in session.get_inputs()[1:]}
        works[name] = session, {"sources": sources, **levels}
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(rounds + 3):
        for name, (session, feed) in works.items():
            start = time.perf_counter()
            session.run(None, feed)
            if turn >= 3:
                seconds[name].append(time.perf_counter() - start)
    rates = {
        name: {"giga": multiplications(made) / 1e9, "milliseconds": 1000 * statistics.median(seconds[name])}
        for name, made in graphs.items()
    }
    for name, rate in rates.items():
        rate["giga_per_second"] = 1000 * rate["giga"] / rate["milliseconds"]
        peak = rates[f"convolution {name.rpartition(' ')[2]}"]
        rate["of_peak"] = rate["giga_per_second"] / peak["giga_per_second"]
    return {"model": model, "size": size, "threads": threads, "rounds": rounds, "rates": rates}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--size", default="640x480")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--out", help="Write the figures as JSON here.")
    given = parser.parse_args()
    found = measure(given.model, parse_size(given.size), given.threads, given.rounds)
    print("| | multiplications (10⁹) | ms | 10⁹/s | of the peak |\n|---|---|---|---|---|")
    for name, rate in found["rates"].items():
        cells = f"{rate['giga']:.3f} | {rate['milliseconds']:.2f} | {rate['giga_per_second']:.0f}"
        print(f"| {name} | {cells} | {rate['of_peak']:.0%} |")
    if given.out:
        with open(given.out, "w", encoding="utf-8") as file:
            json.dump(found, file, indent=1)


if __name__ == "__main__":
    main()
