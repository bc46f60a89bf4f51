"""Optional packages: the one sentence that a command answers when they are missing."""

from importlib.util import find_spec

from edgefuse.errors import BackendError

__all__ = ["needs"]


def needs(extra: str, *modules: str) -> None:
    """Raise `BackendError` naming the extra if one of the modules is not installed."""
    missing = [name for name in modules if find_spec(name) is None]
    if missing:
        raise BackendError(f"{', '.join(missing)} is not installed: pip install 'edgefuse[{extra}]'")
