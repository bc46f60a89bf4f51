"""`nano`: our small network for live fusion on modest hardware.

How bright infrared is says nothing: its camera's gain control decides that. So infrared is first brought to
a level and a spread that follow from the visible picture, by the medians and spreads of both, which are an
input. What is colder than the median and what is hotter have a spread each, so that a gain control that
bends the scale changes little. Then the network says how the two are put together, scale by scale, as in a
pyramid (Burt and Adelson, IEEE Trans. Commun. 31(4), 1983): for each block of 4×4 pixels it gives the share
of infrared in the two finest bands, for each of 8×8 that in the coarser bands and in the ground. The shares
are enlarged smoothly and the bands add up exactly, so the network never blurs detail, and no blocks show.
What is much hotter than the median is put on top: a person is bright whatever is behind.

One convolution looks at blocks of 4×4 pixels as channels (PixelUnshuffle, Shi et al., CVPR 2016, in
reverse), the others work at an eighth of the width and height. The large convolutions have nothing but ReLU
between them, and shares are cut to 0..1, which 8-bit engines do for free.
"""

import copy
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgefuse.images import levels_of_counts
from edgefuse.train.models.base import FusionNetwork

PHASES = 16
"""Of one picture: 4×4 pixels become one of a quarter of the width and height."""
DILATIONS = (1, 1, 2)
"""Of the convolutions at an eighth, of which the first halves the size: they look 32 pixels far."""
GREY = 1 / 255

SPREAD, FOLLOWS = 68 * GREY, 0.5
"""Spread that infrared is brought to: SPREAD^(1 - FOLLOWS) · (visible spread)^FOLLOWS. A constant drowns the
visible picture of a dark night in infrared detail, the visible spread alone makes infrared faint by day."""
ONE_SIDE, LOPSIDED = 0.85, 3.0
"""How far each side of the median goes by its own spread instead of the common one, and the factor that the
two differ by at most."""
GAIN, GAIN_BELOW, GAIN_HOT = (0.4, 3.0), 2.5, 4.0
"""Limits of the factor that this takes: beyond, there would be nothing but amplified noise, which flickers.
Below the median there is less to see, and what is hot is far above the noise."""
COLDEST, HOTTEST = -80 * GREY, 57 * GREY
"""What infrared is cut to, from its median, where it is put together with the visible picture."""
HOT_SPREAD, EXCESS, HIGHEST = 48 * GREY, 1.1, 140 * GREY
"""What is hotter than HOTTEST is put on top: the spread that infrared is brought to for it, the same however
dark the visible picture is, so that a person is bright in any night; a factor; the most that it can add."""
BRIGHT, KEPT = 108 * GREY, 0.42
"""A visible median above BRIGHT is lowered to BRIGHT + KEPT · the rest: room for what is hot."""
RISE = 20 * GREY
"""What infrared's ground must be brighter by to count as bright."""
DEAD_INFRARED, DEAD_VISIBLE = (0.5 * GREY, 1.5 * GREY), (1 * GREY, 3 * GREY)
"""Spread below which a picture counts as that of a dead camera, and above which it does not."""
FLAT = 6 * GREY
"""What the finest detail of a flat block is below, on average; with noise hardly a block is flat."""


class Tone(NamedTuple):
    """What follows from the levels of both pictures; each `[N, 1, 1]`."""

    cold_gain: Tensor
    """Factor of infrared's distance below its median."""
    warm_gain: Tensor
    """The same above."""
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
    """Return the tone for `[N, 5]`, see `edgefuse.images`."""
    thermal, warmth, visible, spread, above = levels[:, :, None, None].unbind(1)
    wanted = SPREAD ** (1 - FOLLOWS) * spread.clamp_min(GREY) ** FOLLOWS
    common = warmth.clamp_min(GREY / 8)
    # If the two halves of the picture spread alike, each of them is twice its share of the whole.
    sides = torch.stack((warmth - above, above)) * (2 / common)
    sides = sides.clamp_min(1 / LOPSIDED)
    colder, warmer = common * sides**ONE_SIDE
    below = (wanted / colder).clamp(GAIN[0], GAIN_BELOW)
    gain, hot_gain = (wanted / warmer).clamp(*GAIN), (HOT_SPREAD / warmer).clamp(GAIN[0], GAIN_HOT)
    sees = _rise(spread, *DEAD_VISIBLE)
    both = sees * _rise(warmth, *DEAD_INFRARED)
    shift = (KEPT - 1) * (visible - BRIGHT).clamp_min(0) * both
    return Tone(below, gain, hot_gain, thermal, visible, shift, sees, both)


