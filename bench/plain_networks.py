"""The published networks as one would write them down from their description, to measure ours against.

Pixels are flattened and sent through linear layers, attention makes 24 maps of every channel, batch norms
stay. The weights are those of our network, so both answer the same.
"""

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgefuse.train.models.cnn import PixelMLP
from edgefuse.train.models.transformer import HEADS, ChannelAttention, GatedMLP, Layer, LocalGate

__all__ = ["plain"]


def plain(model: nn.Module) -> nn.Module:
    """Return a plain copy of a `CNN`, `GAN` or `Transformer`; others are copied as they are."""
    model = copy.deepcopy(model)
    for name, module in list(model.named_modules()):
        parent, _, own = name.rpartition(".")
        if isinstance(module, (PixelMLP, GatedMLP)):
            setattr(model.get_submodule(parent), own, PlainMLP(module))
        elif isinstance(module, ChannelAttention):
            setattr(model.get_submodule(parent), own, PlainAttention(module))
        elif isinstance(module, Layer):
            setattr(module, "mlp", PlainFeedForward(module.mlp))  # noqa: B010
    return model


def tokens(x: Tensor) -> Tensor:
    """`[B, C, H, W]` → `[B, H·W, C]`."""
    return x.flatten(2).transpose(1, 2)


def maps(t: Tensor, like: Tensor) -> Tensor:
    """`[B, H·W, C]` → `[B, C, H, W]`."""
    return t.transpose(1, 2).reshape(like.shape[0], -1, *like.shape[2:])


def linear(conv: nn.Module) -> nn.Linear:
    """The linear layer that a 1×1 convolution is."""
    assert isinstance(conv, nn.Conv2d)
    assert conv.bias is not None
    layer = nn.Linear(conv.in_channels, conv.out_channels)
    layer.weight = nn.Parameter(conv.weight.detach()[:, :, 0, 0].clone())
    layer.bias = nn.Parameter(conv.bias.detach().clone())
    return layer


class PlainMLP(nn.Module):
    """Linear, GELU, gate, linear on tokens."""

    def __init__(self, like: PixelMLP | GatedMLP) -> None:
        super().__init__()
        self.linear1, self.linear2, self.gate = linear(like.linear1), linear(like.linear2), like.gate

    def forward(self, x: Tensor) -> Tensor:
        t = F.gelu(self.linear1(tokens(x)))
        if isinstance(self.gate, LocalGate):
            nearby = F.avg_pool1d(t.transpose(1, 2), 3, stride=1, padding=1).transpose(1, 2)
            t = t * torch.sigmoid(F.linear(nearby, self.gate.weight * self.gate.mask))
        else:
            t = t * torch.sigmoid(self.gate.conv(t.mean(1, keepdim=True)))
        return maps(self.linear2(t), x)


class PlainAttention(nn.Module):
    """Channel attention with all maps of queries, keys and values."""

    def __init__(self, like: ChannelAttention) -> None:
        super().__init__()
        self.qkv, self.merge, self.t = like.qkv, like.merge, like.t

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        parts = self.qkv(x).view(batch, channels, 3, HEADS, height * width).permute(2, 0, 3, 1, 4)
        q, k, v = F.normalize(parts[0], dim=-1), F.normalize(parts[1], dim=-1), parts[2]
        heads = torch.softmax(q @ k.transpose(-1, -2) * self.t, -1) @ v
        return self.merge(heads.transpose(1, 2).reshape(batch, channels * HEADS, height, width))


class PlainFeedForward(nn.Module):
    """Linear, GELU, linear on tokens."""

    def __init__(self, like: nn.Sequential) -> None:
        super().__init__()
        self.linear1, self.linear2 = linear(like[0]), linear(like[2])

    def forward(self, x: Tensor) -> Tensor:
        return maps(self.linear2(F.gelu(self.linear1(tokens(x)))), x)
