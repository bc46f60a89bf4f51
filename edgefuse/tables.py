"""One model of a table, and its rendering for the terminal, HTML, Markdown, LaTeX and CSV.

Who builds a `Table` says what stands in it and what is marked; how that looks is decided here.
"""

import csv
import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    from jinja2 import Environment
    from rich.console import Console

Mark: TypeAlias = Literal["", "best", "better", "worse"]
STYLES: dict[str, str] = {"best": "bold green", "better": "bold green", "worse": "bold red"}
GAP = 2


@dataclass(frozen=True)
class Cell:
    """A number as it is shown."""

    text: str
    mark: Mark = ""
    small: str = ""
    """A second number beside it."""
    small_mark: Mark = ""


@dataclass(frozen=True)
class Column:
    """The head of a column."""

    name: str
    title: str = ""
    """What it means, with its unit."""
    arrow: Literal["", "↑", "↓"] = ""
    """Where better values are."""

    def __str__(self) -> str:
        return f"{self.name} {self.arrow}".rstrip()


@dataclass(frozen=True)
class Row:
    """A row with its label."""

    label: str
    cells: Sequence[Cell]
    aside: bool = False
    """It is shown for scale and out of competition."""


@dataclass(frozen=True)
class Table:
    """A table, the line above it and the one below."""

    title: str
    columns: Sequence[Column]
    rows: Sequence[Row]
    note: str = ""


def show(console: "Console", tables: Iterable[Table]) -> None:
    """Print tables; one that is wider than the terminal in several parts, so that no number is cut off."""
    from rich.text import Text

    for table in tables:
        console.print(Text(table.title, "bold"), soft_wrap=True)
        label = max((len(row.label) for row in table.rows), default=0)
        widths = [
            max([len(str(column)), *(len(_plain(row.cells[k])) for row in table.rows)])
            for k, column in enumerate(table.columns)
        ]
        for part in _parts(widths, console.width - label):
            head = Text(" " * label)
            for k in part:
                head.append(" " * GAP + str(table.columns[k]).rjust(widths[k]), "bold")
            console.print(head, soft_wrap=True)
            for row in table.rows:
                line = Text(row.label.ljust(label), "dim" if row.aside else "")
                for k in part:
                    line.append(" " * (GAP + widths[k] - len(_plain(row.cells[k])))).append(
                        _styled(row.cells[k])
                    )
                console.print(line, soft_wrap=True)
        if table.note:
            console.print(Text(table.note, "dim"), soft_wrap=True)
        console.print()


def as_lines(table: Table) -> str:
    """Return a table as plain lines: its title, then the label and cells of each row."""
    rows = (f"  {row.label}: {' '.join(_plain(cell) for cell in row.cells)}" for row in table.rows)
    return "\n".join([table.title, *rows])


def as_markdown(table: Table) -> str:
    """Return a table as GitHub's Markdown; the best is bold, what is out of competition in italics."""
    lines = [["", *map(str, table.columns)], ["---", *("---:" for _ in table.columns)]]
    lines += [[f"*{row.label}*" if row.aside else row.label, *_marked(row, "**{}**")] for row in table.rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


def as_latex(table: Table) -> str:
    """Return a table as a LaTeX `tabular` for the booktabs package; the best is bold."""
    heads = " & ".join(["", *(_escaped(str(column)) for column in table.columns)])
    rows = [
        " & ".join([_escaped(row.label), *_marked(row, r"\textbf{{{}}}", _escaped)]) + r" \\"
        for row in table.rows
    ]
    body = "\n".join(
        [rf"\begin{{tabular}}{{l{'r' * len(table.columns)}}}", r"\toprule", rf"{heads} \\", r"\midrule"]
    )
    return "\n".join([body, *rows, r"\bottomrule", r"\end{tabular}"]) + "\n"


def as_csv(table: Table) -> str:
    """Return a table as CSV: one line a row, without marks."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["", *(column.name for column in table.columns)])
    writer.writerows([row.label, *(_plain(cell) for cell in row.cells)] for row in table.rows)
    return file.getvalue()


TEXT_FORMATS: dict[str, Callable[[Table], str]] = {".md": as_markdown, ".tex": as_latex, ".csv": as_csv}
"""How a table is written, by the suffix of the file."""


def html(template: str, **context: Any) -> str:
    """Return a page or part of one from a template in `edgefuse/templates`; values are escaped."""
    return _environment().get_template(template).render(context)


@cache
def _environment() -> "Environment":
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("edgefuse"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _parts(widths: Sequence[int], width: int) -> list[list[int]]:
    """Cut columns into runs that fit a width; a run has one column at least."""
    parts: list[list[int]] = []
    left = 0
    for k, needed in enumerate(widths):
        if not parts or needed + GAP > left:
            parts.append([])
            left = width
        parts[-1].append(k)
        left -= needed + GAP
    return parts


def _plain(cell: Cell) -> str:
    return f"{cell.text} {cell.small}".rstrip()


def _styled(cell: Cell) -> Any:
    from rich.text import Text

    text = Text(cell.text, STYLES.get(cell.mark, ""))
    if cell.small:
        text.append(" ").append(cell.small, STYLES.get(cell.small_mark, "dim"))
    return text


def _marked(row: Row, best: str, escape: Callable[[str], str] = str) -> list[str]:
    """Return the cells as text; of both numbers of a cell the one that is the best is marked."""
    texts = []
    for cell in row.cells:
        parts = [(cell.text, cell.mark), (cell.small, cell.small_mark)]
        shown = [best.format(escape(t)) if mark == "best" else escape(t) for t, mark in parts if t]
        texts.append(" ".join(shown))
    return texts


def _escaped(text: str) -> str:
    special = {c: f"\\{c}" for c in "&%$#_{}"} | {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "↑": r"$\uparrow$",
        "↓": r"$\downarrow$",
        "±": r"$\pm$",
        "–": "--",
    }
    return "".join(special.get(c, c) for c in text)
