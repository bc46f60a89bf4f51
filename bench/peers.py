"""How long ONNX files take to fuse a pair, beside ours, all in ONNX Runtime on one thread and by turns.

    python -m bench.peers theirs.onnx other.onnx --size 640x480

From 8-bit images to the fused 8-bit image, as `edgefuse evaluate` runs them; what a file that others wrote
takes and gives is told as there. How good their pictures are: `python -m bench.quality --peer FILE`.
"""

import json
import statistics
import time
from pathlib import Path

import numpy as np
import typer

from edgefuse.evaluate.candidates import model, named
from edgefuse.images import parse_size
from edgefuse.runtime.timing import percentiles
from edgefuse.tables import Cell, Column, Row, Table, as_markdown

OURS = ("nano", "cnn")


def main(
    peers: list[str] = typer.Argument(help="ONNX file, with options such as FILE.onnx?order=vis,ir."),
    size: str = "640x480",
    seconds: float = 10.0,
    out: Path | None = None,
) -> None:
    """Print a table of medians, 95th percentiles and the ratio to nano turn by turn."""
    width, height = parse_size(size)
    rng = np.random.default_rng(0)
    ir, vis = (rng.integers(0, 256, (height, width), np.uint8) for _ in range(2))
    candidates = [*(model(name, "cpu") for name in OURS), *(named(peer, "cpu") for peer in peers)]
    works = {candidate.name: candidate.open() for candidate in candidates}
    times: dict[str, list[float]] = {name: [] for name in works}
    for fuse in works.values():
        fuse("", ir, vis)
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times[OURS[0]]) < 5:
        for name, fuse in works.items():
            start = time.perf_counter()
            fuse("", ir, vis)
            times[name].append(time.perf_counter() - start)
    rows = []
    for name, seen in times.items():
        median, p95, _ = percentiles(seen)
        ratios = [a / b for a, b in zip(seen, times[OURS[0]], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        cells = [f"{1000 * median:.1f}", f"{1000 * p95:.1f}", f"{middle:.2f} ({low:.2f} … {high:.2f})"]
        rows.append(Row(name, [*map(Cell, cells), Cell(str(len(seen)))]))
    columns = [
        Column("ms"),
        Column("95th percentile"),
        Column(f"times {OURS[0]} (quartiles)"),
        Column("turns"),
    ]
    print(as_markdown(Table("", columns, rows)))
    if out:
        out.write_text(json.dumps({"size": [width, height], "seconds": times}) + "\n", "utf-8")


if __name__ == "__main__":
    typer.run(main)
