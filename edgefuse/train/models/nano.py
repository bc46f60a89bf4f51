"""`nano`: our small network for live fusion on modest hardware.

Everything happens at a quarter of the width and height, where the 4×4 pixels of a block are channels
(PixelUnshuffle, Shi et al., CVPR 2016, turned around), so that 32 channels cost 1/16 of what they cost at
full size. The answer is not the fused image but how to make it, per pixel: a blend weight between the two
sources, restored, and a small residual. So fine texture need not pass through the layers, and an untrained
network already gives a sensible picture.
"""

import copy
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgefuse.train.models.base import FusionNetwork
from edgefuse.train.models.restoration import PHASES, Restoration

__all__ = ["Nano", "NanoL"]

MIDDLE = 128 / 255
"""Becomes 0 inside. A grey level, so that 8-bit sources are whole steps of 1/255 from it."""


class Nano(FusionNetwork):
    """Restored sources, blend weight and residual, all at a quarter of the resolution.

    Args:
        channels: width of the hidden layers.
        depth: number of hidden 3×3 convolutions.
        restores: judge and restore the sources first. A network that is to learn what the losses of the paper
            ask for does better without: as they favour the source that the answer resembles, it would use
            its judgement of the picture to choose one source for all of it.
    """

    size_divisor = 4
    white_levels = (1.0, 255.0)

    def __init__(self, channels: int = 32, depth: int = 3, *, restores: bool = True) -> None:
        super().__init__()
        widths = [2 * PHASES, *[channels] * depth]
        self.restoration = Restoration(channels) if restores else None
        self.body = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in pairwise(widths))
        # Two layers, as engines take longer to cut one's answer in two than to compute a second one.
        self.weight = nn.Conv2d(channels, PHASES, 1)
        self.residual = nn.Conv2d(channels, PHASES, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Fuse `[B, 2, H, W]` (infrared, visible luma) in [0, 1] into `[B, 1, H, W]`, about [0, 1]."""
        middle = MIDDLE * self.white_level
        sources, trust = _into_phases(x - middle), None
        if self.restoration is not None:
            sources, trust = self.restoration(sources)
        f = sources
        for conv in self.body:
            f = F.relu(conv(f))
            if trust is not None:
                f, trust = f * trust, None
        ir, vis = sources[:, :PHASES], sources[:, PHASES:]
        residual = 0.5 * self.white_level * torch.tanh(self.residual(f)) + middle
        return _from_phases(vis + torch.sigmoid(self.weight(f)) * (ir - vis) + residual)

    def reparameterize(self, white_level: float = 1.0) -> "Nano":
        """Return a copy for deployment that answers the same."""
        copied = copy.deepcopy(self)
        copied.white_level, factor = white_level, white_level / self.white_level
        if copied.restoration is not None:
            copied.restoration.deploy(factor)
        with torch.no_grad():
            copied.body[0].weight.div_(factor)  # type: ignore[operator]
        return copied.eval()


class NanoL(Nano):
    """A larger one without restoration, the teacher of `nano`."""

    def __init__(self) -> None:
        super().__init__(channels=48, depth=7, restores=False)


# Both are written out because engines shuffle five axes faster than six.


def _into_phases(x: Tensor) -> Tensor:
    """Return what `torch.nn.PixelUnshuffle(4)` does."""
    batch, channels, height, width = x.shape
    blocks = x.reshape(batch * channels, height // 4, 4, width // 4, 4).permute(0, 2, 4, 1, 3)
    return blocks.reshape(batch, channels * PHASES, height // 4, width // 4)


def _from_phases(p: Tensor) -> Tensor:
    """Return what `torch.nn.PixelShuffle(4)` does to 16 channels."""
    batch, _, height, width = p.shape
    return (
        p.reshape(batch, 4, 4, height, width).permute(0, 3, 1, 4, 2).reshape(batch, 1, 4 * height, 4 * width)
    )
