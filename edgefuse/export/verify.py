"""Verifying an exported file: run it beside its checkpoint on real pairs, and hold it to the gates."""

import contextlib
import json
import logging
import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray

from edgefuse.errors import BackendError, InputError, counted
from edgefuse.export.config import Gates
from edgefuse.images import MIN_SIDE, Image, fit_size, luma, measure_levels, read_visible, size_of
from edgefuse.metrics import CORE_METRICS, score
from edgefuse.metrics.statistics import decibels
from edgefuse.metrics.structure import ssim
from edgefuse.packages import stay_offline
from edgefuse.pairs import pair_folders
from edgefuse.runtime.engines import ENGINES, Engine
from edgefuse.runtime.engines.fuser import Fuser, network_input
from edgefuse.runtime.engines.tensorrt_build import MIN_SHARE, layer_share
from edgefuse.spec import GateResult, ModelSpec, VerificationReport
from edgefuse.thermal import read_infrared

logger = logging.getLogger(__name__)

HUGE = 8_000_000
"""Pixels."""


class Pair(NamedTuple):
    """What a file and its checkpoint are compared on."""

    name: str
    ir: Image
    """uint8 `[H, W]`."""
    vis: Image
    """uint8 `[H, W]` or `[H, W, 3]` BGR."""
    extreme: bool = False
    """An invented picture, whose fusion metrics mean nothing."""


class Measured(NamedTuple):
    """What was measured, and where it was worst."""

    name: str
    value: float
    pair: str
    """Empty for what is measured on no pair."""


def failed_path(out: Path) -> Path:
    """Return where a file that fails its gates is kept, `nano.failed.onnx`: never under the name asked for,
    where an earlier one that passed may lie."""
    return out.with_name(f"{out.stem}.failed{out.suffix}")


def evaluate_gates(
    measured: Sequence[Measured], spec: ModelSpec, gates: Gates | None = None
) -> list[GateResult]:
    """Hold what was measured against the gates of a graph and precision; one that was not measured fails."""
    gates = gates or Gates()
    limits: dict[str, float]
    if spec.precision == "fp32":
        largest = gates.max_levels / 255 if spec.end_to_end else gates.max_difference
        limits = {"max difference": largest}
    else:
        limits = {"PSNR": gates.psnr(spec.precision), "PSNR at extremes": gates.min_extreme_psnr}
        # A file may be close to its checkpoint because nothing of it is in the precision asked for.
        limits[f"layers in {spec.precision}"] = MIN_SHARE[spec.precision]
        if spec.precision == "int8":
            limits |= dict.fromkeys(CORE_METRICS, -gates.max_worse)
    known = {m.name: m for m in measured}
    results = []
    for name, limit in limits.items():
        found = known.get(name, Measured(name, math.nan, ""))
        # Grey levels over 255 are not exact in binary.
        passed = found.value <= limit + 1e-9 if name == "max difference" else found.value >= limit
        results.append(_result(found, limit, passed))
    return results


def _result(measured: Measured, limit: float, passed: bool) -> GateResult:
    value = float(f"{measured.value:.6g}") if math.isfinite(measured.value) else None
    return GateResult(measured.name, limit, value, measured.pair, passed)


def sentence(gate: GateResult, end_to_end: bool = False) -> str:
    """Say a gate and its outcome: `PSNR 53.2 dB, at least 55 dB required, on 'frame 25'`."""
    name, limit, value = gate.name, gate.limit, gate.value
    if value is None:
        if gate.passed:
            return f"{name} infinite, at least {limit:g} required, worst on {gate.pair!r}"
        return f"{name} could not be measured, {limit:g} required"
    if name == "max difference":
        if end_to_end:
            text = f"max difference {255 * value:.0f} grey levels, at most {255 * limit:.0f} allowed"
        else:
            text = f"max difference {value:.2e}, at most {limit:g} allowed"
    elif name.startswith("layers in"):
        return f"{value:.0%} of the {name}, at least {limit:.0%} required"
    elif name.startswith("PSNR"):
        text = f"lowest {name} {value:.1f} dB, at least {limit:g} dB required"
    else:
        text = f"mean {name} changed by {value:+.4f}, at least {limit:+g} required"
    return f"{text}, worst on {gate.pair!r}"


@dataclass(frozen=True)
class _Difference:
    """What was seen on one pair."""

    name: str
    largest: float
    psnr: float
    ssim: float
    metrics: dict[str, float]


def compare(
    file: Engine,
    checkpoint: Engine,
    pairs: Sequence[Pair],
    compared_on: str,
    gates: Gates | None = None,
    *,
    layers: Mapping[str, int] = MappingProxyType({}),
    **facts: Any,
) -> VerificationReport:
    """Run both on every pair and hold the worst of what is seen to the gates of the file.

    A file of fixed size gets the pairs resized to it. One in fp16 or int8 is also run on `extreme_pairs`, of
    the size of the first pair.

    Args:
        file: what is verified.
        checkpoint: what it was made of.
        pairs: what both are run on.
        compared_on: what the pairs are.
        gates: the limits; None: the default ones.
        layers: number of the file's layers by precision.
        facts: more for the report.
    """
    fitted = _fitted(pairs, file.spec)
    sizes = tuple(dict.fromkeys(size_of(pair.vis) for pair in fitted))
    seen = [_differ(file, checkpoint, pair) for pair in fitted]
    return _report(seen, sizes, file, compared_on, gates, layers, facts)


