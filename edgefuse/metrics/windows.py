"""Gaussian and uniform windows as two matrix products with a banded matrix.

Sixteen neighbouring windows share most of their pixels. Taken together they are a product with a matrix
of 16 shifted kernels, mostly zeros, and the matrix product of any BLAS is so much better tuned than a
filter's inner loop that this takes half the time of OpenCV's `sepFilter2D`, without computing borders.
"""

from functools import cache
from typing import NamedTuple, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["gaussian", "uniform"]

BLOCK = 16
LARGEST = 1 << 18
"""Multiplications of one matrix product. OpenBLAS gives larger ones to several threads, whose waiting for
each other costs more time than there is to win, and which no caller's budget or niceness knows of."""

Floats: TypeAlias = NDArray[np.float32]


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
