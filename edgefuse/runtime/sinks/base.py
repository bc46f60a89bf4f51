"""What an output is, and how one runs beside the others without being able to harm them."""

import logging
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

import cv2

from edgefuse.errors import EdgefuseError
from edgefuse.images import Image
from edgefuse.runtime.timing import StageTimes

__all__ = ["FusedFrame", "Sink", "SinkWriter"]

logger = logging.getLogger(__name__)

QUEUE = 8  # frames that an output may lag behind
CLOSE_SECONDS = 10.0
POLL_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class FusedFrame:
    """One result with what it was made of."""

    ir: Image
    """uint8 `[H', W']`."""
    vis: Image
    """uint8 `[H, W]` or `[H, W, 3]` BGR."""
    fused: Image
    """uint8, of the shape of `vis`."""
    index: int
    """Number of the fused frame, from 0."""
    timestamp: float
    """Seconds, of the visible frame, on its source's clock."""


class Sink(Protocol):
    """Something that takes fused frames: a file, a folder, a window.

    The constructor checks and opens what it can; if it raises, nothing stays behind.
    """

    name: str
    """To print."""
    in_main_thread: bool
    """True for windows, which toolkits allow in the main thread only."""
    timed: bool = True
    """False: `write` only keeps the frame, which says nothing about how long outputs take."""

    def write(self, frame: FusedFrame) -> None:
        """Take one frame. Raises `EdgefuseError` or `OSError` when it can take no more."""

    def close(self) -> None:
        """Finish what was begun. Raises as `write`. Can be called twice."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class SinkWriter:
    """Feeds one sink, from a thread of its own where the sink allows it.

    A sink that fails is closed, its error is logged once and kept, and it gets no more frames.

    Args:
        sink: an open sink; it is closed by `finish`.
        times: gets `sink`.
        wait: asked when the sink is too slow. True: wait for it; False: drop the frame and count it.
    """

    def __init__(self, sink: Sink, times: StageTimes, wait: Callable[[], bool]) -> None:
        self.sink = sink
        self.written = 0
        self.dropped = 0
        self.error: str | None = None
        self._times = times
        self._wait = wait
        self._queue: queue.Queue[FusedFrame | None] = queue.Queue(QUEUE)
        self._thread: threading.Thread | None = None
        if not sink.in_main_thread:
            self._thread = threading.Thread(target=self._run, name=f"sink-{sink.name}", daemon=True)
            self._thread.start()

    def put(self, frame: FusedFrame) -> None:
        """Hand one frame over."""
        if self.error is not None:
            self.dropped += 1
        elif self._thread is None:
            self._write(frame)
        else:
            while not self._queued(frame):
                if not self._wait():
                    self.dropped += 1
                    return

    def _queued(self, frame: FusedFrame) -> bool:
        try:
            self._queue.put(frame, block=self._wait(), timeout=POLL_SECONDS)
        except queue.Full:
            return False
        return True

    def finish(self) -> None:
        """Write what is queued and close the sink; one that hangs is left behind after 10 s."""
        if self._thread is None:
            self._close()
            return
        try:
            self._queue.put(None, timeout=CLOSE_SECONDS)
            self._thread.join(CLOSE_SECONDS)
        except queue.Full:
            pass
        if self._thread.is_alive():
            self._fail(f"{self.sink.name} does not finish and is left behind")

    def _run(self) -> None:
        # After a failure the queue is still emptied, so that nobody waits for it.
        while (frame := self._queue.get()) is not None:
            self._write(frame)
        self._close()

    def _write(self, frame: FusedFrame) -> None:
        if self.error is not None:
            self.dropped += 1
            return
        try:
            start = time.perf_counter()
            self.sink.write(frame)
            if self.sink.timed:
                self._times.record("sink", time.perf_counter() - start)
            self.written += 1
        except (EdgefuseError, OSError, cv2.error) as error:
            self.dropped += 1
            self._fail(f"{self.sink.name}: {error}" if not isinstance(error, EdgefuseError) else str(error))
            self._close()

    def _close(self) -> None:
        try:
            self.sink.close()
        except (EdgefuseError, OSError, cv2.error) as error:
            self._fail(str(error))

    def _fail(self, message: str) -> None:
        if self.error is None:
            self.error = message
            logger.error("%s", message)
