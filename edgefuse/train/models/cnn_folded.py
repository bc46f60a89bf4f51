"""The `cnn` as deployed: the same answers from a graph that engines run in half the time.

What is rearranged, all of it exact:

- Group norm of a 1×1 convolution of two channels follows from the means and products of those channels.
- Batch norms behind a convolution are folded into it, and concatenations into sums of convolutions.
- Pixel unshuffles are folded into the convolutions before them, see `folding`.

Channel counts are kept at multiples of 16, the block of ONNX Runtime's kernels, by channels of zeros.
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from edgefuse.train.models.folding import convolution, into_phases, pad_channels, shuffle

if TYPE_CHECKING:
    from edgefuse.train.models.cnn import CNN, PixelMLP

__all__ = ["FoldedCNN"]

BLOCK = 16


class FoldedStem(nn.Module):
    """Convolution 1×1, group norm and leaky ReLU.

    The norm of group g subtracts μ and divides by σ, which depend on the image, so the weights of a folded
    convolution would, too; engines want constants. So it is the input that is divided: for each group, the
    channels are both sources, 1 and μ, all of them divided by σ.
    """

    def __init__(self, conv: nn.Conv2d, norm: nn.GroupNorm) -> None:
        super().__init__()
        assert conv.bias is not None
        groups, outputs = norm.num_groups, conv.out_channels
        affine = torch.cat((conv.weight.detach().flatten(1), conv.bias.detach()[:, None]), 1)
        self.register_buffer("affine", affine.unflatten(0, (groups, -1)))
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
        # Divided before the sum, as it is too large for half precision.
        products = exact @ (exact / exact.shape[2]).mT
        affine = self.affine.float()
        means = (affine @ products[:, None, :, 2:]).mean((2, 3))
        squares = ((affine @ products[:, None]) * affine).sum(3).mean(2)
        scale = torch.rsqrt(squares - means**2 + self.eps)
        unit = torch.eye(4, 3, device=x.device)
        last = F.pad(means[:, :, None, None], (2, 0, 3, 0))
        mixing = (scale[:, :, None, None] * (unit + last)).flatten(1, 2)
        parts = mixing.to(x.dtype) @ with_one
        return F.leaky_relu(self.conv(parts.unflatten(2, x.shape[2:])), 0.01)


class FoldedDense(nn.Module):
    """Two dense layers: what they concatenate to their input, on as many channels as fill blocks."""

    def __init__(self, layers: nn.Sequential) -> None:
        super().__init__()
        (norm_a, _, *conv_a, _, grow_a), (norm_b, _, *conv_b, _, grow_b) = (one.layers for one in layers)
        channels, growth = norm_a.num_features, grow_a.out_channels
        hidden = _blocks(conv_a[0].out_channels)
        first, second = fuse_conv_bn_eval(*conv_a), fuse_conv_bn_eval(*conv_b)
        self.norm_a = norm_a
        self.conv_a = _padded(first.weight, first.bias, hidden, channels)
        self.grow_a = _padded(grow_a.weight, None, _blocks(2 * growth), hidden)
        self.norm_b = _part(norm_b, 0, channels)
        self.conv_b = _padded(second.weight[:, :channels], second.bias, hidden, channels)
        self.norm_c = _part(norm_b, channels, channels + growth, _blocks(2 * growth))
        self.conv_c = _padded(second.weight[:, channels:], None, hidden, _blocks(2 * growth))
        self.grow_b = _padded(grow_b.weight, None, _blocks(2 * growth), hidden, at=(growth, 0))

    def forward(self, x: Tensor) -> Tensor:
        """Map `[B, C, H, W]` to `[B, 16, H, W]`: the growth of both layers, then zeros."""
        grown = self.grow_a(F.relu(self.conv_a(F.relu(self.norm_a(x)))))
        hidden = F.relu(self.conv_b(F.relu(self.norm_b(x))) + self.conv_c(F.relu(self.norm_c(grown))))
        return grown + self.grow_b(hidden)


class FoldedDown(nn.Module):
    """Convolution and pixel unshuffle, on a dense block's input and on its growth."""

    def __init__(self, down: nn.Sequential, channels: int) -> None:
        super().__init__()
        conv = down[0]
        weight = into_phases(conv.weight.detach(), 2)
        self.conv = convolution(weight[:, :channels], conv.bias.repeat_interleave(4), stride=2, padding=1)
        rest = weight[:, channels:]
        self.grown = convolution(
            pad_channels(rest, rest.shape[0], _blocks(rest.shape[1])), stride=2, padding=1
        )

    def forward(self, x: Tensor, grown: Tensor) -> Tensor:
        """Map `[B, C, H, W]` and `[B, 16, H, W]` to `[B, C', H/2, W/2]`."""
        return self.conv(x) + self.grown(grown)


class FoldedMLP(nn.Module):
    """x + MLP(x)."""

    def __init__(self, mlp: "PixelMLP") -> None:
        super().__init__()
        self.mlp = mlp

    def forward(self, x: Tensor) -> Tensor:
        """Map `[B, C, H, W]` to the same shape."""
        mlp = self.mlp
        hidden = F.gelu(mlp.linear1(x))
        means = F.adaptive_avg_pool2d(hidden.float(), 1).to(x.dtype).flatten(2).mT
        gate = torch.sigmoid(mlp.gate.conv(means)).mT.unsqueeze(3)
        return mlp.linear2(hidden * gate) + x


class FoldedTail(nn.Module):
    """The last pixel shuffle and all that follows."""

    def __init__(self, up: nn.Sequential, head: nn.Sequential) -> None:
        super().__init__()
        self.up, self.last = up[1], head[2]
        conv, deep = head[0], up[1].out_channels
        self.deep = convolution(conv.weight[:, :deep], conv.bias)
        self.skip, self.sources = convolution(conv.weight[:, deep:-2]), convolution(conv.weight[:, -2:])

    def forward(self, deep: Tensor, skip: Tensor, x: Tensor) -> Tensor:
        """Map maps at half and at full resolution to the fused `[B, 1, H, W]`."""
        hidden = self.deep(self.up(shuffle(deep))) + self.skip(skip) + self.sources(x)
        return torch.tanh(self.last(F.relu(hidden)))


class FoldedCNN(nn.Module):
    """Answers as the network that it is made of does in evaluation mode."""

    multiple = 4
    """Height and width must be multiples of this."""

    def __init__(self, net: "CNN") -> None:
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


def _padded(
    weight: Tensor, bias: Tensor | None, outputs: int, inputs: int, at: tuple[int, int] = (0, 0)
) -> nn.Conv2d:
    weight = pad_channels(weight.detach(), outputs, inputs, at=at)
    return convolution(weight, None if bias is None else F.pad(bias.detach(), (0, outputs - len(bias))))


def _part(norm: nn.BatchNorm2d, start: int, stop: int, width: int | None = None) -> nn.BatchNorm2d:
    """Return the batch norm of some channels, with zeros behind them up to `width`."""
    part = nn.BatchNorm2d(width or stop - start, norm.eps).eval()
    for name, value in part.state_dict().items():
        if value.ndim:
            value.zero_()
            value[: stop - start] = norm.state_dict()[name][start:stop]
    return part
