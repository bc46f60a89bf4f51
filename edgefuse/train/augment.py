"""Corrupting the inputs of a network in training, while its losses look at the clean images.

Real cameras are noisy, a little out of focus, not quite aligned, and set their gain as they like. A network
that sees such inputs, and is asked for the fusion of the clean ones, learns what to trust.

A patch is a part of a picture, and a network that uses levels is told those of the whole picture. So what
changes a patch also changes the counts of grey levels of its picture.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgefuse.degrade import agc, blur, exposure, level, sensor_noise, shift, tone
from edgefuse.images import Image, levels_of_counts
from edgefuse.spec import LEVELS

Generator = np.random.Generator
Counts = NDArray[np.float64]
IR, VIS = 0, 1
GREYS = np.arange(256, dtype=np.uint8)
RELIT, RELEVELLED = 0.25, 0.6
"""Share of the patches with another exposure, and with another infrared, for networks that use levels."""


@dataclass
class Patch:
    """A patch of each camera, and how often each grey level is in the pictures that they are parts of."""

    images: Image
    """uint8 `[2, P, P]` (infrared, visible luma)."""
    counts: Counts
    """`[2, 256]`."""

    def map(self, side: int, table: Image) -> None:
        """Replace each grey level by that of a table `[256]`."""
        self.images[side] = cv2.LUT(self.images[side], table)
        self.counts[side] = np.bincount(table, self.counts[side], 256)

    def add_noise(self, side: int, seed: int, columns: float, grain: float) -> None:
        """Add a sensor's noise of these standard deviations."""
        self.images[side] = sensor_noise(self.images[side], seed, columns, grain)
        sigma = math.hypot(columns, grain)
        # What is pushed beyond black and white stays there.
        reach = math.ceil(4 * sigma)
        beyond = np.pad(self.counts[side], reach)
        taps = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
        spread = np.convolve(beyond, taps / taps.sum(), "same")
        self.counts[side] = spread[reach:-reach]
        self.counts[side, 0] += spread[:reach].sum()
        self.counts[side, -1] += spread[-reach:].sum()


def noise(seen: Patch, _: Patch, rng: Generator) -> None:
    """Stripes and grain in infrared, up to one and a half times those of a noisy camera, and its tone."""
    if rng.random() < 0.5:
        seen.map(IR, tone(GREYS, float(rng.uniform(0.55, 1.0))).ravel())
    strength = float(rng.uniform(0.1, 1.5))
    columns = 10 * strength * (rng.random() < 0.8)
    seen.add_noise(IR, int(rng.integers(2**31)), columns, 15 * strength)


def dusk(seen: Patch, _: Patch, rng: Generator) -> None:
    """The visible camera's own grain in poor light."""
    seen.add_noise(VIS, int(rng.integers(2**31)), 0.0, float(rng.uniform(2, 12)))


def focus(seen: Patch, _: Patch, rng: Generator) -> None:
    """One camera or both out of focus."""
    sigma, which = float(rng.uniform(0.5, 2)), int(rng.integers(1, 4))
    for side in (IR, VIS):
        if which >> side & 1:
            seen.images[side] = blur(seen.images[side], sigma)


def misalignment(seen: Patch, _: Patch, rng: Generator) -> None:
    """Infrared off by up to 3 pixels each way."""
    right, down = rng.integers(-3, 4, 2).tolist()
    seen.images[IR] = shift(seen.images[IR], right, down)


def gain(seen: Patch, _: Patch, rng: Generator) -> None:
    """Another gain of the infrared camera."""
    picture = np.repeat(GREYS, np.ceil(4096 * seen.counts[IR] / seen.counts[IR].sum()).astype(int))[None]
    table = np.interp(GREYS, picture[0], agc(picture, float(rng.choice([0.005, 0.01, 0.03])))[0])
    seen.map(IR, table.astype(np.uint8))


