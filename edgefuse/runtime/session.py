"""One run of the live loop: two cameras → pairs → fused frames, with every stage timed."""

import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING

import cv2

from edgefuse.align import Align, Resize, show_visible_outside
from edgefuse.errors import EdgefuseError, SourceError
from edgefuse.images import Image
from edgefuse.runtime.cameras.camera import Camera
from edgefuse.runtime.cameras.clock import Clock
from edgefuse.runtime.cameras.health import State
from edgefuse.runtime.capture import NAMES, ROLES, Capture
from edgefuse.runtime.config import LiveConfig, Stop
from edgefuse.runtime.fallback import Fallback
from edgefuse.runtime.latest import Latest
from edgefuse.runtime.pairing import Every, Pair, Pairer, other
from edgefuse.runtime.quality import Quality
from edgefuse.runtime.report import Progress
from edgefuse.runtime.sinks.base import FrameStats, FusedFrame
from edgefuse.runtime.sources.base import Frame, Role, Source
from edgefuse.runtime.tally import Tally
from edgefuse.runtime.timing import StageTimes

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Session"]

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.1  # how long a request to stop can go unnoticed
PROGRESS_SECONDS = 0.25
STAND_IN_SECONDS = 0.1  # between two pictures while both cameras are lost
MOST_SLIP = 0.5  # periods by which two recordings that are paired by number may part until the end


