"""What an output is, and what feeds it from a thread of its own, so that it cannot harm the others."""

import logging
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Protocol

import av
import cv2

from edgefuse.errors import EdgefuseError, InputError
from edgefuse.runtime.frames import Frame, FusedFrame
from edgefuse.runtime.timing import StageTimes


class QuotaReachedError(EdgefuseError):
    """An output has taken as much as it was asked to."""


class FrameRefusedError(InputError):
    """A frame that an output cannot take; it can take others."""


@dataclass(frozen=True)
class OutputOptions:
    """How frames are to be written, for every kind of output."""

    fps: float | None = None
    """Nominal frames per second; None: nobody knows, as of cameras. Frames have times of their own."""
    triptych: bool = False
    """Write infrared | visible | fused in place of the fused picture alone."""
    codec: str | None = None
    """One of `CODECS`; None: the usual one."""
    segment: float | None = None
    """Seconds of each file; None: one file."""
    max_size: int | None = None
    """Bytes of all files; None: no limit."""


class SinkKind(Protocol):
    """A class of outputs, as it stands in `SINKS`: it says itself what it writes to."""

    texts: str
    """What asks for it, for people: `frames/`."""
    extra: str | None
    """The extra of the package that it needs; None: none."""
    options: frozenset[str]
    """Which of `codec`, `segment` and `max_size` it takes."""

    def accepts(self, out: str) -> bool:
        """Whether this text asks for it."""

    def open(self, out: str, options: OutputOptions) -> "Sink":
        """Open it. Raises `InputError`."""


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

    extra: ClassVar[str | None] = None

    lost_on_failure: int = 0
    """Frames that `write` took, and that a later failure has cost."""

    def write(self, frame: FusedFrame) -> None:
        """Take one frame. Raises `EdgefuseError` or `OSError` when it can take no more."""

    def idle(self) -> None:
        """Called several times a second in the main thread, whether frames come or not."""
        return

    def interrupt(self) -> None:
        """Called in another thread: a `write` that waits for somebody is to return, if it can."""
        return

    def close(self) -> None:
        """Finish what was begun. Raises as `write`. Can be called twice."""
        return

    def __enter__(self) -> "Sink":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Callback(Sink):
    """Calls a function with every frame, in a separate thread; if it raises, it is not called again.

    Args:
        function: must not change the arrays: other outputs have the same.
        name: to print.
    """

    in_main_thread = False

    def __init__(self, function: Callable[[FusedFrame], object], name: str = "callback") -> None:
        self._function, self.name = function, name

    def write(self, frame: FusedFrame) -> None:
        """Call the function."""
        self._function(frame)


class Cropped(Sink):
    """Hands frames on to another output, cut to a rectangle.

    Args:
        sink: the other output.
        rectangle: shape of a visible picture → its rows and columns to keep; the same every time, also while
            a camera is lost, so that a video keeps its size.
    """

    def __init__(self, sink: Sink, rectangle: Callable[[tuple[int, ...]], tuple[slice, slice]]) -> None:
        self._sink, self._rectangle = sink, rectangle
        self._known: dict[tuple[int, ...], tuple[slice, slice]] = {}
        self.name, self.in_main_thread, self.timed = sink.name, sink.in_main_thread, sink.timed

    def write(self, frame: FusedFrame) -> None:
        """Cut a frame and hand it on."""
        shape = frame.fused.shape[:2]
        if shape not in self._known:
            self._known[shape] = self._rectangle(shape)
        part = self._known[shape]
        ir, vis, valid = (None if each is None else each[part] for each in (frame.ir, frame.vis, frame.valid))
        self._sink.write(replace(frame, ir=ir, vis=vis, fused=frame.fused[part], valid=valid))
        self.lost_on_failure = self._sink.lost_on_failure

    def idle(self) -> None:
        """As the other output."""
        self._sink.idle()

    def interrupt(self) -> None:
        """As the other output."""
        self._sink.interrupt()

    def close(self) -> None:
        """Close the other output."""
        try:
            self._sink.close()
        finally:
            self.lost_on_failure = self._sink.lost_on_failure


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
