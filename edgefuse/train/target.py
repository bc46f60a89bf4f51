"""The picture that `nano` learns to make: a fusion in closed form, scale by scale.

Infrared is brought to the visible picture's level (`tone_of`). Laplacian pyramids of both (Burt and
Adelson, IEEE Trans. Commun. 31(4), 1983) say what is there at each scale; the source with more energy
around a place gives the coefficient. Each scale counts the energy of the coarser one, too, so that one
source gives all of a thing. The ground is the visible one, or infrared's where that is clearly brighter.
What is much hotter than the median stays out of the pyramids, which would put dark rims around it, and is
added at the end.

Noise and misalignment go through it as they are. The network sees them, too, but is asked for what this
makes of the clean pair.
"""

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from edgefuse.train.models.base import FusionNetwork
from edgefuse.train.models.nano import (
    COLDEST,
    EXCESS,
    GREY,
    HIGHEST,
    HOTTEST,
    RISE,
    SPREAD,
    levels_of,
    tone_of,
)

SCALES = 4
COARSEST_CHOICE = 2
"""Finer scales than this are decided for blocks of 2^2 pixels, as the network decides."""
SHARP = 20.0
"""Power that energies are compared with."""
COARSER = 0.95
"""What the energy of the next coarser scale counts."""
VISIBLE = 1.55
"""Factor of the visible energy: equal contrast is the visible camera's, which has the finer picture."""
WARM = 0.32
"""How much hot places prefer infrared, and cold ones the visible picture; so skies stay what they are."""
SKY, COLD = 1.4, -0.5
"""How much more what is colder than COLD spreads prefers it: in a clear sky infrared is noise."""
NOISE = 2 * GREY**2
"""Energy that is none."""


class PyramidTarget(FusionNetwork):
    """The closed form, behind the signature of a network that takes levels."""

    size_divisor = 2**SCALES
    uses_levels = True

    def forward(self, x: Tensor, levels: Tensor | None = None) -> Tensor:
        """Fuse `[N, 2, H, W]` in [0, 1] into `[N, 1, H, W]` in [0, 1]."""
        tone = tone_of(levels_of(x) if levels is None else levels)
        below, gain, hot_gain, median, visible, shift, *_ = (value[..., None] for value in tone)
        heat = x[:, :1] - median
        excess = (EXCESS * (hot_gain * heat - HOTTEST)).clamp(0, HIGHEST)
        ir = (below * heat).clamp(COLDEST, 0) + (gain * heat).clamp(0, HOTTEST)
        vis = x[:, 1:] - visible
        bands = []
        for _ in range(SCALES):
            lower_ir, lower_vis = _halve(ir), _halve(vis)
            around = _double(lower_ir)
            bands.append((ir - around, vis - _double(lower_vis), around))
            ir, vis = lower_ir, lower_vis
        fused = vis + (ir - vis - RISE).clamp_min(0)
        energies: tuple[Tensor, Tensor] | None = None
        for scale in reversed(range(SCALES)):
            of_ir, of_vis, around = bands[scale]
            share, energies = _share(of_ir, of_vis, around, energies, 2 ** (COARSEST_CHOICE - scale))
            fused = _double(fused) + share * of_ir + (1 - share) * of_vis
        return (fused + visible + shift + excess).clamp(0, 1)


def _share(
    ir: Tensor, vis: Tensor, around: Tensor, coarser: tuple[Tensor, Tensor] | None, side: float
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Return infrared's share in a scale, and the energies of both, for the next finer one."""
    energies = [_smooth(ir * ir), _smooth(vis * vis)]
    if coarser is not None:
        energies = [mine + COARSER * _double(other) for mine, other in zip(energies, coarser, strict=True)]
    blocks = max(1, int(side))
    if blocks > 1:
        energies = [F.interpolate(F.avg_pool2d(e, blocks), scale_factor=blocks) for e in energies]
    ratio = torch.log((energies[0] + NOISE) / (VISIBLE * energies[1] + NOISE)) / 2
    place = around / SPREAD
    liking = WARM * place.clamp(-1.5, 1.5) - SKY * (COLD - place).clamp(0, 1)
    share = torch.sigmoid(SHARP * (ratio + liking))
    if blocks > 1:
        share = F.interpolate(F.avg_pool2d(share, blocks), scale_factor=blocks, mode="bilinear")
    return share, (energies[0], energies[1])


def _halve(x: Tensor) -> Tensor:
    return _along(x, "halve")


def _double(x: Tensor) -> Tensor:
    return _along(x, "double")


def _smooth(x: Tensor) -> Tensor:
    return _along(x, "smooth")


def _along(x: Tensor, what: str) -> Tensor:
    down, across = (_matrix(what, side, x.device) for side in x.shape[-2:])
    return down @ x @ across.T


@lru_cache(maxsize=64)
def _matrix(what: str, side: int, device: torch.device) -> Tensor:
    """Return what filters along one axis of so many pixels; as a product it is faster than a convolution.

    `halve` and `double` have the taps 1, 4, 6, 4, 1 over 16 of Burt and Adelson; `smooth` is a Gaussian of
    σ 0.7.
    """
    with torch.inference_mode(False):  # the cache serves training, too
        place = torch.arange(side, dtype=torch.float64)
        if what == "smooth":
            matrix = torch.exp(-((place[:, None] - place) ** 2) / (2 * 0.7**2))
        else:
            fine = place if what == "halve" else torch.arange(2 * side, dtype=torch.float64)
            coarse = 2 * (torch.arange(side // 2, dtype=torch.float64) if what == "halve" else place)
            taps = torch.tensor([6.0, 4, 1, 0], dtype=torch.float64)
            last = len(fine) - 1
            matrix = taps[(coarse[:, None] - fine).abs().clamp_max(3).long()]
            # Mirrored at the borders, where the outermost pixel itself stands once.
            matrix[:, 1:] += taps[(coarse[:, None] + fine[1:]).clamp_max(3).long()]
            matrix[:, :last] += taps[(2 * last - fine[:last] - coarse[:, None]).abs().clamp_max(3).long()]
            matrix = matrix if what == "halve" else matrix.T
        return (matrix / matrix.sum(1, keepdim=True)).to(device, torch.float32)
