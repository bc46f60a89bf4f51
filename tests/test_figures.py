"""The numbers of README and docs are those of the JSON beside them."""

import re

import pytest

from bench.figures import BLOCK, FIGURES, documents, filled


@pytest.mark.parametrize("path", documents(), ids=lambda path: path.name)
def test_tables_are_those_of_the_json(path):
    text = path.read_text("utf-8")
    assert filled(text) == text, f"{path.name} differs from its JSON: run make figures"


def test_documents_have_figures_and_name_known_ones():
    names = [found[2] for path in documents() for found in BLOCK.finditer(path.read_text("utf-8"))]
    assert "benchmarks/models" in names
    assert set(names) <= FIGURES.keys()


def test_a_changed_number_is_noticed():
    path = next(path for path in documents() if path.name == "benchmarks.md")
    text = path.read_text("utf-8")
    block = BLOCK.search(text)
    assert block is not None
    digit = re.compile(r"\d(?=\.\d)").search(text, block.start())
    assert digit is not None
    wrong = text[: digit.start()] + str((int(digit[0]) + 1) % 10) + text[digit.end() :]
    assert filled(wrong) == text != wrong
