"""An evaluation as one HTML file: tables, plots and pictures, nothing loaded from elsewhere."""

import math
from collections.abc import Iterable
from html import escape
from pathlib import Path

from edgefuse.degrade import DEGRADATIONS
from edgefuse.evaluate.charts import bars, boxes
from edgefuse.evaluate.compare import Comparison
from edgefuse.evaluate.pair import PairScores
from edgefuse.evaluate.pictures import extremes, picture_rows, ranked_by
from edgefuse.evaluate.run import Evaluation
from edgefuse.evaluate.summary import best, judging, places, summarise, summarise_degraded
from edgefuse.files import replace_file
from edgefuse.metrics import MEASURES, PROTOCOLS

__all__ = ["html", "write_html"]

EACH = 2  # so many of the worst pairs and of the best are shown

STYLE = """
:root { --ink: #1b1f24; --soft: #667; --line: #d9dde3; --paper: #fff;
  --best: #0a7d4f; --ir: #d9622b; --vis: #2f6fb7; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e8eb; --soft: #99a; --line: #3a4048; --paper: #16191d; --best: #45c48d; --vis: #69a5e8; }
}
body { font: 15px/1.45 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 1180px; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin: 0; }
h2 { font-size: 1.15rem; margin: 2.2rem 0 .5rem; }
h3 { font-size: 1rem; margin: 1.2rem 0 .3rem; }
p { margin: .3rem 0 .6rem; }
p, figcaption, .weaker, .arrow { color: var(--soft); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .28rem .7rem; text-align: right; white-space: nowrap; }
tr { border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
.weaker { font-size: .82em; margin-left: .45em; }
.best, .better { color: var(--best); font-weight: 650; }
.worse { color: var(--ir); font-weight: 650; }
.tables { display: flex; flex-wrap: wrap; gap: 0 1.5rem; }
.tables th, .tables td { padding: .28rem .4rem; }
.tables td:first-child { padding-left: 0; }
.plots { display: grid; grid-template-columns: repeat(auto-fill, minmax(350px, 1fr)); gap: 1rem 1.5rem; }
svg { width: 100%; font-size: 11px; fill: var(--ink); }
.title { font-weight: 650; font-size: 13px; }
.name { text-anchor: end; }
.tick { text-anchor: middle; fill: var(--soft); }
.grid { stroke: var(--line); }
.box { fill: var(--vis); opacity: .22; }
.dot { fill: var(--vis); opacity: .6; }
.median { stroke: var(--ink); stroke-width: 2; }
.ir { fill: var(--ir); }
.vis { fill: var(--vis); }
.key::before { content: ""; display: inline-block; width: .8em; height: .8em; margin-right: .35em;
  background: var(--c); }
.pictures { display: grid; grid-template-columns: repeat(auto-fill, minmax(205px, 1fr)); gap: .7rem; }
figure { margin: 0; }
figure img { display: block; width: 100%; }
figure img + img { margin-top: 3px; }
figcaption { font-size: .85rem; margin-top: .15rem; }
figcaption b { color: var(--ink); }
"""


def html(evaluation: Evaluation, comparison: Comparison | None = None) -> str:
    """Return the report as the text of an HTML page.

    Args:
        evaluation: the scores; the worst and best pairs are read and fused again for their pictures.
        comparison: from `compare`.
    """
    settings = evaluation.settings
    body = [
        "<h1>Fusion quality</h1>",
        f"<p>{len(evaluation.pairs)} pairs of {escape(str(evaluation.ir))} and "
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
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><title>Fusion quality</title>'
        f"<style>{STYLE}</style></head><body>{''.join(body)}</body></html>\n"
    )


def write_html(path: Path, evaluation: Evaluation, comparison: Comparison | None = None) -> None:
    """Write `html` to a file; `InputError` if it cannot be written."""
    text = html(evaluation, comparison)
    replace_file(path, lambda partial: partial.write_text(text, "utf-8"))


def _summary(evaluation: Evaluation) -> str:
    columns, summary = evaluation.settings.columns, summarise(evaluation)
    winners = {column: best(summary, column) for column in columns}
    rows = []
    for candidate in evaluation.candidates:
        cells = [escape(candidate.name)]
        for column in columns:
            mean = summary[candidate.name][column]
            total = _number(mean.total, column)
            cell = f'<span class="best">{total}</span>' if candidate.name in winners[column] else total
            if not math.isnan(mean.weaker):
                cell += f'<span class="weaker">{_number(mean.weaker, column)}</span>'
            cells.append(cell)
        rows.append(cells)
    return (
        "<p>Means over the pairs, the best of each column marked; "
        "the small number is that of the source which is served worse.</p>"
        f"{_table([_heading(column) for column in columns], rows)}"
    )


