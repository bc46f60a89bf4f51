"""Keeping the files of a long run under a size."""

import shutil
import threading
from collections import deque
from collections.abc import Iterable
from pathlib import Path

from edgefuse.errors import InputError
from edgefuse.runtime.sinks.base import QuotaReachedError

__all__ = ["MEGABYTE", "RESERVE", "SHARE", "DiskQuota", "check_disk", "check_limits"]

MEGABYTE = 10**6
RESERVE = 50 * MEGABYTE
"""Bytes that stay free on a disk, so that the machine keeps working; of a small one, the share below."""
RESERVED_SHARE = 100
"""One part in so many of a disk stays free, if that is less than `RESERVE`."""
SHARE = 4
"""Where the oldest files are removed, each is at most this fraction of the whole: most of it remains."""


class DiskQuota:
    """Counts the bytes of finished files and of those that are being written. Threads may share it.

    Args:
        name: of the output, to print.
        max_size: bytes of all files together; None: no limit.
        ring: at the limit, the oldest finished files are removed; else it is the end.
    """

    def __init__(self, name: str, max_size: int | None, ring: bool) -> None:
        self.largest_part = max_size // SHARE if ring and max_size else None
        """Bytes at which a file should end, so that there is something to remove."""
        self._name, self._max_size, self._ring = name, max_size, ring
        self._lock = threading.Lock()
        self._finished: deque[tuple[tuple[Path, ...], int]] = deque()
        self._open: dict[str, int] = {}

    def finish(self, paths: Iterable[Path], size: int, key: str = "") -> None:
        """Note a file that is complete, with those that belong to it: the newest."""
        with self._lock:
            self._open.pop(key, None)
            self._finished.append((tuple(paths), size))

    def make_room(self, size: int, key: str = "") -> None:
        """Note the size that the file in progress is about to have, and remove what must go for it.

        Args:
            size: bytes.
            key: tells the files apart that are being written at once.

        Raises:
            QuotaReachedError: nothing may be removed.
        """
        if self._max_size is None:
            return
        with self._lock:
            self._open[key] = size
            total = sum(self._open.values()) + sum(size for _, size in self._finished)
            while self._ring and self._finished and total > self._max_size:
                paths, size = self._finished.popleft()
                for path in paths:
                    path.unlink(missing_ok=True)
                total -= size
        if total > self._max_size:
            raise QuotaReachedError(
                f"{self._name} has reached its largest size of {self._max_size / MEGABYTE:g} MB"
            )


def check_disk(folder: Path, name: str) -> None:
    """Raise `InputError`, which begins with `name`, if the disk of a folder is as good as full."""
    disk = shutil.disk_usage(folder)
    reserve = min(RESERVE, disk.total // RESERVED_SHARE)
    if disk.free < reserve:
        raise InputError(
            f"{name}: the disk is full: {disk.free / MEGABYTE:.1f} MB are free, and "
            f"{reserve / MEGABYTE:.1f} MB must stay free for the system; --max-size keeps files below a size"
        )


def check_limits(segment: float | None, max_size: int | None) -> None:
    """Raise `InputError` unless a segment is None or at least a second, and a size None or at least 1 MB."""
    if segment is not None and not 1 <= segment < float("inf"):
        raise InputError(f"a segment of {segment:g} s cannot be made: it must be at least 1 s")
    if max_size is not None and max_size < MEGABYTE:
        raise InputError(f"the largest size of {max_size / MEGABYTE:g} MB is too small: at least 1 MB")
