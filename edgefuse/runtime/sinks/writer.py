"""Running an output beside the others, without its being able to harm them."""

import logging
import queue
import threading
import time
from collections.abc import Callable
from typing import Any

import av
import cv2

from edgefuse.errors import EdgefuseError
from edgefuse.runtime.frames import Frame, FusedFrame
from edgefuse.runtime.sinks.base import FrameRefusedError, QuotaReachedError, Sink
from edgefuse.runtime.timing import StageTimes

logger = logging.getLogger(__name__)

CAPACITY = 8  # frames that an output may lag behind
POLL_SECONDS = 0.1
HURRY_SECONDS = 0.6  # for outputs to complete, when somebody waits
INTERRUPT_SECONDS = 0.4  # for an interrupted sink to return
STALL_SECONDS = 10.0  # for one frame: the reader or disk behind the output is stuck


class Deadline:
    """The moment until which outputs may complete: sooner once somebody waits, even if only from now on."""

    def __init__(self, seconds: float, hurry: Callable[[], bool] = lambda: False) -> None:
        self._at = time.monotonic() + seconds
        self._hurry, self._hurried = hurry, False

    def left(self) -> float:
        """Return the seconds that are left, 0 or more."""
        now = time.monotonic()
        if self._hurry() and not self._hurried:
            self._hurried = True
            self._at = min(self._at, now + HURRY_SECONDS)
        return max(0.0, self._at - now)


