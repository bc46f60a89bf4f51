"""The adaptively weighted losses of "Beyond Strict Pairing" (Deng et al., CVPR 2026), Eqs. 2 to 7.

All are built on one weighting, W(a; a, b) = a / (a + b) (Eq. 2): at every pixel, or for every image,
the source with more of a quantity counts for more. Nothing asks that the sources show the same scene.

Images are `[B, 1, H, W]` tensors in [0, 1]; each loss is a scalar, best 0.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from edgefuse.errors import InputError
from edgefuse.packages import Registry, load_file
from edgefuse.train.config import LossConfig

EPS = 1e-8
FLATTEST = 4 / 255
"""Sobel answer to an edge of one grey level: flatter images are not stretched to full scale."""


def share(a: Tensor, b: Tensor) -> Tensor:
    """Return W(a; a, b) = a / (a + b) of Eq. 2 for a, b ≥ 0; 0 where both are 0."""
    return a / (a + b + EPS)


def gradient(x: Tensor, scale: str = "image") -> Tensor:
    """Return the Sobel magnitude of each image, borders repeated (a zero border would be an edge).

    The paper leaves the scale of ∇ open. Stretched to [0, 1] by the minimum and maximum of each `image`,
    one bright edge elsewhere in the batch does not change what an image is asked for. With `none` a step
    from 0 to 1 is 1; then the fused image must keep the height of edges, not only their pattern.
    """
    gx, gy = _slopes(x)
    # The constant keeps the root's slope finite on flat ground.
    magnitude = torch.sqrt(gx * gx + gy * gy + EPS)
    if scale == "none":
        return magnitude / 4
    over = (0, 1, 2, 3) if scale == "batch" else (2, 3)
    low, high = magnitude.amin(over, keepdim=True), magnitude.amax(over, keepdim=True)
    return (magnitude - low) / (high - low).clamp_min(FLATTEST)


def _slopes(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the Sobel answers across and down."""
    p = F.pad(x, (1, 1, 1, 1), mode="replicate")
    rows = p[..., :-2, :] + 2 * p[..., 1:-1, :] + p[..., 2:, :]
    cols = p[..., :-2] + 2 * p[..., 1:-1] + p[..., 2:]
    return rows[..., 2:] - rows[..., :-2], cols[..., 2:, :] - cols[..., :-2, :]


def intensity_loss(fused: Tensor, ir: Tensor, vis: Tensor, power: float = 1.0) -> Tensor:
    """L_int of Eq. 5: mean |O − (P_ir·ir + P_vis·vis)|, the P being the shares of intensity (Eq. 3).

    Args:
        fused: the network's answer.
        ir: infrared.
        vis: visible luma.
        power: of the intensities in the shares; the paper's is 1.
    """
    p = share(ir, vis) if power == 1 else share(ir**power, vis**power)
    return (fused - (p * ir + (1 - p) * vis)).abs().mean()


def gradient_loss(
    fused: Tensor, ir: Tensor, vis: Tensor, scale: str = "image", wanted: str = "weighted"
) -> Tensor:
    """L_grad of Eq. 5: mean |∇O − (G_ir·∇ir + G_vis·∇vis)|, the G being the shares of gradient (Eq. 3).

    Args:
        fused: the network's answer.
        ir: infrared.
        vis: visible luma.
        scale: `image`, `batch` or `none`.
        wanted: `weighted`, as in the paper, or `larger`.
    """
    g_ir, g_vis = gradient(ir, scale), gradient(vis, scale)
    if wanted == "larger":
        target = torch.maximum(g_ir, g_vis)
    else:
        target = (g_ir * g_ir + g_vis * g_vis) / (g_ir + g_vis + EPS)
    return (gradient(fused, scale) - target).abs().mean()


def ssim(a: Tensor, b: Tensor) -> Tensor:
    """Return the structural similarity `[B]` of two batches (Wang et al., IEEE TIP 2004).

    Gaussian window 11×11 with σ = 1.5, borders reflected, data range 1, averaged over the image.
    """
    return _ssim(a, b, _moments(a), _moments(b))


