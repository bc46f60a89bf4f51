"""The paper's own figures: Tables 1 to 4 of "Beyond Strict Pairing" (Deng et al., CVPR 2026).

They are of images stretched to 0..255 each, on other test sets and after far longer training: what can be
compared is how rows of one table relate, not their values.
"""

import csv
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from edgefuse.metrics import CORE_METRICS

__all__ = ["PublishedRow", "published"]


@dataclass(frozen=True)
class PublishedRow:
    """One row for one test set and network."""

    table: str
    test: str
    mode: str
    infrared: str
    visible: str
    base: int | None
    pairs: int | None
    model: str
    scores: dict[str, float]


@cache
def published(table: str) -> tuple[PublishedRow, ...]:
    """Return the rows of `table1` to `table4`, in the paper's order."""
    text = (files(__package__) / "published.csv").read_text("utf-8")
    return tuple(
        PublishedRow(
            table,
            row["set"],
            row["mode"],
            row["infrared"],
            row["visible"],
            int(row["base"]) if row["base"] else None,
            int(row["pairs"]) if row["pairs"] else None,
            row["model"],
            {name: float(row[name]) for name in CORE_METRICS},
        )
        for row in csv.DictReader(text.splitlines())
        if row["table"] == table
    )
