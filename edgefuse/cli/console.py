"""What the command line says and how it ends: both streams, progress, and exit codes."""

from rich.console import Console

__all__ = ["SOME_FAILED", "stderr", "stdout"]

SOME_FAILED = 3
"""Exit code of a command that did its work but for some files, which it lists. 1: it did nothing."""


def stdout(*, quiet: bool = False) -> Console:
    """Return standard output."""
    return Console(quiet=quiet)


def stderr() -> Console:
    """Return standard error."""
    return Console(stderr=True)
