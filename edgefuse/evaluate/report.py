"""An evaluation as one HTML file: tables, plots and pictures, nothing loaded from elsewhere."""

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from edgefuse.degrade import DEGRADATIONS
from edgefuse.evaluate.candidates import Candidate, baseline, model
from edgefuse.evaluate.journal import PairScores
from edgefuse.evaluate.run import Evaluation, Reader
from edgefuse.evaluate.summary import Comparison, summarise
from edgefuse.evaluate.tables import (
    compare_table,
    number,
    problem_table,
    robust_tables,
    summary_table,
    unit,
)
from edgefuse.files import readable, replace_file
from edgefuse.images import Image
from edgefuse.metrics import PROTOCOLS, FusionScorer, measure_named
from edgefuse.metrics.detail import find_targets
from edgefuse.tables import html as render
from edgefuse.weights import DEFAULT_MODEL

WIDTH, LABEL, RIGHT = 460, 108, 14
ROW, TOP = 24, 26
MOST_DOTS = 400  # per row; of more, the box says it better


def boxes(title: str, values: Mapping[str, Sequence[float]]) -> str:
    """Plot one row a name: a dot a value, a box from quartile to quartile, a line at the median.

    Args:
        title: shown above.
        values: values by name; a name without any has an empty row.
    """
    every = [v for row in values.values() for v in row]
    low, high = _range(every, from_zero=False)
    parts = [_axis(low, high, len(values))]
    for index, (name, row) in enumerate(values.items()):
        y = TOP + index * ROW
        parts.append(_name(name, y))
        if not row:
            continue
        q1, median, q3 = (_x(q, low, high) for q in np.quantile(row, (0.25, 0.5, 0.75)))
        parts.append(
            f'<rect class="box" x="{q1:.1f}" y="{y + 5}" width="{max(q3 - q1, 1):.1f}" height="14"/>'
        )
        if len(row) <= MOST_DOTS:
            # Spread over the height by position, so that equal values do not hide each other.
            dots = (
                f'<circle cx="{_x(v, low, high):.1f}" cy="{y + 7 + i * 5 % 11}" r="1.6"/>'
                for i, v in enumerate(row)
            )
            parts.append(f'<g class="dot">{"".join(dots)}</g>')
        parts.append(f'<path class="median" d="M{median:.1f} {y + 3}v18"/>')
    return _svg(title, parts, len(values))


def bars(title: str, values: Mapping[str, tuple[float, float]]) -> str:
    """Plot two bars a name: what is kept of the infrared source, and of the visible one.

    Args:
        title: shown above.
        values: (infrared, visible) by name.
    """
    low, high = _range([v for pair in values.values() for v in pair if math.isfinite(v)], from_zero=True)
    zero = _x(0, low, high)
    parts = [_axis(low, high, len(values))]
    for index, (name, pair) in enumerate(values.items()):
        y = TOP + index * ROW
        parts.append(_name(name, y))
        for kind, value, top in zip(("ir", "vis"), pair, (y + 4, y + 13), strict=True):
            if math.isfinite(value):
                x = _x(value, low, high)
                box = f'x="{min(x, zero):.1f}" y="{top}" width="{abs(x - zero):.1f}" height="8"'
                parts.append(f'<rect class="{kind}" {box}><title>{value:.3f}</title></rect>')
    return _svg(title, parts, len(values))


def _svg(title: str, parts: list[str], rows: int) -> str:
    height = TOP + rows * ROW + 22
    return (
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(title)}">'
        f'<text class="title" x="0" y="15">{escape(title)}</text>{"".join(parts)}</svg>'
    )


def _name(name: str, y: int) -> str:
    shown = name if len(name) <= 16 else f"…{name[-15:]}"
    return f'<text class="name" x="{LABEL - 8}" y="{y + 16}">{escape(shown)}</text>'


def _axis(low: float, high: float, rows: int) -> str:
    bottom = TOP + rows * ROW
    lines = []
    step = _step(high - low)
    for i in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1):
        x = _x(i * step, low, high)
        lines.append(f'<path class="grid" d="M{x:.1f} {TOP}V{bottom}"/>')
        lines.append(f'<text class="tick" x="{x:.1f}" y="{bottom + 15}">{i * step:g}</text>')
    return "".join(lines)


