"""What `edgefuse record` has written of one camera: a folder of numbered videos, read as one."""

import logging
import threading
from pathlib import Path

from edgefuse.errors import SourceError
from edgefuse.runtime.frames import NOMINAL_FPS
from edgefuse.runtime.recording import read_timestamps, recorded_parts
from edgefuse.runtime.sources.base import ROLES, Frame, Role, Source
from edgefuse.runtime.sources.text import Spec, positive_number, seconds, yes_or_no
from edgefuse.runtime.sources.video import VideoFile

__all__ = ["Recording"]

logger = logging.getLogger(__name__)


class Recording(Source):
    """One camera's folder of a recording, all parts as one video, every frame with its time.

    Parts that were removed leave a gap in the times, or let them begin late. A part that a power cut has
    damaged is read as far as it goes.

    Options: those of `VideoFile`.
    """

    texts = "the folder of a recorded camera"
    live = False

    @staticmethod
    def accepts(target: str) -> bool:
        """Whether the target is a folder of parts, or of those of both cameras."""
        return any(recorded_parts(Path(target, inside)) for inside in ("", *ROLES))

    def __init__(self, spec: Spec, role: Role) -> None:
        options = spec.read_options({"fps": positive_number, "start": seconds, "loop": yes_or_no})
        self.name, self._role = spec.name, role
        self._start = options.get("start", 0.0)
        self._loop = options.get("loop", False)
        self._rate: float | None = options.get("fps")
        self.synchronised = self._rate is None
        parts = recorded_parts(Path(spec.target))
        if not parts:
            raise SourceError(f"{self.name} holds the recordings of two cameras: give {spec.target}/{role}")
        self._parts, left = _from(parts, self._start)
        self.length = left if left and not self._loop else None
        self._lock = threading.Lock()
        self._closed = False
        self._opened = 0  # of `_parts`, in this pass
        self._video: VideoFile | None = None
        self.fps = self._rate or NOMINAL_FPS  # until a part is open
        self._shift = 0.0  # to subtract from the times of the present part
        self._index = -1  # of the latest frame
        self._before = 0  # to add to the numbers of the present part
        self._latest = self._offset = 0.0  # time of the latest frame; seconds of earlier passes
        if not self._open_next():
            raise SourceError(f"{self.name} has no part that can be read from {self._start:g} s on")

    def _open_next(self) -> bool:
        """Open the next part that can be read; False: there is none."""
        with self._lock:
            self._close_video()
            while self._opened < len(self._parts) and not self._closed:
                part, begins = self._parts[self._opened]
                self._opened += 1
                # One can go to a place in a part, but not to one before its first frame.
                inside = self._start > max(begins, 0.0)
                options = {"start": repr(self._start)} if inside else {}
                try:
                    self._video = VideoFile(Spec(str(part), str(part), options), self._role)
                except SourceError as error:
                    logger.warning("skipping a part of the recording: %s", error)
                    continue
                self.fps = self._rate or self._video.fps
                self._shift = 0.0 if inside else self._start
                self._before = self._index + 1
                return True
        return False

    def read(self) -> Frame | None:
        """Return the next frame; None at the end of the last part."""
        while (video := self._video) is not None:
            try:
                frame = video.read()
            except SourceError as error:  # nothing at all could be decoded
                logger.warning("skipping a part of the recording: %s", error)
                frame = None
            if frame is None:
                if not self._open_next() and not self._rewound():
                    return None
            elif (placed := self._placed(frame)) is not None:
                return placed
        return None

    def _placed(self, frame: Frame) -> Frame | None:
        """Return a frame of the present part with its number and time in the whole; None: it is too early."""
        position = frame.timestamp - self._shift
        if self._start and position < 0:
            self._before = self._index - frame.index
            return None
        self._index = self._before + frame.index
        self._latest = self._index / self._rate if self._rate else self._offset + position
        return Frame(frame.image, self._index, self._latest, frame.captured)

    def _rewound(self) -> bool:
        """Begin again, if that was asked for."""
        if not self._loop or self._index < 0:
            return False
        self._opened, self._offset = 0, self._latest + 1 / self.fps
        return self._open_next()

    def _close_video(self) -> None:
        if self._video is not None:
            self._video.close()
            self._video = None

    def close(self) -> None:
        """Close the part that is open."""
        self._closed = True
        with self._lock:
            self._close_video()


def _from(parts: list[Path], start: float) -> tuple[list[tuple[Path, float]], int]:
    """Return the parts that have something from `start` on, with their first times, and their frames."""
    kept, left = [], 0
    for part in parts:
        times = list(read_timestamps(part).values())
        if not times or not start or max(times) >= start:
            kept.append((part, times[0] if times else float("inf")))
            left += sum(not start or time >= start for time in times)
    return kept, left
