"""`transformer`: the Transformer baseline of "Beyond Strict Pairing" (Deng et al., CVPR 2026).

Structure as in the authors' released checkpoint (187,417 weights); the paper leaves it to its supplement.
Attention runs between channels: every channel is a token whose vector is its whole map. Two things differ
from the released code, and not in the answers: linear layers over pixels are 1×1 convolutions, and the
attention is computed from the channels' covariances (see `ChannelAttention`).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgefuse.train.models.base import FusionNetwork
from edgefuse.train.models.cnn import FrameNorm, down, up

__all__ = ["Transformer"]

HEADS = 8


class ChannelAttention(nn.Module):
    """Attention between channels in which q, k and v of a head are affine maps of single channels.

    As published, a grouped 1×1 convolution makes 24 maps of every channel: q = a·x + b and likewise k and
    v, for 8 heads. But then all dot products and norms over the pixels follow from the covariances V of the
    channels and their means m: q_c·k_d / (H·W) = a_c a'_d V_cd + (a_c m_c + b_c)(a'_d m_d + b'_d). So are the
    attention's outcome and the merging of the heads one C×C matrix and a constant, applied to X once.
    Nothing larger than X itself is ever made. (With the Gram matrix in V's place, flat images cancel out.)
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.t = nn.Parameter(torch.ones(1, HEADS, 1, 1))
        self.qkv = nn.Conv2d(channels, 3 * HEADS * channels, 1, groups=channels)
        self.merge = nn.Conv2d(HEADS * channels, channels, 1, groups=channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map `[B, C, H, W]` to the same shape."""
        flat = x.flatten(2)
        exact = flat.float()
        means = exact.mean(2, keepdim=True)
        # Divided by the number of pixels before the sum: over a frame it would overflow half precision.
        centred = (exact - means) * flat.shape[2] ** -0.5
        mixing, constant = self.mixing(centred @ centred.mT, means)
        return torch.baddbmm(constant.to(x.dtype), mixing.to(x.dtype), flat).view_as(x)

    def mixing(self, covariance: Tensor, means: Tensor) -> tuple[Tensor, Tensor]:
        """Return what the attention comes to.

        Args:
            covariance: `[B, C, C]`, float32, of the channels over the pixels.
            means: `[B, C, 1]`, float32, of the channels.

        Returns:
            The matrix `[B, C, C]` and constant `[B, C, 1]`, in float32.
        """
        channels = covariance.shape[1]
        covariance, means = covariance.unsqueeze(1), means.unsqueeze(1)

        # Slope and offset of q, k and v, each [heads, C, 1].
        slopes = self.qkv.weight.float().view(channels, 3, HEADS).permute(1, 2, 0).unsqueeze(3)
        offsets = _bias(self.qkv).view(channels, 3, HEADS).permute(1, 2, 0).unsqueeze(3)
        (aq, ak, av), (bq, bk, bv) = slopes, offsets

        mean_q, mean_k = aq * means + bq, ak * means + bk
        products = aq * covariance * ak.mT + mean_q @ mean_k.mT
        variance = covariance.diagonal(dim1=2, dim2=3).unsqueeze(3)
        norm_q = (aq * aq * variance + mean_q * mean_q).clamp_min(1e-24).sqrt()
        norm_k = (ak * ak * variance + mean_k * mean_k).clamp_min(1e-24).sqrt()
        attention = torch.softmax(products / (norm_q * norm_k.mT) * self.t.float(), dim=3)

        share = self.merge.weight.float().view(channels, HEADS).T.unsqueeze(2)
        mixing = (share * attention * av.mT).sum(1)
        constant = (share * (attention @ bv)).sum(1) + _bias(self.merge).view(-1, 1)
        return mixing, constant


def _bias(conv: nn.Conv2d) -> Tensor:
    assert conv.bias is not None
    return conv.bias.float()


class Layer(nn.Module):
    """x + attention(norm(x)), then x + MLP(norm(x)); the MLP is C → 64 → C per pixel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm_1 = FrameNorm(2, channels)
        self.attention = ChannelAttention(channels)
        self.norm_2 = FrameNorm(2, channels)
        self.mlp = nn.Sequential(nn.Conv2d(channels, 64, 1), nn.GELU(), nn.Conv2d(64, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Map `[B, C, H, W]` to the same shape."""
        x = x + self.attention(self.norm_1(x))
        return x + self.mlp(self.norm_2(x))


class LocalGate(nn.Module):
    """Scale each value by a sigmoid of its neighbourhood: 3 pixels along the rows, 3 channels."""

    mask: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels, channels))
        nn.init.kaiming_uniform_(self.weight, a=5**0.5)
        index = torch.arange(channels)
        band = (index[:, None] - index).abs() <= 1
        self.register_buffer("mask", band.float(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Gate `[B, C, H, W]`."""
        # The rows are taken as one line, so a row's last pixel has the next row's first as neighbour.
        nearby = F.avg_pool1d(x.flatten(2), 3, stride=1, padding=1).view_as(x)
        return x * torch.sigmoid(F.conv2d(nearby, (self.weight * self.mask)[:, :, None, None]))


class GatedMLP(nn.Module):
    """Per-pixel MLP with a local gate inside."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.linear1 = nn.Conv2d(channels, hidden, 1)
        self.linear2 = nn.Conv2d(hidden, channels, 1)
        self.gate = LocalGate(hidden)

    def forward(self, x: Tensor) -> Tensor:
        """Map `[B, C, H, W]` to the same shape."""
        return self.linear2(self.gate(F.gelu(self.linear1(x))))


class Transformer(FusionNetwork):
    """Three-level encoder and decoder of channel attention, with gated per-pixel MLPs on the skips."""

    size_divisor = 4

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 16, 1)
        self.skip_0 = GatedMLP(16, 64)
        self.layer_1, self.down_1 = Layer(16), down(16)
        self.skip_1 = GatedMLP(32, 96)
        self.layer_2, self.down_2 = Layer(32), down(32)
        self.skip_2 = GatedMLP(64, 192)
        self.layer_3, self.up_1 = Layer(128), up(128)
        self.layer_4, self.up_2 = Layer(128), up(128)
        self.head = nn.Sequential(nn.Conv2d(96, 32, 1), nn.ReLU(), nn.Conv2d(32, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Fuse `[B, 2, H, W]` (infrared, visible luma) in [0, 1] into `[B, 1, H, W]` in (-1, 1)."""
        s0 = self.stem(x)
        s1 = self.down_1(self.layer_1(s0))
        s2 = self.down_2(self.layer_2(s1))
        u1 = self.up_1(self.layer_3(torch.cat((s2, self.skip_2(s2)), 1)))
        u2 = self.up_2(self.layer_4(torch.cat((u1, self.skip_1(s1), s1), 1)))
        return torch.tanh(self.head(torch.cat((u2, s0, self.skip_0(s0)), 1)))

    def reparameterize(self, white_level: float = 1.0) -> FusionNetwork:  # noqa: ARG002
        """Return a network for deployment that answers the same, and faster."""
        from edgefuse.train.models.transformer_folded import FoldedTransformer

        return FoldedTransformer(self)