def _range(values: Sequence[float], from_zero: bool) -> tuple[float, float]:
    if not values:
        return 0.0, 1.0
    low, high = min(values), max(values)
    if from_zero:
        low, high = min(low, 0.0), max(high, 0.0)
    if high - low < 1e-9:
        high = low + 1
    margin = (high - low) * 0.03
    return (low if from_zero and low == 0 else low - margin), high + margin


def _step(span: float) -> float:
    """The roundest distance that makes four to nine ticks."""
    power = 10 ** math.floor(math.log10(span / 4))
    return next(float(f * power) for f in (5, 2, 1) if f * power <= span / 4)


def _x(value: float, low: float, high: float) -> float:
    return LABEL + (float(value) - low) / (high - low) * (WIDTH - LABEL - RIGHT)


EACH = 2
"""How many of the worst pairs and of the best are shown."""
PICTURE_WIDTH = 320
CROP = 96  # pixels of the source, shown as large as the whole picture is
SHEET_CROP = 320  # pixels, shown as they are
SHEET_PAIRS = 6
QUALITY = 88


@dataclass(frozen=True)
class Panel:
    """An image and its crop as `data:` addresses of JPEG files."""

    name: str
    crop: str
    whole: str = ""
    score: str = ""


class Pictures(NamedTuple):
    """The pictures of one pair."""

    title: str
    panels: list[Panel]


def write_html(path: Path, evaluation: Evaluation, comparison: Comparison | None = None) -> None:
    """Write `html` to a file; `InputError` if it cannot be written."""
    text = readable(html(evaluation, comparison))
    replace_file(path, lambda partial: partial.write_text(text, "utf-8"))


def html(evaluation: Evaluation, comparison: Comparison | None = None) -> str:
    """Return the report as the text of an HTML page.

    Args:
        evaluation: the scores; some pairs are read and fused again for their pictures.
        comparison: from `compare`.
    """
    name, column = _ranked_by(evaluation)
    stretched = " Fused images are stretched, as the protocol scores them."
    sheet = _sheet_candidates(evaluation)
    return render(
        "evaluation.html.j2",
        title="Fusion quality",
        summary=summary_table(evaluation),
        comparison=compare_table(comparison) if comparison else None,
        robust=robust_tables(evaluation),
        degradations=list(DEGRADATIONS.values()),
        distributions=_distributions(evaluation),
        sources=_sources(evaluation),
        sheet=_contact_sheet(evaluation, sheet),
        sheet_note=", ".join(["infrared", "visible", *(c.name for c in sheet)]) + ".",
        pictures=_best_and_worst(evaluation),
        pictures_note=f"Where {column} of {name} is worst and best. The lower picture is a crop around the "
        f"strongest thermal target.{stretched * PROTOCOLS[evaluation.settings.protocol].stretch}",
        problems=problem_table(evaluation),
    )


def _distributions(evaluation: Evaluation) -> list[str]:
    plots = []
    for column in evaluation.settings.columns:
        values = {
            c.name: [p.scores[c.name][column].total for p in evaluation.pairs if column in p.scores[c.name]]
            for c in evaluation.candidates
        }
        plots.append(boxes(f"{column}, {measure_named(column).title}{unit(column)}", values))
    return plots


def _sources(evaluation: Evaluation) -> list[str]:
    summary = summarise(evaluation)
    return [
        bars(f"{column}{unit(column)}", {name: row[column][1:3] for name, row in summary.items()})
        for column in evaluation.settings.columns
        if measure_named(column).by_source
    ]


# --- pictures


def _ranked_by(evaluation: Evaluation) -> tuple[str, str]:
    """Return the candidate and column that best and worst are told by.

    The first candidate that is no baseline, if there is one; VIF, or else the first column.
    """
    candidates, columns = evaluation.candidates, evaluation.settings.columns
    name = next((c.name for c in candidates if c.kind != "baseline"), candidates[0].name)
    return name, "VIF" if "VIF" in columns else columns[0]


