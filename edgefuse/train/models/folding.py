"""Exact rearrangements of convolutions for deployment.

Engines have no fast pixel shuffle, and the one of ONNX Runtime runs on a single thread. But a convolution
beside a shuffle can be written as another convolution that goes from one resolution to the other by
itself. "Phases" are what `torch.nn.PixelUnshuffle(s)` makes of a map: pixel (s·u + i, s·v + j) of channel c
is channel c·s² + i·s + j at (u, v).

All functions take and return weights as in `torch.nn.Conv2d`, `[out, in, rows, columns]`, of square odd
kernels that are centred, and work in the weights' own precision.
"""

import torch
from torch import Tensor, nn


def into_phases(weight: Tensor, s: int) -> Tensor:
    """Return the kernel that computes the phases of what `weight` computes.

    Args:
        weight: `[O, I, k, k]`, stride 1, padding k // 2.
        s: size of a phase grid.

    Returns:
        `[O·s², I, k + s - 1, k + s - 1]`, to be used with stride s and padding k // 2.
    """
    o, i, k, _ = weight.shape
    result = weight.new_zeros(o, s, s, i, k + s - 1, k + s - 1)
    for row in range(s):
        for column in range(s):
            result[:, row, column, :, row : row + k, column : column + k] = weight
    return result.flatten(0, 2)


def shuffle(x: Tensor) -> Tensor:
    """Shuffle pixels as `torch.nn.PixelShuffle(2)` does, columns first: in ONNX Runtime twice as fast."""
    _, channels, height, width = x.shape
    wide = x.reshape(-1, channels // 2, 2, height * width).transpose(2, 3)
    tall = wide.reshape(-1, channels // 4, 2, height, 2 * width).transpose(2, 3)
    return tall.reshape(-1, channels // 4, 2 * height, 2 * width)


def pad_channels(weight: Tensor, outputs: int, inputs: int, *, at: tuple[int, int] = (0, 0)) -> Tensor:
    """Return `weight` as a part of a kernel of zeros with more channels, from channels `at` on."""
    result = weight.new_zeros(outputs, inputs, *weight.shape[2:])
    result[at[0] : at[0] + weight.shape[0], at[1] : at[1] + weight.shape[1]] = weight
    return result


def weights(conv: nn.Module) -> tuple[Tensor, Tensor]:
    """Return the weight and bias of a convolution, apart from training; no bias is zeros."""
    assert isinstance(conv, nn.Conv2d)
    weight = conv.weight.detach()
    return weight, weight.new_zeros(len(weight)) if conv.bias is None else conv.bias.detach()


def convolution(
    weight: Tensor, bias: Tensor | None = None, *, stride: int = 1, padding: int | None = None
) -> nn.Conv2d:
    """Return a convolution with given weights; padding None is half the kernel."""
    outputs, inputs, k, _ = weight.shape
    padding = k // 2 if padding is None else padding
    conv = nn.Conv2d(inputs, outputs, k, stride, padding, bias=bias is not None)
    conv.weight = nn.Parameter(weight.detach().clone(memory_format=torch.contiguous_format))
    if bias is not None:
        conv.bias = nn.Parameter(bias.detach().clone())
    return conv
