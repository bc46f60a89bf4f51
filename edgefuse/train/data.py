"""Training images: decoded once into one memory-mapped uint8 bank; patches are views into it."""

import math
import tempfile
from collections.abc import Hashable, Iterable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgefuse.errors import InputError
from edgefuse.images import Image, as_visible, luma, read_infrared, read_visible, size_of
from edgefuse.pairs import images_by_stem
from edgefuse.runtime.sources import Role, open_source
from edgefuse.runtime.thermal import ThermalFrontEnd
from edgefuse.train.config import TrainConfig
from edgefuse.train.pairing import Pairing, limit_base

__all__ = ["ImageBank", "TrainingSet", "folder_banks", "simulated_banks", "training_set"]

SIMULATED_FRAMES = 48
MAX_PAIRS = 15_000
"""Pairs per epoch unless told otherwise, as in the paper."""


class ImageBank:
    """Grey images of any sizes behind one another in one memory-mapped file.

    Args:
        images: (key, uint8 `[H, W]`) of each image; read once, one at a time.
    """

    def __init__(self, images: Iterable[tuple[Hashable, Image]]) -> None:
        self.keys: list[Hashable] = []
        self._places: list[tuple[int, tuple[int, int]]] = []
        # Unnamed: the disk gets the space back however the process ends.
        with tempfile.TemporaryFile() as file:
            for key, image in images:
                self.keys.append(key)
                self._places.append((file.tell(), (image.shape[0], image.shape[1])))
                file.write(np.ascontiguousarray(image).tobytes())
            file.flush()
            self._pixels = np.memmap(file, np.uint8, "r") if file.tell() else np.empty(0, np.uint8)

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index: int) -> Image:
        """Return image `index` as a read-only view, uint8 `[H, W]`."""
        start, (height, width) = self._places[index]
        return self._pixels[start : start + height * width].reshape(height, width)

    def subset(self, positions: Sequence[int]) -> "ImageBank":
        """Return a bank of some of the images, over the same memory."""
        part = copy(self)
        part.keys = [self.keys[i] for i in positions]
        part._places = [self._places[i] for i in positions]
        return part

    def smallest_side(self) -> tuple[int, str]:
        """Return the shortest side of all images, in pixels, and the name of the image that has it."""
        return min((min(shape), _name(key)) for key, (_, shape) in zip(self.keys, self._places, strict=True))


def training_set(config: TrainConfig) -> "TrainingSet":
    """Read the images and set up the pairing that a configuration asks for.

    Raises:
        InputError: a folder, image, paradigm or base size that cannot be used.
    """
    if config.ir:
        ir, vis = folder_banks([Path(p) for p in config.ir], [Path(p) for p in config.vis])
    else:
        ir, vis = simulated_banks(config.seed)
    if config.base is not None:
        ir_places, vis_places = limit_base(ir.keys, vis.keys, config.base, config.seed)
        ir, vis = ir.subset(ir_places), vis.subset(vis_places)
    pairing = Pairing(config.paradigm, ir.keys, vis.keys)
    pairs = config.pairs or min(len(pairing), MAX_PAIRS)
    return TrainingSet(ir, vis, pairing, pairs, config.batch, config.patch, config.seed)


def folder_banks(ir: Sequence[Path], vis: Sequence[Path]) -> tuple[ImageBank, ImageBank]:
    """Read folders and videos into an infrared and a visible (luma) bank.

    Keys are (place of the folder, stem), or (place of the video, second): of a video, the first frame of
    every second is taken, since those between look the same. So the two videos of a recording that stand
    at the same place are aligned, as folders of equal stems are.
    """
    return ImageBank(_images(ir, "ir")), ImageBank(_images(vis, "vis"))


def _images(paths: Sequence[Path], role: Role) -> Iterator[tuple[tuple[int, str], Image]]:
    for place, path in enumerate(paths):
        if path.is_file():
            yield from (((place, str(second)), image) for second, image in _video_images(path, role))
            continue
        for stem, file in images_by_stem(path).items():
            yield (place, stem), read_infrared(file) if role == "ir" else luma(read_visible(file))


def _video_images(path: Path, role: Role) -> Iterator[tuple[int, Image]]:
    """Yield the first frame of every second, as `stream` would see it."""
    thermal = ThermalFrontEnd(name=str(path))
    latest = -1
    with open_source(str(path), role) as source:
        while (frame := source.read()) is not None:
            # Every infrared frame goes through: what one looks like depends on those before.
            image = thermal(frame.image, frame.timestamp) if role == "ir" else None
            second = math.floor(frame.timestamp)
            if second > latest:
                latest = second
                yield second, luma(as_visible(frame.image)) if image is None else image


