"""Corrupting the inputs of a network in training, while its losses look at the clean images.

Real cameras are noisy, a little out of focus, not quite aligned, and set their gain as they like. A network
that sees such inputs, and is asked for the fusion of the clean ones, learns what to trust.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from edgefuse.degrade import agc, blur, exposure, sensor_noise, shift, tone
from edgefuse.images import Image

__all__ = ["AUGMENTATIONS", "corrupt"]

Generator = np.random.Generator
IR, VIS = 0, 1


def noise(seen: Image, _: Image, rng: Generator) -> None:
    """Stripes and grain in infrared, up to one and a half times those of a noisy camera, and its tone."""
    if rng.random() < 0.5:
        seen[IR] = tone(seen[IR], float(rng.uniform(0.55, 1.0)))
    strength = float(rng.uniform(0.1, 1.5))
    columns = 10 * strength * (rng.random() < 0.8)
    seen[IR] = sensor_noise(seen[IR], int(rng.integers(2**31)), columns, 15 * strength)


def dusk(seen: Image, _: Image, rng: Generator) -> None:
    """The visible camera's own grain in poor light."""
    seen[VIS] = sensor_noise(seen[VIS], int(rng.integers(2**31)), 0.0, float(rng.uniform(2, 12)))


def focus(seen: Image, _: Image, rng: Generator) -> None:
    """One camera or both out of focus."""
    sigma, which = float(rng.uniform(0.5, 2)), int(rng.integers(1, 4))
    for side in (IR, VIS):
        if which >> side & 1:
            seen[side] = blur(seen[side], sigma)


def misalignment(seen: Image, _: Image, rng: Generator) -> None:
    """Infrared off by up to 3 pixels each way."""
    right, down = rng.integers(-3, 4, 2).tolist()
    seen[IR] = shift(seen[IR], right, down)


def gain(seen: Image, _: Image, rng: Generator) -> None:
    """Another gain of the infrared camera, or another exposure of the visible one."""
    if rng.random() < 0.5:
        seen[IR] = agc(seen[IR], float(rng.choice([0.005, 0.01, 0.03])))
    else:
        seen[VIS] = exposure(seen[VIS], float(rng.uniform(-2, 2)))


def loss(seen: Image, wanted: Image, rng: Generator) -> None:
    """One camera gives a single level: then what is wanted is the other one's picture."""
    dead = int(rng.integers(2))
    seen[dead] = rng.choice([0, 128, 255])
    wanted[dead] = wanted[1 - dead]


AUGMENTATIONS: tuple[tuple[float, Callable[[Image, Image, Generator], None]], ...] = (
    (0.40, noise),
    (0.05, dusk),
    (0.20, focus),
    (0.20, misalignment),
    (0.12, gain),
    (0.03, loss),
)
"""Share of the corrupted patches that each is applied to."""


def corrupt(
    patches: Tensor, share: float, seed: tuple[int, ...], first: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    """Corrupt a share of the patches, each by one of `AUGMENTATIONS`; what is random follows from the seed.

    Args:
        patches: uint8 `[B, 2, P, P]` (infrared, visible luma) in main memory; not changed.
        share: of the patches, 0..1.
        seed: of all that is random.
        first: position of the first patch in its step, which other processes may have a share in.

    Returns:
        What the network sees and what its losses look at, both uint8 `[B, 2, P, P]`, and which of the patches
        have noise in infrared, bool `[B]`.
    """
    seen, wanted = patches.clone(), patches.clone()
    noisy = torch.zeros(len(patches), dtype=torch.bool)
    shares, functions = zip(*AUGMENTATIONS, strict=True)
    for k, (row, target) in enumerate(zip(seen.numpy(), wanted.numpy(), strict=True)):
        # Never 0 at the end: numpy takes that for the shorter seed, where the patches' places come from.
        rng = np.random.default_rng((*seed, 1 + first + k))
        if rng.random() < share:
            function = functions[rng.choice(len(functions), p=shares)]
            function(row, target, rng)
            noisy[k] = function is noise
    return seen, wanted, noisy
