"""Watching over an alignment while it is used, and following slow changes of it."""

import logging
import math
import statistics
import threading
from collections import deque

import numpy as np

from edgefuse.calibrate.features import Picture
from edgefuse.calibrate.registration import confirms, is_evidence, weigh
from edgefuse.errors import InputError
from edgefuse.images import luma
from edgefuse.rig import Matrix, RigAlign
from edgefuse.runtime.frames import FusedFrame
from edgefuse.runtime.live.background import BackgroundWorker, DriftReport

logger = logging.getLogger(__name__)

REMEMBERED = 7
"""Measurements whose median counts."""
FIRM = 5
"""Measurements from which on there is a median to speak of."""
TOLERATED, REACHED = 0.004, 0.001
"""Widths of the picture that the map may be off before anybody is told or it is moved, and at which moving
ends: less than the first alone would make it tremble."""
STEP = 0.0005
"""Most that refining moves any part of the picture at once, in its widths: too little to be seen."""
FAST_STEP = 0.002
"""Most that following the distance moves the picture at once, in its widths."""
NEAREST, FARTHEST = 0.5, 1e5
"""Metres between which a distance is followed."""
CONFIRMED_FOR = 0.02
"""Widths of the picture that the map may move before the whole search must agree again."""
LOOKED_AT = 3
"""Pairs that the whole search is given."""


class Drift(BackgroundWorker[FusedFrame]):
    """Measures on some of the frames how far the aligned infrared picture is off: shift, zoom and turn.

    Args:
        align: the alignment in use. If somebody else changes it, measuring begins again.
        every: k, one in how many frames is looked at.
        refine: move the alignment slowly to where the last measurements agree that it should be. Before it
            begins to move, the search over all maps must come to the same one, as in a calibration.
    """

    def __init__(self, align: RigAlign, every: int = 25, refine: bool = False) -> None:
        super().__init__("alignment check", self._measure, every)
        self._align, self._refine = align, refine
        self._rig = align.rig
        self._changes: deque[Matrix] = deque(maxlen=REMEMBERED)
        """What would put infrared right: `_displacements` says how to read it."""
        self._shares: deque[float] = deque(maxlen=REMEMBERED)
        self._pairs: deque[tuple[Picture, Picture]] = deque(maxlen=LOOKED_AT)
        self._first_share = 0.0
        self._shape = (1, 1)
        self._confirmed = 0.0
        """Pixels that it may still be moved."""
        self._measured = self._unclear = self._moved = 0
        self._warned = False
        self._lock = threading.Lock()

    def snapshot(self) -> DriftReport:
        """Return how things stand, from any thread."""
        with self._lock:
            known = len(self._changes) >= FIRM
            middle = self._median()
            share = statistics.median(self._shares) / self._first_share - 1 if known else 0.0
            off = _size(middle, self._shape) if known else 0.0
            direction = _direction(-middle, self._shape) if known else ""
            return DriftReport(known, off, direction, share, self._measured, self._unclear, self._moved)

    def _median(self) -> Matrix:
        middle: Matrix = np.median(np.array(self._changes), axis=0) if self._changes else np.zeros(4)
        return middle

    def _measure(self, frame: FusedFrame) -> None:
        if frame.ir is None or frame.vis is None or frame.state != "fused":
            return
        ir, vis = watched(frame)
        change, z, share = weigh([(ir, vis)], np.eye(3))
        to_working = Picture.working(frame.vis.shape)
        with self._lock:
            self._shape = (frame.vis.shape[0], frame.vis.shape[1])
            if self._align.rig is not self._rig:  # moved by hand: what was measured holds no longer
                self._begin_again()
            if not is_evidence(z, share, vis):
                self._unclear += 1
                return
            self._measured += 1
            self._pairs.append((ir, vis))
            self._changes.append(_parameters(np.linalg.inv(to_working) @ change @ to_working, self._shape))
            self._shares.append(share)
            if len(self._changes) == FIRM and not self._first_share:
                self._first_share = statistics.median(self._shares)
            middle = self._median()
            off = _size(middle, self._shape)
            agree = sum(_size(each - middle, self._shape) < max(off / 2, 1.0) for each in self._changes)
        if agree >= FIRM:
            self._act(middle, off)
        else:
            self._confirmed = 0.0

    def _act(self, middle: Matrix, off: float) -> None:
        """Do what the last measurements, which agree, ask for."""
        width = self._shape[1]
        if off < REACHED * width:
            self._confirmed = 0.0
        elif self._refine:
            self._follow(middle, off)
        elif off > TOLERATED * width and not self._warned:
            self._warned = True
            logger.warning("%s: calibrate again, or use --refine live", self.snapshot().sentence())

    def _begin_again(self) -> None:
        self._rig = self._align.rig
        self._changes.clear()
        self._shares.clear()
        self._pairs.clear()
        self._first_share = self._confirmed = 0.0

    def _follow(self, middle: Matrix, off: float) -> None:
        """Move the map by one step towards the median of the measurements."""
        width = self._shape[1]
        if self._confirmed <= 0:
            if off < TOLERATED * width:
                return
            to_working = Picture.working(self._shape)
            there = to_working @ _as_matrix(middle, self._shape) @ np.linalg.inv(to_working)
            if not confirms(list(self._pairs), there, TOLERATED * width * to_working[0, 0]):
                with self._lock:
                    self._unclear += 1
                    self._changes.clear()
                    self._shares.clear()
                return
            self._confirmed = CONFIRMED_FOR * width
        farthest = float(np.linalg.norm(_displacements(middle, self._shape), axis=1).max())
        part = min(STEP * width / farthest, 1.0) * middle
        try:
            self._align.update(
                lambda rig: rig.moved(_as_matrix(part, self._shape), self._shape) if rig is self._rig else rig
            )
        except InputError as error:
            logger.warning("the alignment is not moved further: %s", error)
            return
        self._confirmed -= STEP * width
        self._note_moved(part)

    def _note_moved(self, part: Matrix) -> None:
        """What was measured before is now off by so much less."""
        with self._lock:
            self._rig = self._align.rig
            self._moved += 1
            self._changes = deque((each - part for each in self._changes), maxlen=REMEMBERED)


