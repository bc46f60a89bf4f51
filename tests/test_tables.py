"""A table is shown anywhere with the same numbers and marks."""

import io

from rich.console import Console

from edgefuse.tables import Cell, Column, Row, Table, as_csv, as_latex, as_markdown, html, show

TABLE = Table(
    "Scores of [night] & day",
    [Column("VIF", "fidelity", "↑"), Column("a_b", arrow="↓")],
    [
        Row("nano", [Cell("0.9", "best", "0.3"), Cell("1.0 ± 0.1")]),
        Row("copy|ir", [Cell("1.0", "", "0.1", "best"), Cell("–")], aside=True),
    ],
    "A note.",
)


def test_markdown_marks_each_number():
    assert as_markdown(TABLE).splitlines() == [
        "|  | VIF ↑ | a_b ↓ |",
        "| --- | ---: | ---: |",
        "| nano | **0.9** 0.3 | 1.0 ± 0.1 |",
        r"| *copy\|ir* | 1.0 **0.1** | – |",
    ]


def test_latex_escapes_and_marks():
    lines = as_latex(TABLE).splitlines()
    assert lines[0] == r"\begin{tabular}{lrr}"
    assert lines[2] == r" & VIF $\uparrow$ & a\_b $\downarrow$ \\"
    assert lines[4] == r"nano & \textbf{0.9} 0.3 & 1.0 $\pm$ 0.1 \\"
    assert lines[-1] == r"\end{tabular}"


def test_csv_has_names_without_arrows():
    assert as_csv(TABLE).splitlines()[:2] == [",VIF,a_b", "nano,0.9 0.3,1.0 ± 0.1"]


def test_html_escapes():
    page = html("evaluation.html.j2", **empty_page())
    assert "copy|ir" in page
    assert "<script>" not in page
    assert "&lt;script&gt;" in page


def empty_page():
    names = ("comparison", "robust", "degradations", "distributions", "sources", "sheet", "pictures")
    empty: dict[str, object] = {name: [] for name in names}
    texts = {"sheet_note": "", "pictures_note": "<script>"}
    return {**empty, **texts, "title": "T", "summary": TABLE, "problems": Table("", [], [])}


def printed(width):
    text = io.StringIO()
    show(Console(file=text, width=width), [TABLE])
    return text.getvalue().splitlines()


def test_a_terminal_shows_titles_as_they_are_and_columns_aligned():
    lines = printed(80)
    assert lines[0] == "Scores of [night] & day"
    assert lines[1] == "           VIF ↑      a_b ↓"
    assert lines[2] == "nano     0.9 0.3  1.0 ± 0.1"
    assert lines[3] == "copy|ir  1.0 0.1          –"
    assert lines[4] == "A note."


def test_a_narrow_terminal_has_the_columns_one_below_the_other():
    lines = printed(20)
    assert [line.split() for line in lines[1:7]] == [
        ["VIF", "↑"],
        ["nano", "0.9", "0.3"],
        ["copy|ir", "1.0", "0.1"],
        ["a_b", "↓"],
        ["nano", "1.0", "±", "0.1"],
        ["copy|ir", "–"],
    ]