def _report(
    seen: Sequence[_Difference],
    sizes: tuple[str, ...],
    file: Engine,
    compared_on: str,
    gates: Gates | None,
    layers: Mapping[str, int],
    facts: Mapping[str, Any],
) -> VerificationReport:
    """Return the worst of what was seen, held to the gates."""
    real = [d for d in seen if d.metrics]
    extremes = [d for d in seen if not d.metrics]
    checked = real or extremes
    worst = min(checked, key=lambda d: d.psnr)
    metrics = {
        name: float(np.mean([d.metrics[name] for d in real])) for name in (CORE_METRICS if real else ())
    }
    largest = max(checked, key=lambda d: d.largest)
    measured = [
        Measured("max difference", largest.largest, largest.name),
        Measured("PSNR", worst.psnr, worst.name),
        *(Measured(m, change, min(real, key=lambda d: d.metrics[m]).name) for m, change in metrics.items()),
    ]
    if extremes:
        lowest = min(extremes, key=lambda d: d.psnr)
        measured.append(Measured("PSNR at extremes", lowest.psnr, lowest.name))
    precision = file.spec.precision
    measured.append(Measured(f"layers in {precision}", layer_share(layers, precision), ""))
    return VerificationReport(
        compared_on=compared_on,
        pairs=len(checked),
        sizes=sizes,
        max_difference=float(f"{largest.largest:.3g}"),
        psnr=round(worst.psnr, 2) if math.isfinite(worst.psnr) else None,
        ssim=round(min(d.ssim for d in checked), 5),
        worst=worst.name,
        metrics={name: round(change, 5) for name, change in metrics.items()},
        layers=dict(layers),
        run_on=file.device,
        gates=tuple(evaluate_gates(measured, file.spec, gates)),
        **facts,
    )


def compare_engine(
    name: str, file: Path, checkpoint: Engine, pairs: Sequence[Pair], gates: Gates | None = None
) -> list[GateResult]:
    """Run a file on one more engine, and hold the worst of its answers to the gates of its precision.

    Engines choose arithmetic of their own, such as TensorFloat-32, so those of a file in fp32 are held to
    the gate of fp16.

    Returns:
        The outcome, on the pairs and on the extremes; none if the engine cannot be used here.
    """
    gates = gates or Gates()
    if ENGINES[name].missing():
        return []
    try:
        engine = ENGINES[name](file)
    except BackendError as error:  # such as no GPU in this machine
        logger.info("not compared on %s: %s", name, error)
        return []
    with contextlib.closing(engine):
        spec = engine.spec
        precision = "bf16" if engine.device.endswith("bf16") else spec.precision
        limits = {
            False: gates.psnr("fp16" if precision == "fp32" else precision),
            True: gates.min_extreme_psnr,
        }
        seen: dict[bool, list[tuple[float, str]]] = {False: [], True: []}
        for pair in _fitted(pairs, spec):
            seen[pair.extreme].append((_psnr(_apart(engine, checkpoint, pair)), pair.name))
    results = []
    for extreme, limit in limits.items():
        if seen[extreme]:
            value, pair_name = min(seen[extreme])
            measured = f"PSNR {'at extremes ' if extreme else ''}on {name}"
            results.append(_result(Measured(measured, value, pair_name), limit, value >= limit))
    return results


def _fitted(pairs: Sequence[Pair], spec: ModelSpec) -> list[Pair]:
    """Return pairs in the size that a graph takes, and with the extremes unless it is in fp32."""
    pairs = [Pair(*pair) for pair in pairs]
    if not pairs:
        raise InputError("there are no pairs to compare the file and its checkpoint on")
    if spec.precision != "fp32":
        height, width = pairs[0].vis.shape[:2]
        pairs += extreme_pairs(spec.size or (width, height))
    fitted = []
    for pair in pairs:
        size = spec.size or (pair.vis.shape[1], pair.vis.shape[0])
        fitted.append(pair._replace(ir=fit_size(pair.ir, size), vis=fit_size(pair.vis, size)))
    return fitted


def _differ(file: Engine, checkpoint: Engine, pair: Pair) -> _Difference:
    ir, vis = pair.ir, pair.vis
    ours, reference = Fuser(file)(ir, vis), Fuser(checkpoint)(ir, vis)
    difference = _apart(file, checkpoint, pair)
    metrics = {}
    if not pair.extreme:
        after, before = (score(fused, ir, vis, metrics=CORE_METRICS) for fused in (ours, reference))
        metrics = {name: after[name] - before[name] for name in CORE_METRICS}
    return _Difference(
        pair.name,
        float(difference.max()),
        _psnr(difference),
        ssim(luma(ours), luma(reference), 255.0),
        metrics,
    )


