"""Writing files so that a half-written one never has the final name."""

import os
from collections.abc import Callable
from pathlib import Path

from edgefuse.errors import InputError

__all__ = ["check_writable", "replace_file"]


def check_writable(path: Path) -> None:
    """See that `replace_file` could write a path now, before minutes are spent on what goes there.

    Raises:
        InputError: the folder is missing or read-only, or the path is a folder itself.
    """
    if path.is_dir():
        raise InputError(f"cannot write {path}: it is a folder, a file's name is needed")
    if not path.parent.is_dir():
        raise InputError(f"cannot write {path}: there is no folder {path.parent}")
    probe = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from None


def replace_file(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a file beside `path`, then move it there in one step.

    Raises:
        InputError: the folder is missing or read-only, or the disk is full.
    """
    if not path.parent.is_dir():
        raise InputError(f"cannot write {path}: there is no folder {path.parent}")
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        write(partial)
        os.replace(partial, path)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from None
    finally:
        partial.unlink(missing_ok=True)