def _compared(comparison: Comparison) -> str:
    a, b = escape(comparison.a), escape(comparison.b)
    rows = []
    for column, d in comparison.columns.items():
        digits = places(column)
        kind = "better" if (d.mean > 0) == MEASURES[column].higher_is_better else "worse"
        mean = f"{d.mean:+.{digits}f}"
        interval = "–" if math.isnan(d.low) else f"{d.low:+.{digits}f} … {d.high:+.{digits}f}"
        rows.append(
            [
                _heading(column),
                _number(d.a, column),
                _number(d.b, column),
                f'<span class="{kind}">{mean}</span>' if d.certain else mean,
                interval,
                f"{d.wins:.0%}",
            ]
        )
    heads = [a, b, "difference", "95 % interval", f"pairs in which {b} is better"]
    return (
        f"<h2>{b} against {a}</h2><p>Pair by pair, with the interval of the mean from resampling the pairs; "
        "in colour where it leaves out 0.</p>"
        f"{_table(heads, rows)}"
    )


def _robust(evaluation: Evaluation) -> str:
    clean, degraded = summarise(evaluation), summarise_degraded(evaluation)
    if not degraded:
        return ""
    parts = ["<h2>Degraded sources</h2><p>Fused from degraded sources, scored against the clean ones. "]
    parts.append("; ".join(f"<b>{d.name}</b>: {escape(d.summary)}" for d in DEGRADATIONS.values()))
    parts.append('.</p><div class="tables">')
    for column in judging(evaluation):
        rows = [
            [
                escape(c.name),
                *(
                    _number(value, column)
                    for value in (
                        clean[c.name][column].total,
                        *(row[c.name][column] for row in degraded.values()),
                    )
                ),
            ]
            for c in evaluation.candidates
            if c.fuses
        ]
        parts.append(f"<div><h3>{_heading(column)}</h3>{_table(['clean', *degraded], rows)}</div>")
    return "".join(parts) + "</div>"


def _distributions(evaluation: Evaluation) -> str:
    plots = []
    for column in evaluation.settings.columns:
        values = {
            c.name: [p.scores[c.name][column].total for p in evaluation.pairs if column in p.scores[c.name]]
            for c in evaluation.candidates
        }
        plots.append(boxes(f"{column}, {MEASURES[column].title}{_unit(column)}", values))
    return (
        "<h2>Image by image</h2>"
        "<p>A dot is a pair, the box holds the middle half, the line is the median.</p>"
        f'<div class="plots">{"".join(plots)}</div>'
    )


def _sources(evaluation: Evaluation) -> str:
    summary = summarise(evaluation)
    plots = []
    for column in evaluation.settings.columns:
        if MEASURES[column].by_source:
            values = {name: (row[column].ir, row[column].vis) for name, row in summary.items()}
            plots.append(bars(f"{column}{_unit(column)}", values))
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
                f'<figure><img alt="" src="{panel.whole}"><img alt="" src="{panel.crop}">'
                f"<figcaption><b>{escape(panel.name)}</b> {_score(row.pair, panel.name, column)}"
                "</figcaption></figure>"
                for panel in row.panels
            )
            parts.append(f'<h3>{title}: {escape(row.pair.stem)}</h3><div class="pictures">{figures}</div>')
    return (
        f"<h2>Pairs in pictures</h2><p>Where {column} of {escape(name)} is worst and best. "
        "The lower picture is a crop around the strongest thermal target.</p>"
        f"{''.join(parts)}"
    )


def _score(pair: PairScores, name: str, column: str) -> str:
    parts = pair.scores.get(name, {}).get(column)
    return "" if parts is None else f"{column} {_number(parts.total, column)}"


def _problems(evaluation: Evaluation) -> str:
    if not evaluation.problems:
        return ""
    rows = [[escape(p.stem), escape(p.reason)] for p in evaluation.problems]
    return f"<h2>Left out</h2>{_table(['why'], rows)}"


def _heading(column: str) -> str:
    measure = MEASURES[column]
    arrow = "↑" if measure.higher_is_better else "↓"
    title = escape(measure.title) + _unit(column)
    return f'<span title="{title}">{column}</span> <span class="arrow">{arrow}</span>'


def _unit(column: str) -> str:
    unit = MEASURES[column].unit
    return "" if unit == "1" else f" ({unit})"


def _table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = "".join(f"<th>{cell}</th>" for cell in ("", *heads))
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _number(value: float, column: str) -> str:
    return "–" if math.isnan(value) else f"{value:.{places(column)}f}"