def _apart(file: Engine, checkpoint: Engine, pair: Pair) -> NDArray[np.float64]:
    """Return the difference of a file's answer from its checkpoint's, in [0, 1]."""
    if file.spec.end_to_end:
        ours, reference = (Fuser(engine)(pair.ir, pair.vis) for engine in (file, checkpoint))
        difference = np.abs(ours.astype(np.float64) - reference) / 255
    else:
        feed = network_feed(pair.ir, pair.vis, file.spec)
        difference = np.abs(file.run(feed).astype(np.float64) - checkpoint.run(feed))
    # An answer that is no number is as wrong as can be.
    return np.nan_to_num(difference, nan=1.0, posinf=1.0)


def _psnr(difference: NDArray[np.float64]) -> float:
    return decibels(float((difference**2).mean()))


def network_feed(ir: Image, vis: Image, spec: ModelSpec) -> dict[str, Any]:
    """Return what a network graph takes for a pair of images of one size."""
    grey = luma(vis)
    feed = {"sources": network_input(ir, grey, spec.size_divisor)}
    if spec.levels:
        feed["levels"] = measure_levels(ir, grey)[None, : spec.level_count]
    return feed


def int8_share(file: Path, feed: Mapping[str, Any]) -> float:
    """Return the share of a file's multiplications that ONNX Runtime really does in 8 bits, 0 to 1.

    It is read off the profile of a run: what operators ran after ONNX Runtime's own optimisations.
    """
    stay_offline()
    import onnxruntime as ort

    with tempfile.TemporaryDirectory() as scratch:
        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.enable_profiling, options.profile_file_prefix = True, f"{scratch}/run"
        options.optimized_model_filepath = f"{scratch}/optimised.onnx"
        session = ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        session.run(None, dict(feed))
        events = json.loads(Path(session.end_profiling()).read_bytes())
        optimised = onnx.load(f"{scratch}/optimised.onnx").graph
    shapes = {tensor.name: tuple(tensor.dims) for tensor in optimised.initializer}
    for node in optimised.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in shapes:
            shapes[node.output[0]] = shapes[node.input[0]]
    kernels = {
        n.name: next((shapes[i] for i in n.input if len(shapes.get(i, ())) > 2), None) for n in optimised.node
    }
    whole = in_int8 = 0
    for event in events:
        name, _, kind = event["name"].rpartition("_kernel_")
        kernel = kernels.get(name)
        if kind == "time" and kernel and "Conv" in event["args"]["op_name"]:
            (answer,) = event["args"]["output_type_shape"][0].values()
            products = math.prod(kernel[1:]) * math.prod(answer)
            whole += products
            in_int8 += products if event["args"]["op_name"].startswith("QLinear") else 0
    return round(in_int8 / whole, 4) if whole else 0.0


def folder_pairs(ir: Path, vis: Path, limit: int = 8) -> tuple[str, list[Pair]]:
    """Read up to `limit` pairs, spread over two folders; return what they are and the pairs."""
    found = pair_folders(ir, vis).pairs
    count = min(limit, len(found))
    chosen = [found[k * len(found) // count] for k in range(count)]
    pairs = []
    for stem, ir_file, vis_file in chosen:
        pairs.append(Pair(stem, read_infrared(ir_file), read_visible(vis_file)))
        if pairs[-1].ir.shape[:2] != pairs[-1].vis.shape[:2]:
            raise InputError(f"the two images of pair {stem!r} differ in size: an aligned pair is needed")
    return f"{counted(len(pairs), 'pair')} of {ir} and {vis}", pairs


def simulated_pairs(size: tuple[int, int] | None, count: int = 4) -> tuple[str, list[Pair]]:
    """Render pairs of the simulated rig.

    Args:
        size: width and height; None: 640×480. Above what the rig can render they come smaller.
        count: how many; of huge ones a single one, which takes as long.
    """
    from edgefuse.sim import Rig, RigConfig
    from edgefuse.sim.rig import MAX_SIDE

    width, height = size or (640, 480)
    shrink = max(1.0, max(width, height) / MAX_SIDE)
    rendered = (max(MIN_SIDE, int(width / shrink)), max(MIN_SIDE, int(height / shrink)))
    rig = Rig(RigConfig(size=rendered))
    frames = [25 * k for k in range(count if width * height < HUGE else 1)]
    return f"{len(frames)} {'frame' if len(frames) == 1 else 'frames'} of the simulated rig", [
        Pair(f"frame {n}", rig.frame("ir", n), rig.frame("vis", n)) for n in frames
    ]


def extreme_pairs(size: tuple[int, int]) -> list[Pair]:
    """Make the frames on which sums over a frame are largest and smallest: all white, all black."""
    black, white = (np.full((size[1], size[0]), value, np.uint8) for value in (0, 255))
    return [
        Pair("all white", white, white, True),
        Pair("all black", black, black, True),
        Pair("white infrared on black", white, black, True),
    ]
