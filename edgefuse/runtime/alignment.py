"""Adjusting the alignment of a running stream, and writing it back to its rig file."""

import logging
import math
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np

from edgefuse.align import Align
from edgefuse.errors import InputError
from edgefuse.rig import Matrix, Rig, RigAlign
from edgefuse.runtime.cameras.camera import Camera
from edgefuse.runtime.frames import FusedFrame

logger = logging.getLogger(__name__)

Improve: TypeAlias = Callable[[Rig, FusedFrame, bool], Rig]
"""Returns a rig, moved to where a frame that it aligned asks for (True), with the residual seen there."""

A_CAMERA = re.compile(r"cam\d|/dev/|[a-z]+:")
"""Beginnings of the names of cameras."""
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
        improve: refines a rig by a frame; None: that cannot be asked for.
        saved: what the file will hold, if it is not there yet.

    Raises:
        InputError: a file that is no rig file.
    """

    def __init__(
        self, path: str | Path, align: RigAlign, improve: Improve | None = None, saved: Rig | None = None
    ) -> None:
        self._path, self._align, self._improve = Path(path), align, improve
        self._saved = Rig.load(path) if saved is None else saved
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

    def refine(self, frame: FusedFrame) -> None:
        """Move infrared to where the edges of a frame that it aligned agree best.

        Raises:
            InputError: the frame does not say where that is, or there is nothing to refine with.
        """
        improve = self._improve
        if improve is None or frame.vis is None or frame.ir is None:
            raise InputError("there is no picture of both cameras to refine by")
        self._align.update(lambda rig: improve(rig, frame, True))

    def save(self, frame: FusedFrame | None = None) -> None:
        """Write it to the rig file, from which it counts from then on.

        Args:
            frame: one that it aligned: the residual in the file is then what this frame shows.

        Raises:
            InputError: the disk refuses.
        """
        improve = self._improve
        if improve is not None and frame is not None and frame.vis is not None and frame.ir is not None:
            self._align.update(lambda rig: rig if rig == self._saved else improve(rig, frame, False))
        with self._lock:
            rig = self._align.rig
            rig.save(self._path)
            self._saved, self._x, self._y = rig, 0.0, 0.0


def doubt_rig(align: Align | None, ir: Camera, vis: Camera) -> None:
    """Warn of a rig file of other cameras, as far as names tell, and of one that a recording has unused.

    Args:
        align: what the stream aligns with; None: no rig file.
        ir: the infrared camera.
        vis: the visible one.
    """
    given = [re.split("[?#]", camera.name)[0] for camera in (ir, vis)]
    if not isinstance(align, RigAlign):
        beside = {Path(name).parent / "rig.json" for name in given}
        if not ir.live and len(beside) == 1 and (path := beside.pop()).is_file():
            logger.warning("infrared is not aligned: the recording has a rig file, give --rig %s", path)
        return
    known = [re.split("[?#]", name)[0] for name in (align.rig.ir_camera, align.rig.vis_camera)]
    if ir.recorded or vis.recorded or not all(map(A_CAMERA.match, known)) or given == known:
        return  # names of recordings tell nothing
    if given == known[::-1]:
        logger.warning(
            "the cameras look exchanged: the rig file was made with %s as infrared and %s as visible", *known
        )
    else:
        logger.warning(
            "the rig file was made with %s and %s, not %s and %s: if they are others, calibrate again",
            *(*known, *given),
        )
