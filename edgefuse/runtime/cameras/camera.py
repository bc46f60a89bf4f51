"""A connected camera: what is known of it, how it is opened, its 8-bit pictures, and its health."""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from edgefuse.errors import InputError, SourceError
from edgefuse.images import Image, as_visible
from edgefuse.pairs import pair_folders
from edgefuse.runtime.frames import NAMES, NOMINAL_FPS, Role
from edgefuse.runtime.sources import kind_of, open_kind
from edgefuse.runtime.sources.base import SILENCE, SilencePolicy, Source, Spec, yes_or_no
from edgefuse.runtime.sources.folder import ImageFolder, pair_by_stem
from edgefuse.runtime.sources.opencv import device_of
from edgefuse.runtime.sources.wrappers import RealTime, inside
from edgefuse.thermal import ThermalAgc
from edgefuse.thermal_config import ThermalConfig

logger = logging.getLogger(__name__)

StillState: TypeAlias = Literal["live", "calibrating", "frozen"]
"""Whether frames are new. `calibrating`: the camera repeats one, as behind its shutter; `frozen`: for longer
than a shutter calibration takes."""

NOTICE_SECONDS = 0.25
"""Repeats for a shorter time are those of a camera that delivers more frames than its sensor makes."""
TRUST_SECONDS = 2.0
"""Only 8-bit infrared that was never still for so long can freeze: a codec repeats a still scene too."""


class StillDetector:
    """Compares each frame of one camera with the one before."""

    def __init__(self) -> None:
        self.state: StillState = "live"
        self._last: NDArray[Any] | None = None
        self._stamp = 0.0
        self._clock = 0.0  # seconds of frames, over which the camera's clock cannot jump
        self._still_since: float | None = None
        self._moving_since = 0.0

    def update(self, image: NDArray[Any], timestamp: float) -> tuple[float, bool]:
        """Take note of the next frame, uint8 or uint16 `[H, W]`, and set `state`.

        Returns:
            (seconds since the frame before, from 0 to 1; whether it is the same picture).
        """
        seconds = min(max(timestamp - self._stamp, 0.0), 1.0)
        self._stamp = timestamp
        self._clock += seconds
        last, self._last = self._last, image
        same = (  # a few rows settle it for almost every frame
            last is not None
            and image.dtype == last.dtype
            and np.array_equal(image[::16], last[::16])
            and np.array_equal(image, last)
        )
        if not same:
            if self.seconds >= NOTICE_SECONDS:
                self._moving_since = self._clock
            self._still_since = None
        elif self._still_since is None:
            self._still_since = self._clock
        self.state = self._state(image.dtype == np.uint8)
        return seconds, same

    @property
    def seconds(self) -> float:
        """How long the picture has stood still."""
        return self._clock - self._still_since if self._still_since is not None else 0.0

    def _state(self, may_be_coded: bool) -> StillState:
        still = self.seconds
        if still < NOTICE_SECONDS or self._still_since is None:
            return "live"
        if may_be_coded and self._still_since - self._moving_since < TRUST_SECONDS:
            return "live"
        return "calibrating" if still <= SILENCE["ir"].shutter else "frozen"


class ThermalPreprocess:
    """Turns the infrared frames of one camera into 8-bit ones, one after the other; see `ThermalAgc`."""

    def __init__(self, config: ThermalConfig | None = None) -> None:
        self.agc = ThermalAgc(config)
        self.still = StillDetector()
        """Whether the frames stand still, as behind a shutter."""

    def __call__(self, image: NDArray[Any], timestamp: float) -> Image:
        """Convert one frame to uint8 `[H, W]`, white = hot; only differences of timestamps count, in seconds.

        Raises:
            InputError: a pixel type or shape that `ThermalAgc` does not take.
        """
        image = self.agc.grey(image)
        seconds, repeated = self.still.update(image, timestamp)
        # Behind the shutter there is nothing to learn about the scene.
        return self.agc(image, seconds, hold=repeated)


Preprocess: TypeAlias = Callable[[NDArray[Any], float], Image]
"""Makes 8-bit pictures of a camera's frames, in its capture thread: (image, timestamp) → uint8."""

THERMAL = ("agc", "polarity", "window")
"""Options of every infrared source, which are those of `ThermalConfig`."""


