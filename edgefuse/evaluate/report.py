"""An evaluation as one HTML file: tables, plots and pictures, nothing loaded from elsewhere."""

import math
from html import escape
from pathlib import Path

from edgefuse.degrade import DEGRADATIONS
from edgefuse.evaluate.charts import bars, boxes
from edgefuse.evaluate.compare import Comparison
from edgefuse.evaluate.page import cell, heading, number, page, table, unit
from edgefuse.evaluate.pair import PairScores
from edgefuse.evaluate.pictures import extremes, picture_rows, ranked_by
from edgefuse.evaluate.run import Evaluation
from edgefuse.evaluate.summary import best, judging, places, summarise, summarise_degraded
from edgefuse.evaluate.tables import counted, notes, resampling
from edgefuse.files import replace_file
from edgefuse.metrics import PROTOCOLS, measure_named

__all__ = ["html", "write_html"]

EACH = 2  # so many of the worst pairs and of the best are shown


def html(evaluation: Evaluation, comparison: Comparison | None = None) -> str:
    """Return the report as the text of an HTML page.

    Args:
        evaluation: the scores; the worst and best pairs are read and fused again for their pictures.
        comparison: from `compare`.
    """
    settings = evaluation.settings
    body = [
        "<h1>Fusion quality</h1>",
        f"<p>{counted(evaluation)} of {escape(str(evaluation.ir))} and "
        f"{escape(str(evaluation.vis))} · "
        f"protocol <b>{settings.protocol}</b>: {escape(PROTOCOLS[settings.protocol].summary)}</p>",
        _summary(evaluation),
        _compared(comparison) if comparison else "",
        _robust(evaluation),
        _distributions(evaluation),
        _sources(evaluation),
        _pictures(evaluation),
        _problems(evaluation),
    ]
    return page("Fusion quality", body)


def write_html(path: Path, evaluation: Evaluation, comparison: Comparison | None = None) -> None:
    """Write `html` to a file; `InputError` if it cannot be written."""
    text = html(evaluation, comparison)
    replace_file(path, lambda partial: partial.write_text(text, "utf-8"))


def _summary(evaluation: Evaluation) -> str:
    columns, summary = evaluation.settings.columns, summarise(evaluation)
    winners = {column: (best(summary, column), best(summary, column, "worst_source")) for column in columns}
    rows = []
    for candidate in evaluation.candidates:
        name = candidate.name
        cells = (cell(summary[name][c], c, *(name in w for w in winners[c])) for c in columns)
        rows.append([escape(name), *cells])
    return (
        "<p>Means over the pairs; the small number is that of the source which is served worse. The best of "
        f"each is marked. {escape(' '.join(notes(evaluation)))}</p>"
        f"{table([heading(column) for column in columns], rows)}"
    )


def _compared(comparison: Comparison) -> str:
    a, b = escape(comparison.a), escape(comparison.b)
    rows = []
    for column, d in comparison.columns.items():
        digits = places(column)
        kind = "better" if (d.mean > 0) == measure_named(column).higher_is_better else "worse"
        mean = f"{d.mean:+.{digits}f}"
        interval = "–" if math.isnan(d.low) else f"{d.low:+.{digits}f} … {d.high:+.{digits}f}"
        rows.append(
            [
                heading(column),
                number(d.a, column),
                number(d.b, column),
                f'<span class="{kind}">{mean}</span>' if d.certain else mean,
                interval,
                f"{d.wins:.0%}",
                str(d.pairs),
            ]
        )
    heads = [a, b, "difference", "95 % interval", f"{b} better", "pairs"]
    return (
        f"<h2>{b} against {a}</h2><p>Pair by pair, protocol <b>{comparison.protocol}</b>. "
        f"{resampling(comparison)}</p>"
        f"{table(heads, rows)}"
    )


def _robust(evaluation: Evaluation) -> str:
    clean, degraded = summarise(evaluation), summarise_degraded(evaluation)
    if not degraded:
        return ""
    parts = [
        "<h2>Degraded sources</h2><p>Fused from degraded sources, scored against the clean ones: means over "
        f"{counted(evaluation)}, protocol <b>{evaluation.settings.protocol}</b>. "
    ]
    parts.append("; ".join(f"<b>{d.name}</b>: {escape(d.summary)}" for d in DEGRADATIONS.values()))
    parts.append('.</p><div class="tables">')
    for column in judging(evaluation):
        rows = [
            [
                escape(c.name),
                *(cell(row[c.name][column], column) for row in (clean, *degraded.values())),
            ]
            for c in evaluation.candidates
            if c.fuses
        ]
        parts.append(f"<div><h3>{heading(column)}</h3>{table(['clean', *degraded], rows)}</div>")
    return "".join(parts) + "</div>"


def _distributions(evaluation: Evaluation) -> str:
    plots = []
    for column in evaluation.settings.columns:
        values = {
            c.name: [p.scores[c.name][column].total for p in evaluation.pairs if column in p.scores[c.name]]
            for c in evaluation.candidates
        }
        plots.append(boxes(f"{column}, {measure_named(column).title}{unit(column)}", values))
    return (
        "<h2>Image by image</h2>"
        "<p>A dot is a pair, the box holds the middle half, the line is the median.</p>"
        f'<div class="plots">{"".join(plots)}</div>'
    )


def _sources(evaluation: Evaluation) -> str:
    summary = summarise(evaluation)
    plots = []
    for column in evaluation.settings.columns:
        if measure_named(column).by_source:
            values = {name: (row[column].ir, row[column].vis) for name, row in summary.items()}
            plots.append(bars(f"{column}{unit(column)}", values))
    if not plots:
        return ""
    return (
        '<h2>Source by source</h2><p><span class="key" style="--c:var(--ir)">infrared</span> &nbsp; '
        '<span class="key" style="--c:var(--vis)">visible</span></p>'
        f'<div class="plots">{"".join(plots)}</div>'
    )


def _pictures(evaluation: Evaluation) -> str:
    name, column = ranked_by(evaluation)
    parts = []
    for title, pairs in zip(("Worst", "Best"), extremes(evaluation, EACH), strict=True):
        for row in picture_rows(evaluation, pairs):
            figures = "".join(
                f'<figure><img alt="{escape(panel.name)}, {escape(row.pair.stem)}" src="{panel.whole}">'
                f'<img alt="{escape(panel.name)}, the crop enlarged" src="{panel.crop}">'
                f"<figcaption><b>{escape(panel.name)}</b> {_score(row.pair, panel.name, column)}"
                "</figcaption></figure>"
                for panel in row.panels
            )
            parts.append(f'<h3>{title}: {escape(row.pair.stem)}</h3><div class="pictures">{figures}</div>')
    stretched = " Fused images are stretched, as the protocol scores them."
    return (
        f"<h2>Pairs in pictures</h2><p>Where {column} of {escape(name)} is worst and best. "
        "The lower picture is a crop around the strongest thermal target."
        f"{stretched * PROTOCOLS[evaluation.settings.protocol].stretch}</p>"
        f"{''.join(parts)}"
    )


def _score(pair: PairScores, name: str, column: str) -> str:
    parts = pair.scores.get(name, {}).get(column)
    return "" if parts is None else f"{column} {number(parts.total, column)}"


def _problems(evaluation: Evaluation) -> str:
    if not evaluation.problems:
        return ""
    rows = [[escape(p.stem), escape(p.reason)] for p in evaluation.problems]
    return f"<h2>Left out</h2>{table(['why'], rows)}"