def ssim_loss(fused: Tensor, ir: Tensor, vis: Tensor, weights: str = "image") -> Tensor:
    """L_ssim of Eq. 5: mean |1 − (S_ir·SSIM(ir, O) + S_vis·SSIM(vis, O))|, weights S by Eq. 4.

    A negative similarity counts as none in the weights, which so stay within [0, 1].

    Args:
        fused: the network's answer.
        ir: infrared.
        vis: visible luma.
        weights: form S for each `image`, or from the means over the `batch`.
    """
    of_fused = _moments(fused)
    s_ir, s_vis = _ssim(ir, fused, _moments(ir), of_fused), _ssim(vis, fused, _moments(vis), of_fused)
    if weights == "batch":
        s_ir, s_vis = s_ir.mean(), s_vis.mean()
    w_ir, w_vis = share(s_ir.clamp_min(0), s_vis.clamp_min(0)), share(s_vis.clamp_min(0), s_ir.clamp_min(0))
    return (1 - (w_ir * s_ir + w_vis * s_vis)).abs().mean()


def directed_gradient_loss(fused: Tensor, target: Tensor) -> Tensor:
    """Return the mean difference of the Sobel answers across and down, unscaled: |∇O − ∇T| with directions.

    Noise that is left over has the wrong directions, while it helps towards a magnitude alone.
    """
    pairs = zip(_slopes(fused), _slopes(target), strict=True)
    return sum(((a - b).abs().mean() for a, b in pairs), fused.new_zeros(())) / 4


@dataclass(frozen=True)
class Batch:
    """What a loss may look at, all float32: images `[B, 1, H, W]` in [0, 1]."""

    fused: Tensor
    """The network's answer."""
    ir: Tensor
    vis: Tensor
    """Visible luma."""
    target: Tensor | None = None
    """A teacher's fusion of the clean images."""
    noisy: Tensor | None = None
    """`[B]`, 1 for images that the network saw with a noisy infrared, else 0."""
    critic_score: Tensor | None = None
    """`[B]`, a discriminator's scores of the fused images, higher for those it takes for a camera's."""


class Loss(NamedTuple):
    """One term of the total loss."""

    compute: Callable[[Batch, LossConfig], Tensor]
    """Returns a scalar; the lower the better."""
    needs: tuple[str, ...] = ()
    """Members of the batch without which the term is left out."""


def _intensity(batch: Batch, config: LossConfig) -> Tensor:
    if batch.target is not None:
        return (batch.fused - batch.target).abs().mean()
    return intensity_loss(batch.fused, batch.ir, batch.vis, config.intensity_power)


def _gradient(batch: Batch, config: LossConfig) -> Tensor:
    if batch.target is not None:
        return directed_gradient_loss(batch.fused, batch.target)
    return gradient_loss(batch.fused, batch.ir, batch.vis, config.gradient_scale, config.gradient_target)


def _ssim_term(batch: Batch, config: LossConfig) -> Tensor:
    if batch.target is not None:
        return (1 - ssim(batch.fused, batch.target)).mean()
    return ssim_loss(batch.fused, batch.ir, batch.vis, config.ssim_weights)


def _fallback(batch: Batch, config: LossConfig) -> Tensor:  # noqa: ARG001
    assert batch.noisy is not None
    return (batch.noisy * (1 - ssim(batch.fused, batch.vis))).mean()


def _adversarial(batch: Batch, config: LossConfig) -> Tensor:  # noqa: ARG001
    assert batch.critic_score is not None
    return -batch.critic_score.mean()


LOSSES: Registry[Loss] = Registry(
    "loss",
    "edgefuse.losses",
    {
        "intensity": Loss(_intensity),
        "gradient": Loss(_gradient),
        "ssim": Loss(_ssim_term),
        "adversarial": Loss(_adversarial, ("critic_score",)),
        "fallback": Loss(_fallback, ("target", "noisy")),
    },
)
"""The terms by name; their weights are in `LossConfig`, those of terms added here in its `others`.

With a teacher, whose picture is the target, the first three compare with it instead of with the sources.
"""


