"""Flicker of a model on a video: as it is, and while the infrared camera's gain control moves all of it.

    python -m bench.flicker --ir FRAMES/ir --vis FRAMES/vis [--model nano] [--drift 20]

FRAMES are numbered frames; they are run forwards and backwards until there are 40. Then infrared is lifted
and lowered by up to `--drift` grey levels, one period in 40 frames. Flicker counts against the frames as they
were, so what follows the drift counts in full.
"""

import argparse
import math
from itertools import pairwise
from pathlib import Path

import numpy as np

from edgefuse import Fuser
from edgefuse.degrade import level
from edgefuse.images import luma, read_visible
from edgefuse.metrics.flicker import SourceChange
from edgefuse.pairs import pair_folders
from edgefuse.thermal import read_infrared

FRAMES = 40


def frames_of(ir: Path, vis: Path) -> list[tuple[np.ndarray, np.ndarray]]:
    pairs = [(read_infrared(i), luma(read_visible(v))) for _, i, v in pair_folders(ir, vis).pairs]
    there_and_back = pairs + pairs[::-1]
    return [there_and_back[k % len(there_and_back)] for k in range(FRAMES)]


def flicker_of(fuser: Fuser, frames: list, changes: list[SourceChange], drift: float) -> float:
    """Return the mean flicker of the fused frames."""
    offsets = [drift * math.sin(2 * math.pi * k / FRAMES) for k in range(FRAMES)]
    fused = [fuser(level(ir, offset=o), vis) for (ir, vis), o in zip(frames, offsets, strict=True)]
    found = [change.flicker(two) for change, two in zip(changes, pairwise(fused), strict=True)]
    return float(np.mean([value for value in found if value is not None]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--ir", type=Path, required=True)
    parser.add_argument("--vis", type=Path, required=True)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--drift", type=float, default=20.0)
    args = parser.parse_args()
    frames = frames_of(args.ir, args.vis)
    changes = [SourceChange((a[0], b[0]), (a[1], b[1])) for a, b in pairwise(frames)]
    fuser = Fuser(args.model)
    for name, drift in (("as it is", 0.0), (f"drifting by {args.drift:g}", args.drift)):
        print(f"{name}: {flicker_of(fuser, frames, changes, drift):.3f}")


if __name__ == "__main__":
    main()
