"""Which infrared image meets which visible one, and the patches that are cut out of them.

The paradigms are those of "Beyond Strict Pairing", Eq. 14: `sptp` = {(i, i)}, strictly paired; `uptp` =
{(i, j), i ≠ j}, unpaired; `aptp` = all, their union. i = j means an equal key: the same stem in folders given
at the same place of the two lists. What step n sees is a pure function of (seed, n).
"""

import hashlib
import random
import zlib
from bisect import bisect_right
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgefuse.errors import InputError, counted, listed, unknown_name
from edgefuse.images import Image, size_of
from edgefuse.train.cache import ImageCache, cache_folders, cache_simulation, name_of
from edgefuse.train.config import Paradigm, TrainConfig
from edgefuse.train.machine import SINGLE_PROCESS, DistributedContext

PARADIGMS = get_args(Paradigm)


@dataclass(frozen=True)
class PairSampler:
    """The set of pairs of one paradigm over N infrared and M visible images, never written out.

    Memory is O(N + M), whatever N·M is.

    Args:
        paradigm: `sptp`, `uptp` or `aptp`.
        ir: key of each infrared image.
        vis: key of each visible image.

    Raises:
        InputError: unknown paradigm, no images, or `sptp` with a key that only one side has.
    """

    paradigm: str
    ir: Sequence[Hashable]
    vis: Sequence[Hashable]
    _matched: Sequence[int] = field(default=(), init=False, repr=False)
    _gaps: Sequence[int] = field(default=(), init=False, repr=False)

    def __post_init__(self) -> None:
        if self.paradigm not in PARADIGMS:
            raise InputError(unknown_name("paradigm", self.paradigm, PARADIGMS))
        if not self.ir or not self.vis:
            raise InputError(f"{len(self.ir)} infrared and {len(self.vis)} visible images make no pairs")
        place = {key: j for j, key in enumerate(self.vis)}
        matched = [(i, place[key]) for i, key in enumerate(self.ir) if key in place]
        if self.paradigm == "sptp":
            unpaired = sorted(set(self.ir) ^ set(self.vis), key=str)
            if unpaired:
                names = listed(map(name_of, unpaired), most=5)
                raise InputError(
                    f"sptp needs every image in both folders; without a partner: {names} "
                    "(train with --paradigm aptp or uptp instead)"
                )
        flat = sorted(i * len(self.vis) + j for i, j in matched)
        object.__setattr__(self, "_matched", flat)
        # k-th pair that is not matched: k plus the matched ones before it (see `_pair`).
        object.__setattr__(self, "_gaps", [pair - rank for rank, pair in enumerate(flat)])
        if len(self) == 0:
            raise InputError("uptp needs an infrared and a visible image of different stems: there are none")

    def __len__(self) -> int:
        """Return how many different pairs there are."""
        everything = len(self.ir) * len(self.vis)
        matched = len(self._matched)
        return {"sptp": matched, "uptp": everything - matched, "aptp": everything}[self.paradigm]

    def aligned(self) -> list[tuple[int, int]]:
        """Return the positions (i, j) of equal keys, whether or not the paradigm draws them."""
        return [divmod(flat, len(self.vis)) for flat in self._matched]

    def sample(self, count: int, seed: object, aligned: float = 0.0) -> list[tuple[int, int]]:
        """Draw `count` pairs (i, j) of positions, a pure function of `seed`.

        No pair is repeated before every pair has had its turn. O(count) time and memory.

        Args:
            count: of pairs, at least 1.
            seed: anything with a `repr`.
            aligned: share of the pairs, 0..1, that is drawn from those of equal keys instead.
        """
        if count < 1:
            raise InputError(f"the number of pairs is {count}, it must be at least 1")
        generator = random.Random(repr(seed))
        matched = self.aligned() if aligned else []
        together = round(aligned * count) if matched else 0
        pairs = [matched[k] for k in _turns(generator, len(matched), together)]
        pairs += [self._pair(k) for k in _turns(generator, len(self), count - together)]
        if together:
            generator.shuffle(pairs)
        return pairs

    def is_aligned(self, i: int, j: int) -> bool:
        """Say whether positions i and j have the same key, so that both are cropped at one place."""
        return self.ir[i] == self.vis[j]

    def _pair(self, k: int) -> tuple[int, int]:
        if self.paradigm == "sptp":
            k = self._matched[k]
        elif self.paradigm == "uptp":
            k += bisect_right(self._gaps, k)
        return divmod(k, len(self.vis))