def loss(seen: Patch, wanted: Patch, rng: Generator) -> None:
    """One camera gives a single level: then what is wanted is the other one's picture."""
    dead = int(rng.integers(2))
    seen.map(dead, np.full(256, rng.choice([0, 128, 255]), np.uint8))
    wanted.images[dead], wanted.counts[dead] = wanted.images[1 - dead], wanted.counts[1 - dead]


AUGMENTATIONS: tuple[tuple[float, Callable[[Patch, Patch, Generator], None]], ...] = (
    (0.44, noise),
    (0.08, dusk),
    (0.18, focus),
    (0.22, misalignment),
    (0.06, gain),
    (0.02, loss),
)
"""Share of the corrupted patches that each is applied to."""


class Corrupted(NamedTuple):
    """What the network sees and what its losses look at."""

    seen: Tensor
    """uint8 `[B, 2, P, P]`."""
    wanted: Tensor
    seen_levels: Tensor
    """float32 `[B, 5]` of the whole pictures, see `edgefuse.images`."""
    wanted_levels: Tensor
    noisy: Tensor
    """bool `[B]`: has noise in infrared."""


def corrupt(
    patches: Tensor,
    counts: Counts | None,
    share: float,
    seed: tuple[int, ...],
    first: int = 0,
    *,
    relevel: bool = False,
) -> Corrupted:
    """Corrupt a share of the patches, each by one of `AUGMENTATIONS`; what is random follows from the seed.

    Args:
        patches: uint8 `[B, 2, P, P]` (infrared, visible luma) in main memory; not changed.
        counts: `[B, 2, 256]` of the grey levels of the whole pictures; None: the patches are whole pictures.
        share: of the patches, 0..1.
        seed: of all that is random.
        first: position of the first patch in its step, which other processes may have a share in.
        relevel: before that, change the visible exposure of some, and of many the level, gain or gamma of
            infrared, of which the wanted picture does not depend.
    """
    seen, wanted = patches.clone(), patches.clone()
    noisy = torch.zeros(len(patches), dtype=torch.bool)
    levels = np.empty((2, len(patches), len(LEVELS)), np.float32)
    shares, functions = zip(*AUGMENTATIONS, strict=True)
    for k, images in enumerate(zip(seen.numpy(), wanted.numpy(), strict=True)):
        if counts is None:
            of_patch = np.stack([np.bincount(image.ravel(), minlength=256) for image in images[0]])
            of_pictures: Counts = of_patch.astype(np.float64)
        else:
            of_pictures = counts[k].astype(np.float64)
        row, target = (Patch(part, of_pictures.copy()) for part in images)
        # Never 0 at the end: numpy takes that for the shorter seed, where the patches' places come from.
        rng = np.random.default_rng((*seed, 1 + first + k))
        if relevel:
            _relevel(row, target, rng)
        if rng.random() < share:
            function = functions[rng.choice(len(functions), p=shares)]
            function(row, target, rng)
            noisy[k] = function is noise
        levels[:, k] = levels_of_counts(row.counts), levels_of_counts(target.counts)
    return Corrupted(seen, wanted, torch.from_numpy(levels[0]), torch.from_numpy(levels[1]), noisy)


def _relevel(seen: Patch, wanted: Patch, rng: Generator) -> None:
    if rng.random() < RELIT:
        table = exposure(GREYS, float(rng.uniform(-2.5, 1.2))).ravel()
        seen.map(VIS, table)
        wanted.map(VIS, table)
    if rng.random() < RELEVELLED:
        way = rng.integers(3)
        if way == 0:
            table = level(GREYS, gamma=math.exp(rng.uniform(-0.7, 0.7)))
        elif way == 1:
            table = level(GREYS, offset=rng.uniform(-40, 40))
        else:
            factor = rng.uniform(0.4, 1.1)
            table = level(GREYS, factor, rng.uniform(0, 255 * max(1 - factor, 0.01)))
        seen.map(IR, table.ravel())
