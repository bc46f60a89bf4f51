"""How far an exported file may be from its checkpoint."""

import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from edgefuse.export.config import Gates
from edgefuse.metrics import CORE_METRICS
from edgefuse.runtime.precision import MIN_SHARE
from edgefuse.spec import ModelSpec

__all__ = ["Gates", "Verdict", "failed_path", "judge", "sentence"]


class Verdict(NamedTuple):
    """What was measured, and where it was worst."""

    name: str
    value: float
    pair: str
    """Empty for what is measured on no pair."""


def failed_path(out: Path) -> Path:
    """Return where a file that fails its gates is kept, `nano.failed.onnx`: never under the name asked for,
    where an earlier one that passed may lie."""
    return out.with_name(f"{out.stem}.failed{out.suffix}")


def judge(measured: list[Verdict], spec: ModelSpec, gates: Gates) -> list[dict[str, Any]]:
    """Hold what was measured against the gates of a graph and precision; one that was not measured fails.

    Returns:
        Per gate: `name`, `limit`, `value`, `pair` (where it is worst) and `passed`. The value is None if it
        is infinite, or, of a gate that fails, not known.
    """
    limits: dict[str, float]
    if spec.precision == "fp32":
        largest = gates.max_levels / 255 if spec.graph == "deploy" else gates.max_difference
        limits = {"max difference": largest}
    else:
        default = 55.0 if spec.precision == "fp16" else 40.0
        limits = {"PSNR": default if gates.min_psnr is None else gates.min_psnr}
        limits["PSNR at extremes"] = gates.min_extreme_psnr
        # A file may be close to its checkpoint because nothing of it is in the precision asked for.
        limits[f"layers in {spec.precision}"] = MIN_SHARE[spec.precision]
        if spec.precision == "int8":
            limits |= dict.fromkeys(CORE_METRICS, -gates.max_worse)
    known = {verdict.name: verdict for verdict in measured}
    verdicts = []
    for name, limit in limits.items():
        _, value, pair = known.get(name, Verdict(name, math.nan, ""))
        # Grey levels over 255 are not exact in binary.
        passed = value <= limit + 1e-9 if name == "max difference" else value >= limit
        number = float(f"{value:.6g}") if np.isfinite(value) else None
        verdicts.append({"name": name, "limit": limit, "value": number, "pair": pair, "passed": bool(passed)})
    return verdicts


def sentence(gate: dict[str, Any], deploy: bool = False) -> str:
    """Say a gate and its outcome: `PSNR 53.2 dB, at least 55 dB asked for, on 'frame 25'`."""
    name, limit, value = gate["name"], gate["limit"], gate["value"]
    if value is None and not gate["passed"]:
        return f"{name} could not be measured, {limit:g} asked for"
    if name == "max difference":
        if deploy:
            text = f"max difference {255 * value:.0f} grey levels, at most {255 * limit:.0f} allowed"
        else:
            text = f"max difference {value:.2e}, at most {limit:g} allowed"
    elif name.startswith("layers in"):
        return f"{value:.0%} of the {name}, at least {limit:.0%} asked for"
    elif name.startswith("PSNR"):
        shown = "infinite" if value is None else f"{value:.1f} dB"
        text = f"lowest {name} {shown}, at least {limit:g} dB asked for"
    else:
        text = f"mean {name} changed by {value:+.4f}, at least {limit:+g} asked for"
    return f"{text}, worst on {gate['pair']!r}"
