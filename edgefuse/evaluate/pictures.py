"""The best and worst pairs of an evaluation as pictures, each with a zoomed crop."""

import base64
from typing import NamedTuple

import cv2
import numpy as np

from edgefuse.evaluate.candidates import read_grey
from edgefuse.evaluate.pair import PairScores
from edgefuse.evaluate.run import Evaluation
from edgefuse.images import Image
from edgefuse.metrics import PROTOCOLS, FusionScorer, measure_named
from edgefuse.metrics.targets import find_targets

__all__ = ["Panel", "Row", "extremes", "picture_rows", "ranked_by"]

WIDTH = 320
CROP = 96  # pixels of the source, shown as large as the whole picture is
QUALITY = 88


class Panel(NamedTuple):
    """An image and its crop as `data:` addresses of JPEG files."""

    name: str
    whole: str
    crop: str


class Row(NamedTuple):
    """The pictures of one pair: infrared, visible, then every candidate."""

    pair: PairScores
    panels: list[Panel]


def ranked_by(evaluation: Evaluation) -> tuple[str, str]:
    """Return the candidate and column that best and worst are told by.

    The first candidate that is not trivial, if there is one; VIF, or else the first column.
    """
    candidates, columns = evaluation.candidates, evaluation.settings.columns
    name = next((c.name for c in candidates if c.kind != "trivial"), candidates[0].name)
    return name, "VIF" if "VIF" in columns else columns[0]


def extremes(evaluation: Evaluation, count: int) -> tuple[list[PairScores], list[PairScores]]:
    """Return the `count` worst pairs, worst first, and the best, best first; no pair is in both."""
    name, column = ranked_by(evaluation)
    sign = 1 if measure_named(column).higher_is_better else -1
    scored = [pair for pair in evaluation.pairs if column in pair.scores[name]]
    order = sorted(scored, key=lambda pair: sign * pair.scores[name][column].total)
    worst = order[: min(count, (len(order) + 1) // 2)]
    return worst, order[len(worst) :][-count:][::-1]


def picture_rows(evaluation: Evaluation, pairs: list[PairScores]) -> list[Row]:
    """Fuse these pairs again and return their pictures, as the protocol has them scored."""
    protocol = PROTOCOLS[evaluation.settings.protocol]
    fuse = {candidate.name: candidate.open(protocol.stretch) for candidate in evaluation.candidates}
    rows = []
    for pair in pairs:
        ir, vis = read_grey(pair.ir, infrared=True), read_grey(pair.vis)
        judged = FusionScorer(ir, vis, protocol.name).judged
        fused = {name: judged(function(pair.stem, ir, vis)) for name, function in fuse.items()}
        images = {"infrared": ir, "visible": vis} | fused
        window = _window(ir, vis)
        rows.append(
            Row(pair, [Panel(n, _small(image), _zoomed(image[window])) for n, image in images.items()])
        )
    return rows


def _window(ir: Image, vis: Image) -> tuple[slice, slice]:
    """A square around the strongest thermal target; without one, where the sources differ most."""
    targets = find_targets(ir)
    side = min(CROP, *ir.shape)
    if targets:
        strongest = max(targets, key=lambda t: t.contrast * np.sqrt(np.count_nonzero(t.inside)))
        rows, columns = strongest.window
        inside = np.argwhere(strongest.inside).mean(axis=0)
        y, x = int(rows.start + inside[0]), int(columns.start + inside[1])
    else:
        difference = cv2.blur(cv2.absdiff(ir, vis), (side, side))
        x, y = cv2.minMaxLoc(difference)[3]
    top, left = (
        min(max(0, c - side // 2), length - side) for c, length in zip((y, x), ir.shape, strict=True)
    )
    return slice(top, top + side), slice(left, left + side)


def _small(image: Image) -> str:
    height = max(1, round(image.shape[0] * WIDTH / image.shape[1]))
    shrinks = image.shape[1] > WIDTH
    mode = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return _jpeg(cv2.resize(image, (WIDTH, height), interpolation=mode))


def _zoomed(image: Image) -> str:
    return _jpeg(cv2.resize(image, (WIDTH, WIDTH), interpolation=cv2.INTER_NEAREST))


def _jpeg(image: Image) -> str:
    data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1]
    return f"data:image/jpeg;base64,{base64.b64encode(data.tobytes()).decode()}"
