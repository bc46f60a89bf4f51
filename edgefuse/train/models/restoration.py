"""Restoration of noisy, striped and blurred sources, as much of it as the picture needs.

One linear filter and one correction of the columns, learned, both of any strength from minus to plus: added,
the filter smooths away grain, subtracted, it sharpens what is out of focus. How much of each comes from how
the picture looks as a whole: fine texture and noise are told apart by no patch, but by a picture.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from edgefuse.train.models.folding import convolution

__all__ = ["Restoration"]

PHASES = 16
"""Of one source: 4×4 pixels become one of a quarter of the width and height."""
FLOOR = 0.002
"""Half a grey level: what is quieter counts as quiet."""
SMOOTH = 1.2
"""σ of the Gaussian that the filter begins as, pixels."""


class Restoration(nn.Module):
    """Add a filter's answer and a column correction to the phases of two sources, each with its own gain.

    Args:
        channels: of the features that the network makes of the restored sources.
        hidden: width of the layer between what is measured and the gains.
    """

    def __init__(self, channels: int, hidden: int = 16) -> None:
        super().__init__()
        both = 2 * PHASES
        self.filter = nn.Conv2d(both, both, 3, padding=1, bias=False)
        self.columns = nn.Conv2d(both, both, (1, 5), padding=(0, 2), bias=False)
        bands = _bands()
        self.measured = nn.Conv2d(len(bands), hidden, 1)
        self.gains = nn.Conv2d(hidden, 2 * both + channels, 1)
        self.apart: nn.ModuleList | None = None
        """The three parts of `gains` in a copy for deployment: OpenVINO lays out the maps that they meet
        as it does convolutions' answers, and does not turn maps around for them."""
        self.register_buffer("bands", bands, persistent=False)
        self.bands: Tensor
        with torch.no_grad():
            self.filter.weight.copy_(_both(_gaussian(SMOOTH)))
            smooth = torch.full((PHASES, PHASES, 5), 1 / (3 * PHASES))
            smooth[..., [0, 4]] = 0
            smooth[torch.arange(PHASES), torch.arange(PHASES), 2] -= 1
            self.gains.bias.zero_()  # type: ignore[union-attr]
            self.columns.weight.copy_(_both(smooth).unsqueeze(2))
        nn.init.normal_(self.gains.weight, std=0.05)

    def forward(self, p: Tensor) -> tuple[Tensor, Tensor]:
        """Restore the phases `[B, 32, h, w]`, about 0, 16 of infrared and 16 of visible luma.

        Returns:
            The same restored, and what to multiply the network's features by, `[B, channels, 1, 1]`.
        """
        # Means over the frame are too small for half precision.
        found = torch.log(F.conv2d(p, self.bands).abs().float().mean((2, 3), keepdim=True) + FLOOR) + 4
        judged = torch.tanh(self.measured(found.to(p.dtype)))
        if self.apart is None:
            filtered, striped, trust = self.gains(judged).split(self._parts(), dim=1)
        else:
            filtered, striped, trust = (part(judged) for part in self.apart)
        stripes = self.columns(p.float().mean(2, keepdim=True).to(p.dtype))
        return p + filtered * self.filter(p) + striped * stripes, 1 + trust

    def deploy(self, factor: float) -> None:
        """Take phases `factor` times as large, and arrange all for engines, in place."""
        self.bands /= factor
        weights, biases = (torch.split(value.detach(), self._parts()) for value in self.gains.parameters())
        self.apart = nn.ModuleList(convolution(w, b) for w, b in zip(weights, biases, strict=True))

    def _parts(self) -> list[int]:
        both = 2 * PHASES
        return [both, both, self.gains.out_channels - 2 * both]


def _bands() -> Tensor:
    """Return the kernels `[8, 32, 1, 1]` of what is measured, four of each source, each within one block.

    Grain (a Laplacian), fine stripes along the columns, and coarser detail across and down, which a blurred
    picture still has; white noise answers alike to all.
    """
    line = np.full(4, 0.25)
    second, third = np.array([1.0, -2, 1, 0]), np.array([-1.0, 3, -3, 1])
    coarse = np.array([1.0, -1, -1, 1])
    of_one = np.stack(
        [
            np.outer(second, second) / 6,
            np.outer(line, third) / 2.25,
            np.outer(line, coarse),
            np.outer(coarse, line),
        ]
    ).reshape(4, PHASES)
    return torch.from_numpy(np.kron(np.eye(2), of_one).astype(np.float32))[..., None, None]


def _both(kernel: Tensor) -> Tensor:
    """Return `[2·O, 2·I, ...]`: the kernel for each source, nothing between them."""
    result = kernel.new_zeros(2, len(kernel), 2, *kernel.shape[1:])
    result[0, :, 0] = result[1, :, 1] = kernel
    return result.flatten(2, 3).flatten(0, 1)


def _gaussian(sigma: float) -> Tensor:
    """Return the kernel `[16, 16, 3, 3]` over phases of a Gaussian at full size, minus the picture itself."""
    offsets = np.arange(-4, 5)
    taps = np.exp(-(offsets**2) / (2 * sigma**2))
    # Position of every pixel of 3×3 blocks relative to each pixel of the one in the middle.
    distance = np.arange(-4, 8)[None] - np.arange(4)[:, None]
    along: NDArray[np.float64] = np.where(abs(distance) <= 4, taps[np.clip(distance + 4, 0, 8)], 0)
    along /= along.sum(1, keepdims=True)
    weight = np.einsum("iy,jx->ijyx", along, along).reshape(4, 4, 3, 4, 3, 4)
    kernel = weight.transpose(0, 1, 3, 5, 2, 4).reshape(PHASES, PHASES, 3, 3)
    kernel[np.arange(PHASES), np.arange(PHASES), 1, 1] -= 1
    return torch.from_numpy(np.ascontiguousarray(kernel, np.float32))
