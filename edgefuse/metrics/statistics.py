"""Information, contrast, sharpness and correlation: EN, MI, SD, SF, AG, SCD, CC and PSNR.

References: Roberts, van Aardt, Ahmed, J. Appl. Remote Sens. 2, 2008 (EN); Qu, Zhang, Yan, Electronics
Letters 38(7), 2002 (MI); Eskicioglu and Fisher, IEEE Trans. Commun. 43(12), 1995 (SF); Cui et al., Optics
Communications 341, 2015 (AG); Aslantas and Bendes, AEU 69(12), 2015 (SCD). The correlation with a constant
image is undefined; here it is 0, where the evaluators give NaN. MI is in nats while EN is in bits: the
evaluators in use mix the two, and so do the published figures.
"""

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from edgefuse.images import Image

PSNR_LIMIT = 100.0
"""What stands for the infinite PSNR of equal images, dB."""


def entropy(image: Image) -> float:
    """Return the Shannon entropy of the grey levels (EN).

    Args:
        image: uint8 `[H, W]`.

    Returns:
        Bits, 0 (constant) to 8 (flat histogram).
    """
    counts = cv2.calcHist([image], [0], None, [256], [0, 256])
    return _nats(counts) / float(np.log(2))


def mutual_information(a: Image, b: Image) -> float:
    """Return the mutual information of the grey levels of two images.

    Args:
        a: uint8 `[H, W]`.
        b: uint8 `[H, W]`.

    Returns:
        Nats, 0 (independent) to the smaller of the two entropies; symmetric.
    """
    joint = cv2.calcHist([a, b], [0, 1], None, [256, 256], [0, 256, 0, 256])
    return max(0.0, _nats(joint.sum(axis=1)) + _nats(joint.sum(axis=0)) - _nats(joint))


def _nats(counts: NDArray[np.float32]) -> float:
    """Entropy in nats of a histogram: log N − Σ n·log n / N."""
    n = np.maximum(counts, np.float32(1)).ravel()  # 1·log 1 is what 0·log 0 shall be
    total = cv2.sumElems(counts)[0]
    return max(0.0, float(np.log(total)) - float(np.dot(n, np.log(n))) / total)


def standard_deviation(image: Image) -> float:
    """Return the standard deviation of the grey levels (SD) of a uint8 `[H, W]` image, 0 to 127.5."""
    return float(cv2.meanStdDev(image)[1][0, 0])


def spatial_frequency(image: Image) -> float:
    """Return the spatial frequency (SF) of a uint8 `[H, W]` image.

    Returns:
        Grey levels per pixel, 0 to 361: the root of the mean squared differences of horizontal neighbours
        plus that of vertical ones.
    """
    x = image.astype(np.int16)
    across, down = np.diff(x, axis=1), np.diff(x, axis=0)
    return float(np.sqrt(_mean_square(across) + _mean_square(down)))


def average_gradient(image: Image) -> float:
    """Return the average gradient (AG) of a uint8 `[H, W]` image.

    Returns:
        Grey levels per pixel, 0 to 255: the mean of √((gx² + gy²) / 2), with central differences inside and
        one-sided ones at the borders.
    """
    x = image.astype(np.float32)
    half = np.array([[-0.5, 0, 0.5]], np.float32)
    gx = cv2.filter2D(x, -1, half, borderType=cv2.BORDER_REPLICATE)
    gy = cv2.filter2D(x, -1, half.T, borderType=cv2.BORDER_REPLICATE)
    gx[:, [0, -1]] *= 2
    gy[[0, -1]] *= 2
    return float(cv2.mean(cv2.magnitude(gx, gy))[0] / np.sqrt(2))


def correlation(a: Image, b: Image) -> float:
    """Return Pearson's correlation of two uint8 `[H, W]` images, -1 to 1; 0 if either is constant."""
    return _pearson(a.astype(np.float32), b.astype(np.float32))


def difference_correlation(source: Image, fused: Image, other: Image) -> float:
    """Return the correlation of a source with what the fused image adds to the other source.

    Args:
        source: uint8 `[H, W]`.
        fused: uint8 `[H, W]`.
        other: the other source, uint8 `[H, W]`.

    Returns:
        -1 to 1; 0 if the fused image is the other source.
    """
    return _pearson(source.astype(np.float32), cv2.subtract(fused, other, dtype=cv2.CV_32F))


def mean_squared_error(a: Image, b: Image) -> float:
    """Return the mean squared difference of two uint8 `[H, W]` images, squared grey levels."""
    return float(cv2.norm(a, b, cv2.NORM_L2SQR)) / a.size


def rms_difference(a: Image, b: Image) -> float:
    """Return the root of the mean squared difference of two uint8 `[H, W]` images, grey levels."""
    return float(np.sqrt(mean_squared_error(a, b)))


def peak_ratio(peak: float, mse: float) -> float:
    """Return 10·log10(peak² / mse) in dB, at most 100; a peak of 0 counts as 1."""
    return min(PSNR_LIMIT, decibels(mse / max(peak, 1.0) ** 2))


def decibels(error: float) -> float:
    """Return the PSNR of a mean squared error relative to the squared peak, in dB; infinite for 0."""
    return -10 * math.log10(error) if error > 0 else math.inf


def _mean_square(values: NDArray[np.int16]) -> float:
    return float(cv2.norm(np.ascontiguousarray(values), cv2.NORM_L2SQR)) / values.size


def _pearson(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    a = (a - np.float32(cv2.mean(a)[0])).ravel()
    b = (b - np.float32(cv2.mean(b)[0])).ravel()
    below = float(np.linalg.norm(a)) * float(np.linalg.norm(b))
    # Below this, a constant image's rounding errors are what is left.
    return float(np.clip(np.dot(a, b) / below, -1, 1)) if below > 1e-3 else 0.0
