"""One run of the live loop: two cameras → pairs → aligned → fused frames → outputs, every stage timed."""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import cv2

from edgefuse.align import Align, Resize, align_within, show_visible_outside
from edgefuse.errors import EdgefuseError, SourceError, counted
from edgefuse.images import Image, measure_levels
from edgefuse.runtime.cameras.camera import Camera, State
from edgefuse.runtime.cameras.clock import Clock, ClockReport
from edgefuse.runtime.compose import Contrast, with_label
from edgefuse.runtime.config import LiveConfig, StopRequest
from edgefuse.runtime.frames import NAMES, ROLES, Frame, FrameStats, FusedFrame, Role
from edgefuse.runtime.live.background import BackgroundWorker, DriftReport, Quality
from edgefuse.runtime.live.capture import Capture
from edgefuse.runtime.live.fallback import Fallback
from edgefuse.runtime.live.pairing import LiveSynchronizer, Pair, choose_synchronizer, other
from edgefuse.runtime.live.report import FrameCounters, FrameCounts, Report, SinkReport, SourceReport
from edgefuse.runtime.sinks.base import Deadline, Sink, SinkWriter
from edgefuse.runtime.sources.base import Source
from edgefuse.runtime.timing import STAGES, Durations, StageTimes, WakeDelay

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.1  # how long a request to stop can go unnoticed
PROGRESS_SECONDS = 0.25
PLACEHOLDER_SECONDS = 0.1  # between two pictures while both cameras are lost
FINISH_SECONDS = 10.0  # for outputs to complete
BUSY_SECONDS, LOG_SECONDS = 0.4, 10.0  # that threads wait for a core; logged no more often
BACKGROUND_SECONDS = 1.0  # for background work on the last frame


