"""Reading two cameras in a thread each, and handing their frames to one consumer."""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace

import cv2

from edgefuse.errors import InputError
from edgefuse.runtime.cameras.camera import Camera
from edgefuse.runtime.cameras.supervisor import Supervisor
from edgefuse.runtime.cameras.thermal import StillState, ThermalPreprocess
from edgefuse.runtime.frames import NAMES, ROLES, Frame, Role
from edgefuse.runtime.live.report import FrameCounters
from edgefuse.runtime.timing import StageTimes

logger = logging.getLogger(__name__)

QUEUE = 4  # frames of a recording that are read ahead
JOIN_SECONDS = 0.5  # for a camera to finish its read; a stuck one is not waited for


class Capture:
    """Two capture threads and the frames that they have read.

    Args:
        cameras: by role. If either is live, only the newest frame of each is kept and older ones
            are dropped and counted; two recordings are read ahead and wait.
        times: gets `capture_ir` and `capture_vis`.
        counters: get what is read, dropped and failed.
    """

    def __init__(
        self,
        cameras: Mapping[Role, Camera],
        times: StageTimes,
        counters: FrameCounters,
    ) -> None:
        self.live = any(camera.live for camera in cameras.values())
        self.errors: dict[Role, BaseException] = {}
        self._preprocess = {role: camera.preprocess(role) for role, camera in cameras.items()}
        # Pictures that repeat are a matter of a camera, not of what was recorded.
        self._can_freeze = {role: camera.live and not camera.recorded for role, camera in cameras.items()}
        self._times, self._counters = times, counters
        self._changed = threading.Condition()
        self._frames: dict[Role, deque[Frame]] = {role: deque() for role in ROLES}
        self._waited: dict[Role, float] = dict.fromkeys(ROLES, 0.0)
        self._logged: dict[Role, str] = dict.fromkeys(ROLES, "")
        self._ended: set[Role] = set()
        self._closing = False
        self.supervisors = {role: self._supervisor(role, cameras[role]) for role in ROLES}

    def _supervisor(self, role: Role, camera: Camera) -> Supervisor:
        return Supervisor(
            role,
            camera,
            lambda frame, lost: self._arrived(role, frame, lost),
            lambda error: self._on_end(role, error),
        )

    def start(self) -> None:
        """Start reading."""
        for role, supervisor in self.supervisors.items():
            self._waited[role] = time.perf_counter()
            supervisor.start()

    def check(self, now: float, starved_since: Callable[[float], float]) -> None:
        """Let the supervisors notice silence and stuck threads, see `Supervisor.check`."""
        for supervisor in self.supervisors.values():
            supervisor.check(now, starved_since)

    def take(self, roles: tuple[Role, ...], timeout: float) -> tuple[Role, Frame] | None:
        """Wait up to `timeout` seconds for a frame of one of these cameras; the first named comes first.

        None: none came, or one of the cameras has ended and `exhausted` says which.
        """
        deadline = time.monotonic() + timeout
        with self._changed:
            while True:
                if self._exhausted(roles):
                    return None
                for role in roles:
                    if self._frames[role]:
                        frame = self._frames[role].popleft()
                        self._changed.notify_all()
                        return role, frame
                if not self._changed.wait(deadline - time.monotonic()):
                    return None

    def exhausted(self, roles: tuple[Role, ...]) -> Role | None:
        """Return the first of these cameras that has ended and has no frame left, if any."""
        with self._changed:
            return self._exhausted(roles)

    def has_more(self, role: Role) -> bool:
        """Wait until it is known whether this recording has another frame, and return that."""
        with self._changed:
            self._changed.wait_for(lambda: self._frames[role] or role in self._ended)
            return bool(self._frames[role])

    def _exhausted(self, roles: tuple[Role, ...]) -> Role | None:
        return next((r for r in roles if r in self._ended and not self._frames[r]), None)

    def close(self) -> None:
        """Stop reading and wait for the threads; a stuck one is not waited for."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        deadline = time.monotonic() + JOIN_SECONDS
        for supervisor in self.supervisors.values():
            supervisor.stop()
        for supervisor in self.supervisors.values():
            supervisor.join(deadline)
        with self._changed:
            for role in ROLES:
                self._counters.add(role, "dropped", len(self._frames[role]))
                self._frames[role].clear()

    def _arrived(self, role: Role, frame: Frame, lost: int) -> StillState | None:
        """Take a frame from a capture thread; return what it looks like, if it is a camera's."""
        preprocess = self._preprocess[role]
        self._counters.add_captured(role, lost)
        try:
            frame = replace(frame, image=preprocess(frame.image, frame.timestamp))
        except (InputError, cv2.error, ValueError, TypeError) as error:
            self._reject(role, error)
            return None
        still = None
        if self._can_freeze[role] and isinstance(preprocess, ThermalPreprocess):
            still = preprocess.still.state
            if still == "calibrating":
                frame = replace(frame, repeated_s=preprocess.still.seconds)
        if still == "frozen":
            self._counters.add(role, "dropped")
            return still
        self._times.record(f"capture_{role}", time.perf_counter() - self._waited[role])
        self._put(role, frame)
        self._waited[role] = time.perf_counter()
        return still

    def _reject(self, role: Role, error: Exception) -> None:
        """Count a frame that is no picture, and log why if that is new."""
        self._counters.add(role, "failed")
        if str(error) != self._logged[role]:
            self._logged[role] = str(error)
            logger.warning("a frame of the %s camera cannot be used: %s", NAMES[role], error)

    def _put(self, role: Role, frame: Frame) -> None:
        frames = self._frames[role]
        with self._changed:
            if self.live:
                self._counters.add(role, "dropped", len(frames))
                frames.clear()
            else:
                self._changed.wait_for(lambda: len(frames) < QUEUE or self._closing)
            if self._closing:
                self._counters.add(role, "dropped")
                return
            frames.append(frame)
            self._changed.notify_all()

    def _on_end(self, role: Role, error: BaseException | None) -> None:
        with self._changed:
            if error is not None:
                self.errors[role] = error
            self._ended.add(role)
            self._changed.notify_all()
