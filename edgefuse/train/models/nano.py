"""`nano`: our small network for live fusion on modest hardware.

How bright infrared is says nothing: its camera's gain control decides that. So infrared is first brought to
a level and a spread that follow from the visible picture, by the medians and spreads of both, which are an
input. Then the network says how the two are put together, scale by scale, as in a pyramid (Burt and
Adelson, IEEE Trans. Commun. 31(4), 1983): for each block of 4×4 pixels it gives the share of infrared in
the fine detail, in two coarser bands and in the ground. The shares are enlarged smoothly and the bands add
up exactly, so the network never blurs detail, and no blocks show. What is much hotter than the median is
put on top: a person is bright whatever is behind.

Everything but the first and the last step happens at a quarter of the width and height, where the pixels of
a block are channels (PixelUnshuffle, Shi et al., CVPR 2016, in reverse). The large convolutions have
nothing but ReLU between them, and shares are cut to 0..1, which 8-bit engines do for free.
"""

import copy
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgefuse.train.models.base import FusionNetwork

PHASES = 16
"""Of one picture: 4×4 pixels become one of a quarter of the width and height."""
DILATIONS = (1, 1, 2, 4)
"""Of the hidden convolutions: what surrounds a block counts up to 32 pixels away."""
GREY = 1 / 255

SPREAD, FOLLOWS = 60 * GREY, 0.45
"""Spread that infrared is brought to: SPREAD^(1 - FOLLOWS) · (visible spread)^FOLLOWS. A constant drowns the
visible picture of a dark night in infrared detail, the visible spread alone makes infrared faint by day."""
GAIN = (0.4, 4.0)
"""Limits of the factor that this takes: beyond, there would be nothing but amplified noise."""
COLDEST, HOTTEST = -90 * GREY, 55 * GREY
"""What infrared is cut to, from its median, where it is put together with the visible picture."""
HOT_SPREAD, EXCESS, HIGHEST = 40 * GREY, 1.3, 115 * GREY
"""What is hotter than HOTTEST is put on top: the spread that infrared is brought to for it, the same however
dark the visible picture is, so that a person is bright in any night; a factor; the most that it can add."""
BRIGHT, KEPT = 120 * GREY, 0.5
"""A visible median above BRIGHT is lowered to BRIGHT + KEPT · the rest: room for what is hot."""
RISE = 20 * GREY
"""What infrared's ground must be brighter by to count as bright."""
DEAD_INFRARED, DEAD_VISIBLE = (0.5 * GREY, 1.5 * GREY), (1 * GREY, 3 * GREY)
"""Spread below which a picture counts as that of a dead camera, and above which it does not."""
FLAT = 6 * GREY
"""What the finest detail of a flat block is below, on average; with noise hardly a block is flat."""


class Tone(NamedTuple):
    """What follows from the levels of both pictures; each `[N, 1, 1]`."""

    gain: Tensor
    """Factor of infrared's distance from its median."""
    hot_gain: Tensor
    """The same for what is hot."""
    thermal: Tensor
    """Infrared median."""
    visible: Tensor
    """Visible median."""
    shift: Tensor
    """What the fused picture is brighter by than the visible one, 0 or less."""
    sees: Tensor
    """1 if the visible camera sees anything, 0 if it is dead: then infrared stands in for it."""
    both: Tensor
    """1 if both do, 0 if only one picture is to be shown."""


def tone_of(levels: Tensor) -> Tone:
    """Return the tone for `[N, 4]`, see `edgefuse.levels`."""
    thermal, warmth, visible, spread = levels[:, :, None, None].unbind(1)
    wanted = SPREAD ** (1 - FOLLOWS) * spread.clamp_min(GREY) ** FOLLOWS
    warmth = warmth.clamp_min(GREY / 8)
    gain, hot_gain = (wanted / warmth).clamp(*GAIN), (HOT_SPREAD / warmth).clamp(*GAIN)
    sees = _rise(spread, *DEAD_VISIBLE)
    both = sees * _rise(warmth, *DEAD_INFRARED)
    shift = (KEPT - 1) * (visible - BRIGHT).clamp_min(0) * both
    return Tone(gain, hot_gain, thermal, visible, shift, sees, both)


