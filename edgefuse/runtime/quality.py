"""Scoring some of the fused frames in the background, never at the stream's expense."""

import logging
import os
import queue
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgefuse.align import overlap
from edgefuse.errors import EdgefuseError, InputError
from edgefuse.metrics import CORE_METRICS, score
from edgefuse.metrics.scorer import named_metrics

if TYPE_CHECKING:
    from edgefuse.runtime.sinks.base import FusedFrame

__all__ = ["BUDGET", "PROTOCOL", "Quality", "QualityReport"]

logger = logging.getLogger(__name__)

PROTOCOL = "field"
BUDGET = 0.1
"""Share of one core that scoring may take."""


@dataclass(frozen=True)
class QualityReport:
    """Mean metrics of the frames that were scored."""

    scored: int
    skipped: int
    """Their turn had come, but the one before was not finished, or the budget was used up."""
    means: dict[str, float]
    """Mean by the names of the metrics."""
    failed: int = 0
    """Those that could not be scored."""
    protocol: str = PROTOCOL
    """The protocol they were computed under."""


class Quality:
    """Scores every k-th fused frame in a thread of its own.

    Args:
        every: k, from 1 on.
        budget: share of one core, over 0 and up to 1: after each frame the thread rests until the processor
            time that it took is no more than this share. Time that it only waits for a core does not count.
        metrics: names in `edgefuse.metrics.METRICS`.

    Raises:
        InputError: a value out of range, or an unknown metric.
    """

    def __init__(self, every: int, budget: float = BUDGET, metrics: Iterable[str] = CORE_METRICS) -> None:
        if every < 1:
            raise InputError(f"quality is {every}, every so many frames one is scored: at least 1")
        if not 0 < budget <= 1:
            raise InputError(f"the budget is {budget:g}, it must be over 0 and up to 1 (a whole core)")
        self._every, self._budget, self._metrics = every, budget, named_metrics(metrics)
        self._seen = self._skipped = self._scored = self._failed = 0
        self._sums: dict[str, float] = {}
        self._lock = threading.Lock()  # of what has been scored: the report may be wanted in between
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
        with self._lock:
            means = {name: total / self._scored for name, total in self._sums.items()}
            return QualityReport(self._scored, self._skipped, means, self._failed)

    def _work(self) -> None:
        if hasattr(os, "PRIO_PROCESS"):  # on Linux, of this thread alone
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)
        while (frame := self._queue.get()) is not None:
            start, used = time.monotonic(), time.thread_time()
            try:
                area = overlap(frame.valid)
                scores = score(frame.fused[area], frame.ir[area], frame.vis[area], PROTOCOL, self._metrics)
            except Exception as error:  # whatever a metric raises, the next frame is scored
                self._count_failure(error)
            else:
                self._count(scores)
            self._free_at = start + (time.thread_time() - used) / self._budget
            self._idle = True

    def _count(self, scores: Mapping[str, float]) -> None:
        with self._lock:
            self._scored += 1
            for name, value in scores.items():
                self._sums[name] = self._sums.get(name, 0.0) + value

    def _count_failure(self, error: Exception) -> None:
        with self._lock:
            self._failed += 1
        if self._failed == 1:
            what = str(error) if isinstance(error, EdgefuseError) else f"{type(error).__name__}: {error}"
            logger.warning("a frame cannot be scored, which is said once: %s", what)
