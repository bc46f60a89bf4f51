"""`transformer`: the Transformer baseline of "Beyond Strict Pairing" (Deng et al., CVPR 2026).

Structure as in the authors' released checkpoint (187,417 weights); the paper leaves it to its supplement.
Attention runs between channels: every channel is a token whose vector is its whole map. Two things differ
from the released code, and not in the answers: linear layers over pixels are 1×1 convolutions, and the
attention is computed from the channels' covariances (see `ChannelAttention`).

`FoldedTransformer` is the network as deployed: the same answers from a graph that engines run several times
as fast. What is rearranged, all of it exact:

- Both group norms and the attention of a layer are one matrix and constant applied to its input without its
  means m, x ↦ A·(x − m) + c: all their statistics follow from the covariance G of the channels and m, and
  the second norm's from A·G·Aᵀ.
- Neighbours along the rows, which are taken as one line, are an ordinary convolution once the map has a
  column more on either side with what lies there in that line.
- Pixel unshuffles are folded into the convolutions before them, and linear layers that follow each other,
  such as the last upsampling and the head, are one.
"""

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgefuse.train.models.base import FusionNetwork
from edgefuse.train.models.cnn import FrameNorm, down, up
from edgefuse.train.models.folding import convolution, into_phases, pad_channels, shuffle, weights

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
        variance = _diagonal(covariance)
        norm_q = (aq * aq * variance + mean_q * mean_q).clamp_min(1e-24).sqrt()
        norm_k = (ak * ak * variance + mean_k * mean_k).clamp_min(1e-24).sqrt()
        attention = torch.softmax(products / (norm_q * norm_k.mT) * self.t.float(), dim=3)

        share = self.merge.weight.float().view(channels, HEADS).T.unsqueeze(2)
        mixing = (share * attention * av.mT).sum(1)
        constant = (share * (attention @ bv)).sum(1) + _bias(self.merge).view(-1, 1)
        return mixing, constant


def _diagonal(matrix: Tensor) -> Tensor:
    """Return the diagonal of `[..., C, C]`, `[..., C, 1]`.

    Not by torch's operator: it is exported as a mask whose size is computed, which TensorRT does not take.
    """
    return (matrix * torch.eye(matrix.shape[-1], device=matrix.device)).sum(-1, keepdim=True)


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
        return FoldedTransformer(self)


SILENCE = 8.0
"""Of its negative GELU makes 5e-15, and nothing at all in single precision, where erf is -1 long before."""


