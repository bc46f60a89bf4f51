"""What the command line says and how it ends: both streams, progress, and exit codes."""

from rich.console import Console

__all__ = ["stderr", "stdout"]


def stdout(*, quiet: bool = False) -> Console:
    """Return standard output."""
    return Console(quiet=quiet)


def stderr() -> Console:
    """Return standard error."""
    return Console(stderr=True)
