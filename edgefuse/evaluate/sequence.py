"""Which frames of a video follow each other: those whose names differ by one step in the last number."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np

from edgefuse.errors import InputError, counted


class PairTask(NamedTuple):
    """A pair by its file names."""

    stem: str
    ir: Path
    vis: Path


_Clip: TypeAlias = tuple[str, str]
"""What stands before the last number of a name and after it."""


def in_order(tasks: Sequence[PairTask]) -> list[PairTask]:
    """Return the frames clip by clip, each sorted by number; clips stay in the order of their first frames.

    Raises:
        InputError: two names of a clip have one number, such as 1 and 01.
    """
    clips: dict[_Clip, int] = {}
    seen: dict[tuple[_Clip, int], str] = {}
    places = []
    for place, task in enumerate(tasks):
        clip, number = _numbered(task.stem) or ((task.stem, ""), 0)
        if (clip, number) in seen:
            raise InputError(
                f"{seen[clip, number]!r} and {task.stem!r} have the same number, so it is unknown "
                "which frame of the video is which: rename or remove one"
            )
        seen[clip, number] = task.stem
        places.append((clips.setdefault(clip, place), number, task))
    return [task for _, _, task in sorted(places, key=lambda entry: entry[:2])]


def frames_before(tasks: Sequence[PairTask], stems: Iterable[str]) -> list[PairTask | None]:
    """Return the pair of the frame before each, None after a gap or at the beginning of another clip.

    Frames follow each other if the last numbers in their names do and the rest of the names is equal. A clip
    whose numbers go up by more than 1, as when every fifth frame was kept, has the smallest gap as its step
    if most of its gaps, and at least two, are equal to it.

    Args:
        tasks: the pairs.
        stems: all names there are, also of what has no partner.

    Raises:
        InputError: no pair follows another.
    """
    numbers: dict[_Clip, set[int]] = {}
    for stem in stems:
        if name := _numbered(stem):
            numbers.setdefault(name[0], set()).add(name[1])
    steps = {clip: _step(sorted(found)) for clip, found in numbers.items()}
    by_name = {_numbered(task.stem): task for task in tasks}
    before = []
    for task in tasks:
        name = _numbered(task.stem)
        before.append(by_name.get((name[0], name[1] - steps[name[0]])) if name else None)
    if not any(before):
        raise InputError(
            f"none of {counted(len(tasks), 'pair')} follows another by the last number in its name, such as "
            "0001 and 0002: without consecutive frames there is no flicker to measure"
        )
    return before


def _step(numbers: list[int]) -> int:
    gaps = np.diff(numbers).tolist()
    step = min(gaps, default=1)
    return step if gaps.count(step) > max(1, len(gaps) / 2) else 1


def _numbered(stem: str) -> tuple[_Clip, int] | None:
    match = re.fullmatch(r"(.*?)(\d+)(\D*)", stem)
    return ((match[1], match[3]), int(match[2])) if match else None