def simulated_banks(seed: int) -> tuple[ImageBank, ImageBank]:
    """Render aligned frames of the simulated rig, a few seconds apart in several scenes."""
    from edgefuse.sim import Rig, RigConfig

    rigs = [Rig(RigConfig(seed=seed * 1000 + k)) for k in range(4)]
    frames = [(rig, k, n * 40) for k, rig in enumerate(rigs) for n in range(SIMULATED_FRAMES // len(rigs))]
    return (
        ImageBank(((k, n), rig.frame("ir", n)) for rig, k, n in frames),
        ImageBank(((k, n), luma(rig.frame("vis", n))) for rig, k, n in frames),
    )


@dataclass(frozen=True)
class TrainingSet:
    """Patches of paired images. What step n sees is a pure function of (seed, n).

    Args:
        ir: infrared images.
        vis: visible lumas.
        pairing: the pairs, over the banks' positions.
        pairs: pairs drawn per epoch, fresh each epoch.
        batch: patches per step.
        patch: side of a patch, in pixels.
        seed: of pairs, places and flips.

    Raises:
        InputError: an image is smaller than a patch.
    """

    ir: ImageBank
    vis: ImageBank
    pairing: Pairing
    pairs: int
    batch: int
    patch: int
    seed: int

    def __post_init__(self) -> None:
        for what, bank in (("infrared", self.ir), ("visible", self.vis)):
            side, name = bank.smallest_side()
            if side < self.patch:
                raise InputError(
                    f"{what} image {name} has a side of {side} pixels, smaller than a patch of {self.patch}: "
                    "leave it out or lower --patch"
                )
        if self.pairing.paradigm == "sptp":
            for i, j in self.pairing.aligned():
                if not self._is_aligned(i, j):
                    sizes = f"{size_of(self.ir[i])} in infrared and {size_of(self.vis[j])} in visible"
                    raise InputError(
                        f"sptp needs pairs of one size, and {_name(self.ir.keys[i])} is {sizes}: "
                        "resize one of them, or train with aptp"
                    )

    def describe(self) -> str:
        """Say in one line what there is to train on."""
        aligned = len(self.pairing.aligned())
        text = (
            f"{len(self.ir)} infrared and {len(self.vis)} visible images, {aligned} of them aligned pairs; "
            f"{self.pairing.paradigm} has {len(self.pairing):,} pairs, {self.pairs:,} are drawn per epoch"
        )
        return text + "; no equal stems, so uptp is the same as aptp" * (
            not aligned and self.pairing.paradigm == "uptp"
        )

    @property
    def steps_per_epoch(self) -> int:
        """Steps that one epoch's pairs last for."""
        return -(-self.pairs // self.batch)

    def batches(self, start: int, stop: int) -> Iterator[NDArray[np.uint8]]:
        """Yield the patches of steps `start` to `stop` - 1."""
        epoch, pairs = -1, []
        for step in range(start, stop):
            if step // self.steps_per_epoch != epoch:
                epoch = step // self.steps_per_epoch
                pairs = self.pairing.draw(self.pairs, (self.seed, epoch))
            first = step % self.steps_per_epoch * self.batch
            yield self.patches(pairs[first : first + self.batch], step)

    def patches(self, pairs: Sequence[tuple[int, int]], step: int) -> NDArray[np.uint8]:
        """Cut the batch `[B, 2, patch, patch]` (infrared, visible) of a step out of its pairs.

        An aligned pair of equal sizes is cropped at one place, others independently. Each is mirrored half
        of the time.
        """
        generator = np.random.default_rng((self.seed, step))
        out = np.empty((len(pairs), 2, self.patch, self.patch), np.uint8)
        for row, (i, j) in zip(out, pairs, strict=True):
            ir, vis = self.ir[i], self.vis[j]
            place = generator.random(4)
            row[0] = self._crop(ir, place[:2])
            row[1] = self._crop(vis, place[:2] if self._is_aligned(i, j) else place[2:])
            if generator.random() < 0.5:
                row[:] = row[:, :, ::-1].copy()
        return out

    def samples(self, count: int) -> list[tuple[Image, Image]]:
        """Return whole pairs to look at: aligned ones if there are any, else any two cut to one size."""
        aligned = [pair for pair in self._spread(count) if self.ir[pair[0]].shape == self.vis[pair[1]].shape]
        if aligned:
            return [(self.ir[i], self.vis[j]) for i, j in aligned]
        loose = [(self.ir[i], self.vis[j]) for i, j in self.pairing.draw(count, (self.seed, "samples"))]
        sides = [np.minimum(ir.shape, vis.shape) for ir, vis in loose]
        return [(ir[:h, :w], vis[:h, :w]) for (ir, vis), (h, w) in zip(loose, sides, strict=True)]

    def _spread(self, count: int) -> list[tuple[int, int]]:
        aligned = self.pairing.aligned()
        return [aligned[k * len(aligned) // count] for k in range(min(count, len(aligned)))]

    def _is_aligned(self, i: int, j: int) -> bool:
        return self.pairing.is_aligned(i, j) and self.ir[i].shape == self.vis[j].shape

    def _crop(self, image: Image, place: NDArray[np.float64]) -> Image:
        y, x = (int(p * (side - self.patch + 1)) for p, side in zip(place, image.shape, strict=True))
        return image[y : y + self.patch, x : x + self.patch]


def _name(key: Hashable) -> str:
    """Return an image's stem out of its key."""
    return str(key[-1]) if isinstance(key, tuple) else str(key)
