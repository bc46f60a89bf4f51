"""`nano`: our small network for live fusion on modest hardware.

All convolutions run at a quarter of the resolution (PixelUnshuffle(4), Shi et al., CVPR 2016, turned
around), where 32 channels cost 1/16 of what they cost at full size. The answer is not the fused image
but how to make it, per pixel: a blend weight between the two sources and a small residual. So fine
texture never passes through the network, and an untrained network already gives a sensible picture.
"""

import copy
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgefuse.train.models.folding import convolution, from_phases

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
        self.stem: nn.Conv2d | None = None
        """Unshuffling and first convolution in one, in a folded copy."""
        self.peak = 1.0
        """What white is; 255 in a folded copy that takes and gives grey levels."""

    def forward(self, x: Tensor) -> Tensor:
        """Fuse `[B, 2, H, W]` (infrared, visible luma) in [0, 1] into `[B, 1, H, W]`, about [0, 1]."""
        ir, vis = x[:, :1], x[:, 1:2]
        centred = x - 0.5 * self.peak
        f = F.pixel_unshuffle(centred, self.multiple) if self.stem is None else F.relu(self.stem(centred))
        for conv in self.body:
            f = F.relu(conv(f))
        weight, residual = F.pixel_shuffle(self.head(f), self.multiple).chunk(2, dim=1)
        return vis + torch.sigmoid(weight) * (ir - vis) + 0.5 * self.peak * torch.tanh(residual)

    def fuse(self, peak: float = 1.0) -> "Nano":
        """Return a copy for deployment that answers the same, with fewer and faster operators.

        Args:
            peak: what white is in the copy's input and answer, 1 or 255; 255 saves two passes over the image.

        Unshuffling by s and a 3×3 convolution are one 3s×3s convolution of stride s, which engines run in
        half the time: no engine has a fast pixel unshuffle.
        """
        folded = copy.deepcopy(self)
        first, s = folded.body[0], self.multiple
        assert isinstance(first, nn.Conv2d)
        stem = convolution(from_phases(first.weight / peak, s), first.bias, stride=s, padding=s)
        folded.stem, folded.body, folded.peak = stem, folded.body[1:], peak
        return folded.train(self.training)
