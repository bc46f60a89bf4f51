"""The published networks written down as the paper's authors describe them, for a naive export.

Linear layers run over flattened pixels `[B, H·W, C]`, and the channel attention makes 24 maps of every
channel. The weights are taken from a network of ours; the answers are the same.
"""

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgefuse.train.models.cnn import PixelMLP
from edgefuse.train.models.transformer import HEADS, ChannelAttention, GatedMLP, Layer

__all__ = ["plain"]


def plain(model: nn.Module) -> nn.Module:
    """Return a copy of a `cnn` or `transformer` in evaluation mode, written down plainly."""
    result = copy.deepcopy(model).eval()
    for name, module in list(result.named_modules()):
        if isinstance(module, PixelMLP | GatedMLP):
            result.set_submodule(name, PlainMLP(module))
        elif isinstance(module, ChannelAttention):
            result.set_submodule(name, PlainAttention(module))
        elif isinstance(module, Layer):
            first, gelu, second = module.mlp
            result.set_submodule(f"{name}.mlp", Pixelwise(linear(first), gelu, linear(second)))
    return result


def linear(conv: nn.Module) -> nn.Linear:
    """Return a 1×1 convolution as a linear layer."""
    assert isinstance(conv, nn.Conv2d)
    layer = nn.Linear(conv.in_channels, conv.out_channels)
    assert conv.bias is not None
    layer.weight, layer.bias = nn.Parameter(conv.weight.detach().flatten(1)), nn.Parameter(conv.bias.detach())
    return layer


class Pixelwise(nn.Sequential):
    """Layers over pixels, between the turns from a map to pixels and back."""

    def forward(self, x: Tensor) -> Tensor:
        """Map `[B, C, H, W]` to the same shape."""
        return super().forward(x.flatten(2).transpose(1, 2)).transpose(1, 2).view_as(x)


class PlainMLP(Pixelwise):
    """Linear, GELU, gate, linear."""

    def __init__(self, mlp: PixelMLP | GatedMLP) -> None:
        gate = PlainGate(mlp.gate.conv) if isinstance(mlp, PixelMLP) else PlainLocalGate(mlp)
        super().__init__(linear(mlp.linear1), nn.GELU(), gate, linear(mlp.linear2))


class PlainGate(nn.Module):
    """The channel gate of the CNN."""

    def __init__(self, conv: nn.Conv1d) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, pixels: Tensor) -> Tensor:
        """Gate `[B, H·W, C]`."""
        return pixels * torch.sigmoid(self.conv(pixels.mean(1, keepdim=True)))


class PlainLocalGate(nn.Module):
    """The local gate of the transformer."""

    def __init__(self, mlp: GatedMLP) -> None:
        super().__init__()
        self.gate = mlp.gate

    def forward(self, pixels: Tensor) -> Tensor:
        """Gate `[B, H·W, C]`."""
        nearby = F.avg_pool1d(pixels.transpose(1, 2), 3, stride=1, padding=1).transpose(1, 2)
        return pixels * torch.sigmoid(F.linear(nearby, self.gate.weight * self.gate.mask))


class PlainAttention(nn.Module):
    """Attention between channels, with all maps of all heads."""

    def __init__(self, attention: ChannelAttention) -> None:
        super().__init__()
        self.qkv, self.merge, self.t = attention.qkv, attention.merge, attention.t

    def forward(self, x: Tensor) -> Tensor:
        """Map `[B, C, H, W]` to the same shape."""
        batch, channels, height, width = x.shape
        q, k, v = self.qkv(x).view(batch, channels, 3, HEADS, height * width).permute(2, 0, 3, 1, 4)
        share = F.normalize(q, dim=3) @ F.normalize(k, dim=3).transpose(2, 3)
        heads = torch.softmax(share * self.t, 3) @ v
        return self.merge(heads.transpose(1, 2).reshape(batch, channels * HEADS, height, width))
