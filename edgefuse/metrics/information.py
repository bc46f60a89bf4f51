"""Entropy (EN) and mutual information (MI) of 8-bit grey images, from their histograms.

References: Roberts, van Aardt, Ahmed, J. Appl. Remote Sens. 2, 2008 (EN); Qu, Zhang, Yan, Electronics
Letters 38(7), 2002 (MI). MI is in nats while EN is in bits: the evaluators in use mix the two,
and so do the published figures.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from edgefuse.images import Image

__all__ = ["entropy", "mutual_information"]


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
