"""The discriminator of the GAN baseline of "Beyond Strict Pairing" (Deng et al., CVPR 2026).

Structure as in the authors' released code (349,830 weights for patches of 128 pixels); the paper leaves it
to its supplement. It is needed in training only.
"""

import torch
from torch import Tensor, nn

from edgefuse.train.models.transformer import HEADS


class SpatialChannelAttention(nn.Module):
    """Attention between channels, with 3×3 grouped convolutions making q, k and v and merging the heads."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.t = nn.Parameter(torch.ones(1, HEADS, 1, 1))
        self.qkv = nn.Conv2d(channels, 3 * HEADS * channels, 3, padding=1, groups=channels)
        self.merge = nn.Conv2d(HEADS * channels, channels, 3, padding=1, groups=channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map `[B, C, H, W]` to the same shape."""
        batch, channels, height, width = x.shape
        maps = self.qkv(x).reshape(batch, channels, 3, HEADS, height * width).permute(2, 0, 3, 1, 4)
        q, k = nn.functional.normalize(maps[0], dim=-1), nn.functional.normalize(maps[1], dim=-1)
        attention = torch.softmax(q @ k.mT * self.t, dim=-1)
        heads = (attention @ maps[2]).transpose(1, 2)
        return self.merge(heads.reshape(batch, channels * HEADS, height, width))


class Discriminator(nn.Module):
    """Scores one grey image of a fixed size: towards 1 what looks like a camera's, towards -1 what does not.

    Args:
        patch: side of the images, in pixels.
    """

    def __init__(self, patch: int = 128) -> None:
        super().__init__()
        shape = [3, patch, patch]
        self.stem = nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1),
            nn.BatchNorm2d(32),
            nn.LeakyReLU(0.05),
            nn.Conv2d(32, 1, 3, padding=1),
            nn.BatchNorm2d(1),
            nn.LeakyReLU(0.05),
            nn.Conv2d(1, 3, 3, padding=1),
        )
        self.norm_1, self.attention = nn.LayerNorm(shape), SpatialChannelAttention(3)
        self.norm_2 = nn.LayerNorm(shape)
        self.mlp = nn.Sequential(
            nn.Conv2d(3, 72, 3, padding=1),
            nn.BatchNorm2d(72),
            nn.LeakyReLU(0.05),
            nn.Conv2d(72, 3, 3, padding=1),
            nn.BatchNorm2d(3),
            nn.ReLU(),
        )
        self.head = nn.Sequential(
            nn.Flatten(), nn.LayerNorm(3 * patch * patch), nn.Linear(3 * patch * patch, 1), nn.Tanh()
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map `[B, 1, patch, patch]` in [0, 1] to scores `[B]` in (-1, 1)."""
        x = self.stem(x)
        x = x + self.attention(self.norm_1(x))
        x = x + self.mlp(self.norm_2(x))
        return self.head(x).squeeze(1)
