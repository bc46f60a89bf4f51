"""A plain network that trains in seconds on one core, for experiments that need hundreds of trainings.

    edgefuse reproduce table3 --model bench/shares.py:Shares …

It gives every pixel a share of infrared, and nothing else: so a few hundred steps make a fusion of it, where
a network that has to learn first to draw pictures at all, like the paper's, takes thousands. It works on
blocks of 4×4 pixels, whose pixels are channels (PixelUnshuffle): of a step of 8 patches of 48×48 the losses
take half.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgefuse.train.models import FusionNetwork

__all__ = ["Shares"]


class Shares(FusionNetwork):
    """Four 3×3 convolutions with 24 channels in between, 20,824 weights."""

    size_divisor = 4

    def __init__(self) -> None:
        super().__init__()
        widths = (32, 24, 24, 24)
        hidden = [layer for a, b in pairwise(widths) for layer in (nn.Conv2d(a, b, 3, padding=1), nn.ReLU())]
        self.layers = nn.Sequential(*hidden, nn.Conv2d(widths[-1], 16, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        """Fuse `[B, 2, H, W]` (infrared, visible luma) in [0, 1] into `[B, 1, H, W]` in [0, 1]."""
        share = torch.sigmoid(F.pixel_shuffle(self.layers(F.pixel_unshuffle(x, 4)), 4))
        return x[:, 1:] + share * (x[:, :1] - x[:, 1:])