@dataclass(frozen=True)
class Camera:
    """One camera of a run, or a recording in its place: what is known of it, and how it is opened.

    As a context manager it closes a recording at the end; a camera is closed by the thread that reads it.
    """

    name: str
    """To print, without passwords."""
    open: Callable[[], Source]
    """Called in a thread. Raises `LostError` while the source is not there."""
    reopens: bool = True
    """It is opened by its reader, and again whenever it is lost. False: it is open already, and `open`
    returns it."""
    live: bool = True
    """Frames are lost if nobody reads. What is not live waits."""
    recorded: bool = False
    """It is a recording, if only one that is played at its own rate."""
    fps: float = NOMINAL_FPS
    """Nominal, as far as it is known before the opening."""
    length: int | None = None
    """Frames of a recording, where that is known, if only about."""
    synchronised: bool = False
    """As `Source.synchronised`."""
    steady: bool = True
    """As `Source.steady`."""
    thermal: ThermalConfig = field(default_factory=ThermalConfig)
    """How infrared frames become 8-bit ones."""
    silence: SilencePolicy | None = None
    """When silence is a fault; None: that of its role in `SILENCE`."""

    @classmethod
    def of(cls, source: "Source | Camera") -> "Camera":
        """Return an open source as a camera, which is not opened again; its owner closes it."""
        if isinstance(source, Camera):
            return source
        return cls(
            source.name,
            lambda: source,
            reopens=False,
            live=source.live,
            recorded=not source.live or isinstance(source, RealTime),
            fps=source.fps,
            length=source.length,
            synchronised=source.synchronised,
            steady=source.steady,
        )

    def paced(self) -> "Camera":
        """Return a recording as it is played at its own rate; a camera as it is."""
        if self.live:
            return self
        return replace(self, open=partial(_opened, RealTime(self.open())), live=True)

    def preprocess(self, role: Role) -> Preprocess:
        """Return what makes 8-bit pictures of its frames; a new one for each run."""
        if role == "ir":
            return ThermalPreprocess(self.thermal)
        return lambda image, _: as_visible(image, place=self.name)

    def policy(self, role: Role) -> SilencePolicy:
        """Return when silence of this camera is a fault."""
        return self.silence or SILENCE[role]

    def close(self) -> None:
        """Close what was open from the start. Can be called twice."""
        if not self.reopens:
            self.open().close()

    def __enter__(self) -> "Camera":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def connect(text: str, role: Role, realtime: bool = False) -> Camera:
    """Return what `text` asks for. Recordings are open already; cameras are opened when the run begins.

    Args:
        text: as for `sources.open_source`; for infrared also with the options `agc`, `polarity`, `window`.
        role: which of the two cameras it is to be.
        realtime: play a recording at its own rate, as its option `realtime=1` does.

    Raises:
        SourceError: there is no such thing, an option cannot be used, or a recording cannot be opened.
    """
    spec = Spec.parse(text)
    kind = kind_of(spec)
    thermal = ThermalConfig()
    if role == "ir":
        options, spec = spec.split(THERMAL)
        try:
            thermal = ThermalConfig.from_options(options.options)
        except InputError as error:
            raise SourceError(f"{spec.name}: {error}") from None
    common, spec = spec.split(["realtime"])
    realtime = common.read_options({"realtime": yes_or_no}).get("realtime", realtime)
    if kind.reopens:
        return Camera(spec.name, partial(open_kind, kind, spec, role), thermal=thermal)
    camera = replace(Camera.of(open_kind(kind, spec, role)), thermal=thermal)
    return camera.paced() if realtime else camera


def connect_pair(ir: str, vis: str, realtime: bool = False) -> tuple[Camera, Camera]:
    """Connect both cameras; two folders or patterns of images are paired by the stems of their files.

    Arguments and errors are those of `connect`, and:

    Raises:
        SourceError: both texts ask for the same camera, folder or file.
    """
    check_distinct(Spec.parse(ir), Spec.parse(vis))
    with ExitStack() as opened:
        cameras = [opened.enter_context(connect(ir, "ir", realtime))]
        cameras.append(connect(vis, "vis", realtime))
        opened.pop_all()
    sources = [inside(camera.open()) for camera in cameras if not camera.reopens]
    if len(sources) == 2 and all(isinstance(source, ImageFolder) for source in sources):
        pair_by_stem(*sources)  # type: ignore[arg-type]
        cameras = [
            replace(camera, length=source.length) for camera, source in zip(cameras, sources, strict=True)
        ]
    return cameras[0], cameras[1]


def check_distinct(ir: Spec, vis: Spec) -> None:
    """Refuse one source for both.

    Two parts of one file or camera are two sources: then `crop` tells them apart. So are two halves of a
    folder.
    """
    of_ir, of_vis = (Path(device_of(spec.target)) for spec in (ir, vis))
    same = of_ir == of_vis or (of_ir.exists() and of_vis.exists() and of_ir.samefile(of_vis))
    if same and of_ir.is_dir():
        with suppress(InputError):  # that it holds the same images for both
            pair_folders(of_ir, of_vis)
            return
    if same and ir.target != "sim" and ir.options.get("crop") == vis.options.get("crop"):
        raise SourceError(f"both cameras are {ir.name}: give the infrared and the visible one")


def _opened(source: Source) -> Source:
    return source


LOG_SECONDS = 10.0  # a camera that comes and goes is not logged more often
REASONS = 8  # of one loss that are remembered, so that each is logged once


