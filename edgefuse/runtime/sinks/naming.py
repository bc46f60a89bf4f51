"""The files of one video output: their names, and the files that a run that died has left."""

import logging
import os
import re
import time
from contextlib import suppress
from datetime import datetime, timezone
from importlib import import_module
from pathlib import Path
from typing import IO, Any

from edgefuse.runtime.sinks.quota import DiskQuota

__all__ = ["OutputNaming", "hold"]

logger = logging.getLogger(__name__)

FCNTL: Any = import_module("fcntl") if os.name == "posix" else None
"""File locks. Without them, on Windows, nobody can rename a file that is being written anyway."""
STAMP = re.compile(r"(-\d{8}-\d{6})(?:-(\d+))?")
EMPTY_SECONDS = 60.0  # after which an empty file is not one that somebody has just begun


def hold(file: IO[Any]) -> None:
    """Mark a file as being written, until it is closed or its process has died, however it died."""
    if FCNTL is not None:
        with suppress(OSError):  # some network drives cannot
            FCNTL.flock(file, FCNTL.LOCK_EX | FCNTL.LOCK_NB)


class OutputNaming:
    """Names the files.

    While it is written, a file is `out-20260131-235959.part.mp4` (UTC). At its end it becomes `out.mp4`, and
    those after it `out-2.mp4` …; in a ring, `out-20260131-235959.mp4`. One that could not be completed is
    named so too: a failure never costs an earlier file.

    What an earlier run could not complete, since it was killed or the power was cut, loses its `.part`, and
    that is logged.

    Args:
        path: of the output.
        ring: files are named by the time of their beginning, and those of earlier runs count too.
        quota: hears of every file that is finished.
    """

    def __init__(self, path: Path, ring: bool, quota: DiskQuota) -> None:
        self._path, self._ring, self._quota = path, ring, quota
        self._stem = ""
        self._count = 0
        self._adopt()
        for old in self._older() if ring else ():
            quota.finish([old], old.stat().st_size)

    def begin(self) -> Path:
        """Return the name of the next file, which does not exist."""
        stem = f"{self._path.stem}-{datetime.now(timezone.utc):%Y%m%d-%H%M%S}"
        self._stem, number = stem, 1
        while self._partial.exists() or self._named(self._stem).exists():  # a clock may have been set back
            number += 1
            self._stem = f"{stem}-{number}"
        return self._partial

    def end(self, size: int, whole: bool = True) -> None:
        """Give the file that was begun its final name; without any bytes, remove it.

        Args:
            size: bytes of the file.
            whole: it was completed, and may replace an earlier file.
        """
        if not size:
            self._partial.unlink(missing_ok=True)
            return
        final = self._final() if whole else self._named(self._stem)
        self._partial.replace(final)
        self._count += 1
        self._quota.finish([final], size)
        if not whole:
            logger.warning("%s could not be completed: its incomplete file is kept as %s", self._path, final)

    @property
    def _partial(self) -> Path:
        return self._path.with_name(f"{self._stem}.part{self._path.suffix}")

    def _named(self, stem: str) -> Path:
        return self._path.with_name(f"{stem}{self._path.suffix}")

    def _final(self) -> Path:
        if self._ring:
            return self._named(self._stem)
        if not self._count:
            return self._path
        number = self._count + 1
        while (path := self._named(f"{self._path.stem}-{number}")).exists():
            number += 1
        return path

    def _older(self, suffix: str = "") -> list[Path]:
        """Return the files of earlier runs, the oldest first; with `.part` as suffix, the incomplete ones."""
        found = []
        for path in self._path.parent.iterdir():
            stem = path.name.removesuffix(f"{suffix}{self._path.suffix}")
            if stem == path.name or not stem.startswith(self._path.stem):
                continue
            stamp = STAMP.fullmatch(stem[len(self._path.stem) :])
            if stamp is not None and path.is_file():
                found.append((stamp[1], int(stamp[2] or 1), path))
        return [path for _, _, path in sorted(found)]

    def _adopt(self) -> None:
        """Complete the name of what a dead run left behind; what another one writes just now stays alone."""
        for path in self._older(".part"):
            with suppress(OSError):  # somebody else was faster, or it may not be touched
                if _is_held(path):
                    continue
                found = path.stat()
                if found.st_size:
                    whole = self._named(path.name.removesuffix(f".part{path.suffix}"))
                    if not whole.exists():
                        path.replace(whole)
                        logger.warning("%s was cut off by the end of an earlier run: kept as %s", path, whole)
                elif time.time() - found.st_mtime > EMPTY_SECONDS:
                    path.unlink()


def _is_held(path: Path) -> bool:
    if FCNTL is None:
        return False
    file = os.open(path, os.O_RDONLY)
    try:
        FCNTL.flock(file, FCNTL.LOCK_EX | FCNTL.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(file)
    return False
