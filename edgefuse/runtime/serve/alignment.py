"""Adjusting the alignment of a running stream, and writing it back to its rig file."""

import math
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from edgefuse.align import Align
from edgefuse.errors import InputError
from edgefuse.rig import Rig, rows

__all__ = ["Alignment", "AlignmentState"]

MAX_SHIFT = 500.0
"""Pixels: what needs more is another rig."""


@dataclass(frozen=True)
class AlignmentState:
    """How infrared is aligned now."""

    x: float
    """Pixels of the visible picture, from the rig file on; to the right."""
    y: float
    """Likewise, down."""
    distance: float | None
    """Metres; None: unknown, or far away."""
    has_distance: bool
    """The rig file knows how the alignment changes with the distance."""
    residual_px: float
    overlap: float
    saved: bool
    """It is as in the rig file."""


class Alignment:
    """The rig of a running stream, moved by hand.

    Args:
        path: the rig file.
        distance: metres to begin with; None: that of the file.

    Raises:
        InputError: a file that is no rig file.
    """

    def __init__(self, path: str | Path, distance: float | None = None) -> None:
        self._path = Path(path)
        self._base = Rig.load(path)
        self._x = self._y = 0.0
        self._distance = distance if distance is not None else self._base.distance
        self._saved = distance is None
        self._apply: Callable[[Align], None] = lambda _: None
        self._lock = threading.Lock()

    def start(self, apply: Callable[[Align], None]) -> None:
        """Say what uses it: called with each new alignment."""
        self._apply = apply

    def state(self) -> AlignmentState:
        """Return how it is now."""
        rig = self._base
        known = rig.parallax is not None
        return AlignmentState(
            self._x, self._y, self._distance, known, rig.residual_px, rig.overlap, self._saved
        )

    def move(self, x: float, y: float, distance: float | None = None) -> None:
        """Use the rig file's map, moved by some pixels, and for things at a distance in metres.

        Raises:
            InputError: more than can be meant, or a distance that the rig file knows nothing of.
        """
        if not all(math.isfinite(value) and abs(value) <= MAX_SHIFT for value in (x, y)):
            raise InputError(f"the shift is {x:g}, {y:g} pixels, up to {MAX_SHIFT:g} are possible")
        with self._lock:
            rig = _moved(self._base, x, y, distance)
            self._x, self._y, self._saved = x, y, False
            self._distance = self._distance if distance is None else distance
        self._apply(rig.align())

    def save(self) -> None:
        """Write it to the rig file, from which it counts from then on.

        Raises:
            InputError: the disk refuses.
        """
        with self._lock:
            known = self._distance if self._base.parallax is not None else None
            rig = _moved(self._base, self._x, self._y, known)
            rig.save(self._path)
            self._base, self._x, self._y, self._saved = rig, 0.0, 0.0, True


def _moved(rig: Rig, x: float, y: float, distance: float | None) -> Rig:
    if distance is not None:
        rig = rig.at(distance)
    shift = np.array([[1, 0, x], [0, 1, y], [0, 0, 1]], np.float64)
    return replace(rig, matrix=rows(shift @ np.array(rig.matrix)))