def _turns(generator: random.Random, size: int, count: int) -> list[int]:
    picks: list[int] = []
    while len(picks) < count:
        picks += generator.sample(range(size), min(size, count - len(picks)))
    return picks


def limit_base(
    ir: Sequence[Hashable], vis: Sequence[Hashable], base: int, seed: int
) -> tuple[list[int], list[int]]:
    """Choose a base set of `base` images a side (Table 3 of the paper): the positions, in order.

    The same keys on both sides as far as there are matched ones, other images beyond that.

    Raises:
        InputError: `base` is below 1 or one side has fewer images.
    """
    if not 1 <= base <= min(len(ir), len(vis)):
        raise InputError(
            f"base is {base}, it must be from 1 to {min(len(ir), len(vis))}, the size of the smaller side"
        )
    generator = random.Random(f"base-{seed}")
    common = sorted(set(ir) & set(vis), key=str)
    chosen = set(generator.sample(common, min(base, len(common))))

    def positions(keys: Sequence[Hashable]) -> list[int]:
        inside = [i for i, key in enumerate(keys) if key in chosen]
        others = [i for i, key in enumerate(keys) if key not in chosen]
        return sorted(inside + generator.sample(others, base - len(inside)))

    return positions(ir), positions(vis)


MAX_PAIRS = 15_000
"""Pairs per epoch by default, as in the paper."""


def training_set(config: TrainConfig, images: tuple[ImageCache, ImageCache] | None = None) -> "TrainingSet":
    """Read the images and set up the pairing that a configuration asks for.

    Args:
        config: what to train on.
        images: what is in its folders, infrared and visible, if that was read before.

    Raises:
        InputError: a folder, image, paradigm or base size that cannot be used.
    """
    if images is not None:
        ir, vis = images
    elif config.ir:
        ir, vis = cache_folders(config.ir, config.vis, config.infrared, config.bits, config.rig)
    else:
        ir, vis = cache_simulation(config.seed)
    ir, vis, validation = _held_out(ir, vis, config)
    PairSampler(config.paradigm, ir.keys, vis.keys)  # refuses folders, of which a base could hide the reason
    if config.base is not None:
        ir_places, vis_places = limit_base(ir.keys, vis.keys, config.base, config.seed)
        ir, vis = ir.subset(ir_places), vis.subset(vis_places)
    fixed = config.base_of == "patches"
    if fixed:
        ir, vis = (_fixed_patches(cache, config.patch, config.seed) for cache in (ir, vis))
    pairing = PairSampler(config.paradigm, ir.keys, vis.keys)
    pairs = config.pairs or min(len(pairing), MAX_PAIRS)
    if config.aligned and not _aligned(ir, vis):
        raise InputError(
            f"aligned is {config.aligned}, but no two images have one stem and size: leave it out"
        )
    return TrainingSet(
        *(ir, vis, pairing, pairs, config.batch, config.patch, config.seed, validation, config.aligned),
        mirror=not fixed,
    )


def _fixed_patches(images: ImageCache, patch: int, seed: int) -> ImageCache:
    """Return one patch of each image, at a place that follows from its name: one place in an aligned pair."""

    def patches() -> Iterator[tuple[Hashable, Image]]:
        for k, key in enumerate(images.keys):
            place = np.random.default_rng((seed, zlib.crc32(repr(key).encode()))).random(2)
            free = np.maximum(np.subtract(images.shape(k), patch) + 1, 0)
            top, left = (place * free).astype(int).tolist()
            yield key, images[k][top : top + patch, left : left + patch]

    return ImageCache(patches())