class SinkWriter:
    """Feeds one sink, from a separate thread where the sink allows it.

    A sink that fails is closed, its error is logged once and kept, and it gets no more frames. One that
    is stuck loses frames, which are counted; where frames wait for it, it is given up after `STALL_SECONDS`
    for the sake of the others.

    Args:
        sink: an open sink; it is closed by `finish`.
        times: gets `sink` and `output`, unless the sink is not timed.
        wait: asked when the sink is too slow. True: wait for it; False: drop the frame and count it.
        alone: there is no other sink that waits meanwhile, so this one may take as long as it likes.
        capacity: how much may be queued.
        weight: how much of that a frame takes.
    """

    def __init__(
        self,
        sink: Sink,
        times: StageTimes | None,
        wait: Callable[[], bool],
        alone: bool = False,
        *,
        capacity: int = CAPACITY,
        weight: Callable[[Any], int] = lambda _: 1,
    ) -> None:
        self.sink = sink
        self.written = 0
        self.dropped = 0
        self.failed = 0
        """Frames that the sink refused, though it takes others."""
        self.error: str | None = None
        self.full: str | None = None
        """The sentence that says so, when the sink has reached its largest size."""
        self._times = times
        self._wait, self._alone = wait, alone
        self._capacity, self._weight = capacity, weight
        self._queue: queue.SimpleQueue[FusedFrame | Frame | None] = queue.SimpleQueue()
        self._room = threading.Condition()  # guards the counters, too
        self._load = 0
        self._gave_up = False
        self._busy_since: float | None = None
        self._lost = 0  # of the sink's `lost_on_failure`, as far as they are counted
        self._logged_stall = False
        self._refusal = ""
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread."""
        if not self.sink.in_main_thread:
            self._thread = threading.Thread(target=self._run, name=f"sink-{self.sink.name}", daemon=True)
            self._thread.start()

    @property
    def stopped(self) -> bool:
        """Whether it takes no more frames: it failed, is full, or was given up."""
        return self._gave_up or self.full is not None or self.error is not None

    @property
    def idle(self) -> bool:
        """Whether nothing waits to be written."""
        return not self._load

    def put(self, frame: FusedFrame | Frame) -> bool:
        """Hand one frame over; False: it was dropped."""
        if self.sink.in_main_thread and not self.stopped:
            self._write(frame)
            return True
        weight = self._weight(frame)
        with self._room:
            while self._load and self._load + weight > self._capacity and not self.stopped:
                wait = self._wait()
                if not self._room.wait(POLL_SECONDS if wait else 0):
                    self._check_stall(wait)
                if not wait and self._load + weight > self._capacity:
                    break
            if self.stopped or (self._load and self._load + weight > self._capacity):
                self.dropped += 1
                return False
            self._load += weight
        self._queue.put(frame)
        return True

    def _check_stall(self, wait: bool) -> None:
        """Log it if the sink is stuck, and give it up if others wait for it."""
        since = self._busy_since
        if since is None or time.monotonic() - since < STALL_SECONDS:
            return
        if wait and not self._alone:
            self._fail(f"{self.sink.name} has taken nothing for {STALL_SECONDS:g} s: stopped")
            self.sink.interrupt()
        elif not self._logged_stall:
            self._logged_stall = True
            what = "everything waits for it" if wait else "dropping pictures until it continues"
            logger.warning("%s has taken nothing for %g s: %s", self.sink.name, STALL_SECONDS, what)

    def finish(self, deadline: Deadline) -> None:
        """Write what is queued and close the sink; one that takes longer than the deadline is given up."""
        if self._thread is None:
            self._close()
            return
        before = self.dropped
        self._queue.put(None)
        while self._thread.is_alive() and (left := deadline.left()) > 0:
            # After an error nothing is written any more.
            self._thread.join(min(left, POLL_SECONDS))
            if self.error is not None:
                break
        if self._thread.is_alive():
            self._gave_up = True
            self.sink.interrupt()
            self._thread.join(INTERRUPT_SECONDS)
        if self._thread.is_alive():
            self._abandon()
        if (late := self.dropped - before) > 0 and self.error is None:
            logger.warning("%s: %d frames were still to be written, and are lost", self.sink.name, late)

    def _abandon(self) -> None:
        """Count what the thread will not write, and let it end if it ever comes back."""
        with self._room:
            self.dropped += self._busy_since is not None
            while not self._queue.empty():
                self.dropped += self._queue.get() is not None
        self._queue.put(None)
        self._fail(f"{self.sink.name} does not finish: not waiting for it")

    def _run(self) -> None:
        # After a failure the queue is still emptied, so that nobody waits for it.
        while (frame := self._queue.get()) is not None:
            with self._room:
                self._load -= self._weight(frame)
                self._room.notify()
            self._write(frame)
        self._close()

    def _write(self, frame: Any) -> None:
        if self.stopped:
            self._count_dropped()
            return
        try:
            start = self._busy_since = time.monotonic()
            self.sink.write(frame)
            if self.sink.timed and self._times is not None:
                self._times.record("sink", time.monotonic() - start)
                self._times.record("output", time.monotonic() - frame.captured)
            self.written += 1
        except FrameRefusedError as error:
            self.failed += 1
            if str(error) != self._refusal:
                self._refusal = str(error)
                logger.warning("%s: skipping a frame: %s", self.sink.name, error)
        except QuotaReachedError as full:
            self._count_dropped()
            self.full = str(full)
            logger.warning("%s", full)
            self._close()
        except Exception as error:  # whatever one output raises, the others and the stream continue
            self._count_dropped()
            self._fail_with(error)
            self._close()
        finally:
            self._busy_since = None
            self._logged_stall = False

    def _count_dropped(self, count: int = 1) -> None:
        with self._room:  # the thread that puts, and the one that writes
            self.dropped += count

    def _close(self) -> None:
        try:
            self.sink.close()
        except Exception as error:
            self._fail_with(error)
        lost = self.sink.lost_on_failure - self._lost
        self._lost += lost
        self.written -= lost
        self._count_dropped(lost)

    def _fail_with(self, error: Exception) -> None:
        """Stop, and say why; what is no error of a file or library is a bug, whose traceback is logged."""
        name = self.sink.name
        if isinstance(error, EdgefuseError):
            self._fail(str(error))
        elif isinstance(error, OSError) and error.strerror:
            self._fail(f"{name}: {error.strerror}")
        elif isinstance(error, (cv2.error, av.FFmpegError)):
            self._fail(f"{name}: {error}")
        else:
            self._fail(f"{name}: {type(error).__name__}: {error}", error)

    def _fail(self, message: str, bug: Exception | None = None) -> None:
        if self.error is None:
            self.error = message
            logger.error("%s", message, exc_info=bug)