def _best_and_worst(evaluation: Evaluation) -> list[Pictures]:
    """Return the worst pairs, worst first, and the best, best first; no pair is in both."""
    name, column = _ranked_by(evaluation)
    sign = 1 if measure_named(column).higher_is_better else -1
    scored = [pair for pair in evaluation.pairs if column in pair.scores[name]]
    order = sorted(scored, key=lambda pair: sign * pair.scores[name][column].total)
    worst = order[: min(EACH, (len(order) + 1) // 2)]
    chosen = [("Worst", pair) for pair in worst]
    chosen += [("Best", pair) for pair in order[len(worst) :][-EACH:][::-1]]
    fusions = _Fusions(evaluation, evaluation.candidates)
    return [Pictures(f"{title}: {pair.stem}", fusions.panels(pair, column)) for title, pair in chosen]


def _sheet_candidates(evaluation: Evaluation) -> list[Candidate]:
    """Return the pyramid, the paper's network, the default model, and what else is scored."""
    known = {c.name: c for c in evaluation.candidates}
    runs_models = any(c.kind == "model" for c in evaluation.candidates)
    usual = [baseline("laplacian"), *([model("cnn"), model(DEFAULT_MODEL)] if runs_models else [])]
    return [known.pop(c.name, c) for c in usual] + [c for c in known.values() if c.kind != "baseline"]


def _contact_sheet(evaluation: Evaluation, candidates: list[Candidate]) -> list[Pictures]:
    """Return crops at their own size of pairs spread evenly over the set."""
    count = min(SHEET_PAIRS, len(evaluation.pairs))
    chosen = [evaluation.pairs[k * len(evaluation.pairs) // count] for k in range(count)]
    fusions = _Fusions(evaluation, candidates)
    return [Pictures(pair.stem, fusions.crops(pair)) for pair in chosen]


class _Fusions:
    """Fuses pairs again, as the protocol has them scored."""

    def __init__(self, evaluation: Evaluation, candidates: list[Candidate]) -> None:
        self._reader = Reader(evaluation.settings)
        self._protocol = PROTOCOLS[evaluation.settings.protocol]
        self._fuse = {c.name: c.open(self._protocol.stretch) for c in candidates}

    def panels(self, pair: PairScores, column: str) -> list[Panel]:
        images = self._images(pair)
        window = _window(images["infrared"], images["visible"], CROP)
        return [
            Panel(name, _zoomed(image[window]), _small(image), _score(pair, name, column))
            for name, image in images.items()
        ]

    def crops(self, pair: PairScores) -> list[Panel]:
        images = self._images(pair)
        window = _window(images["infrared"], images["visible"], SHEET_CROP)
        return [Panel(name, _jpeg(image[window])) for name, image in images.items()]

    def _images(self, pair: PairScores) -> dict[str, Image]:
        ir, vis = self._reader.read(pair)
        judged = FusionScorer(ir, vis, self._protocol.name).judged
        fused = {
            name: judged(self._reader.fit(fuse(pair.stem, ir, vis), vis)) for name, fuse in self._fuse.items()
        }
        return {"infrared": ir, "visible": vis} | fused


def _score(pair: PairScores, name: str, column: str) -> str:
    parts = pair.scores.get(name, {}).get(column)
    return "" if parts is None else f"{column} {number(parts.total, column)}"


def _window(ir: Image, vis: Image, side: int) -> tuple[slice, slice]:
    """A square around the strongest thermal target; without one, where the sources differ most."""
    targets = find_targets(ir)
    side = min(side, *ir.shape)
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
    height = max(1, round(image.shape[0] * PICTURE_WIDTH / image.shape[1]))
    shrinks = image.shape[1] > PICTURE_WIDTH
    mode = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return _jpeg(cv2.resize(image, (PICTURE_WIDTH, height), interpolation=mode))


def _zoomed(image: Image) -> str:
    return _jpeg(cv2.resize(image, (PICTURE_WIDTH, PICTURE_WIDTH), interpolation=cv2.INTER_NEAREST))


def _jpeg(image: Image) -> str:
    data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1]
    return f"data:image/jpeg;base64,{base64.b64encode(data.tobytes()).decode()}"