def add_loss(text: str) -> tuple[str, float]:
    """Return the name and weight of `NAME`, `NAME=WEIGHT` or `FILE.py:FUNCTION=WEIGHT`; 1 if none is given.

    The function, of a `Batch` and the `LossConfig`, is entered in `LOSSES`.

    Raises:
        InputError: no such file, function or loss, or a weight that is no number.
    """
    term, equals, weight = text.partition("=")
    try:
        value = float(weight) if equals else 1.0
    except ValueError:
        raise InputError(f"the weight in --loss {text} is {weight!r}, it must be a number") from None
    if (found := load_file(term)) is None:
        LOSSES.named(term)
        return term, value
    name, compute = found
    if not callable(compute):
        raise InputError(f"{term} is not a loss: it must be a function of a Batch and the LossConfig")
    LOSSES[name] = compute if isinstance(compute, Loss) else Loss(compute)
    return name, value


def active_losses(config: LossConfig, *, teacher: bool = False, adversarial: bool = False) -> list[str]:
    """Return the names of the terms that count: of a weight above 0, with all that they need.

    Raises:
        InputError: a weight for a loss that is not in `LOSSES`.
    """
    for name in config.others:
        LOSSES.named(name)
    there = {"noisy", *["target"] * teacher, *["critic_score"] * adversarial}
    names = [
        name for name, loss in LOSSES.items() if config.weight(name) > 0 and there.issuperset(loss.needs)
    ]
    if not names:
        raise InputError("no loss has a weight above 0: there is nothing to learn from")
    return names


def total_loss(batch: Batch, config: LossConfig, names: Sequence[str]) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the weighted sum of some terms (Eq. 6, or with a critic's score Eq. 7), and these by name.

    Eq. 6 and not Eq. 9, which permutes the weights. The terms by name are unweighted.
    """
    terms = {name: LOSSES[name].compute(batch, config) for name in names}
    start = batch.fused.new_zeros(())
    return sum((config.weight(name) * value for name, value in terms.items()), start), terms


@lru_cache(maxsize=16)
def _blur_matrix(size: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Return the `[size, size]` matrix that blurs along one axis with reflected borders.

    As a matrix product the 11-tap filter of a 128-pixel patch takes a fraction of the time that a
    one-channel convolution does, forward and backward.
    """
    if size < 6:
        raise InputError(f"SSIM needs images of at least 6 pixels a side, one has {size}")
    with torch.inference_mode(False):  # the cache serves training, too
        return _blurring(size).to(device, dtype)


def _blurring(size: int) -> Tensor:
    taps = torch.exp(-(torch.arange(-5, 6, dtype=torch.float64) ** 2) / (2 * 1.5**2))
    taps /= taps.sum()
    matrix = torch.zeros(size, size, dtype=torch.float64)
    for row in range(size):
        for offset, tap in zip(range(-5, 6), taps, strict=True):
            column = abs(row + offset)
            column = min(column, 2 * (size - 1) - column)
            matrix[row, column] += tap
    return matrix


def _blur(x: Tensor) -> Tensor:
    down, across = (_blur_matrix(side, x.device, x.dtype) for side in x.shape[-2:])
    return down @ x @ across.T


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    mean = _blur(x)
    return mean, _blur(x * x) - mean * mean


def _ssim(a: Tensor, b: Tensor, of_a: tuple[Tensor, Tensor], of_b: tuple[Tensor, Tensor]) -> Tensor:
    (mean_a, var_a), (mean_b, var_b) = of_a, of_b
    c1, c2 = 0.01**2, 0.03**2
    product = mean_a * mean_b
    covariance = _blur(a * b) - product
    similarity = ((2 * product + c1) * (2 * covariance + c2)) / (
        (mean_a * mean_a + mean_b * mean_b + c1) * (var_a + var_b + c2)
    )
    return similarity.mean((1, 2, 3))
