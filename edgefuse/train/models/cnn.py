"""`cnn`: the CNN baseline of "Beyond Strict Pairing" (Deng et al., CVPR 2026), also the generator of its GAN.

Structure as in the authors' released checkpoints (214,882 weights); the paper leaves it to its
supplement. Where the original flattens pixels and applies linear layers, this uses 1×1 convolutions:
the same arithmetic without the transposes. The channel gate and the group norm use statistics of the
whole input, so a tile and a full frame give slightly different answers.
"""

import copy

import torch
from torch import Tensor, nn

from edgefuse.train.models.base import FusionNetwork

__all__ = ["CNN", "GAN", "FrameNorm", "down", "up"]


class FrameNorm(nn.GroupNorm):
    """Group norm whose statistics stay in float32: over a whole frame the sum overflows half precision."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise `[B, C, H, W]`."""
        normed = nn.functional.group_norm(
            x.float(), self.num_groups, self.weight.float(), self.bias.float(), self.eps
        )
        return normed.to(x.dtype)


class ChannelGate(nn.Module):
    """ECA (Wang et al., CVPR 2020): scale each channel by a sigmoid of its and its neighbours' means."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, 1, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Gate `[B, C, H, W]`."""
        means = x.float().mean((2, 3)).to(x.dtype).unsqueeze(1)
        return x * torch.sigmoid(self.conv(means)).permute(0, 2, 1).unsqueeze(3)


class PixelMLP(nn.Module):
    """Per-pixel MLP with a channel gate inside, C → 4C → C."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.linear1 = nn.Conv2d(channels, 4 * channels, 1)
        self.linear2 = nn.Conv2d(4 * channels, channels, 1)
        self.gate = ChannelGate()

    def forward(self, x: Tensor) -> Tensor:
        """Map `[B, C, H, W]` to the same shape."""
        return self.linear2(self.gate(nn.functional.gelu(self.linear1(x))))


class DenseLayer(nn.Module):
    """BN, ReLU, 1×1 to 2·growth, BN, ReLU, 3×3 to growth, concatenated to the input."""

    def __init__(self, channels: int, growth: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, 2 * growth, 1, bias=False),
            nn.BatchNorm2d(2 * growth),
            nn.ReLU(),
            nn.Conv2d(2 * growth, growth, 3, padding=1, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map `[B, C, H, W]` to `[B, C + growth, H, W]`."""
        return torch.cat((x, self.layers(x)), 1)


def _dense(channels: int, growth: int) -> nn.Sequential:
    return nn.Sequential(DenseLayer(channels, growth), DenseLayer(channels + growth, growth))


def down(channels: int) -> nn.Sequential:
    """Halve the resolution: C → 2C channels."""
    return nn.Sequential(nn.Conv2d(channels, channels // 2, 3, padding=1), nn.PixelUnshuffle(2))


def up(channels: int) -> nn.Sequential:
    """Double the resolution: C → C/2 channels."""
    return nn.Sequential(nn.PixelShuffle(2), nn.Conv2d(channels // 4, channels // 2, 3, padding=1))


class CNN(FusionNetwork):
    """Three-level encoder and decoder with dense blocks and gated per-pixel MLPs on the skips."""

    size_divisor = 4

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(2, 16, 1), FrameNorm(2, 16), nn.LeakyReLU(0.01))
        self.skip_0 = PixelMLP(16)
        self.dense_1, self.down_1 = _dense(16, 4), down(24)
        self.skip_1 = PixelMLP(48)
        self.dense_2, self.down_2 = _dense(48, 4), down(56)
        self.skip_2 = PixelMLP(112)
        self.dense_3, self.up_1 = _dense(112, 8), up(128)
        self.dense_4, self.up_2 = _dense(112, 8), up(128)
        self.head = nn.Sequential(nn.Conv2d(82, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Fuse `[B, 2, H, W]` (infrared, visible luma) in [0, 1] into `[B, 1, H, W]` in (-1, 1)."""
        s0 = self.stem(x)
        s1 = self.down_1(self.dense_1(s0))
        s2 = self.down_2(self.dense_2(s1))
        u1 = self.up_1(self.dense_3(s2 + self.skip_2(s2)))
        u2 = self.up_2(self.dense_4(torch.cat((u1, s1 + self.skip_1(s1)), 1)))
        return torch.tanh(self.head(torch.cat((u2, s0 + self.skip_0(s0), x), 1)))

    def reparameterize(self, white_level: float = 1.0) -> FusionNetwork:  # noqa: ARG002
        """Return a network for deployment that answers the same, and faster."""
        from edgefuse.train.models.cnn_folded import FoldedCNN

        return FoldedCNN(copy.deepcopy(self).eval())


class GAN(CNN):
    """The generator of the GAN baseline, the part that fuses and is shipped.

    The network is the CNN baseline's; what differs is the training, against the discriminator in
    `edgefuse.train.models.discriminator`.
    """

    adversarial = True