def levels_of(sources: Tensor) -> Tensor:
    """Return the levels `[N, 4]`, see `edgefuse.levels`, of whole pictures `[N, 2, H, W]` in [0, 1]."""
    pixels = sources.flatten(2)
    median = pixels.median(dim=2, keepdim=True).values
    spread = (pixels - median).abs().mean(dim=2, keepdim=True)
    return torch.cat((median, spread), dim=2).flatten(1)


class Nano(FusionNetwork):
    """Shares of infrared in each band of a pyramid, for every block, and what is hot on top.

    Args:
        channels: width of the hidden layers.
    """

    size_divisor = 4
    uses_levels = True
    white_levels = (1.0, 255.0)

    def __init__(self, channels: int = 32) -> None:
        super().__init__()
        widths = [2 * PHASES, *[channels] * len(DILATIONS)]
        self.body = nn.ModuleList(
            nn.Conv2d(a, b, 3, padding=d, dilation=d)
            for (a, b), d in zip(pairwise(widths), DILATIONS, strict=True)
        )
        self.shares = nn.Conv2d(channels, 8, 1)
        for conv in self.body:
            nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")  # type: ignore[arg-type]
            nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
        nn.init.normal_(self.shares.weight, std=0.02)
        nn.init.constant_(self.shares.bias, 0.5)  # type: ignore[arg-type]
        self.register_buffer("bilinear", _bilinear(), persistent=False)
        self.register_buffer("grain", _grain(), persistent=False)
        self.bilinear: Tensor
        self.grain: Tensor

    def forward(self, x: Tensor, levels: Tensor | None = None) -> Tensor:
        """Fuse infrared and visible luma `[N, 2, H, W]`; levels as in the base class."""
        sources = x
        if levels is None:
            levels = levels_of(sources / self.white_level)
        tone = tone_of(levels)
        sees_both = tone.both[..., None]
        heat, excess, vis = self._levelled(sources, tone)
        # How flat the pictures are takes the place of one pixel of a block: 32 channels are fast, 34 are not.
        features = torch.cat((heat[:, 1:], self._flat(heat), vis[:, 1:], self._flat(vis)), dim=1)
        for conv in self.body:
            features = F.relu(conv(features))
        shares = self._limited(self.shares(features)) * sees_both
        fine, middle, coarse, brighter, darker, level, top, _ = torch.split(shares, 1, dim=1)

        apart = heat - vis + (tone.visible[..., None] - 0.5) * self.white_level
        blocks, hot = apart.mean(1, keepdim=True), excess.mean(1, keepdim=True)
        wider = _mean(blocks, 5)
        ground = _mean(wider, 7)
        added = (
            middle * (blocks - wider)
            + coarse * (wider - ground)
            + brighter * (ground - RISE * self.white_level).clamp_min(0)
            + darker * ground.clamp_max(0)
            + (level - 0.5 * sees_both) * self.white_level
            + (sees_both - top) * hot
        )
        fine, top, blocks, added = self._enlarged(fine, top, blocks, added)
        fused = vis + fine * (apart - blocks) + top * excess + added
        return F.pixel_shuffle(fused + (tone.shift[..., None] + 0.5) * self.white_level, 4)

    def reparameterize(self, white_level: float = 1.0) -> "Nano":
        """Return a copy for deployment that answers the same."""
        copied = copy.deepcopy(self)
        copied.white_level, factor = white_level, white_level / self.white_level
        with torch.no_grad():
            copied.body[0].weight.div_(factor)  # type: ignore[operator]
            copied.grain.div_(factor)
        return copied.eval()

    def _levelled(self, sources: Tensor, tone: Tone) -> tuple[Tensor, Tensor, Tensor]:
        """Return phases `[N, 16, H/4, W/4]`: infrared from its median, excess of heat, visible around 0."""
        zero, hot = torch.zeros_like(tone.gain), EXCESS * tone.hot_gain
        of_ir = torch.cat((tone.gain, hot, 1 - tone.sees), dim=1)
        of_vis = torch.cat((zero, zero, tone.sees), dim=1)
        matrix = torch.cat((of_ir, of_vis), dim=2)
        rest = (-tone.gain * tone.thermal, -hot * tone.thermal - EXCESS * HOTTEST, zero - 0.5)
        offset = torch.cat(rest, dim=1) * self.white_level
        n, _, height, width = sources.shape
        mixed = (matrix @ sources.reshape(n, 2, height * width) + offset).reshape(n, 3, height, width)
        heat, excess, vis = torch.split(mixed, 1, dim=1)
        heat = heat.clamp(COLDEST * self.white_level, HOTTEST * self.white_level)
        excess = excess.clamp(0.0, HIGHEST * self.white_level)
        # Each by itself: then engines have one operator for it, with one order of channels.
        return F.pixel_unshuffle(heat, 4), F.pixel_unshuffle(excess, 4), F.pixel_unshuffle(vis, 4)

    def _flat(self, phases: Tensor) -> Tensor:
        """Return how much of the picture is flat, from -½ (nothing, as with noise) to ½, as a map."""
        detail = F.conv2d(phases, self.grain).abs().mean(1, keepdim=True)
        flat = (1 - detail / FLAT).clamp_min(0).mean((2, 3), keepdim=True)
        return (flat - 0.5) * self.white_level + torch.zeros_like(detail)

    def _limited(self, shares: Tensor) -> Tensor:
        limited = shares.clamp(0, 1)
        if self.training:  # what is cut learns, too
            over = 0.1 * (shares - limited)
            limited = limited + over - over.detach()
        return limited

    def _enlarged(self, *maps: Tensor) -> tuple[Tensor, ...]:
        """Return phases `[N, 16, h, w]` of maps `[N, 1, h, w]`, enlarged four times bilinearly."""
        framed = F.pad(torch.cat(maps, dim=1), (1, 1, 1, 1), mode="replicate")
        return tuple(F.conv2d(one, self.bilinear) for one in torch.split(framed, 1, dim=1))


