"""Proving an exported file: run it beside its checkpoint on real pairs, compare, and judge."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgefuse.errors import InputError
from edgefuse.export.gates import Gates, Verdict, judge
from edgefuse.images import MIN_SIDE, Image, fit_size, luma, read_visible
from edgefuse.metrics import CORE_METRICS, score
from edgefuse.metrics.structure import ssim
from edgefuse.pairs import pair_folders
from edgefuse.runtime.backends import Backend
from edgefuse.runtime.fuser import Fuser, network_input
from edgefuse.runtime.precision import layer_share
from edgefuse.thermal import read_infrared

__all__ = ["Pair", "Receipt", "compare", "extreme_pairs", "folder_pairs", "simulated_pairs"]

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


@dataclass(frozen=True)
class Receipt:
    """How far an exported file is from its checkpoint."""

    compared_on: str
    pairs: int
    sizes: list[str]
    """Sizes that were compared, such as `640x480`."""
    max_difference: float
    """Largest absolute difference of any pixel, in [0, 1]; a deploy graph's grey levels are 1/255."""
    psnr: float
    """Lowest peak signal-to-noise ratio of any pair, dB; infinite if equal."""
    ssim: float
    """Lowest structural similarity of the two fused images of any pair."""
    worst: str
    """The pair with the lowest PSNR."""
    metrics: dict[str, float] = field(default_factory=dict)
    """Mean change of each fusion metric, file minus checkpoint; negative is worse."""
    layers: dict[str, int] = field(default_factory=dict)
    """Number of layers by the precision that they compute in."""
    kept: list[str] = field(default_factory=list)
    """Layers of an int8 file that were left in float because they lose too much."""
    calibration: str = ""
    """What the ranges of an int8 file come from."""
    run_on: str = ""
    """The engine and device that ran the file, such as `ONNX Runtime on cpu`."""
    gates: list[dict[str, Any]] = field(default_factory=list)
    """The verdicts, as plain values."""

    @property
    def passed(self) -> bool:
        """Whether all gates hold."""
        return all(gate["passed"] for gate in self.gates)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that JSON can hold."""
        values = asdict(self)
        values |= {name: round(value, 5) for name, value in values.items() if isinstance(value, float)}
        values["max_difference"] = float(f"{self.max_difference:.3g}")
        values["metrics"] = {name: round(change, 5) for name, change in self.metrics.items()}
        return {
            **values,
            "psnr": round(self.psnr, 2) if np.isfinite(self.psnr) else None,
            "passed": self.passed,
        }


@dataclass(frozen=True)
class _Difference:
    """What was seen on one pair."""

    name: str
    largest: float
    psnr: float
    ssim: float
    metrics: dict[str, float]


def compare(
    file: Backend,
    checkpoint: Backend,
    pairs: Sequence[Pair],
    compared_on: str,
    gates: Gates | None = None,
    *,
    layers: Mapping[str, int] = MappingProxyType({}),
    **facts: Any,
) -> Receipt:
    """Run both on every pair and judge by the gates of the file's graph and precision.

    A file of fixed size gets the pairs resized to it. One in fp16 or int8 is also run on `extreme_pairs`, of
    that size or of the first pair's.

    Args:
        file: the exported file.
        checkpoint: the network that it was made of.
        pairs: at least one.
        compared_on: what the pairs are, for the receipt.
        gates: limits; None: the default ones.
        layers: number of the file's layers by precision; one in fp16 or int8 fails without.
        facts: further values of the receipt, such as `kept`.
    """
    if not pairs:
        raise InputError("there are no pairs to compare the file and its checkpoint on")
    if file.spec.precision != "fp32":
        height, width = pairs[0][2].shape[:2]
        pairs = [*pairs, *extreme_pairs(file.spec.size or (width, height))]
    sizes: dict[str, None] = {}
    seen = []
    for name, ir, vis, extreme in (Pair(*pair) for pair in pairs):
        size = file.spec.size or (vis.shape[1], vis.shape[0])
        sizes[f"{size[0]}x{size[1]}"] = None
        fitted = Pair(name, fit_size(ir, size), fit_size(vis, size), extreme)
        seen.append(_differ(file, checkpoint, fitted))
    real = [d for d in seen if d.metrics]
    extremes = [d for d in seen if not d.metrics]
    judged = real or extremes
    worst = min(judged, key=lambda d: d.psnr)
    metrics = {
        name: float(np.mean([d.metrics[name] for d in real])) for name in (CORE_METRICS if real else ())
    }
    largest = max(judged, key=lambda d: d.largest)
    verdicts = [
        Verdict("max difference", largest.largest, largest.name),
        Verdict("PSNR", worst.psnr, worst.name),
        *(Verdict(m, change, min(real, key=lambda d: d.metrics[m]).name) for m, change in metrics.items()),
    ]
    if extremes:
        lowest = min(extremes, key=lambda d: d.psnr)
        verdicts.append(Verdict("PSNR at extremes", lowest.psnr, lowest.name))
    precision = file.spec.precision
    verdicts.append(Verdict(f"layers in {precision}", layer_share(layers, precision), ""))
    return Receipt(
        compared_on=compared_on,
        pairs=len(judged),
        sizes=list(sizes),
        max_difference=largest.largest,
        psnr=worst.psnr,
        ssim=min(d.ssim for d in judged),
        worst=worst.name,
        metrics=metrics,
        layers=dict(layers),
        run_on=file.device,
        gates=judge(verdicts, file.spec, gates or Gates()),
        **facts,
    )


def _differ(file: Backend, checkpoint: Backend, pair: Pair) -> _Difference:
    ir, vis = pair.ir, pair.vis
    ours, reference = Fuser(file)(ir, vis), Fuser(checkpoint)(ir, vis)
    difference: NDArray[np.float64]
    if file.spec.graph == "deploy":
        difference = np.abs(ours.astype(np.float64) - reference) / 255
    else:
        x = network_input(ir, luma(vis), file.spec.multiple)
        difference = np.abs(file.run(x).astype(np.float64) - checkpoint.run(x))
    # An answer that is no number is as wrong as can be.
    difference = np.nan_to_num(difference, nan=1.0)
    error = float((difference**2).mean())
    metrics = {}
    if not pair.extreme:
        after, before = (score(fused, ir, vis, metrics=CORE_METRICS) for fused in (ours, reference))
        metrics = {name: after[name] - before[name] for name in CORE_METRICS}
    return _Difference(
        pair.name,
        float(difference.max()),
        float("inf") if error == 0 else -10 * float(np.log10(error)),
        ssim(luma(ours), luma(reference), 255.0),
        metrics,
    )


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
    return f"{len(pairs)} pairs of {ir} and {vis}", pairs


def simulated_pairs(size: tuple[int, int] | None, count: int = 4) -> tuple[str, list[Pair]]:
    """Render pairs of the simulated rig.

    Args:
        size: width and height; None: 640×480. Above what the rig can render they come smaller.
        count: how many; of huge ones a single one, which takes as long.
    """
    from edgefuse.sim import Rig, RigConfig
    from edgefuse.sim.config import MAX_SIDE

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
