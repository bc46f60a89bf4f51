"""The files of an output: names, room on the disk, and the files that a run that died has left."""

import logging
import os
import re
import shutil
import threading
import time
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib import import_module
from pathlib import Path
from typing import IO, Any

from edgefuse.errors import InputError
from edgefuse.runtime.sinks.base import QuotaReachedError

MEGABYTE = 10**6
RESERVE = 50 * MEGABYTE
"""Bytes that stay free on a disk, so that the machine keeps working; of a small one, the share below."""
RESERVED_SHARE = 100
"""One part in this many of a disk stays free, if that is less than `RESERVE`."""
CHECK_EVERY = 16  # frames, between two looks at the disk
SHARE = 4
"""Where the oldest files are removed, each is at most this fraction of the whole: most of it remains."""


@dataclass
class _OpenFile:
    """A file that is being written."""

    size: int = 0
    expected: int = 0
    """Bytes with the frame that is being written."""
    largest: int = 0
    """Bytes of its largest frame."""
    frames: int = 0


class DiskQuota:
    """Sees that there is room for another frame: below a size, and on the disk. Threads may share it.

    Args:
        folder: of the files.
        name: of the output, to print.
        max_size: bytes of all files together; None: no limit.
        ring: at the limit, the oldest finished files are removed; else it is the end.
    """

    def __init__(self, folder: Path, name: str, max_size: int | None, ring: bool) -> None:
        self.largest_part = max_size // SHARE if ring and max_size else None
        """Bytes at which a file should end, so that there is something to remove."""
        self._folder, self._name, self._max_size, self._ring = folder, name, max_size, ring
        self._lock = threading.Lock()
        self._finished: deque[tuple[tuple[Path, ...], int]] = deque()
        self._open: dict[str, _OpenFile] = {}

    def finish(self, paths: Iterable[Path], size: int, key: str = "") -> None:
        """Note a file that is complete, with those that belong to it: the newest."""
        with self._lock:
            if key in self._open:
                self._open[key].size = self._open[key].expected = 0
            self._finished.append((tuple(paths), size))

    def admit(self, size: int, key: str = "") -> None:
        """To be called before each frame: remove what must go for it.

        Args:
            size: bytes of the file in progress.
            key: tells the files apart that are being written at once.

        Raises:
            InputError: the disk is as good as full.
            QuotaReachedError: nothing may be removed.
        """
        with self._lock:
            file = self._open.setdefault(key, _OpenFile())
            if file.frames % CHECK_EVERY == 0:
                self._check_disk()
            file.frames += 1
            file.largest = max(file.largest, size - file.size)
            file.size, file.expected = size, size + file.largest
            if self._max_size is None:
                return
            total = sum(each.expected for each in self._open.values())
            total += sum(size for _, size in self._finished)
            while self._ring and self._finished and total > self._max_size:
                paths, size = self._finished.popleft()
                for path in paths:
                    path.unlink(missing_ok=True)
                total -= size
        if total > self._max_size:
            raise QuotaReachedError(
                f"{self._name} has reached its largest size of {self._max_size / MEGABYTE:g} MB"
            )

    def _check_disk(self) -> None:
        disk = shutil.disk_usage(self._folder)
        reserve = min(RESERVE, disk.total // RESERVED_SHARE)
        if disk.free < reserve:
            raise InputError(
                f"{self._name}: the disk is full: {disk.free / MEGABYTE:.1f} MB are free, and "
                f"{reserve / MEGABYTE:.1f} MB must stay free for the system"
            )


def check_limits(segment: float | None, max_size: int | None) -> None:
    """Raise `InputError` unless a segment is None or at least a second, and a size None or at least 1 MB."""
    if segment is not None and not 1 <= segment < float("inf"):
        raise InputError(f"the segment length is {segment:g} s, it must be at least 1 s")
    if max_size is not None and max_size < MEGABYTE:
        raise InputError(f"the largest size of {max_size / MEGABYTE:g} MB is too small: at least 1 MB")


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
        """Rename the incomplete files of a dead run; those that another run is writing are skipped."""
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
