"""What a check of a machine finds."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

Status: TypeAlias = Literal["ok", "warning", "problem"]


@dataclass(frozen=True)
class Finding:
    """What one check found."""

    status: Status
    """`problem`: something does not work; `warning`: something may be missed."""
    text: str
    fix: str = ""
    """What to do, one sentence; empty if all is well."""
    check: str = ""
    """Name in `CHECKS`."""


def ok(text: str) -> Finding:
    """Return that all is well."""
    return Finding("ok", text)
