"""How the report's page looks: its style, tables, numbers and headings."""

import math
from collections.abc import Iterable
from html import escape

from edgefuse.evaluate.summary import Mean, places
from edgefuse.metrics import measure_named

__all__ = ["cell", "heading", "number", "page", "table", "unit"]

WIDE = 10  # columns, beyond which the worst-served source's number goes below the total

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
p, figcaption, .worst_source, .arrow { color: var(--soft); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .28rem .7rem; text-align: right; white-space: nowrap; }
tr { border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
.worst_source { font-size: .82em; margin-left: .45em; }
.wide .worst_source { display: block; margin: 0; line-height: 1.1; }
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


def page(title: str, body: Iterable[str]) -> str:
    """Return a whole HTML page."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><title>{escape(title)}</title>'
        f"<style>{STYLE}</style></head><body>{''.join(body)}</body></html>\n"
    )


def table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a table; the first cell of each row has no head. What is given is HTML already."""
    heads = ("", *heads)
    head = "".join(f"<th>{cell}</th>" for cell in heads)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    kind = "wide" * (len(heads) > WIDE)
    return (
        f'<div class="scroll"><table class="{kind}">'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def cell(mean: Mean, column: str, wins: bool = False, worst_wins: bool = False) -> str:
    """Return a mean, with that of the source that is served worse in small; what wins is marked."""
    text = f'<span class="{"best" * wins}">{number(mean.total, column)}</span>'
    if not math.isnan(mean.worst_source):
        text += f'<span class="worst_source {"best" * worst_wins}">{number(mean.worst_source, column)}</span>'
    return text


def heading(column: str) -> str:
    """Return a column's name with its direction, its full title as a tooltip."""
    measure = measure_named(column)
    arrow = "↑" if measure.higher_is_better else "↓"
    title = escape(measure.title) + unit(column)
    return f'<span title="{title}">{column}</span> <span class="arrow">{arrow}</span>'


def unit(column: str) -> str:
    """Return the unit of a column in brackets, nothing for a ratio."""
    text = measure_named(column).unit
    return "" if text == "1" else f" ({text})"


def number(value: float, column: str) -> str:
    """Return a value with the decimals of its column; a dash where it is undefined."""
    return "–" if math.isnan(value) else f"{value:.{places(column)}f}"
