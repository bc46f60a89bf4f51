"""`cnn`: the CNN baseline of "Beyond Strict Pairing" (Deng et al., CVPR 2026), also the generator of its GAN.

Structure as in the authors' released checkpoints (214,882 weights); the paper leaves it to its
supplement. Where the original flattens pixels and applies linear layers, this uses 1×1 convolutions:
the same arithmetic without the transposes. The channel gate and the group norm use statistics of the
whole input, so a tile and a full frame give slightly different answers.

`FoldedCNN` is the network as deployed: the same answers from a graph that engines run in half the time. What
is rearranged, all of it exact:

- Group norm of a 1×1 convolution of two channels follows from the means and products of those channels.
- Batch norms behind a convolution are folded into it, and concatenations into sums of convolutions.
- Pixel unshuffles are folded into the convolutions before them, see `folding`.

Channel counts are kept at multiples of 16, the block of ONNX Runtime's kernels, by channels of zeros.
"""

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from edgefuse.train.models.base import FusionNetwork
from edgefuse.train.models.folding import convolution, into_phases, pad_channels, shuffle, weights


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
        return FoldedCNN(copy.deepcopy(self).eval())


class GAN(CNN):
    """The generator of the GAN baseline, the part that fuses and is shipped.

    The network is the CNN baseline's; what differs is the training, against the discriminator in
    `edgefuse.train.models.discriminator`.
    """

    adversarial = True


BLOCK = 16


