"""Keeping the files of a long run under a size."""

import shutil
import threading
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from edgefuse.errors import InputError
from edgefuse.runtime.sinks.base import QuotaReachedError

__all__ = ["MEGABYTE", "RESERVE", "SHARE", "DiskQuota", "check_limits"]

MEGABYTE = 10**6
RESERVE = 50 * MEGABYTE
"""Bytes that stay free on a disk, so that the machine keeps working; of a small one, the share below."""
RESERVED_SHARE = 100
"""One part in so many of a disk stays free, if that is less than `RESERVE`."""
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
        raise InputError(f"a segment of {segment:g} s cannot be made: it must be at least 1 s")
    if max_size is not None and max_size < MEGABYTE:
        raise InputError(f"the largest size of {max_size / MEGABYTE:g} MB is too small: at least 1 MB")
