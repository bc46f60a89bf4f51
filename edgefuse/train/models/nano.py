"""`nano`: our small network for live fusion on modest hardware.

All convolutions run at a quarter of the resolution (PixelUnshuffle(4), Shi et al., CVPR 2016, turned
around), where 32 channels cost 1/16 of what they cost at full size. The answer is not the fused image
but how to make it, per pixel: a blend weight between the two sources and a small residual. So fine
texture never passes through the network, and an untrained network already gives a sensible picture.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["Nano"]


class Nano(nn.Module):
    """Blend weight and residual, predicted at a quarter of the resolution.

    Args:
        channels: width of the hidden layers.
        depth: number of hidden 3×3 convolutions.
    """

    multiple = 4
    """Height and width must be multiples of this."""

    def __init__(self, channels: int = 32, depth: int = 5) -> None:
        super().__init__()
        s2 = self.multiple**2
        widths = [2 * s2, *[channels] * depth]
        self.body = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in pairwise(widths))
        self.head = nn.Conv2d(channels, 2 * s2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Fuse `[B, 2, H, W]` (infrared, visible luma) in [0, 1] into `[B, 1, H, W]`, about [0, 1]."""
        ir, vis = x[:, :1], x[:, 1:]
        f = F.pixel_unshuffle(x - 0.5, self.multiple)
        for conv in self.body:
            f = F.relu(conv(f))
        weight, residual = F.pixel_shuffle(self.head(f), self.multiple).chunk(2, dim=1)
        return vis + torch.sigmoid(weight) * (ir - vis) + 0.5 * torch.tanh(residual)
