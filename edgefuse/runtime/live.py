"""The live loop: two sources → pairs → fused frames → outputs, overlapping, with every stage timed."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from edgefuse.errors import InputError, SourceError
from edgefuse.images import Image
from edgefuse.runtime.capture import Capture
from edgefuse.runtime.pairing import InOrder, Newest, Pair, Pairer
from edgefuse.runtime.sinks import FusedFrame, Sink, SinkWriter
from edgefuse.runtime.sources import RealTime, Role, Source
from edgefuse.runtime.timing import StageStats, StageTimes

__all__ = ["Progress", "Report", "SinkReport", "SourceReport", "Stop", "run"]

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.1  # how long a request to stop can go unnoticed
PROGRESS_SECONDS = 0.25
NAMES: dict[Role, str] = {"ir": "infrared", "vis": "visible"}


class Stop:
    """A request to end the loop, from a signal handler, a window or a thread. The first reason stays."""

    def __init__(self) -> None:
        self.reason: str | None = None

    def __call__(self, reason: str) -> None:
        """Ask for the end."""
        self.reason = self.reason or reason


@dataclass(frozen=True)
class SourceReport:
    """What became of the frames of one camera."""

    role: Role
    name: str
    captured: int
    dropped: int
    """Overwritten by a newer frame before anybody could look at it, or lost inside the source."""
    unpaired: int
    """Looked at, and never part of a pair."""


@dataclass(frozen=True)
class SinkReport:
    """What one output has done."""

    name: str
    written: int
    dropped: int
    error: str | None


@dataclass(frozen=True)
class Progress:
    """How it goes, several times a second."""

    frames: int
    fps: float
    """Of the last moments."""
    dropped: dict[Role, int]


@dataclass(frozen=True)
class Report:
    """What a run came to."""

    frames: int
    """Pairs fused."""
    seconds: float
    """From the start of capture until every output was complete."""
    sources: tuple[SourceReport, ...]
    sinks: tuple[SinkReport, ...]
    stages: dict[str, StageStats]
    """By the names of `timing.STAGES`."""
    ended: str
    """Why, for people."""
    error: str | None
    """The first failure of a source or output, one sentence; None: all went well."""

    @property
    def fps(self) -> float:
        """Fused frames per second of the whole run."""
        return self.frames / self.seconds if self.seconds > 0 else 0.0


def run(
    ir: Source,
    vis: Source,
    fuse: Callable[[Image, Image], Image],
    sinks: Sequence[Sink] = (),
    *,
    duration: float | None = None,
    stop: Stop | None = None,
    progress: Callable[[Progress], None] = lambda _: None,
) -> Report:
    """Fuse until a source ends, `duration` is over or `stop` is called.

    Two recordings are fused frame i with frame i, none left out, as fast as possible. With a live
    source, each visible frame is fused with the newest infrared one, and a recording beside it
    plays at its own rate.

    Args:
        ir: open infrared source. The caller closes both sources.
        vis: open visible source.
        fuse: (infrared uint8 `[H', W']`, visible uint8 `[H, W]` or BGR `[H, W, 3]`) → uint8 as visible,
            a new array each time; a `Fuser` does this.
        sinks: open outputs, which are closed here.
        duration: seconds from the first pair on; None: no limit.
        stop: call it with a reason to end the run.
        progress: called in this thread about four times a second.

    Returns:
        The report. A source or output that failed is in it (`error`), and is not raised.

    Raises:
        InputError: `duration` is not over 0, or `fuse` refuses a frame.
    """
    if duration is not None and not duration > 0:
        raise InputError(f"duration is {duration:g} s, it must be over 0")
    if ir.live != vis.live:
        ir, vis = (source if source.live else RealTime(source) for source in (ir, vis))
    loop = _Loop(ir, vis, fuse, duration, stop or Stop(), progress)
    return loop.run(sinks)


class _Loop:
    def __init__(
        self,
        ir: Source,
        vis: Source,
        fuse: Callable[[Image, Image], Image],
        duration: float | None,
        stop: Stop,
        progress: Callable[[Progress], None],
    ) -> None:
        self.sources: dict[Role, Source] = {"ir": ir, "vis": vis}
        self.fuse, self.duration, self.stop, self.progress = fuse, duration, stop, progress
        self.times = StageTimes()
        self.capture = Capture(ir, vis, self.times)
        self.pairer: Pairer = Newest() if self.capture.live else InOrder()
        self.frames = 0
        self.error: str | None = None

    def run(self, sinks: Sequence[Sink]) -> Report:
        start = time.monotonic()
        with ExitStack() as stack:
            writers = []
            for sink in sinks:
                writers.append(SinkWriter(sink, self.times, self._waits_for_sinks))
                stack.callback(writers[-1].finish)
            stack.callback(self.capture.close)
            self.capture.start()
            for pair in self._pairs():
                self._fuse(pair, writers)
        errors = [writer.error for writer in writers if writer.error is not None]
        return Report(
            frames=self.frames,
            seconds=time.monotonic() - start,
            sources=tuple(self._source_report(role) for role in self.sources),
            sinks=tuple(SinkReport(w.sink.name, w.written, w.dropped, w.error) for w in writers),
            stages=self.times.stats(),
            ended=self.stop.reason or "end",
            error=self.error or next(iter(errors), None),
        )

    def _pairs(self) -> Iterator[Pair]:
        """Yield pairs until something ends the run; the reason is in `self.stop` then."""
        deadline, shown, shown_frames = None, time.monotonic(), 0
        while self.stop.reason is None:
            now = time.monotonic()
            if now - shown >= PROGRESS_SECONDS:
                rate = (self.frames - shown_frames) / (now - shown)
                dropped = {role: counts.dropped for role, counts in self.capture.counts.items()}
                self.progress(Progress(self.frames, rate, dropped))
                shown, shown_frames = now, self.frames
            if deadline is not None and now >= deadline:
                self.stop(f"{self.duration:g} s are over")
                return
            taken = self.capture.take(self.pairer.wants, POLL_SECONDS)
            if taken is None:
                if role := self.capture.exhausted(self.pairer.wants):
                    self._end_of(role)
                continue
            if pair := self.pairer.push(*taken):
                if self.duration is not None and deadline is None:
                    deadline = time.monotonic() + self.duration
                yield pair

    def _fuse(self, pair: Pair, writers: list[SinkWriter]) -> None:
        self.times.record("pair", time.monotonic() - pair.captured)
        with self.times.measure("fuse"):
            fused = self.fuse(pair.ir.image, pair.vis.image)
        frame = FusedFrame(pair.ir.image, pair.vis.image, fused, self.frames, pair.vis.timestamp)
        for writer in writers:
            writer.put(frame)
        self.times.record("total", time.monotonic() - pair.captured)
        self.frames += 1
        if writers and all(writer.error is not None for writer in writers):
            self.stop("every output failed")

    def _end_of(self, role: Role) -> None:
        """Say why a source has ended; an unexpected error of its thread is raised here."""
        source = self.sources[role]
        error = self.capture.errors.get(role)
        if error is not None and not isinstance(error, SourceError):
            raise error
        if error is not None:
            self.error = str(error)
            self.stop(f"the {NAMES[role]} source failed")
            return
        self.stop(f"end of {source.name}")
        if not self.capture.live:
            self._say_longer(role)

    def _say_longer(self, ended: Role) -> None:
        """Log it if the other recording goes on."""
        other: Role = "vis" if ended == "ir" else "ir"
        if other in self.pairer.wants and not self.capture.has_more(other):
            return
        short, long = self.sources[ended], self.sources[other]
        extra = f" by {long.length - short.length} frames" if long.length and short.length else ""
        logger.warning("%s is longer than %s%s: its rest is not fused", long.name, short.name, extra)

    def _waits_for_sinks(self) -> bool:
        return not self.capture.live and self.stop.reason is None

    def _source_report(self, role: Role) -> SourceReport:
        counts = self.capture.counts[role]
        return SourceReport(
            role, self.sources[role].name, counts.captured, counts.dropped, self.pairer.unpaired[role]
        )
