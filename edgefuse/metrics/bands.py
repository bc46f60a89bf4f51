"""Bands of rows that fit into a core's cache.

A metric is a long chain of element-wise steps. Over a whole image each step goes to main memory and back;
over a band of rows it stays in the cache, which makes the chain two to three times as fast.
"""

from collections.abc import Callable, Iterator
from functools import cache
from typing import Generic, TypeVar

import numpy as np

__all__ = ["Banded", "bands", "keep_freed_memory"]

PIXELS = 1 << 15  # 128 KB of float32; about eight such arrays are in use at a time
MULTIPLE = 16  # of rows, which the Gaussian windows take together

T = TypeVar("T")


def bands(height: int, width: int) -> Iterator[slice]:
    """Cut the rows of a `[height, width]` array into slices, the last one perhaps shorter."""
    rows = max(1, PIXELS // max(1, width) // MULTIPLE) * MULTIPLE
    for start in range(0, height, rows):
        yield slice(start, min(height, start + rows))


class Banded(Generic[T]):
    """What a metric needs of an image, band by band, made when it is asked for.

    Args:
        height: rows to cut into bands.
        width: their length.
        make: slice of rows → what is needed of them.
        keep: make each band only once. Without it nothing of an image stays in memory, and all work is in the
            cache; a second use makes it anew.
    """

    def __init__(self, height: int, width: int, make: Callable[[slice], T], keep: bool = False) -> None:
        self._rows = list(bands(height, width))
        self._make = make
        self._kept: list[T | None] | None = [None] * len(self._rows) if keep else None

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> T:
        if self._kept is None:
            return self._make(self._rows[index])
        part = self._kept[index]
        if part is None:
            part = self._kept[index] = self._make(self._rows[index])
        return part


@cache
def keep_freed_memory() -> None:
    """Let the C library keep what is freed for the next image.

    glibc gives large freed blocks back to the system at once, and each 4 KB of the next one then costs a
    page fault: 20 ms for the five metrics of a 640×480 pair. By design it raises its limits to the largest
    block freed so far, up to 32 MB. The block here is never written to, so it takes no memory; other C
    libraries do not mind.
    """
    block = np.empty(31 << 20, np.uint8)
    del block
