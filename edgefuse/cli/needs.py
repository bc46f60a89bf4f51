"""Optional packages: the one sentence that a command answers when they are missing."""

from importlib.util import find_spec

from edgefuse.errors import BackendError

__all__ = ["needs"]


def needs(extra: str, *modules: str) -> None:
    """Raise `BackendError` naming the extra if one of the modules is not installed."""
    missing = [name for name in modules if not _is_installed(name)]
    if missing:
        raise BackendError(f"{', '.join(missing)} is not installed: pip install 'edgefuse[{extra}]'")


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ValueError:  # what find_spec says of one that is blocked in sys.modules
        return False
