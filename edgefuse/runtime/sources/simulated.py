"""The simulated rig as a pair of cameras."""

import time

from edgefuse.errors import InputError, SourceError
from edgefuse.runtime.frames import Frame, Role
from edgefuse.runtime.sources.base import Source
from edgefuse.runtime.sources.text import Spec

STARTED = time.monotonic()
"""When time began in the simulated street: one moment for all its cameras, so that two of them agree."""


class SimulatedCamera(Source):
    """`sim`: one camera of `edgefuse.sim.Rig`, live at its frame rate.

    Options are those of `RigConfig`, and `frames=N`: then it is a recording of frames 0 to N - 1,
    which come as fast as they are made and are the same every time.
    """

    texts = "sim"
    live = False  # until asked for without an end; it is never lost

    @staticmethod
    def accepts(target: str) -> bool:
        """Whether the target is the word `sim`."""
        return target == "sim"

    def __init__(self, spec: Spec, role: Role) -> None:
        from edgefuse.sim import Rig, RigConfig

        options = dict(spec.options)
        frames = options.pop("frames", None)
        if frames is not None and not (frames.isdecimal() and 0 < int(frames) <= 10**9):
            raise SourceError(f"{spec.name}: option frames: {frames!r} is not a whole number from 1 on")
        try:
            config = RigConfig.from_options(options)
        except InputError as error:
            raise SourceError(f"{spec.name}: {error}") from None
        self.name = spec.name
        self.live = frames is None
        self.length = None if frames is None else int(frames)
        self.fps = config.ir_fps if role == "ir" else config.vis_fps
        self._rig = Rig(config)
        self._role = role
        self._next = 0 if frames else self._frame_now() + 1

    def read(self) -> Frame | None:
        """Wait for the next frame, skipping those that came and went since the last call."""
        if self.length is not None:
            if self._next == self.length:
                return None
            captured, stamp = time.monotonic(), 0.0
        else:
            self._next = max(self._next, self._frame_now())
            captured, stamp = STARTED + self._next / self.fps, STARTED
            time.sleep(max(0.0, captured - time.monotonic()))
        index = self._next
        self._next += 1
        timestamp = stamp + self._rig.timestamp(self._role, index)
        return Frame(self._rig.frame(self._role, index), index, timestamp, captured)

    def _frame_now(self) -> int:
        return int((time.monotonic() - STARTED) * self.fps)
