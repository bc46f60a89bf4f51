"""Scoring some of the fused frames in the background, never at the stream's expense."""

import logging
import os
import queue
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgefuse.errors import EdgefuseError, InputError
from edgefuse.images import fit_infrared

if TYPE_CHECKING:
    from edgefuse.runtime.sinks.base import FusedFrame

__all__ = ["BUDGET", "Quality", "QualityReport"]

logger = logging.getLogger(__name__)

BUDGET = 0.1
"""Share of one core that scoring may take."""


@dataclass(frozen=True)
class QualityReport:
    """Mean metrics of the frames that were scored."""

    scored: int
    skipped: int
    """Their turn had come, but the one before was not finished, or the budget was used up."""
    means: dict[str, float]
    """Mean by the names of `edgefuse.metrics.FIVE`, under the protocol `field`."""


class Quality:
    """Scores every k-th fused frame in a thread of its own.

    Args:
        every: k, from 1 on.
        budget: share of one core, over 0 and up to 1: the thread rests after each frame accordingly.

    Raises:
        InputError: a value out of range.
    """

    def __init__(self, every: int, budget: float = BUDGET) -> None:
        if every < 1:
            raise InputError(f"quality is {every}, every so many frames one is scored: at least 1")
        if not 0 < budget <= 1:
            raise InputError(f"the budget is {budget:g}, it must be over 0 and up to 1 (a whole core)")
        self._every, self._budget = every, budget
        self._seen = self._skipped = self._scored = 0
        self._sums: dict[str, float] = {}
        self._free_at = 0.0
        self._idle = True
        self._queue: queue.SimpleQueue[FusedFrame | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="quality", daemon=True)
        self._thread.start()

    def offer(self, frame: "FusedFrame") -> None:
        """Take a fused frame; it is scored if its turn has come and there is time. Returns at once."""
        self._seen += 1
        if (self._seen - 1) % self._every:
            return
        if not self._idle or time.monotonic() < self._free_at:
            self._skipped += 1
            return
        self._idle = False
        self._queue.put(frame)

    def stop(self) -> None:
        """Take no more frames: the thread ends after the one in work."""
        self._queue.put(None)

    def finish(self, seconds: float) -> QualityReport:
        """Wait for up to so many seconds for the frame in work, after `stop`, and report."""
        self._thread.join(seconds)
        means = {name: total / self._scored for name, total in self._sums.items()}
        return QualityReport(self._scored, self._skipped, means)

    def _work(self) -> None:
        if hasattr(os, "PRIO_PROCESS"):  # on Linux, of this thread alone
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)
        from edgefuse.metrics import FIVE, score

        while (frame := self._queue.get()) is not None:
            start = time.monotonic()
            try:
                scores = score(frame.fused, fit_infrared(frame.ir, frame.vis), frame.vis, metrics=FIVE)
            except EdgefuseError as error:
                logger.debug("a frame cannot be scored: %s", error)
            else:
                for name, value in scores.items():
                    self._sums[name] = self._sums.get(name, 0.0) + value
                self._scored += 1
            took = time.monotonic() - start
            self._free_at = time.monotonic() + took * (1 / self._budget - 1)
            self._idle = True
