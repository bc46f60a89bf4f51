"""Proving an exported file: run it beside its checkpoint on real pairs and compare."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from edgefuse.errors import EdgefuseError
from edgefuse.images import Image, luma, read_infrared, read_visible
from edgefuse.pairs import pair_folders
from edgefuse.runtime.backends import Backend
from edgefuse.runtime.fuser import network_input

__all__ = ["Pair", "Receipt", "compare", "folder_pairs", "simulated_pairs"]

MAX_DIFFERENCE = 1e-4
"""Gate for fp32: largest absolute difference of any pixel, in [0, 1]."""
MIN_PSNR = 55.0
"""Gate for fp16: lowest peak signal-to-noise ratio of any pair, in dB."""

Pair = tuple[str, Image, Image]
"""Name, infrared and visible luma of a pair."""


@dataclass(frozen=True)
class Receipt:
    """How far an exported file is from its checkpoint."""

    compared_on: str
    pairs: int
    max_difference: float
    """Largest absolute difference of any pixel, in [0, 1]."""
    psnr: float
    """Lowest peak signal-to-noise ratio of any pair, dB; infinite if equal."""
    worst: str
    """The pair with the lowest PSNR."""
    gate: str
    passed: bool

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that JSON can hold."""
        return {**asdict(self), "psnr": None if np.isinf(self.psnr) else round(self.psnr, 2)}


def folder_pairs(ir: Path, vis: Path, limit: int = 8) -> tuple[str, list[Pair]]:
    """Read up to `limit` pairs, spread over two folders; return what they are and the pairs."""
    found = pair_folders(ir, vis).pairs
    chosen = [found[k * len(found) // min(limit, len(found))] for k in range(min(limit, len(found)))]
    pairs = []
    for stem, ir_file, vis_file in chosen:
        pairs.append((stem, read_infrared(ir_file), luma(read_visible(vis_file))))
    return f"{len(pairs)} pairs of {ir} and {vis}", pairs


def simulated_pairs(size: tuple[int, int] | None, count: int = 4) -> tuple[str, list[Pair]]:
    """Render pairs of the simulated rig."""
    from edgefuse.sim import Rig, RigConfig

    rig = Rig(RigConfig(size=size or (640, 480)))
    frames = [25 * k for k in range(count)]
    pairs = [(f"frame {n}", rig.frame("ir", n), luma(rig.frame("vis", n))) for n in frames]
    return f"{count} frames of the simulated rig", pairs


def compare(file: Backend, checkpoint: Backend, pairs: Sequence[Pair], compared_on: str) -> Receipt:
    """Run both on every pair and judge by the gate of the file's precision.

    A file of fixed size gets the pairs resized to it.
    """
    largest, lowest, worst = 0.0, float("inf"), pairs[0][0]
    for name, ir, vis in pairs:
        size = file.spec.size or (vis.shape[1], vis.shape[0])
        ir, vis = (cv2.resize(i, size) if (i.shape[1], i.shape[0]) != size else i for i in (ir, vis))
        x = network_input(ir, vis, file.spec.multiple)
        difference = np.abs(file.run(x).astype(np.float64) - checkpoint.run(x))
        largest = max(largest, float(difference.max()))
        error = float((difference**2).mean())
        psnr = float("inf") if error == 0 else -10 * np.log10(error)
        if psnr < lowest:
            lowest, worst = float(psnr), name
    if file.spec.precision == "fp32":
        gate, passed = f"max difference ≤ {MAX_DIFFERENCE:g}", largest <= MAX_DIFFERENCE
    else:
        gate, passed = f"PSNR ≥ {MIN_PSNR:g} dB", lowest >= MIN_PSNR
    return Receipt(compared_on, len(pairs), largest, lowest, worst, gate, passed)


class GateError(EdgefuseError):
    """An exported file that is too far from its checkpoint."""