class Session:
    """One run, to iterate over: it yields fused frames, and what is shown in their place after a loss.

    Two recordings are fused frame by frame, none left out, as fast as possible: by number if their rates
    are so close that not even their last frames part by half a period, else each frame of the slower one
    with the nearest of the other. With a live source, each frame of the pace-setting camera is fused with
    the nearest of the other, and a recording beside it plays at its own rate.

    Args:
        ir: infrared camera. An open source is closed by the caller, and ends the run when it fails; a
            `Camera` that was connected is opened here, and again whenever it is lost.
        vis: visible camera, likewise.
        fuse: (infrared uint8 `[H', W']`, visible uint8 `[H, W]` or BGR `[H, W, 3]`) → uint8 as visible,
            a new array each time; a `Fuser` does this.
        config: how it goes.
        stop: call it with a reason to end the run.
        progress: called in the iterating thread about four times a second.
        align: brings infrared onto the visible image; None: it is resized.
    """

    def __init__(
        self,
        ir: Source | Camera,
        vis: Source | Camera,
        fuse: Callable[[Image, Image], Image],
        config: LiveConfig | None = None,
        *,
        stop: Stop | None = None,
        progress: Callable[[Progress], None] = lambda _: None,
        align: Align | None = None,
    ) -> None:
        cameras: dict[Role, Camera] = {"ir": Camera.of(ir), "vis": Camera.of(vis)}
        if any(camera.live for camera in cameras.values()):
            cameras = {role: camera.paced() for role, camera in cameras.items()}
        self.config = config or LiveConfig()
        self.fuse, self.stop, self.progress = fuse, stop or Stop(), progress
        self.cameras = cameras
        self.times = StageTimes()
        self.capture = Capture(cameras, self.times)
        self.clocks: dict[Role, Clock] = {role: Clock() for role in ROLES}
        self._opened: dict[Role, int] = dict.fromkeys(ROLES, 0)
        self.by_number = False
        self.pairer = self._pairer()
        self.align = align or Resize()
        self.fallback = Fallback(self.config.on_loss, self.align)
        self.quality = Quality(self.config.quality) if self.config.quality is not None else None
        self.tally = Tally()
        self.error: str | None = None
        self.started = self._shown = time.monotonic()
        self.started_cpu = time.process_time()
        self._shown_frames = 0
        self._last = 0.0
        self._index = 0
        self._told: str | None = None
        self._ended: Role | None = None

    def __enter__(self) -> "Self":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop reading, and count what is left over. Can be called twice."""
        self.capture.close()
        self.pairer.finish()
        if not self.tally.frames and self._told is not None:  # not one could be
            self.error = self.error or self._told
        if self.quality is not None:
            self.quality.stop()

    def waits_for_sinks(self) -> bool:
        """Whether a slow output holds the run up, so that it loses nothing."""
        return not self.capture.live and self.stop.reason is None

    def __iter__(self) -> Iterator[FusedFrame]:
        """Yield pictures until something ends the run; the reason is in `stop` then."""
        self.started = self._shown = time.monotonic()
        self.started_cpu = time.process_time()
        self.capture.start()
        while self.stop.reason is None:
            now = time.monotonic()
            self._look_round(now)
            pair = self.pairer.pop(now)
            if pair is not None:
                frame = self._picture(pair)
            elif not self.pairer.wants:
                self._all_paired()
                continue
            elif self.stop.reason is None and not self._take(now):
                frame = self._stand_in(now)
            else:
                continue
            if frame is not None:
                self._last = now
                self._index += 1
                yield frame

    def _take(self, now: float) -> bool:
        """Move one frame from capture to the pairer; False: none has come for a moment."""
        wants = self.pairer.wants
        taken = self.capture.take(wants, min(POLL_SECONDS, self.pairer.due(now)))
        if taken is not None:
            role, frame = taken
            self.pairer.push(role, frame, self._time_of(role, frame), time.monotonic())
        elif (role_ended := self.capture.exhausted(wants)) is not None:
            self._end_of(role_ended)
        return taken is not None

    def _time_of(self, role: Role, frame: Frame) -> float:
        """Return a frame's time on the clock that frames are paired by."""
        if not self.capture.live:
            return float(frame.index) if self.by_number else frame.timestamp
        if frame.connection != self._opened[role]:
            self._opened[role] = frame.connection
            self.clocks[role].reset()
        return self.clocks[role].observe(frame.timestamp, frame.captured)

    def _picture(self, pair: Pair) -> FusedFrame | None:
        """Fuse a pair, or make what is shown for a frame that is alone."""
        now = time.monotonic()
        if pair.ir is None or pair.vis is None:
            lost: Role = "ir" if pair.ir is None else "vis"
            health = self.capture.supervisors[lost].health
            frame = self.fallback.alone(pair, self._index, pair.time, calibrates=health.may_calibrate)
            self.tally.alone(pair, frame.state)
            age = time.monotonic() - pair.captured
            return replace(frame, stats=FrameStats(age, ages={other(lost): age}))
        ages: dict[Role, float] = {"ir": now - pair.ir.captured, "vis": now - pair.vis.captured}
        self.times.record("pair", now - pair.captured)
        try:
            vis = pair.vis.image
            with self.times.measure("align"):
                aligned = self.align(pair.ir.image, vis.shape[:2])
            with self.times.measure("fuse"):
                fused = show_visible_outside(self.fuse(aligned.image, vis), vis, aligned.valid)
        except (EdgefuseError, cv2.error) as error:
            self._refuse(pair, error)
            return None
        latency = time.monotonic() - pair.captured
        self.times.record("total", latency)
        # By number, frames are paired whatever their times.
        skew = abs(pair.ir.timestamp - pair.vis.timestamp) if self.by_number else pair.skew
        self.tally.fuse(pair, skew, ages)
        timestamp = pair.time if self.capture.live else pair.vis.timestamp
        frame = FusedFrame(
            aligned.image,
            vis,
            fused,
            self._index,
            timestamp,
            captured=pair.captured,
            stats=FrameStats(latency, skew, ages),
            valid=aligned.valid,
        )
        self.fallback.remember(frame)
        if self.quality is not None:
            self.quality.offer(frame)
        return frame

    def _refuse(self, pair: Pair, error: Exception) -> None:
        """A camera may give pictures that cannot be fused, and then others: that is counted, and goes on."""
        if not self.capture.live:
            raise error
        self.tally.refuse(pair)
        if str(error) != self._told:
            self._told = str(error)
            logger.warning("a pair cannot be fused: %s", error)

    def _stand_in(self, now: float) -> FusedFrame | None:
        """Return a picture while both cameras are lost, if one is due."""
        both = isinstance(self.pairer, Latest) and self.pairer.silent(now)
        if not both or self.stop.reason is not None or now - self._last < STAND_IN_SECONDS:
            return None
        frame = self.fallback.nothing(self._index, now)
        self.tally.repeated += frame is not None
        return frame

    def _look_round(self, now: float) -> None:
        """Do what must be done several times a second, whether frames come or not."""
        self.capture.check(now)
        health = {role: supervisor.health for role, supervisor in self.capture.supervisors.items()}
        if isinstance(self.pairer, Latest):
            for role, supervisor in self.capture.supervisors.items():
                self.pairer.silences[role] = supervisor.health.patience
                self.pairer.periods[role] = 1 / supervisor.fps
        if self.config.on_loss == "stop":
            for role, how in health.items():
                if how.state in (State.LOST, State.FAILED) or (how.state is State.WAITING and how.reason):
                    self.error = how.reason
                    self.stop(f"the {NAMES[role]} source was lost")
        if now - self._shown >= PROGRESS_SECONDS:
            rate = (self.tally.frames - self._shown_frames) / (now - self._shown)
            dropped = {role: counts.dropped for role, counts in self.capture.counts.items()}
            states = {role: how.state for role, how in health.items()}
            self.progress(Progress(self.tally.frames, rate, dropped, states))
            self._shown, self._shown_frames = now, self.tally.frames
        if self.config.duration is not None and now >= self.started + self.config.duration:
            self.stop(f"{self.config.duration:g} s are over")

    def _end_of(self, role: Role) -> None:
        """Say why a source has ended; an unexpected error of its thread is raised here."""
        error = self.capture.errors.get(role)
        if error is not None and not isinstance(error, SourceError):
            raise error
        if error is not None:
            self.error = str(error)
            self.stop(f"the {NAMES[role]} source failed")
            return
        if self.capture.live:
            self.stop(f"end of {self.cameras[role].name}")
        else:  # what was read of the other one may still have a partner
            self._ended = self._ended or role
            self.pairer.end(role)

    def _all_paired(self) -> None:
        """Both recordings are as far as they go together."""
        if self._ended is not None:
            self.stop(f"end of {self.cameras[self._ended].name}")
            self._say_longer(self._ended)

    def _say_longer(self, ended: Role) -> None:
        """Log it if the other recording goes on."""
        counts = self.capture.counts
        left = self.capture.has_more(other(ended)) or (
            self.by_number and counts[other(ended)].captured > counts[ended].captured
        )
        short, long = self.cameras[ended], self.cameras[other(ended)]
        if not left:
            return
        extra = ""
        if long.length and short.length and self.by_number:
            extra = f" by {long.length - short.length} frames"
        elif long.length and short.length:
            seconds = long.length / long.fps - short.length / short.fps
            if seconds <= max(1 / long.fps, 1 / short.fps):
                return  # the last frames of equal stretches of time do not coincide
            extra = f" by {seconds:.1f} s"
        logger.warning("%s is longer than %s%s: its rest is not fused", long.name, short.name, extra)

    def _pairer(self) -> Pairer:
        config = self.config
        if self.capture.live:
            return Latest(config.rate or "vis", config.max_skew)
        fps = {role: self.capture.supervisors[role].fps for role in ROLES}
        together = all(camera.synchronised for camera in self.cameras.values())
        steady = self._slip() < MOST_SLIP
        self.by_number = steady and not together and config.rate is None and config.max_skew is None
        if self.by_number:
            return Every("vis", limit=0.0)
        grid = config.rate or ("ir" if fps["ir"] < fps["vis"] else "vis")
        return Every(grid, config.max_skew or 1 / fps[other(grid)])

    def _slip(self) -> float:
        """Return by how many periods frames of the same number part until the shorter recording ends."""
        rates = [self.capture.supervisors[role].fps for role in ROLES]
        if rates[0] == rates[1]:
            return 0.0
        lengths = [camera.length for camera in self.cameras.values()]
        frames = min((length for length in lengths if length is not None), default=math.inf)
        return frames * (max(rates) / min(rates) - 1)