class Session:
    """One run, to iterate over: it yields fused frames, and what is shown in their place after a loss.

    Two recordings are fused as fast as possible, by their times: each frame of the slower one, or of the
    visible one if their rates are not steady, with the nearest of the other. With a live source, each frame
    of the reference camera is fused with the nearest of the other, and a recording beside it plays at its
    own rate.

    One thread iterates. `snapshot`, `stop` and `close` may be called from any thread. The iterating thread
    pairs, aligns and fuses; each camera, each output (windows aside) and each background worker has a
    thread, which starts with `start` and ends with `close`.

    Args:
        ir: infrared camera. An open source is closed by the caller, and ends the run when it fails; a
            `Camera` that was connected is opened here, and again whenever it is lost.
        vis: visible camera, likewise.
        fuse: (infrared uint8 `[H, W]`, visible uint8 `[H, W]` or BGR `[H, W, 3]`) → uint8 as visible,
            a new array each time; a `Fuser` does this. If its `spec.levels` is true, it gets `levels=` too:
            how bright both pictures are where infrared covers the visible one.
        config: how it goes.
        sinks: outputs, which are closed here.
        stop: call it with a reason to end the run.
        progress: called in the iterating thread about four times a second.
        align: brings infrared onto the visible image; None: it is resized.
        background: get fused frames to work on, as far as there is time; started and closed here. What
            one of them knows of the alignment is in the report.
    """

    def __init__(
        self,
        ir: Source | Camera,
        vis: Source | Camera,
        fuse: Callable[..., Image],
        config: LiveConfig | None = None,
        *,
        sinks: Sequence[Sink] = (),
        stop: StopRequest | None = None,
        progress: Callable[[Report], None] | None = None,
        align: Align | None = None,
        background: Sequence[BackgroundWorker[FusedFrame]] = (),
    ) -> None:
        cameras: dict[Role, Camera] = {"ir": Camera.of(ir), "vis": Camera.of(vis)}
        if any(camera.live for camera in cameras.values()):
            cameras = {role: camera.paced() for role, camera in cameras.items()}
        self.cameras = cameras
        self.config = config or LiveConfig()
        self.stop = stop or StopRequest()
        self.times, self.counters = StageTimes(), FrameCounters()
        self._wake_delay = WakeDelay()
        self.capture = Capture(cameras, self.times, self.counters)
        self.clocks: dict[Role, Clock] = {role: Clock() for role in ROLES}
        self._synchronizer = choose_synchronizer(
            cameras,
            self.config.rate,
            self.config.max_skew,
            lambda role: self.counters.add(role, "unpaired"),
            self.config.max_age,
        )
        self.align: Align = align or Resize(self.config.aspect)
        """May be replaced at any time, from any thread: the next pair is aligned by the new one."""
        self._fuse = fuse
        self._fallback = Fallback(self.config.on_loss, lambda ir, shape: self.align(ir, shape))
        self._takes_levels = getattr(getattr(fuse, "spec", None), "levels", False)
        self._contrast = Contrast() if self.config.contrast == "auto" else None
        self._quality = Quality(self.config.quality) if self.config.quality is not None else None
        self._workers = [*([self._quality] if self._quality else []), *background]
        alone = len(sinks) == 1
        self._writers = [SinkWriter(sink, self.times, self._waits_for_sinks, alone) for sink in sinks]
        self._progress = progress
        self._connections: dict[Role, int] = dict.fromkeys(ROLES, 0)
        self._error: str | None = None
        self._rejected: str | None = None
        self._ended: Role | None = None
        self._index = 0
        self._begun: tuple[float, float] | None = None  # monotonic and processor time
        self._finished: tuple[float, float] | None = None
        self._log_busy_at = 0.0
        self._last_shown = self._last_progress = 0.0
        self._close_lock = threading.Lock()
        self._closed = False

    def __enter__(self) -> "Session":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def live(self) -> bool:
        """Whether a camera is among the two, whose frames are lost if nobody takes them."""
        return self.capture.live

    def start(self) -> None:
        """Start reading, and the threads of outputs and background work. Iterating does it."""
        self._begun = time.monotonic(), time.process_time()
        self._last_progress = self._begun[0]
        for writer in self._writers:
            writer.start()
        for worker in self._workers:
            worker.start()
        if self.live:
            self._wake_delay.start()
        self.capture.start()

    def close(self) -> None:
        """End all threads, complete the outputs and count what is left over. Can be called twice."""
        with self._close_lock:
            if self._closed:
                return
            self._closed = True
        self.capture.close()
        self._wake_delay.close()
        self._synchronizer.finish()
        for worker in self._workers:
            worker.close()
        deadline = Deadline(FINISH_SECONDS, lambda: self.stop.immediate)
        for writer in self._writers:
            writer.finish(deadline)
        for worker in self._workers:
            worker.close(0.0 if self.stop.immediate else BACKGROUND_SECONDS)
        if self._rejected is not None and not self.counters.snapshot()[1]["fused"]:  # not one could be
            self._error = self._error or self._rejected
        self._finished = time.monotonic(), time.process_time()

    def snapshot(self) -> Report:
        """Return what the run has come to so far, from any thread, before, during or after it.

        The counters are of one moment, so that for each camera captured = fused + unpaired + dropped +
        failed + in_flight. The stream is held up for some ten microseconds at most.
        """
        frames, pictures = self.counters.snapshot()
        now, cpu = self._finished or (time.monotonic(), time.process_time())
        begun, begun_cpu = self._begun or (now, cpu)
        times = self.times.stats()
        done = (worker.snapshot() for worker in self._workers)
        errors = (self._error, *(writer.error for writer in self._writers))
        return Report(
            live=self.live,
            frames=pictures["fused"] + pictures["infrared held"],
            held=pictures["infrared held"],
            shown_alone=pictures["visible only"] + pictures["infrared only"],
            repeated=pictures["held"] + pictures["black"],
            seconds=now - begun,
            cpu_seconds=cpu - begun_cpu,
            starved_s=self._wake_delay.total,
            sources=(self._source_report("ir", frames["ir"]), self._source_report("vis", frames["vis"])),
            sinks=tuple(SinkReport(w.sink.name, w.written, w.dropped, w.error) for w in self._writers),
            stages={name: times[name] for name in STAGES if name in times},
            skew=times.get("skew", Durations()),
            ages={role: times.get(f"age_{role}", Durations()) for role in ROLES},
            clock=self._clock_report() if self.live and pictures["fused"] else None,
            quality=self._quality.snapshot() if self._quality else None,
            ended=self.stop.reason or ("end" if self._finished else None),
            error=next((error for error in errors if error is not None), None),
            alignment=next((result for result in done if isinstance(result, DriftReport)), None),
        )

    def _source_report(self, role: Role, counts: FrameCounts) -> SourceReport:
        supervisor = self.capture.supervisors[role]
        health, skipped = supervisor.health, supervisor.skipped
        counts = replace(counts, captured=counts.captured + skipped, failed=counts.failed + skipped)
        return SourceReport(
            **vars(counts),
            role=role,
            name=self.cameras[role].name,
            state=health.state,
            losses=health.losses,
            calibrations=health.calibrations,
            reconnects=health.reconnects,
            stuck_threads=health.stuck_threads,
            downtime_s=health.downtime_s,
            unreadable=supervisor.unreadable,
        )

    def _clock_report(self) -> ClockReport:
        ir, vis = self.clocks["ir"], self.clocks["vis"]
        return ClockReport(vis.offset - ir.offset, ir.drift - vis.drift, ir.jumps + vis.jumps)

    def __iter__(self) -> Iterator[FusedFrame]:
        """Yield pictures until something ends the run; the reason is in `stop` then."""
        self.start()
        while self.stop.reason is None:
            now = time.monotonic()
            self._housekeep(now)
            pair = self._synchronizer.pop(now)
            if pair is not None:
                frame = self._picture(pair)
            elif not self._synchronizer.wants:
                self._end_recordings()
                continue
            elif self.stop.reason is None and not self._take(now):
                frame = self._placeholder(now)
            else:
                continue
            if frame is not None:
                self._last_shown = now
                self._index += 1
                self._write(frame)
                yield frame

    def _waits_for_sinks(self) -> bool:
        """Whether a slow output holds the run up, so that it loses nothing."""
        return not self.live and self.stop.reason is None

    def _write(self, frame: FusedFrame) -> None:
        for writer in self._writers:
            writer.put(frame)
        if self._writers and all(writer.stopped for writer in self._writers):
            failed = any(writer.error for writer in self._writers)
            self.stop("every output failed" if failed else "every output is full")

    def _take(self, now: float) -> bool:
        """Move one frame from capture to the synchronizer; False: none has come for a moment."""
        wants = self._synchronizer.wants
        taken = self.capture.take(wants, min(POLL_SECONDS, self._synchronizer.due(now)))
        if taken is not None:
            role, frame = taken
            self._synchronizer.push(role, frame, self._time_of(role, frame), time.monotonic())
        elif (ended := self.capture.exhausted(wants)) is not None:
            self._end_camera(ended)
        return taken is not None

    def _time_of(self, role: Role, frame: Frame) -> float:
        """Return a frame's time on the clock that frames are paired by."""
        if not self.live:
            return frame.timestamp
        if frame.connection != self._connections[role]:
            self._connections[role] = frame.connection
            self.clocks[role].reset()
        return self.clocks[role].observe(frame.timestamp, frame.captured)

    def _picture(self, pair: Pair) -> FusedFrame | None:
        """Fuse a pair, or make what is shown for a frame that is alone."""
        try:
            if pair.ir is None or pair.vis is None:
                frame = self._picture_alone(pair, "ir" if pair.ir is None else "vis")
            else:
                frame = self._picture_fused(pair.ir, pair.vis, pair)
        except (EdgefuseError, cv2.error) as error:
            self._reject(pair, error)
            return None
        self.counters.add_picture(frame.state, pair.fresh)
        if not self.live:
            return frame
        return replace(frame, wall_time=frame.timestamp + time.time() - time.monotonic())

    def _picture_fused(self, ir: Frame, vis: Frame, pair: Pair) -> FusedFrame:
        now = time.monotonic()
        timestamp = pair.time
        ages: dict[Role, float] = {"ir": now - ir.captured + ir.repeated_s, "vis": now - vis.captured}
        self.times.record("pair", now - pair.captured)
        with self.times.measure("align"):
            aligned = align_within(self.align, ir.image, ir.valid, vis.image.shape[:2])
        with self.times.measure("fuse"):
            if self._takes_levels:
                levels = measure_levels(aligned.image, vis.image, aligned.valid)
                fused = self._fuse(aligned.image, vis.image, levels=levels)
            else:
                fused = self._fuse(aligned.image, vis.image)
            if self._contrast is not None:
                fused = self._contrast(fused)
            fused = show_visible_outside(fused, vis.image, aligned.valid)
        held = pair.held or ir.repeated_s > 0
        if held:
            fused = with_label(fused, f"infrared {ages['ir']:.1f} s old")
        else:
            self._fallback.remember(fused)
        latency = time.monotonic() - pair.captured
        self.times.record("total", latency)
        self.times.record("skew", pair.skew)
        for role, age in ages.items():
            self.times.record(f"age_{role}", age)
        frame = FusedFrame(
            aligned.image,
            vis.image,
            fused,
            self._index,
            timestamp,
            "infrared held" if held else "fused",
            captured=pair.captured,
            stats=FrameStats(latency, pair.skew, ages),
            valid=aligned.valid,
        )
        if not held:
            for worker in self._workers:
                worker.offer(frame)
        return frame

    def _picture_alone(self, pair: Pair, lost: Role) -> FusedFrame:
        health = self.capture.supervisors[lost].health
        how = "silent" if health.state in (State.LIVE, State.CALIBRATING) else "lost"
        frame = self._fallback.alone(pair, self._index, f"{NAMES[lost]} {how}")
        age = time.monotonic() - pair.captured
        return replace(frame, stats=FrameStats(age, ages={other(lost): age}))

    def _reject(self, pair: Pair, error: Exception) -> None:
        """Count a pair that cannot be fused: a camera may send a few of those. In recordings it is fatal."""
        for role in pair.fresh:
            self.counters.add(role, "failed")
        if not self.live:
            raise error
        if str(error) != self._rejected:
            self._rejected = str(error)
            logger.warning("a pair cannot be fused: %s", error)

    def _placeholder(self, now: float) -> FusedFrame | None:
        """Return a picture while both cameras are lost, if one is due."""
        both = isinstance(self._synchronizer, LiveSynchronizer) and self._synchronizer.silent(now)
        if not both or self.stop.reason is not None or now - self._last_shown < PLACEHOLDER_SECONDS:
            return None
        frame = self._fallback.nothing(self._index, now)
        if frame is not None:
            self.counters.add_picture(frame.state)
        return frame

    def _housekeep(self, now: float) -> None:
        """Do what must be done several times a second, whether frames come or not."""
        self.capture.check(now, self._wake_delay.since)
        if now >= self._log_busy_at and (starved := self._wake_delay.since(now - 1)) > BUSY_SECONDS:
            self._log_busy_at = now + LOG_SECONDS
            logger.warning("this machine is too busy: threads waited %.1f s for a core", starved)
        supervisors = self.capture.supervisors
        if isinstance(self._synchronizer, LiveSynchronizer):
            for role, supervisor in supervisors.items():
                self._synchronizer.silences[role] = supervisor.health.patience
                self._synchronizer.periods[role] = 1 / supervisor.fps
        if self.config.on_loss == "stop":
            for role, supervisor in supervisors.items():
                health = supervisor.health
                never_came = health.state is State.WAITING and bool(health.reason)
                if health.state in (State.LOST, State.FAILED) or never_came:
                    self._error = health.reason
                    self.stop(f"the {NAMES[role]} source was lost")
        if now - self._last_progress >= PROGRESS_SECONDS:
            self._last_progress = now
            for writer in self._writers:
                writer.sink.idle()
            if self._progress is not None:
                self._progress(self.snapshot())
        if self.config.duration is not None and self._begun and now >= self._begun[0] + self.config.duration:
            self.stop(f"the duration of {self.config.duration:g} s is over")

    def _end_camera(self, role: Role) -> None:
        """Take note that a source has ended; an unexpected error of its thread is raised here."""
        error = self.capture.errors.get(role)
        if error is not None and not isinstance(error, SourceError):
            raise error
        if error is not None:
            self._error = str(error)
            self.stop(f"the {NAMES[role]} source failed")
        elif self.live:
            self.stop(f"end of {self.cameras[role].name}")
        else:  # what was read of the other one may still have a partner
            self._ended = self._ended or role
            self._synchronizer.end(role)

    def _end_recordings(self) -> None:
        """Both recordings are as far as they go together."""
        if self._ended is not None:
            self.stop(f"end of {self.cameras[self._ended].name}")
            self._log_longer(self._ended)

    def _log_longer(self, ended: Role) -> None:
        """Log it if the other recording has more frames."""
        sources = self.snapshot().sources
        captured = {source.role: source.captured for source in sources}
        short, long = self.cameras[ended], self.cameras[other(ended)]
        steady = short.steady and long.steady
        one_rate = steady and short.fps == long.fps
        left = self.capture.has_more(other(ended)) or (one_rate and captured[other(ended)] > captured[ended])
        if not left:
            return
        extra = ""
        if steady and long.length and short.length:
            frames, seconds = long.length - short.length, long.length / long.fps - short.length / short.fps
            if not one_rate and seconds <= max(1 / long.fps, 1 / short.fps):
                return  # the last frames of equal stretches of time do not coincide
            if frames > 0 or not one_rate:  # lengths are estimates in some formats
                extra = f" by {counted(frames, 'frame') if one_rate else f'{seconds:.1f} s'}"
        logger.warning("%s is longer than %s%s: remaining frames are ignored", long.name, short.name, extra)
