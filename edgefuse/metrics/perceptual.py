"""Perceptual measures that weigh frequencies as the eye does: Qcb and Qcv.

References: Chen and Blum, Image and Vision Computing 27(10), 2009 (Qcb); Chen and Varshney, Information
Fusion 8(2), 2007 (Qcv). As the evaluators in use do, each image is first stretched to 0..255 and rounded;
their ties are rounded as those of values in 0..1. Computed in double precision: Qcb takes the third power of
contrasts that are almost 0.
"""

from functools import cached_property, lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from edgefuse.images import Image

BLOCK = 16
"""Side of the blocks that Qcv compares."""
MASKING = 1e-4
"""What is added to the squared contrast in Qcb's masking."""
REACH = 15
"""Pixels on each side of the Gaussian windows of Qcb."""

Floats = NDArray[np.float64]


class Perceived:
    """What Qcb and Qcv need of one image.

    Args:
        image: uint8 `[H, W]`.
    """

    def __init__(self, image: Image) -> None:
        self.shape = image.shape
        self._image = _stretched(image)
        self._spectrum = np.fft.rfft2(self._image)

    @cached_property
    def contrast(self) -> Floats:
        """Masked local contrast of Qcb, float64 `[H, W]`; NaN where it is undefined."""
        seen = np.fft.irfft2(self._spectrum * _sensitivity_qcb(*self.shape), self.shape)
        with np.errstate(divide="ignore", invalid="ignore"):
            contrast = np.abs(_window(seen, 2) / _window(seen, 4) - 1)
            return contrast**3 / (contrast**2 + MASKING)

    @cached_property
    def saliency(self) -> Floats:
        """Weight of each block of Qcv: the summed fifth power of the Sobel gradient."""
        gx, gy = (
            cv2.Sobel(self._image, cv2.CV_64F, *order, borderType=cv2.BORDER_CONSTANT)
            for order in ((1, 0), (0, 1))
        )
        return _block_sums((gx * gx + gy * gy) ** 2.5)

    def difference(self, other: "Perceived") -> Floats:
        """Return the mean squared difference from another image in each block, as the eye sees it."""
        spectrum = (self._spectrum - other._spectrum) * _sensitivity_qcv(*self.shape)
        return _block_sums(np.fft.irfft2(spectrum, self.shape) ** 2) / BLOCK**2


def qcb(fused: Perceived, ir: Perceived, vis: Perceived) -> tuple[float, float, float]:
    """Return the share of the sources' contrast that is kept, weighted by its square.

    Returns:
        Of both sources, of the infrared and of the visible one; each 0 to 1, higher is better.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        kept_ir, kept_vis = (
            np.minimum(source.contrast, fused.contrast) / np.maximum(source.contrast, fused.contrast)
            for source in (ir, vis)
        )
        weight_ir = 1 / (1 + (vis.contrast / ir.contrast) ** 2)
    weight_vis = 1 - weight_ir
    both = weight_ir * kept_ir + weight_vis * kept_vis
    return _mean(both), _mean(kept_ir, weight_ir), _mean(kept_vis, weight_vis)


def qcv(fused: Perceived, ir: Perceived, vis: Perceived) -> tuple[float, float, float]:
    """Return the squared difference from the sources as it is seen, weighted by the sources' edges.

    Returns:
        Of both sources, of the infrared and of the visible one; squared grey levels, 0 or more, lower is
        better.
    """
    weights = [float(source.saliency.sum()) for source in (ir, vis)]
    sums = [float((source.saliency * source.difference(fused)).sum()) for source in (ir, vis)]
    parts = [part / weight if weight else 0.0 for part, weight in zip(sums, weights, strict=True)]
    return (sum(sums) / sum(weights) if any(weights) else 0.0), parts[0], parts[1]


def _mean(values: Floats, weights: Floats | None = None) -> float:
    """Mean over the pixels where both are defined; 0 if there is none."""
    weights = np.ones_like(values) if weights is None else weights
    defined = np.isfinite(values) & np.isfinite(weights)
    total = float(weights[defined].sum())
    return float((values[defined] * weights[defined]).sum()) / total if total > 0 else 0.0


def _stretched(image: Image) -> Floats:
    values = np.arange(256) / 255
    low, high = values[image.min()], values[image.max()]
    if low < high:
        values = (values - low) / (high - low)
    return np.rint(values * 255)[image]


def _window(values: Floats, sigma: float) -> Floats:
    """Filter with a Gaussian whose sum is that of the infinite one, zero borders."""
    at = np.arange(-REACH, REACH + 1)
    kernel = np.exp(-(at**2) / (2 * sigma**2)) / (np.sqrt(2 * np.pi) * sigma)
    return cv2.sepFilter2D(values, cv2.CV_64F, kernel, kernel, borderType=cv2.BORDER_CONSTANT)


def _block_sums(values: Floats) -> Floats:
    height, width = (-(-side // BLOCK) for side in values.shape)
    padded = np.zeros((height * BLOCK, width * BLOCK))
    padded[: values.shape[0], : values.shape[1]] = values
    return padded.reshape(height, BLOCK, width, BLOCK).sum(axis=(1, 3))


def _frequencies(height: int, width: int, cycles: float) -> Floats:
    """Radial frequencies of a real spectrum, the highest in each direction being the side by `cycles`."""
    u = 2 * np.fft.rfftfreq(width) * width / cycles
    v = 2 * np.fft.fftfreq(height) * height / cycles
    return np.hypot(u[None, :], v[:, None])


@lru_cache(maxsize=4)
def _sensitivity_qcb(height: int, width: int) -> Floats:
    r = _frequencies(height, width, 30)
    return np.exp(-((r / 15.3870) ** 2)) - 0.7622 * np.exp(-((r / 1.3456) ** 2))


@lru_cache(maxsize=4)
def _sensitivity_qcv(height: int, width: int) -> Floats:
    r = 0.144 * _frequencies(height, width, 8)
    return 2.6 * (0.0192 + r) * np.exp(-(r**1.1))
