"""Writing files so that a half-written one never has the final name."""

import os
import re
import sys
import threading
from collections.abc import Callable
from glob import escape
from pathlib import Path

from edgefuse.errors import InputError

RESERVED_BY_WINDOWS = re.compile(r"(con|prn|aux|nul|com\d|lpt\d) *(\..*)?", re.IGNORECASE)
"""What is written to such a file is lost, whatever its suffix."""


def readable(text: str) -> str:
    r"""Return a text that names files so that it is UTF-8: a byte that is not becomes `\xff`."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def read_bytes(path: Path) -> bytes:
    """Return a file's content.

    Raises:
        InputError: it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from None


def model_argument(path: Path) -> str | bytes:
    """Return what engines are given to open a model: its path, or its content if its path is not UTF-8.

    Raises:
        InputError: it cannot be read.
    """
    return str(path) if readable(str(path)) == str(path) else read_bytes(path)


def check_writable(path: Path) -> None:
    """See that `replace_file` could write a path now, before minutes are spent on what goes there.

    Raises:
        InputError: the folder is missing or read-only, or the path is a folder itself.
    """
    if sys.platform.startswith("win") and RESERVED_BY_WINDOWS.fullmatch(path.name):
        raise InputError(f"cannot write {path}: Windows takes this name for a device: give another")
    if path.is_dir():
        raise InputError(f"cannot write {path}: it is a folder, a file's name is needed")
    if not path.parent.is_dir():
        raise InputError(f"cannot write {path}: there is no folder {path.parent}")
    probe = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.part")
    try:
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from None


def replace_file(path: Path, write: Callable[[Path], object], *, durable: bool = False) -> None:
    """Let `write` fill a file beside `path`, then move it there in one step.

    Args:
        path: the final name.
        write: fills the file that it is given.
        durable: wait until the disk has it, so that a power cut leaves the old file or the new one; and
            remove what processes that were killed left half-written.

    Raises:
        InputError: the folder is missing or read-only, or the disk is full.
    """
    if not path.parent.is_dir():
        raise InputError(f"cannot write {path}: there is no folder {path.parent}")
    partial = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.part")
    try:
        write(partial)
        if durable:
            _sync(partial)
        os.replace(partial, path)
        if durable:
            _sync(path.parent)
            for left in path.parent.glob(f".{escape(path.name)}.*.part"):
                left.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from None
    finally:
        partial.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    """Wait until the disk has a file's content, or a folder's names."""
    if path.is_dir() and os.name == "nt":  # which cannot open folders
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def text_of(path: Path) -> str:
    """Return a small file's text without the end of its line; nothing where it cannot be read."""
    try:
        return path.read_text("utf-8", "replace").strip()
    except OSError:
        return ""
