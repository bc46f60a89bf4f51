"""Adjusting the alignment of a running stream, and writing it back to its rig file."""

import math
import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgefuse.errors import InputError
from edgefuse.rig import Matrix, Rig, RigAlign

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
    """The rig of a running stream, moved by hand; what follows drift may move it too.

    Args:
        path: the rig file.
        align: what the stream aligns with, made from that file.

    Raises:
        InputError: a file that is no rig file.
    """

    def __init__(self, path: str | Path, align: RigAlign) -> None:
        self._path, self._align = Path(path), align
        self._saved = Rig.load(path)
        self._x = self._y = 0.0
        self._lock = threading.Lock()

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the visible picture that the rig file was made for."""
        return self._saved.vis_size

    def state(self) -> AlignmentState:
        """Return how it is now."""
        rig = self._align.rig
        return AlignmentState(
            *(self._x, self._y, rig.distance, rig.parallax is not None),
            *(rig.residual_px, rig.overlap, rig == self._saved),
        )

    def move(self, x: float, y: float, distance: float | None = None) -> None:
        """Move infrared to some pixels from where the rig file has it, for things at a distance in metres.

        Raises:
            InputError: more than can be meant, or a distance that the rig file knows nothing of.
        """
        if not all(math.isfinite(value) and abs(value) <= MAX_SHIFT for value in (x, y)):
            raise InputError(f"the shift is {x:g}, {y:g} pixels, up to {MAX_SHIFT:g} are possible")
        with self._lock:
            shift = np.array([[1, 0, x - self._x], [0, 1, y - self._y], [0, 0, 1]])
            self._align.update(lambda rig: (rig if distance is None else rig.at(distance)).moved(shift))
            self._x, self._y = x, y

    def change(self, matrix: Matrix) -> None:
        """Move infrared by a 3×3 map of visible pixels, of pictures of `size`.

        Raises:
            InputError: nothing of it would be left in the visible picture.
        """
        self._align.update(lambda rig: rig.moved(matrix))

    def set_distance(self, distance: float) -> None:
        """Use the map for things at a distance in metres.

        Raises:
            InputError: the rig file knows nothing of distances, or it is not over 0.
        """
        self._align.update(lambda rig: rig.at(distance))

    def reset(self) -> None:
        """Go back to what the rig file says."""
        with self._lock:
            self._align.update(lambda _: self._saved)
            self._x = self._y = 0.0

    def save(self) -> None:
        """Write it to the rig file, from which it counts from then on.

        Raises:
            InputError: the disk refuses.
        """
        with self._lock:
            rig = self._align.rig
            rig.save(self._path)
            self._saved, self._x, self._y = rig, 0.0, 0.0
