"""Running an output beside the others, without its being able to harm them."""

import logging
import queue
import threading
import time
from collections.abc import Callable
from contextlib import suppress

import cv2

from edgefuse.errors import EdgefuseError
from edgefuse.runtime.sinks.base import FusedFrame, QuotaReachedError, Sink
from edgefuse.runtime.timing import StageTimes

__all__ = ["SinkWriter"]

logger = logging.getLogger(__name__)

QUEUE = 8  # frames that an output may lag behind
POLL_SECONDS = 0.1
INTERRUPT_SECONDS = 0.4  # for an interrupted sink to return
STALL_SECONDS = 10.0  # for one frame: the reader or disk behind the output hangs


class SinkWriter:
    """Feeds one sink, from a thread of its own where the sink allows it.

    A sink that fails is closed, its error is logged once and kept, and it gets no more frames. One that
    hangs loses frames, which are counted; where frames wait for it, it is given up after `STALL_SECONDS`
    for the sake of the others.

    Args:
        sink: an open sink; it is closed by `finish`.
        times: gets `sink` and `output`.
        wait: asked when the sink is too slow. True: wait for it; False: drop the frame and count it.
        alone: there is no other sink that waits meanwhile, so this one may hang for as long as it likes.
    """

    def __init__(self, sink: Sink, times: StageTimes, wait: Callable[[], bool], alone: bool = False) -> None:
        self.sink = sink
        self.written = 0
        self.dropped = 0
        self.error: str | None = None
        self.stopped = False
        """It takes no more frames: it failed, or is full."""
        self._times = times
        self._wait, self._alone = wait, alone
        self._queue: queue.Queue[FusedFrame | None] = queue.Queue(QUEUE)
        self._lock = threading.Lock()
        self._busy_since: float | None = None
        self._unsaved = 0  # of the sink, as far as it is counted
        self._said_stalled = False
        self._thread: threading.Thread | None = None
        if not sink.in_main_thread:
            self._thread = threading.Thread(target=self._run, name=f"sink-{sink.name}", daemon=True)
            self._thread.start()

    def put(self, frame: FusedFrame) -> None:
        """Hand one frame over."""
        if self._thread is None and not self.stopped:
            self._write(frame)
        elif not self._queued(frame):
            self._drop()

    def _drop(self, count: int = 1) -> None:
        with self._lock:  # the thread that puts, and the one that writes
            self.dropped += count

    def _queued(self, frame: FusedFrame) -> bool:
        while not self.stopped:
            wait = self._wait()
            try:
                self._queue.put(frame, block=wait, timeout=POLL_SECONDS)
            except queue.Full:
                self._look_at_stall(wait)
                if not wait:
                    return False
            else:
                return True
        return False

    def _look_at_stall(self, wait: bool) -> None:
        """Say it if the sink hangs, and give it up if others wait for it."""
        since = self._busy_since
        if since is None or time.monotonic() - since < STALL_SECONDS:
            return
        if wait and not self._alone:
            self._fail(
                f"{self.sink.name} has taken nothing for {STALL_SECONDS:g} s: it gets no more pictures"
            )
            self.sink.interrupt()
        elif not self._said_stalled:
            self._said_stalled = True
            what = "everything waits for it" if wait else "pictures are dropped until it goes on"
            logger.warning("%s has taken nothing for %g s: %s", self.sink.name, STALL_SECONDS, what)

    def finish(self, deadline: float) -> None:
        """Write what is queued and close the sink; one that hangs until `deadline` is left behind."""
        if self._thread is None:
            self._close()
            return
        if self.error is not None:  # nothing is written any more
            deadline = min(deadline, time.monotonic() + POLL_SECONDS)
        if not self._ended(self._thread, deadline):
            self.stopped = True
            self.sink.interrupt()
            if not self._ended(self._thread, time.monotonic() + INTERRUPT_SECONDS):
                self._leave_behind()

    def _ended(self, thread: threading.Thread, deadline: float) -> bool:
        """Ask the thread to end, wait for it, and return whether it has ended."""
        try:
            self._queue.put(None, timeout=max(0.0, deadline - time.monotonic()))
        except queue.Full:
            return False
        thread.join(max(0.0, deadline - time.monotonic()))
        return not thread.is_alive()

    def _leave_behind(self) -> None:
        """Count what the thread will not write, and let it end if it ever comes back."""
        self._drop(self._busy_since is not None)
        with suppress(queue.Empty):
            while True:
                self._drop(self._queue.get_nowait() is not None)
        self._queue.put(None)
        self._fail(f"{self.sink.name} does not finish and is left behind")

    def _run(self) -> None:
        # After a failure the queue is still emptied, so that nobody waits for it.
        while (frame := self._queue.get()) is not None:
            self._write(frame)
        self._close()

    def _write(self, frame: FusedFrame) -> None:
        if self.stopped:
            self._drop()
            return
        try:
            start = self._busy_since = time.monotonic()
            self.sink.write(frame)
            if self.sink.timed:
                self._times.record("sink", time.monotonic() - start)
                self._times.record("output", time.monotonic() - frame.captured)
            self.written += 1
        except QuotaReachedError as full:
            self._drop()
            self.stopped = True
            logger.warning("%s", full)
            self._close()
        except Exception as error:  # whatever one output raises, the others and the stream go on
            self._drop()
            self._fail(_sentence(self.sink.name, error))
            self._close()
        finally:
            self._busy_since = None
            self._said_stalled = False

    def _close(self) -> None:
        try:
            self.sink.close()
        except Exception as error:
            self._fail(_sentence(self.sink.name, error))
        lost = self.sink.lost_on_failure - self._unsaved
        self._unsaved += lost
        self.written -= lost
        self._drop(lost)

    def _fail(self, message: str) -> None:
        self.stopped = True
        if self.error is None:
            self.error = message
            logger.error("%s", message)


def _sentence(name: str, error: Exception) -> str:
    if isinstance(error, EdgefuseError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return f"{name}: {error.strerror}"
    return (
        f"{name}: {type(error).__name__}: {error}" if not isinstance(error, cv2.error) else f"{name}: {error}"
    )