class FoldedLayer(nn.Module):
    """x + attention(norm(x)), then x + MLP(norm(x))."""

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        self.norm_1, self.attention, self.norm_2 = layer.norm_1, layer.attention, layer.norm_2
        self.linear1, _, self.linear2 = layer.mlp
        # More channels than hidden values: then it is cheaper to take A into the MLP than to apply it twice.
        hidden, channels = weights(self.linear1)[0].shape[:2]
        self.wide = channels > hidden

    def forward(self, x: Tensor) -> Tensor:
        """Map `[B, C, H, W]` to the same shape."""
        exact = x.flatten(2).float()
        means = exact.mean(2, keepdim=True)
        # About the means: in a constant picture the norms multiply by hundreds what would be left of
        # differences of large numbers, in half precision above all.
        centred = exact - means
        matrix, constant, scale, shift = self.affine(centred @ centred.mT / exact.shape[2], means)
        mixed = matrix.to(x.dtype) @ centred.to(x.dtype)
        if not self.wide:
            normed = scale.to(x.dtype) * mixed + shift.to(x.dtype)
            hidden = F.gelu(self.linear1(normed.view_as(x)))
            return (mixed + constant.to(x.dtype)).view_as(x) + self.linear2(hidden)
        (first, first_bias), (second, second_bias) = weights(self.linear1), weights(self.linear2)
        weight = first.flatten(1).float()
        bias = weight @ shift + first_bias.float()[:, None]
        values = F.gelu((weight @ (scale * matrix)).to(x.dtype) @ centred.to(x.dtype) + bias.to(x.dtype))
        constant = constant + second_bias.float()[:, None]
        return (mixed + constant.to(x.dtype) + second.flatten(1) @ values).view_as(x)

    def affine(self, covariance: Tensor, means: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return what is applied to x without its means.

        Args:
            covariance: `[B, C, C]`: the mean over the pixels of (x − means)·(x − means)ᵀ.
            means: `[B, C, 1]`.

        Returns:
            A `[B, C, C]` and c `[B, C, 1]` of x + attention(norm(x)); what norm 2 multiplies A by and then
            adds, `[B, C, 1]`.
        """
        scale, shift = _normalise(self.norm_1, means, _diagonal(covariance))
        mixing, constant = self.attention.mixing(scale * covariance * scale.mT, shift)
        matrix = mixing * scale.mT + torch.eye(mixing.shape[2], device=covariance.device)
        constant = means + mixing @ shift + constant
        spread = ((matrix @ covariance) * matrix).sum(2, keepdim=True)
        return matrix, constant, *_normalise(self.norm_2, constant, spread)


def _normalise(norm: nn.GroupNorm, means: Tensor, spread: Tensor) -> tuple[Tensor, Tensor]:
    """Return what a group norm multiplies x − means by and then adds, `[B, C, 1]`.

    Args:
        norm: the norm.
        means: of the channels, `[B, C, 1]`.
        spread: the channels' variances, likewise.
    """
    groups, channels = norm.num_groups, norm.num_channels
    means, spread = (v.view(-1, groups, channels // groups, 1) for v in (means, spread))
    apart = means - means.mean(2, keepdim=True)
    rate = torch.rsqrt((spread + apart * apart).mean(2, keepdim=True) + norm.eps)
    scale = norm.weight.float().view(groups, -1, 1) * rate
    shift = norm.bias.float().view(groups, -1, 1) + scale * apart
    return scale.view(-1, channels, 1), shift.view(-1, channels, 1)


class FoldedGate(nn.Module):
    """Per-pixel MLP with a local gate inside, on a map that is a column wider on either side.

    Args:
        mlp: the MLP.
        before: a 1×1 convolution before it, to be folded into it.
    """

    def __init__(self, mlp: GatedMLP, before: nn.Conv2d | None = None) -> None:
        super().__init__()
        weight, bias = weights(mlp.linear1)
        if before is not None:
            inner, offset = weights(before)
            weight, bias = _after(weight, inner), bias + weight.flatten(1) @ offset
        hidden, inputs = weight.shape[:2]
        self.extra = 1 if inputs < 16 else 16  # ONNX Runtime's kernels want few channels or a multiple of 16
        # No more than silences a pixel of ones, and shared by all the channels there are: an int8 kernel has
        # 127 steps from zero to the largest weight, and the others need some of them.
        loudest = weight.flatten(1).sum(1) + bias
        weight = pad_channels(weight, hidden, inputs + self.extra)
        weight[:, inputs:] = -(loudest + SILENCE).clamp(min=0)[:, None, None, None] / self.extra
        self.linear1 = convolution(weight, bias)
        self.pool = nn.Conv2d(hidden, hidden, (1, 3), padding=(0, 1), groups=hidden, bias=False)
        self.pool.weight = nn.Parameter(torch.full_like(self.pool.weight, 1 / 3))
        self.mix = convolution((mlp.gate.weight * mlp.gate.mask)[:, :, None, None])
        self.linear2 = mlp.linear2

    def forward(self, x: Tensor) -> Tensor:
        """Map `[B, C, H, W]` to `[B, C, H, W + 2]`, whose first and last column mean nothing."""
        # Before the first pixel and behind the last one lie zeros, not what the MLP makes of zeros: there,
        # more channels, which are zero elsewhere, silence a pixel of ones.
        marked = F.pad(x, (0, 0, 0, 0, 0, self.extra))
        left = F.pad(marked[..., -1:][:, :, :-1], (0, 0, 1, 0), value=1.0)
        right = F.pad(marked[..., :1][:, :, 1:], (0, 0, 0, 1), value=1.0)
        hidden = F.gelu(self.linear1(torch.cat((left, marked, right), 3)))
        return self.linear2(hidden * torch.sigmoid(self.mix(self.pool(hidden))))


class FoldedTail(nn.Module):
    """The last pixel shuffle and all that follows."""

    def __init__(self, up: nn.Sequential, stem: nn.Conv2d, head: nn.Sequential) -> None:
        super().__init__()
        (conv, conv_bias), (start, start_bias), (first, bias) = map(weights, (up[1], stem, head[0]))
        m, n = len(conv), len(start)
        deep, sources, skip = first[:, :m], first[:, m : m + n], first[:, m + n :]
        bias = bias + deep.flatten(1) @ conv_bias + sources.flatten(1) @ start_bias
        self.deep, self.sources = convolution(_after(deep, conv), bias), convolution(_after(sources, start))
        # Reads the middle of three pixels, and so drops the outer columns.
        self.skip = nn.Conv2d(n, len(first), (1, 3), bias=False)
        self.skip.weight = nn.Parameter(F.pad(skip, (1, 1)))
        self.last = head[2]

    def forward(self, deep: Tensor, skip: Tensor, x: Tensor) -> Tensor:
        """Map maps at half and at full resolution to the fused `[B, 1, H, W]`."""
        hidden = self.deep(shuffle(deep)) + self.skip(skip) + self.sources(x)
        return torch.tanh(self.last(F.relu(hidden)))


class FoldedTransformer(FusionNetwork):
    """Answers as the network that it is made of does."""

    size_divisor = 4

    def __init__(self, net: Transformer) -> None:
        super().__init__()
        net = copy.deepcopy(net).eval()
        self.stem = net.stem
        layers = (net.layer_1, net.layer_2, net.layer_3, net.layer_4)
        self.layer_1, self.layer_2, self.layer_3, self.layer_4 = map(FoldedLayer, layers)
        self.down_1, self.down_2 = _down(net.down_1), _down(net.down_2)
        self.skip_0 = FoldedGate(net.skip_0, net.stem)
        self.skip_1, self.skip_2 = FoldedGate(net.skip_1), FoldedGate(net.skip_2)
        self.up_1 = net.up_1[1]
        self.tail = FoldedTail(net.up_2, net.stem, net.head)

    def forward(self, x: Tensor) -> Tensor:
        """Fuse `[B, 2, H, W]` (infrared, visible luma) in [0, 1] into `[B, 1, H, W]` in (-1, 1)."""
        s1 = self.down_1(self.layer_1(self.stem(x)))
        s2 = self.down_2(self.layer_2(s1))
        deep = self.layer_3(torch.cat((s2, self.skip_2(s2)[..., 1:-1]), 1))
        u1 = self.up_1(shuffle(deep))
        deep = self.layer_4(torch.cat((u1, self.skip_1(s1)[..., 1:-1], s1), 1))
        return self.tail(deep, self.skip_0(x), x)


def _down(down: nn.Sequential) -> nn.Conv2d:
    """Return a convolution and pixel unshuffle as one convolution."""
    weight, bias = weights(down[0])
    return convolution(into_phases(weight, 2), bias.repeat_interleave(4), stride=2, padding=1)


def _after(pointwise: Tensor, weight: Tensor) -> Tensor:
    """Return the kernel of a convolution and a 1×1 convolution behind it."""
    return torch.einsum("om,mikl->oikl", pointwise.flatten(1), weight)