def _held_out(
    ir: ImageCache, vis: ImageCache, config: TrainConfig
) -> tuple[ImageCache, ImageCache, tuple[tuple[Image, Image], ...]]:
    """Return what is left to train on, and the aligned pairs to validate on."""
    if config.val_ir:
        of_ir, of_vis = cache_folders(config.val_ir, config.val_vis, config.infrared, config.bits, config.rig)
        pairs = _aligned(of_ir, of_vis)
        if not pairs:
            raise InputError(f"no aligned pairs to validate on in {config.val_ir[0]} and {config.val_vis[0]}")
        return ir, vis, tuple((of_ir[i], of_vis[j]) for i, j in pairs)
    if not config.hold_out:
        return ir, vis, ()
    pairs = _aligned(ir, vis)
    if len(pairs) <= config.hold_out:
        raise InputError(f"cannot hold out {config.hold_out} of {len(pairs)} aligned pairs: lower hold_out")
    # Evenly spread: neighbours in a folder often show the same scene.
    out = [pairs[k * len(pairs) // config.hold_out] for k in range(config.hold_out)]
    taken_ir, taken_vis = {i for i, _ in out}, {j for _, j in out}
    rest_ir = ir.subset([i for i in range(len(ir)) if i not in taken_ir])
    rest_vis = vis.subset([j for j in range(len(vis)) if j not in taken_vis])
    return rest_ir, rest_vis, tuple((ir[i], vis[j]) for i, j in out)


def _aligned(ir: ImageCache, vis: ImageCache) -> list[tuple[int, int]]:
    pairs = PairSampler("aptp", ir.keys, vis.keys).aligned()
    return [(i, j) for i, j in pairs if ir.shape(i) == vis.shape(j)]


@dataclass
class TrainingSet:
    """Images, their pairing, and the patches that each step gets.

    Args:
        ir: infrared images.
        vis: visible lumas.
        pairing: the pairs, over the caches' positions.
        pairs: pairs drawn per epoch, fresh each epoch.
        batch: patches per step.
        patch: side of a patch, in pixels.
        seed: of pairs, places and flips.
        validation: aligned pairs (uint8 `[H, W]` each) that are not trained on.
        aligned: share of the pairs that is drawn from the aligned ones.
        mirror: mirror half of the patches.

    Raises:
        InputError: an image is smaller than a patch.
    """

    ir: ImageCache
    vis: ImageCache
    pairing: PairSampler
    pairs: int
    batch: int
    patch: int
    seed: int
    validation: tuple[tuple[Image, Image], ...] = ()
    aligned: float = 0.0
    mirror: bool = True

    def __post_init__(self) -> None:
        self._drawn: tuple[int, list[tuple[int, int]]] = (-1, [])
        for what, cache in (("infrared", self.ir), ("visible", self.vis)):
            side, name = cache.smallest_side()
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
                        f"sptp needs pairs of one size, and {name_of(self.ir.keys[i])} is {sizes}: "
                        "resize one of them, or train with aptp"
                    )

    def fingerprint(self) -> str:
        """Return a hash of the names and sizes of all images, which differs for other sets."""
        facts = [[(key, cache.shape(k)) for k, key in enumerate(cache.keys)] for cache in (self.ir, self.vis)]
        return hashlib.sha256(repr(facts).encode()).hexdigest()

    def describe(self) -> str:
        """Say in one line what there is to train on."""
        partners = self.pairing.aligned()
        aligned = sum(self._is_aligned(i, j) for i, j in partners)
        text = (
            f"{len(self.ir)} infrared and {len(self.vis)} visible images, {aligned} of them aligned pairs; "
        )
        if other := len(partners) - aligned:
            text += f"{other} more have partners of another size and are cropped apart from them; "
        text += f"{self.pairing.paradigm} has {len(self.pairing):,} pairs, {self.pairs:,} are drawn per epoch"
        if self.validation:
            text += f"; validated on {counted(len(self.validation), 'aligned pair')}"
        return text + "; no equal stems, so uptp is the same as aptp" * (
            not partners and self.pairing.paradigm == "uptp"
        )

    def move_to(self, device: torch.device) -> None:
        """Copy the images to a GPU if they take at most half of its free memory."""
        if device.type == "cpu":
            return
        free, _ = torch.cuda.mem_get_info(device)
        if 2 * (self.ir.nbytes + self.vis.nbytes) <= free:
            self.ir, self.vis = self.ir.to(device), self.vis.to(device)

    def batches(
        self, start: int, stop: int, context: DistributedContext = SINGLE_PROCESS
    ) -> Iterator[Tensor]:
        """Yield this process's patches of steps `start` to `stop` - 1.

        The pairs of the epochs follow one another without a gap, so every step is full, and a step is cut
        into equal parts for the processes.
        """
        for step in range(start, stop):
            yield self.patches(self._pairs_of(step, context), step, context.rank * self.batch)

    def counts(self, step: int, context: DistributedContext = SINGLE_PROCESS) -> NDArray[np.float64]:
        """Return the counts `[B, 2, 256]` of grey levels in the pictures behind a step's patches."""
        pairs = self._pairs_of(step, context)
        return np.stack([np.stack((self.ir.counts(i), self.vis.counts(j))) for i, j in pairs])

    def distinct_pairs(self, steps: int) -> int:
        """Return how many different pairs so many steps draw, in one process."""
        return len({self._pair(position) for position in range(steps * self.batch)})

    def _pairs_of(self, step: int, context: DistributedContext) -> list[tuple[int, int]]:
        first = (step * context.size + context.rank) * self.batch
        return [self._pair(position) for position in range(first, first + self.batch)]

    def _pair(self, position: int) -> tuple[int, int]:
        """Return the pair at a position in the epochs' pairs, taken one after the other."""
        epoch, place = divmod(position, self.pairs)
        if self._drawn[0] != epoch:
            self._drawn = epoch, self.pairing.sample(self.pairs, (self.seed, epoch), self.aligned)
        return self._drawn[1][place]

    def patches(self, pairs: Sequence[tuple[int, int]], step: int, first: int = 0) -> Tensor:
        """Cut the patches uint8 `[B, 2, patch, patch]` (infrared, visible) of a step out of its pairs.

        An aligned pair of equal sizes is cropped at one place, others independently. With `mirror`, each is
        mirrored half of the time.

        Args:
            pairs: positions in the two caches.
            step: decides the places.
            first: position of the first pair in the step, which other processes may have a share in.
        """
        chances = np.random.default_rng((self.seed, step)).random((first + len(pairs), 5))[first:]
        rows = []
        for (i, j), (y, x, other_y, other_x, mirror) in zip(pairs, chances.tolist(), strict=True):
            together = self._is_aligned(i, j)
            row = torch.stack(
                (
                    self._crop(self.ir, i, y, x),
                    self._crop(self.vis, j, y if together else other_y, x if together else other_x),
                )
            )
            rows.append(row.flip(2) if self.mirror and mirror < 0.5 else row)
        return torch.stack(rows)

    def samples(self, count: int) -> list[tuple[Image, Image]]:
        """Return whole pairs to look at: aligned ones if there are any, else any two cut to one size."""
        aligned = [(i, j) for i, j in self._spread(count) if self.ir.shape(i) == self.vis.shape(j)]
        if aligned:
            return [(self.ir[i], self.vis[j]) for i, j in aligned]
        loose = [(self.ir[i], self.vis[j]) for i, j in self.pairing.sample(count, (self.seed, "samples"))]
        sides = [np.minimum(ir.shape, vis.shape) for ir, vis in loose]
        return [(ir[:h, :w], vis[:h, :w]) for (ir, vis), (h, w) in zip(loose, sides, strict=True)]

    def _spread(self, count: int) -> list[tuple[int, int]]:
        aligned = self.pairing.aligned()
        count = min(count, len(aligned))
        return [aligned[k * len(aligned) // count] for k in range(count)]

    def _is_aligned(self, i: int, j: int) -> bool:
        return self.pairing.is_aligned(i, j) and self.ir.shape(i) == self.vis.shape(j)

    def _crop(self, cache: ImageCache, index: int, y: float, x: float) -> Tensor:
        """Return the patch at a place given as shares (in [0, 1)) of where it can be."""
        height, width = cache.shape(index)
        top, left = int(y * (height - self.patch + 1)), int(x * (width - self.patch + 1))
        return cache.tensor(index)[top : top + self.patch, left : left + self.patch]
