"""Watching over an alignment while it is used, and following slow changes of it."""

import logging
import math
import statistics
import threading
from collections import deque

import numpy as np

from edgefuse.calibrate.features import Picture
from edgefuse.calibrate.registration import LEAST_SHARE, LEAST_Z, weigh
from edgefuse.images import luma
from edgefuse.rig import RigAlign
from edgefuse.runtime.frames import FusedFrame
from edgefuse.runtime.live.background import BackgroundWorker, DriftReport

__all__ = ["Drift"]

logger = logging.getLogger(__name__)

REMEMBERED = 7
"""Measurements whose median counts."""
FIRM = 5
"""Measurements from which on there is a median to speak of."""
TOLERATED = 0.004
"""Widths of the picture that the map may be off before anybody is told, or it is moved."""
STEP = 0.0005
"""Most that refining moves the map at once, in widths of the picture: too little to be seen as a jump."""


class Drift(BackgroundWorker[FusedFrame]):
    """Measures on some of the frames how far the aligned infrared picture is off.

    Args:
        align: the alignment in use.
        every: k, one in how many frames is looked at.
        refine: move the alignment slowly to where the last measurements agree that it should be; only on
            evidence that a calibration would accept too.
    """

    def __init__(self, align: RigAlign, every: int = 25, refine: bool = False) -> None:
        super().__init__("alignment check", self._measure, every)
        self._align, self._refine = align, refine
        self._offsets: deque[tuple[float, float]] = deque(maxlen=REMEMBERED)
        self._shares: deque[float] = deque(maxlen=REMEMBERED)
        self._first_share = 0.0
        self._measured = self._unclear = self._moved = 0
        self._warned = False
        self._lock = threading.Lock()

    def snapshot(self) -> DriftReport:
        """Return how things stand, from any thread."""
        with self._lock:
            x, y = self._median()
            known = len(self._offsets) >= FIRM
            change = statistics.median(self._shares) / self._first_share - 1 if known else 0.0
            off = math.hypot(x, y) if known else 0.0
            direction = _direction(x, y) if known else ""
            return DriftReport(known, off, direction, change, self._measured, self._unclear, self._moved)

    def _median(self) -> tuple[float, float]:
        if not self._offsets:
            return 0.0, 0.0
        return statistics.median(x for x, _ in self._offsets), statistics.median(y for _, y in self._offsets)

    def _measure(self, frame: FusedFrame) -> None:
        if frame.ir is None or frame.vis is None or frame.state != "fused":
            return
        ir, vis = Picture.of(frame.ir), Picture.of(luma(frame.vis))
        if frame.valid is not None:
            valid = Picture.of(frame.valid).grey
            ir = Picture(ir.grey, np.where(valid == 255, ir.valid, 0).astype(np.uint8))
        change, z, share = weigh([(ir, vis)], np.eye(3))
        with self._lock:
            if z < LEAST_Z or share < LEAST_SHARE:
                self._unclear += 1
                return
            self._measured += 1
            height, width = ir.grey.shape
            middle = np.array([(width - 1) / 2, (height - 1) / 2, 1.0])
            place = change @ middle
            factor = 1 / Picture.working(frame.vis.shape)[0, 0]
            # The map that would be right moves infrared by so much: it lies on the other side now.
            self._offsets.append(tuple(-factor * (place[:2] / place[2] - middle[:2])))
            self._shares.append(share)
            if len(self._offsets) == FIRM and not self._first_share:
                self._first_share = statistics.median(self._shares)
        self._judge(frame.vis.shape[1])

    def _judge(self, width: int) -> None:
        """Warn, or move the map, once the last measurements agree that it is off."""
        with self._lock:
            x, y = self._median()
            off = math.hypot(x, y)
            near = sum(math.hypot(a - x, b - y) < max(off / 2, 1.0) for a, b in self._offsets)
            agree = len(self._offsets) >= FIRM and near >= FIRM and off > TOLERATED * width
        if not agree:
            return
        if self._refine:
            part = min(STEP * width / off, 1.0)
            self._align.move(-part * x, -part * y)
            with self._lock:
                self._moved += 1
                self._offsets = deque(
                    ((a - part * x, b - part * y) for a, b in self._offsets), maxlen=REMEMBERED
                )
        elif not self._warned:
            self._warned = True
            logger.warning("%s: calibrate again, or use --set refine=live", self.snapshot().sentence())


def _direction(x: float, y: float) -> str:
    """Return the main direction of an offset; two if neither is much larger."""
    words = []
    if abs(x) > abs(y) / 2:
        words.append("right" if x > 0 else "left")
    if abs(y) > abs(x) / 2:
        words.append("down" if y > 0 else "up")
    return " and ".join(words)
