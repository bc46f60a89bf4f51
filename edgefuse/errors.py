"""The exceptions that edgefuse raises on purpose.

Every message is one sentence that names what was asked, with its value, and what to do.
The command line prints it and exits with status 1; a caller in Python catches `EdgefuseError`.
"""

from collections.abc import Iterable
from difflib import get_close_matches


class EdgefuseError(Exception):
    """Base of all errors that edgefuse raises on purpose."""


class InputError(EdgefuseError):
    """A file, folder, array or option that cannot be used as given."""


class ModelError(EdgefuseError):
    """An unknown model, or a model file that is damaged or not ours."""


class BackendError(EdgefuseError):
    """An inference engine that is not installed or cannot run the model."""


class GateError(EdgefuseError):
    """An exported file that is too far from its checkpoint, or not in the precision that was asked for."""


class SourceError(EdgefuseError):
    """A camera, video or image sequence that cannot be opened or read."""


class FrameError(SourceError):
    """One frame of a recording that cannot be read; those after it may be."""


class LostError(SourceError):
    """A camera or stream that is not there now, or no longer: opening it again later may help."""


def first_line(error: object, last: bool = False) -> str:
    """Return the first or last line of a library's error, at most 200 characters."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return " ".join(lines[-1 if last else 0].split())[:200]


def counted(count: int, what: str) -> str:
    """Return a number with its noun.

    >>> counted(1, "frame"), counted(1200, "frame")
    ('1 frame', '1200 frames')
    """
    return f"{count} {what}{'s' * (count != 1)}"


def listed(names: Iterable[str], most: int = 10) -> str:
    """Return names with commas, of many the first and how many more there are.

    >>> listed(["a", "b", "c"], most=2)
    'a, b and 1 more'
    """
    shown = list(names)
    return ", ".join(shown[:most]) + f" and {len(shown) - most} more" * (len(shown) > most)


def unknown_name(kind: str, name: str, known: Iterable[str]) -> str:
    """Return the sentence for an unknown name, with the known ones and the nearest match.

    >>> unknown_name("model", "nanno", ["cnn", "nano"])
    "unknown model 'nanno' (did you mean 'nano'?): known are cnn, nano"
    """
    names = sorted(known)
    close = get_close_matches(name, names, n=1)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    return f"unknown {kind} {name!r}{hint}: known are {', '.join(names) or 'none'}"
