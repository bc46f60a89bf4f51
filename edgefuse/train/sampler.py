"""Which infrared image meets which visible one: the three paradigms of "Beyond Strict Pairing", Eq. 14.

`sptp` = {(i, i)}, strictly paired; `uptp` = {(i, j), i ≠ j}, unpaired; `aptp` = all, their union.
i = j means an equal key: the same stem in folders given at the same place of the two lists.
"""

import random
from bisect import bisect_right
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import get_args

from edgefuse.errors import InputError, unknown_name
from edgefuse.train.config import Paradigm

__all__ = ["PairSampler", "limit_base"]

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
                raise InputError(
                    f"sptp needs every image in both folders; without a partner: {_names(unpaired)} "
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


def _names(keys: Sequence[Hashable]) -> str:
    shown = ", ".join(str(k[-1]) if isinstance(k, tuple) else str(k) for k in keys[:5])
    return shown + (f" and {len(keys) - 5} more" if len(keys) > 5 else "")
