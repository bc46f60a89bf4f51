"""Work on some of the fused frames in the background, never at the stream's expense."""

import atexit
import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

from edgefuse.align import overlap
from edgefuse.errors import EdgefuseError, InputError, counted
from edgefuse.metrics import CORE_METRICS, score
from edgefuse.metrics.scorer import named_metrics
from edgefuse.runtime.frames import FusedFrame

logger = logging.getLogger(__name__)

T = TypeVar("T")

PROTOCOL = "field"
BUDGET = 0.1
"""Share of one core that a worker may take."""
LEAVE_SECONDS = 5.0
"""For which the program waits at its end for the item in work: a thread that is ended inside OpenCV aborts
the process."""


class BackgroundWorker(Generic[T]):
    """Calls a function with every k-th item, in a thread of low priority.

    Args:
        name: of the work, for the thread and for messages.
        work: gets the item. What it raises is counted, and logged once.
        every: k, from 1 on.
        budget: share of one core, over 0 and up to 1: after each item the thread rests until the CPU time
            that it took is no more than this share. Time that it only waits for a core does not count.

    Raises:
        InputError: a value out of range.
    """

    def __init__(
        self, name: str, work: Callable[[T], object], every: int = 1, budget: float = BUDGET
    ) -> None:
        if every < 1:
            raise InputError(f"{name} is {every}, one in how many frames is taken: at least 1")
        if not 0 < budget <= 1:
            raise InputError(f"the budget of {name} is {budget:g}, it must be over 0 and up to 1 (a core)")
        self.name = name
        self.done = 0
        """Items that were worked on."""
        self.skipped = 0
        """Their turn had come, but the one before was not finished, or the budget was used up."""
        self.failed = 0
        """The function raised."""
        self._work, self._every, self._budget = work, every, budget
        self._seen = 0
        self._free_at = 0.0
        self._idle = True
        self._items: queue.SimpleQueue[T | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread."""
        self._thread = threading.Thread(target=self._run, name=self.name, daemon=True)
        self._thread.start()
        atexit.register(self.close, LEAVE_SECONDS)

    def offer(self, item: T) -> None:
        """Take an item if its turn has come and there is time. Returns at once."""
        self._seen += 1
        if (self._seen - 1) % self._every:
            return
        if not self._idle or time.monotonic() < self._free_at:
            self.skipped += 1
            return
        self._idle = False
        self._items.put(item)

    def close(self, seconds: float = 0.0) -> None:
        """End the thread after the item in work, and wait for that up to `seconds`."""
        self._items.put(None)
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(seconds)
            if not self._thread.is_alive():
                atexit.unregister(self.close)

    def snapshot(self) -> object:
        """Return what it has come to so far, from any thread; None: it has nothing to say."""
        return None

    def _run(self) -> None:
        if hasattr(os, "PRIO_PROCESS"):  # on Linux, of this thread alone
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)
        while (item := self._items.get()) is not None:
            start, used = time.monotonic(), time.thread_time()
            try:
                self._work(item)
                self.done += 1
            except Exception as error:  # whatever it raises, stream and worker continue
                self.failed += 1
                if self.failed == 1:
                    own = isinstance(error, EdgefuseError)
                    what = error if own else repr(error)
                    logger.warning(
                        "%s failed (reported once): %s", self.name, what, exc_info=None if own else error
                    )
            self._free_at = start + (time.thread_time() - used) / self._budget
            self._idle = True


@dataclass(frozen=True)
class QualityReport:
    """Mean metrics of the frames that were scored."""

    scored: int
    skipped: int
    """See `BackgroundWorker`."""
    means: dict[str, float]
    """Mean by the names of the metrics."""
    failed: int = 0
    """Those that could not be scored."""
    protocol: str = PROTOCOL
    """The protocol they were computed under."""


@dataclass(frozen=True)
class DriftReport:
    """How far the alignment of a rig file is off."""

    known: bool
    """Enough frames were measured; before, the numbers below are 0."""
    off_px: float
    """Median of the last measurements, in visible pixels, as root mean square over the picture."""
    direction: str
    """How infrared lies: `right`, `left`, `up`, `down`, `too large`, `too small`, `turned right`,
    `turned left`, or several of them; empty if it is not known."""
    agreement_change: float
    """Agreement of edges now against that at the beginning: -0.12 is 12 % less."""
    measured: int
    """Frames that said something about it."""
    unclear: int
    """Frames whose edges agree no better than chance."""
    moved: int = 0
    """How often the map was moved to follow."""

    def sentence(self) -> str:
        """Return it in words: `alignment off by 3.1 px right, agreement down 12 %`."""
        if not self.known:
            measured = counted(self.measured, "frame")
            return f"alignment not known yet: {measured} measured, {self.unclear} unclear"
        change = f"{'down' if self.agreement_change < 0 else 'up'} {abs(self.agreement_change):.0%}"
        where = f" {self.direction}" if self.direction else ""
        return f"alignment off by {self.off_px:.1f} px{where}, agreement {change}"


class Quality(BackgroundWorker[FusedFrame]):
    """Scores every k-th fused frame, as far as infrared covers it.

    Args:
        every: k, from 1 on.
        budget: see `BackgroundWorker`.
        metrics: names in `edgefuse.metrics.METRICS`.

    Raises:
        InputError: a value out of range, or an unknown metric.
    """

    def __init__(self, every: int, budget: float = BUDGET, metrics: Iterable[str] = CORE_METRICS) -> None:
        super().__init__("quality", self._score, every, budget)
        self._metrics = named_metrics(metrics)
        self._lock = threading.Lock()  # of what has been scored, which another thread may ask for meanwhile
        self._scored = 0
        self._sums: dict[str, float] = {}

    def snapshot(self) -> QualityReport:
        """Return the means so far."""
        with self._lock:
            scored = self._scored
            means = {name: total / scored for name, total in self._sums.items()}
        return QualityReport(scored, self.skipped, means, self.failed)

    def _score(self, frame: FusedFrame) -> None:
        assert frame.ir is not None and frame.vis is not None  # noqa: PT018
        area = overlap(frame.valid)
        scores = score(frame.fused[area], frame.ir[area], frame.vis[area], PROTOCOL, self._metrics)
        with self._lock:
            self._scored += 1
            for name, value in scores.items():
                self._sums[name] = self._sums.get(name, 0.0) + value