class State(str, Enum):
    """How a camera is."""

    __str__ = str.__str__  # as StrEnum, which Python 3.10 lacks

    WAITING = "waiting"
    """Has not given a frame yet."""
    LIVE = "live"
    CALIBRATING = "calibrating"
    """Infrared that repeats a picture or sends none, for up to 3 s, as behind its shutter: no fault."""
    LOST = "lost"
    """Has given frames, and gives none now: an error, or nothing for too long."""
    FAILED = "failed"
    """Got stuck again and again, with as many threads as may be. It returns if one of them does."""
    ENDED = "ended"
    """A recording is over, or a source failed that cannot be opened again."""


PRESENT = (State.LIVE, State.CALIBRATING)
AWAY = (State.LOST, State.FAILED)


class Health:
    """The state of one camera, with its history. What goes in may come from several threads.

    Args:
        role: of the camera, for messages.
        name: of the source, for messages.
        fps: its nominal rate, until it is known better.
        policy: how long it may be silent.
    """

    def __init__(self, role: Role, name: str, fps: float, policy: SilencePolicy) -> None:
        self.state = State.WAITING
        self.fps = fps
        self.losses = 0
        """How often it was lost."""
        self.calibrations = 0
        """How often infrared stood still or was silent for a moment, and then went on."""
        self.reconnects = 0
        """How often it was reopened."""
        self.stuck_threads = 0
        """Read threads that got stuck inside a driver or library."""
        self.reason = ""
        """Of the last loss, for people."""
        self.seen = 0.0
        """`time.monotonic()` of the last frame."""
        self._policy, self._name, self._what = policy, name, NAMES[role]
        self._lock = threading.Lock()
        self._lost_at = self._down = 0.0
        self._ended_at: float | None = None
        self._quiet_until = 0.0
        self._logged = False
        self._reasons: deque[str] = deque(maxlen=REASONS)

    @property
    def downtime_s(self) -> float:
        """Seconds without it, from each noticed loss on, the present one included."""
        if self.state not in AWAY:
            return self._down
        return self._down + (self._ended_at or time.monotonic()) - self._lost_at

    @property
    def patience(self) -> float:
        """Seconds without a frame after which the camera is to be done without, as it is now."""
        quiet = self._policy.quiet(self.fps)
        return max(self._policy.shutter, quiet) if self.may_calibrate else quiet

    @property
    def may_calibrate(self) -> bool:
        """Whether no frame may mean that the shutter is closed: the camera has one, and is not lost."""
        return self._policy.shutter > 0 and self.state in PRESENT

    def check(self, now: float, starved: float = 0.0) -> None:
        """Notice silence. For up to `starved` seconds of it, the machine was too busy to listen."""
        quiet = now - self.seen - starved
        if self.state in PRESENT and quiet > self.patience:
            self.mark_lost(f"{self._name}: no frame for {quiet:.1f} s")
        elif self.state is State.LIVE and quiet > self._policy.quiet(self.fps):
            with self._lock:
                self._calibrate("sends no picture")

    def on_frame(self, still: StillState | None) -> None:
        """Take note of a frame that has come."""
        if still == "frozen":
            self.mark_lost(f"{self._name}: its picture has not changed for over {self._policy.shutter:g} s")
            return
        with self._lock:
            before, self.state, self.seen = self.state, State.LIVE, time.monotonic()
            self._reasons.clear()
            if before in AWAY:
                away = self.seen - self._lost_at
                self._down += away
                level = logging.INFO if self._logged else logging.DEBUG
                logger.log(level, "%s is back after %.1f s", self._what, away)
            if still != "calibrating":
                self.calibrations += before is State.CALIBRATING
            elif before is State.CALIBRATING:
                self.state = State.CALIBRATING
            else:
                self._calibrate("repeats a picture")

    def mark_lost(self, reason: str, state: State = State.LOST) -> None:
        """Take note that no frame comes. Each reason is logged once per loss."""
        with self._lock:
            before, self.reason = self.state, reason
            news = reason not in self._reasons
            if news:
                self._reasons.append(reason)
            if before is State.WAITING and state is State.LOST:
                if news:
                    logger.warning("waiting for %s: %s", self._what, reason)
                return
            self.state = state
            self.losses += before in PRESENT
            if before not in AWAY:
                self._lost_at = time.monotonic()
                self._logged = self._lost_at >= self._quiet_until
                if self._logged:
                    self._quiet_until = self._lost_at + LOG_SECONDS
            if state is State.FAILED:
                logger.error("%s failed: %s", self._what, reason)
            elif news and self._logged:
                how = "lost" if before in PRESENT else "still lost"
                logger.warning("%s %s: %s", self._what, how, reason)

    def finish(self) -> None:
        """Count time no further."""
        self._ended_at = self._ended_at or time.monotonic()

    def _calibrate(self, how: str) -> None:
        self.state = State.CALIBRATING
        logger.info("%s %s, probably a shutter calibration", self._name, how)