def levels_of(sources: Tensor) -> Tensor:
    """Return the levels `[N, 5]`, see `edgefuse.images`, of whole pictures `[N, 2, H, W]` in [0, 1]."""
    greys = (255 * sources).round().clamp(0, 255).to(torch.int64).flatten(2).cpu()
    counts = [[torch.bincount(picture, minlength=256).numpy() for picture in pair] for pair in greys]
    return torch.from_numpy(np.stack([levels_of_counts(np.asarray(c, np.float64)) for c in counts])).to(
        sources
    )


class Nano(FusionNetwork):
    """Shares of infrared in each band of a pyramid, for every block, and what is hot on top.

    Args:
        channels: width of the hidden layers.
    """

    size_divisor = 8
    uses_levels = True
    white_levels = (1.0, 255.0)

    def __init__(self, channels: int = 32) -> None:
        super().__init__()
        self.near = nn.Conv2d(2 * PHASES, channels, 3, padding=1)
        self.wide = nn.ModuleList(
            nn.Conv2d(channels, channels, 3, padding=d, dilation=d, stride=1 if k else 2)
            for k, d in enumerate(DILATIONS)
        )
        # Of fewer than 8 channels a convolution is not faster in 8 bits.
        self.near_shares = nn.Conv2d(channels, 8, 1)
        self.wide_shares = nn.Conv2d(channels, 8, 1)
        for conv in (self.near, *self.wide):
            nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
            nn.init.zeros_(conv.bias)
        for conv in (self.near_shares, self.wide_shares):
            nn.init.normal_(conv.weight, std=0.02)
            nn.init.constant_(conv.bias, 0.5)  # type: ignore[arg-type]
        self.register_buffer("tent", _tent(), persistent=False)
        self.register_buffer("bilinear", _bilinear(), persistent=False)
        self.register_buffer("grain", _grain(), persistent=False)
        self.register_buffer("average", torch.full((1, PHASES), 1 / PHASES), persistent=False)
        self.tent: Tensor
        self.bilinear: Tensor
        self.grain: Tensor
        self.average: Tensor

    def forward(self, x: Tensor, levels: Tensor | None = None) -> Tensor:
        """Fuse infrared and visible luma `[N, 2, H, W]`; levels as in the base class."""
        sources = x
        if levels is None:
            levels = levels_of(sources / self.white_level)
        tone = tone_of(levels)
        sees_both, half = tone.both[..., None], 0.5 * self.white_level
        heat, excess, vis = self._levelled(sources, tone)
        # How flat the pictures are takes the place of one pixel of a block: 32 channels are fast, 34 are not.
        features = (heat[:, 1:], self._flat(heat), vis[:, 1:], self._flat(vis))
        near = F.relu(self.near(torch.cat(features, dim=1).clamp(-half, half)))
        hidden = near
        for conv in self.wide:
            hidden = F.relu(conv(hidden))
        wide_shares = self._limited(self.wide_shares(hidden))
        coarse, coarser, brighter, darker, level = torch.split(wide_shares[:, 3:], 1, dim=1)

        apart = heat - vis
        blocks, hot = self._averaged(apart), self._averaged(excess)
        lower = _halved(blocks)
        wider = _mean(lower, 3)
        ground = _mean(wider, 5)
        above = ground + (tone.visible[..., None] - 0.5) * self.white_level
        added = (
            coarse * (lower - wider)
            + coarser * (wider - ground)
            + brighter * (above - RISE * self.white_level).clamp_min(0)
            + darker * above.clamp_max(0)
            + (level - 0.5) * self.white_level
        ) * sees_both
        lower, added, wide = self._doubled(torch.cat((lower, added, wide_shares[:, :3]), dim=1))
        shares = self._limited(2 * (self._limited(self.near_shares(near))[:, :3] + wide) - 1.5)
        fine, middle, top = torch.split(shares * sees_both, 1, dim=1)
        added = (
            added
            + middle * (blocks - lower)
            + (1 - top) * hot
            + (tone.shift[..., None] + 0.5) * self.white_level
        )
        fine, top, blocks, added = self._enlarged(fine, top, blocks, added)
        return F.pixel_shuffle(vis + fine * (apart - blocks) + top * excess + added, 4)

    def reparameterize(self, white_level: float = 1.0) -> "Nano":
        """Return a copy for deployment that answers the same."""
        copied = copy.deepcopy(self)
        copied.white_level, factor = white_level, white_level / self.white_level
        with torch.no_grad():
            copied.near.weight.div_(factor)
            copied.grain.div_(factor)
        return copied.eval()

    def _levelled(self, sources: Tensor, tone: Tone) -> tuple[Tensor, Tensor, Tensor]:
        """Return phases `[N, 16, H/4, W/4]`: infrared from its median, excess of heat, visible around 0."""
        ir, white = sources[:, :1], self.white_level
        cold_gain, warm_gain, hot_gain, median, _, _, _, both = (value[..., None] for value in tone)
        heat = ir - median * white
        excess = (EXCESS * hot_gain * both * heat - EXCESS * HOTTEST * white).clamp(0.0, HIGHEST * white)
        warm = (warm_gain * heat).clamp(0.0, HOTTEST * white)
        cold = (cold_gain * heat).clamp(COLDEST * white, 0.0)
        # A product: infrared takes the place of a visible picture that is dead.
        which = torch.cat((1 - tone.sees, tone.sees), dim=2)
        n, _, height, width = sources.shape
        vis = (which @ sources.reshape(n, 2, height * width)).reshape(n, 1, height, width) - 0.5 * white
        # Each by itself: then engines have one operator for it, with one order of channels.
        return F.pixel_unshuffle(cold + warm, 4), F.pixel_unshuffle(excess, 4), F.pixel_unshuffle(vis, 4)

    def _flat(self, phases: Tensor) -> Tensor:
        """Return how much of the picture is flat, from -½ (nothing, as with noise) to ½, as a map.

        Every second block is looked at, each way.
        """
        detail = F.conv2d(phases, self.grain, stride=2).abs().mean(1, keepdim=True)
        flat = (1 - detail / FLAT).clamp_min(0).mean((2, 3), keepdim=True)
        return (flat - 0.5) * self.white_level + torch.zeros_like(phases[:, :1])

    def _limited(self, shares: Tensor) -> Tensor:
        limited = shares.clamp(0, 1)
        if self.training:  # what is cut learns, too
            over = 0.1 * (shares - limited)
            limited = limited + over - over.detach()
        return limited

    def _averaged(self, phases: Tensor) -> Tensor:
        """Return the mean of each block `[N, 1, h, w]`; as a product it takes a third of the time."""
        n, _, height, width = phases.shape
        return (self.average @ phases.reshape(n, PHASES, height * width)).reshape(n, 1, height, width)

    def _doubled(self, maps: Tensor) -> tuple[Tensor, ...]:
        """Return two maps `[N, 1, 2h, 2w]` and the rest of `[N, 5, h, w]`, enlarged bilinearly."""
        framed = F.pad(F.interpolate(maps, scale_factor=2, mode="nearest"), (1, 1, 1, 1), mode="replicate")
        return torch.split(F.conv2d(framed, self.tent, groups=5), [1, 1, 3], dim=1)

    def _enlarged(self, *maps: Tensor) -> tuple[Tensor, ...]:
        """Return phases `[N, 16, h, w]` of maps `[N, 1, h, w]`, enlarged four times bilinearly."""
        framed = F.pad(torch.cat(maps, dim=1), (1, 1, 1, 1), mode="replicate")
        return tuple(F.conv2d(one, self.bilinear) for one in torch.split(framed, 1, dim=1))


def _rise(x: Tensor, low: float, high: float) -> Tensor:
    return ((x - low) / (high - low)).clamp(0, 1)


def _halved(x: Tensor) -> Tensor:
    """Return a map of half the width and height, smoothed by 1, 3, 3, 1 along both axes."""
    taps = x.new_tensor([0.125, 0.375, 0.375, 0.125])
    framed = F.pad(x, (1, 1, 1, 1), mode="replicate")
    return F.conv2d(framed, torch.outer(taps, taps)[None, None], stride=2)


def _mean(x: Tensor, side: int) -> Tensor:
    """Return the mean of the blocks around each, along one axis after the other: a tenth of the time."""
    framed = F.pad(x, (side // 2,) * 4, mode="replicate")
    down = F.conv2d(framed, x.new_full((1, 1, side, 1), 1 / side))
    return F.conv2d(down, x.new_full((1, 1, 1, side), 1 / side))


def _tent() -> Tensor:
    """Return kernels `[5, 1, 3, 3]` that make repeated pixels of five maps linear between their middles."""
    taps = torch.tensor([0.25, 0.5, 0.25])
    return torch.outer(taps, taps).repeat(5, 1, 1, 1)


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