def _rise(x: Tensor, low: float, high: float) -> Tensor:
    return ((x - low) / (high - low)).clamp(0, 1)


def _mean(x: Tensor, side: int) -> Tensor:
    """Return the mean of the blocks around each, along one axis after the other: a tenth of the time."""
    framed = F.pad(x, (side // 2,) * 4, mode="replicate")
    down = F.conv2d(framed, x.new_full((1, 1, side, 1), 1 / side))
    return F.conv2d(down, x.new_full((1, 1, 1, side), 1 / side))


def _bilinear() -> Tensor:
    """Return the kernel `[16, 1, 3, 3]` that enlarges a map four times, into phases."""
    along = torch.zeros(4, 3)
    for k in range(4):
        place = (k + 0.5) / 4 - 0.5  # of the pixel, in blocks from its block's middle
        along[k, 1], along[k, 2 if place > 0 else 0] = 1 - abs(place), abs(place)
    return torch.einsum("iy,jx->ijyx", along, along).reshape(PHASES, 1, 3, 3)


def _grain() -> Tensor:
    """Return kernels `[4, 16, 1, 1]`: finest detail at four places of a block; white noise keeps its σ."""
    ends = torch.tensor([[1.0, -2, 1, 0], [0, 1, -2, 1]])
    return (torch.einsum("ay,bx->abyx", ends, ends) / 6).reshape(4, PHASES, 1, 1)
