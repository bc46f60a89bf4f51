"""The five metrics written plainly: formulas in float64 and two-dimensional convolutions.

What an evaluation script does that was written to be right and not to be fast; the yardstick of
`bench_metrics.py`, and a second opinion on the values.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.signal import convolve2d  # type: ignore[import-untyped]

__all__ = ["five_metrics"]

Floats = NDArray[np.float64]


def five_metrics(fused: NDArray[np.uint8], ir: NDArray[np.uint8], vis: NDArray[np.uint8]) -> dict[str, float]:
    """Return EN, MI, VIF, Qabf and SSIM of uint8 `[H, W]` images, protocol `field`."""
    f, a, b = (image.astype(np.float64) for image in (fused, ir, vis))
    return {
        "EN": entropy(fused),
        "MI": mutual_information(fused, ir) + mutual_information(fused, vis),
        "VIF": vif(a, f) + vif(b, f),
        "Qabf": qabf(f, a, b),
        "SSIM": ssim(a, f) + ssim(b, f),
    }


def entropy(image: NDArray[np.uint8]) -> float:
    p = np.bincount(image.ravel(), minlength=256) / image.size
    return float(-np.sum(p[p > 0] * np.log2(p[p > 0])))


def mutual_information(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    p = np.histogram2d(a.ravel(), b.ravel(), bins=256, range=((0, 256), (0, 256)))[0] / a.size
    q = p.sum(axis=1, keepdims=True) * p.sum(axis=0, keepdims=True)
    return float(np.sum(p[p > 0] * np.log(p[p > 0] / q[p > 0])))


def vif(source: Floats, image: Floats) -> float:
    kept = there = 0.0
    for scale, taps in enumerate((17, 9, 5, 3)):
        x = np.arange(taps) - taps // 2
        line = np.exp(-(x**2) / (2 * (taps / 5) ** 2))
        window = np.outer(line, line) / line.sum() ** 2
        if scale:
            source, image = (convolve2d(i, window, "valid")[::2, ::2] for i in (source, image))
        mean_s, mean_i = convolve2d(source, window, "valid"), convolve2d(image, window, "valid")
        var_s = np.maximum(convolve2d(source**2, window, "valid") - mean_s**2, 0)
        var_i = np.maximum(convolve2d(image**2, window, "valid") - mean_i**2, 0)
        covariance = convolve2d(source * image, window, "valid") - mean_s * mean_i
        gain = np.where(var_s > 1e-10, np.maximum(covariance, 0) / (var_s + 1e-10), 0)
        noise = np.maximum(var_i - gain * covariance, 1e-10)
        kept += np.sum(np.log(1 + gain**2 * var_s / (noise + 2)))
        there += np.sum(np.log(1 + var_s / 2))
    return float(kept / there)


def gradient(image: Floats) -> tuple[Floats, Floats]:
    sobel = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]], np.float64)
    gx, gy = convolve2d(image, sobel, "same"), convolve2d(image, -sobel.T, "same")
    with np.errstate(divide="ignore", invalid="ignore"):
        direction = np.where(gx == 0, np.pi / 2, np.arctan(gy / gx))
    return np.hypot(gx, gy), direction


def edges_kept(source: tuple[Floats, Floats], fused: tuple[Floats, Floats]) -> Floats:
    (gs, ds), (gf, df) = source, fused
    with np.errstate(invalid="ignore"):
        ratio = np.where(gs == gf, gf, np.minimum(gs, gf) / np.maximum(gs, gf))
    strength = 0.9994 / (1 + np.exp(-15 * (ratio - 0.5)))
    direction = 0.9879 / (1 + np.exp(-22 * (1 - np.abs(ds - df) / (np.pi / 2) - 0.8)))
    return strength * direction


def qabf(fused: Floats, ir: Floats, vis: Floats) -> float:
    f, a, b = gradient(fused), gradient(ir), gradient(vis)
    kept = np.sum(edges_kept(a, f) * a[0] + edges_kept(b, f) * b[0])
    return float(kept / np.sum(a[0] + b[0]))


def ssim(a: Floats, b: Floats) -> float:
    c1, c2 = (0.01 * 2) ** 2, (0.03 * 2) ** 2
    window, sample = np.ones((7, 7)) / 49, 49 / 48
    mean_a, mean_b = convolve2d(a, window, "valid"), convolve2d(b, window, "valid")
    var_a = sample * (convolve2d(a * a, window, "valid") - mean_a**2)
    var_b = sample * (convolve2d(b * b, window, "valid") - mean_b**2)
    covariance = sample * (convolve2d(a * b, window, "valid") - mean_a * mean_b)
    score = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    score /= (mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2)
    return float(score.mean())
