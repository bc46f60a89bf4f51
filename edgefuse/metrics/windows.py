"""Filters that stay in a core's cache: bands of rows, and windows as matrix products.

A metric is a long chain of element-wise steps. Over a whole image each step goes to main memory and back;
over a band of rows it stays in the cache, which makes the chain two to three times as fast.

Sixteen neighbouring windows share most of their pixels. Taken together they are a product with a matrix
of 16 shifted kernels, mostly zeros, and the matrix product of any BLAS is so much better tuned than a
filter's inner loop that this takes half the time of OpenCV's `sepFilter2D`, without computing borders.
"""

from collections.abc import Callable, Iterator
from functools import cache
from typing import Generic, NamedTuple, TypeAlias, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

PIXELS = 1 << 15  # 128 KB of float32; about eight such arrays are in use at a time
BLOCK = 16  # rows, or columns, that a matrix product takes together
LARGEST = 1 << 18
"""Multiplications of one matrix product. OpenBLAS gives larger ones to several threads, whose waiting for
each other costs more time than there is to win, and which no caller's budget or niceness knows of."""

Floats: TypeAlias = NDArray[np.float32]
T = TypeVar("T")


def bands(height: int, width: int) -> Iterator[slice]:
    """Cut the rows of a `[height, width]` array into slices, the last one perhaps shorter."""
    rows = max(1, PIXELS // max(1, width) // BLOCK) * BLOCK
    for start in range(0, height, rows):
        yield slice(start, min(height, start + rows))


class Banded(Generic[T]):
    """What a metric needs of an image, band by band, made when it is asked for.

    Args:
        height: rows to cut into bands.
        width: their length.
        make: slice of rows → what is needed of them.
        keep: make each band only once. Without it nothing of an image stays in memory, and all work is in the
            cache; a second use computes it again.
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


def gaussian(values: Floats, taps: int, step: int = 1, sign: int = 1) -> Floats:
    """Return the Gaussian mean, σ = taps / 5, of every `step`-th window that lies wholly inside.

    Args:
        values: float32 `[H, W]`, both at least `taps`.
        taps: side of the square window, odd.
        step: distance of neighbouring windows, in both directions.
        sign: −1 for the means times −1.

    Returns:
        float32 `[(H - taps) // step + 1, (W - taps) // step + 1]`.
    """
    return _windowed(values, _gaussian(taps, step, sign))


def uniform(values: Floats, side: int) -> Floats:
    """Return the sum of every square window that lies wholly inside; exact for integers up to 2²⁴.

    Args:
        values: float32 `[H, W]`, both at least `side`.
        side: of the window.

    Returns:
        float32 `[H - side + 1, W - side + 1]`.
    """
    return _windowed(values, _uniform(side))


class _Kernels(NamedTuple):
    taps: int
    step: int
    down: Floats
    """`[16, 15·step + taps]`, one kernel a row, each `step` further to the right."""
    across: Floats
    """Its transpose, times the sign."""


def _windowed(values: Floats, kernels: _Kernels) -> Floats:
    values = np.ascontiguousarray(values)
    taps, step, vertical, horizontal = kernels
    rows, length = values.shape
    height, width, span = (rows - taps) // step + 1, (length - taps) // step + 1, len(horizontal)

    columns = np.empty((height, length), np.float32)
    full = height // BLOCK * BLOCK
    if full:
        strides = (4 * BLOCK * step * length, 4 * length, 4)
        blocks = np.ndarray((full // BLOCK, span, length), np.float32, values, 0, strides)
        out = columns[:full].reshape(-1, BLOCK, length)
        for part in _parts(length, span):
            np.matmul(vertical, blocks[:, :, part], out=out[:, :, part])
    if rest := height - full:
        used = (rest - 1) * step + taps
        last = values[full * step : full * step + used]
        for part in _parts(length, span):
            np.matmul(vertical[:rest, :used], last[:, part], out=columns[full:, part])

    result = np.empty((height, width), np.float32)
    full = width // BLOCK * BLOCK
    if full:
        strides = (4 * BLOCK * step, 4 * length, 4)
        blocks = np.ndarray((full // BLOCK, height, span), np.float32, columns, 0, strides)
        strides = (4 * BLOCK, 4 * width, 4)
        out = np.ndarray((full // BLOCK, height, BLOCK), np.float32, result, 0, strides)
        for part in _parts(height, span):
            np.matmul(blocks[:, part], horizontal, out=out[:, part])
    if rest := width - full:
        used = (rest - 1) * step + taps
        last = columns[:, full * step : full * step + used]
        for part in _parts(height, span):
            np.matmul(last[part], horizontal[:used, :rest], out=result[part, full:])
    return result


@cache
def _parts(length: int, span: int) -> list[slice]:
    """Cut the long side of products with a `[16, span]` matrix, evenly, so that none is over `LARGEST`."""
    pieces = -(-BLOCK * span * length // LARGEST)
    size = -(-length // (pieces * BLOCK)) * BLOCK
    return [slice(start, start + size) for start in range(0, length, size)]


@cache
def _gaussian(taps: int, step: int, sign: int) -> _Kernels:
    return _kernels(cv2.getGaussianKernel(taps, taps / 5, cv2.CV_64F)[:, 0], step, sign)


@cache
def _uniform(side: int) -> _Kernels:
    return _kernels(np.ones(side), step=1, sign=1)


def _kernels(kernel: NDArray[np.float64], step: int, sign: int) -> _Kernels:
    taps = len(kernel)
    down = np.zeros((BLOCK, (BLOCK - 1) * step + taps), np.float32)
    for row in range(BLOCK):
        down[row, row * step : row * step + taps] = kernel
    return _Kernels(taps, step, down, np.ascontiguousarray(down.T * np.float32(sign)))
