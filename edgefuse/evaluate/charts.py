"""Plots of an evaluation as plain SVG text, with the colours of the page around them."""

import math
from collections.abc import Mapping, Sequence
from html import escape

import numpy as np

__all__ = ["bars", "boxes"]

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
        f'<text class="title" x="{LABEL}" y="15">{escape(title)}</text>{"".join(parts)}</svg>'
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
