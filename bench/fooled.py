"""What each metric rewards although nobody would want it: the plain average, corrupted in known ways.

`python -m bench.fooled --ir roadscene/test/ir --vis roadscene/test/vis` prints the means that
docs/metrics.md states.
"""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from edgefuse.evaluate.baselines import BASELINES
from edgefuse.evaluate.candidates import read_grey, read_grey_infrared
from edgefuse.images import Image
from edgefuse.metrics import METRICS, FusionScorer
from edgefuse.metrics.scorer import stretch
from edgefuse.pairs import pair_folders


def noisy(image: Image) -> Image:
    """Gaussian noise of 10 grey levels."""
    noise = np.random.default_rng(0).normal(0, 10, image.shape)
    return np.clip(np.rint(image + noise), 0, 255).astype(np.uint8)


def contrast(image: Image) -> Image:
    """Half as much contrast again, around the mean."""
    return cv2.convertScaleAbs(np.maximum(1.5 * image - 0.5 * image.mean(), 0))


def sharpened(image: Image) -> Image:
    """Unsharp masking with σ = 2 pixels and a weight of 1."""
    return cv2.addWeighted(image, 2, cv2.GaussianBlur(image, (0, 0), 2), -1, 0)


CORRUPTED: dict[str, Callable[[Image], Image]] = {
    "average": lambda image: image,
    "with noise": noisy,
    "contrast × 1.5": contrast,
    "sharpened": sharpened,
    "stretched": stretch,
}


def main(ir: Path = typer.Option(...), vis: Path = typer.Option(...), protocol: str = "field") -> None:
    """Score the plain average as it is and corrupted, and the fusions without a network."""
    pairs = pair_folders(ir, vis).pairs
    names = [*CORRUPTED, *(name for name in BASELINES if name != "average")]
    sums = {name: np.zeros(len(METRICS)) for name in names}
    for _, ir_file, vis_file in pairs:
        sources = read_grey_infrared(ir_file), read_grey(vis_file)
        scorer = FusionScorer(*sources, protocol)
        for name in names:
            fused = BASELINES[name if name in BASELINES else "average"](*sources)
            fused = CORRUPTED[name](fused) if name in CORRUPTED else fused
            sums[name] += list(scorer.score(fused).values())
    table = Table(box=None)
    for head in ("", *METRICS):
        table.add_column(head, justify="right", no_wrap=True)
    for name, row in sums.items():
        table.add_row(name, *(f"{value:.3f}" for value in row / len(pairs)))
    console = Console(width=120)
    console.print(f"means over {len(pairs)} pairs, protocol {protocol}")
    console.print(table)


if __name__ == "__main__":
    typer.run(main)