class FoldedStem(nn.Module):
    """Convolution 1×1, group norm and leaky ReLU.

    The norm of group g subtracts μ and divides by σ, which depend on the image, so the weights of a folded
    convolution would, too; engines want constants. So it is the input that is divided: for each group, the
    channels are both sources, 1 and μ, all of them divided by σ.
    """

    def __init__(self, conv: nn.Conv2d, norm: nn.GroupNorm) -> None:
        super().__init__()
        groups, outputs = norm.num_groups, conv.out_channels
        weight, bias = weights(conv)
        affine = torch.cat((weight.flatten(1), bias[:, None]), 1)
        self.register_buffer("affine", affine.view(groups, -1, 3))
        self.eps = norm.eps
        rows = torch.cat((affine, -torch.ones(outputs, 1)), 1) * norm.weight.detach()[:, None]
        weight = rows.new_zeros(outputs, 4 * groups, 1, 1)
        for k, row in enumerate(rows):
            first = 4 * (k * groups // outputs)
            weight[k, first : first + 4, 0, 0] = row
        self.conv = convolution(weight, norm.bias)

    affine: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """Map `[B, 2, H, W]` to `[B, 16, H, W]`."""
        with_one = F.pad(x.flatten(2), (0, 0, 0, 1), value=1.0)
        exact = with_one.float()
        products = exact @ exact.mT / exact.shape[2]
        affine = self.affine.float()
        means = (affine @ products[:, None, :, 2:]).mean((2, 3))
        squares = ((affine @ products[:, None]) * affine).sum(3).mean(2)
        scale = torch.rsqrt(squares - means**2 + self.eps)
        unit = torch.eye(4, 3, device=x.device)
        last = F.pad(means[:, :, None, None], (2, 0, 3, 0))
        mixing = (scale[:, :, None, None] * (unit + last)).flatten(1, 2)
        parts = mixing.to(x.dtype) @ with_one
        return F.leaky_relu(self.conv(parts.view(-1, parts.shape[1], *x.shape[2:])), 0.01)


class FoldedDense(nn.Module):
    """Two dense layers: what they concatenate to their input, on as many channels as fill blocks."""

    def __init__(self, layers: nn.Sequential) -> None:
        super().__init__()
        self.norm_a, first, bias_a, grow_a = _parts(layers[0])
        norm, second, bias_b, grow_b = _parts(layers[1])
        channels, growth = self.norm_a.num_features, len(grow_a)
        hidden, outputs = _blocks(len(first)), _blocks(2 * growth)
        self.conv_a = _padded(first, bias_a, hidden, channels)
        self.grow_a = _padded(grow_a, None, outputs, hidden)
        self.norm_b = _part(norm, 0, channels)
        self.conv_b = _padded(second[:, :channels], bias_b, hidden, channels)
        self.norm_c = _part(norm, channels, channels + growth, outputs)
        self.conv_c = _padded(second[:, channels:], None, hidden, outputs)
        self.grow_b = _padded(grow_b, None, outputs, hidden, at=(growth, 0))

    def forward(self, x: Tensor) -> Tensor:
        """Map `[B, C, H, W]` to `[B, 16, H, W]`: the growth of both layers, then zeros."""
        grown = self.grow_a(F.relu(self.conv_a(F.relu(self.norm_a(x)))))
        hidden = F.relu(self.conv_b(F.relu(self.norm_b(x))) + self.conv_c(F.relu(self.norm_c(grown))))
        return grown + self.grow_b(hidden)


class FoldedDown(nn.Module):
    """Convolution and pixel unshuffle, on a dense block's input and on its growth."""

    def __init__(self, down: nn.Sequential, channels: int) -> None:
        super().__init__()
        weight, bias = weights(down[0])
        weight, bias = into_phases(weight, 2), bias.repeat_interleave(4)
        self.conv = convolution(weight[:, :channels], bias, stride=2, padding=1)
        rest = weight[:, channels:]
        rest = pad_channels(rest, rest.shape[0], _blocks(rest.shape[1]))
        self.grown = convolution(rest, stride=2, padding=1)

    def forward(self, x: Tensor, grown: Tensor) -> Tensor:
        """Map `[B, C, H, W]` and `[B, 16, H, W]` to `[B, C', H/2, W/2]`."""
        return self.conv(x) + self.grown(grown)


class FoldedMLP(nn.Module):
    """x + MLP(x)."""

    def __init__(self, mlp: PixelMLP) -> None:
        super().__init__()
        self.linear1, self.linear2, self.gate = mlp.linear1, mlp.linear2, mlp.gate.conv

    def forward(self, x: Tensor) -> Tensor:
        """Map `[B, C, H, W]` to the same shape."""
        hidden = F.gelu(self.linear1(x))
        means = F.adaptive_avg_pool2d(hidden.float(), 1).to(x.dtype).flatten(2).mT
        gate = torch.sigmoid(self.gate(means)).mT.unsqueeze(3)
        return self.linear2(hidden * gate) + x


class FoldedTail(nn.Module):
    """The last pixel shuffle and all that follows."""

    def __init__(self, up: nn.Sequential, head: nn.Sequential) -> None:
        super().__init__()
        self.up, self.last = up[1], head[2]
        weight, bias = weights(head[0])
        deep = len(weights(up[1])[0])
        self.deep = convolution(weight[:, :deep], bias)
        self.skip, self.sources = convolution(weight[:, deep:-2]), convolution(weight[:, -2:])

    def forward(self, deep: Tensor, skip: Tensor, x: Tensor) -> Tensor:
        """Map maps at half and at full resolution to the fused `[B, 1, H, W]`."""
        hidden = self.deep(self.up(shuffle(deep))) + self.skip(skip) + self.sources(x)
        return torch.tanh(self.last(F.relu(hidden)))


class FoldedCNN(FusionNetwork):
    """Answers as the network that it is made of does in evaluation mode."""

    size_divisor = 4

    def __init__(self, net: CNN) -> None:
        super().__init__()
        conv, norm, _ = net.stem
        assert isinstance(conv, nn.Conv2d)
        assert isinstance(norm, nn.GroupNorm)
        self.stem = FoldedStem(conv, norm)
        self.skip_0, self.skip_1, self.skip_2 = map(FoldedMLP, (net.skip_0, net.skip_1, net.skip_2))
        dense = (net.dense_1, net.dense_2, net.dense_3, net.dense_4)
        self.dense_1, self.dense_2, self.dense_3, self.dense_4 = map(FoldedDense, dense)
        self.down_1, self.down_2 = FoldedDown(net.down_1, 16), FoldedDown(net.down_2, 48)
        self.up_1 = net.up_1[1]
        self.tail = FoldedTail(net.up_2, net.head)

    def forward(self, x: Tensor) -> Tensor:
        """Fuse `[B, 2, H, W]` (infrared, visible luma) in [0, 1] into `[B, 1, H, W]` in (-1, 1)."""
        s0 = self.stem(x)
        s1 = self.down_1(s0, self.dense_1(s0))
        s2 = self.skip_2(self.down_2(s1, self.dense_2(s1)))
        u1 = self.up_1(shuffle(torch.cat((s2, self.dense_3(s2)), 1)))
        s1 = torch.cat((u1, self.skip_1(s1)), 1)
        return self.tail(torch.cat((s1, self.dense_4(s1)), 1), self.skip_0(s0), x)


def _blocks(channels: int) -> int:
    """Return the least multiple of `BLOCK` that holds so many channels."""
    return channels + -channels % BLOCK


def _parts(layer: nn.Module) -> tuple[nn.BatchNorm2d, Tensor, Tensor, Tensor]:
    """Return a dense layer's first norm, 1×1 weights with the second norm in them, and 3×3 weights."""
    assert isinstance(layer.layers, nn.Sequential)
    norm_1, _, conv_1, norm_2, _, conv_2 = layer.layers
    assert isinstance(norm_1, nn.BatchNorm2d)
    assert isinstance(norm_2, nn.BatchNorm2d)
    assert isinstance(conv_1, nn.Conv2d)
    return norm_1, *weights(fuse_conv_bn_eval(conv_1, norm_2)), weights(conv_2)[0]


def _padded(
    weight: Tensor, bias: Tensor | None, outputs: int, inputs: int, at: tuple[int, int] = (0, 0)
) -> nn.Conv2d:
    weight = pad_channels(weight, outputs, inputs, at=at)
    return convolution(weight, None if bias is None else F.pad(bias, (0, outputs - len(bias))))


def _part(norm: nn.BatchNorm2d, start: int, stop: int, width: int | None = None) -> nn.BatchNorm2d:
    """Return the batch norm of some channels, with zeros behind them up to `width`."""
    part = nn.BatchNorm2d(width or stop - start, norm.eps).eval()
    for name, value in part.state_dict().items():
        if value.ndim:
            value.zero_()
            value[: stop - start] = norm.state_dict()[name][start:stop]
    return part