class FollowDistance(Drift):
    """Moves the map along the parallax of the rig to the distance of what is in the picture.

    Args:
        align: the alignment in use, of a rig with parallax.
        every: k, one in how many frames is looked at.

    Raises:
        InputError: the rig knows no parallax.
    """

    def __init__(self, align: RigAlign, every: int = 5) -> None:
        super().__init__(align, every)
        align.rig.at(align.rig.distance or FARTHEST)
        self._moving = False

    def _act(self, middle: Matrix, off: float) -> None:
        rig, width = self._rig, self._shape[1]
        assert rig.parallax is not None
        # In pixels of this stream: the shift of what is at one metre against what is far away.
        shift = np.array(rig.parallax[:2]) * width / rig.vis_size[0]
        size = float(np.linalg.norm(shift))
        along = float(middle[:2] @ shift) / size if size else 0.0
        self._moving = off > REACHED * width and abs(along) > (REACHED if self._moving else TOLERATED) * width
        if not self._moving:
            return
        now = 1 / rig.distance if rig.distance else 0.0
        step = min(max(along, -FAST_STEP * width), FAST_STEP * width) / size
        inverse = min(max(now + step, 1 / FARTHEST), 1 / NEAREST)
        if abs(inverse - now) * size < 0.05:
            return
        self._align.update(lambda newest: newest.at(1 / inverse) if newest is rig else newest)
        self._note_moved(np.array([*(inverse - now) * shift, 0.0, 0.0]))


def watched(frame: FusedFrame) -> tuple[Picture, Picture]:
    """Return both pictures of a frame as they are compared: the aligned infrared only where it is one."""
    assert frame.ir is not None and frame.vis is not None  # noqa: PT018
    ir, vis = Picture.of(frame.ir), Picture.of(luma(frame.vis))
    if frame.valid is not None:
        valid = Picture.of(frame.valid).grey
        ir = Picture(ir.grey, np.where(valid == 255, ir.valid, 0).astype(np.uint8))
    return ir, vis


def _parameters(matrix: Matrix, shape: tuple[int, int]) -> Matrix:
    """Return a similarity near the identity as right, down (of the middle, in pixels), growth and turn."""
    x, y = (shape[1] - 1) / 2, (shape[0] - 1) / 2
    place = matrix @ (x, y, 1)
    a, b = matrix[0, 0], matrix[1, 0]
    return np.array([place[0] - x, place[1] - y, math.log(math.hypot(a, b)), math.atan2(b, a)])


def _as_matrix(p: Matrix, shape: tuple[int, int]) -> Matrix:
    x, y = (shape[1] - 1) / 2, (shape[0] - 1) / 2
    a, b = math.exp(p[2]) * math.cos(p[3]), math.exp(p[2]) * math.sin(p[3])
    return np.array([[a, -b, x + p[0] - a * x + b * y], [b, a, y + p[1] - b * x - a * y], [0, 0, 1]])


def _displacements(p: Matrix, shape: tuple[int, int]) -> Matrix:
    """Return by how many pixels parameters move nine places of a picture, `[9, 2]`."""
    y, x = (part.ravel() for part in np.mgrid[-1:2, -1:2])
    x, y = x * shape[1] / 2, y * shape[0] / 2
    return np.stack([p[0] + p[2] * x - p[3] * y, p[1] + p[2] * y + p[3] * x], axis=1)


def _size(p: Matrix, shape: tuple[int, int]) -> float:
    """Return how many pixels parameters move a picture, as root mean square over all of it."""
    return float(np.sqrt((_displacements(p, shape) ** 2).sum(axis=1).mean()))


def _direction(p: Matrix, shape: tuple[int, int]) -> str:
    """Return how infrared lies, in words: each kind that makes out at least half of the largest one."""
    parts = {
        ("right", "left"): p[0],
        ("down", "up"): p[1],
        ("too large", "too small"): p[2] * math.hypot(*shape) / 2,
        ("turned right", "turned left"): p[3] * math.hypot(*shape) / 2,
    }
    largest = max(abs(value) for value in parts.values())
    return " and ".join(words[int(value < 0)] for words, value in parts.items() if abs(value) > largest / 2)
