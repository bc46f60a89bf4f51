"""Pairs of the simulated rig, and what the shipped models made of them: `python -m tests.support.golden`.

To be run, and its files committed, when weights are exchanged on purpose.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from edgefuse import Fuser
from edgefuse.images import Image, luma, read_image, write_image
from edgefuse.metrics import CORE_METRICS, score
from edgefuse.weights import shipped

FOLDER = Path(__file__).parents[1] / "golden"
PAIRS = {"street": (3, 120), "crossing": (8, 300)}
"""Name → seed of the rig, number of the frame."""


def sources(name: str) -> tuple[Image, Image]:
    """Read a pair: infrared, and visible in colour."""
    return read_image(FOLDER / f"{name}_ir.png"), read_image(FOLDER / f"{name}_vis.png")


def fused(model: str, ir: Image, vis: Image) -> Image:
    """Fuse a pair's lumas with the fp32 file of a shipped model."""
    with Fuser(f"{model}-fp32", threads=1, engine="cpu") as fuser:
        return fuser(ir, luma(vis))


def weights_hash(model: str) -> str:
    return hashlib.sha256(shipped()[model].onnx.read_bytes()).hexdigest()[:16]


def main() -> None:
    from edgefuse.sim import Rig, RigConfig

    FOLDER.mkdir(exist_ok=True)
    facts: dict[str, Any] = {model: {"weights": weights_hash(model), "scores": {}} for model in shipped()}
    for name, (seed, frame) in PAIRS.items():
        rig = Rig(RigConfig(size=(128, 96), seed=seed))
        for role in ("ir", "vis"):
            write_image(FOLDER / f"{name}_{role}.png", np.asarray(rig.frame(role, frame)))
        ir, vis = sources(name)
        for model in facts:
            answer = fused(model, ir, vis)
            write_image(FOLDER / f"{name}_{model}.png", answer)
            found = score(answer, ir, luma(vis), metrics=CORE_METRICS)
            facts[model]["scores"][name] = {metric: round(value, 4) for metric, value in found.items()}
    (FOLDER / "shipped.json").write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
