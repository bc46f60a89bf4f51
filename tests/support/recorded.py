"""Cameras in memory, and what is read back of a recording."""

import time

import numpy as np

from edgefuse.runtime.frames import Frame
from edgefuse.runtime.record import RecordedCamera
from edgefuse.runtime.sources import Source, open_source
from edgefuse.runtime.sources.video import STARTED_TAG

RNG = np.random.default_rng(5)


TAGS = {STARTED_TAG: "2026-01-01T00:00:00.000000+00:00"}


def images(kind: str, count: int = 6, shape: tuple[int, int] = (75, 101)) -> list[np.ndarray]:
    """Random images: nothing is harder to keep."""
    dtype = np.uint16 if kind == "16-bit" else np.uint8
    size = (*shape, 3) if kind == "colour" else shape
    return [RNG.integers(0, np.iinfo(dtype).max + 1, size, dtype) for _ in range(count)]


def frames_of(text: str, role="vis") -> list[Frame]:
    with open_source(text, role) as source:
        return list(iter(source.read, None))


class ListSource(Source):
    """Gives images, live or recorded; then ends, or raises."""

    def __init__(
        self, images: list[np.ndarray], live: bool = False, fps: float = 50.0, error: Exception | None = None
    ) -> None:
        self.name, self.live, self.fps, self.length = "list", live, fps, len(images)
        self.images, self.error, self.next = images, error, 0

    def read(self) -> Frame | None:
        if self.live:
            time.sleep(1 / self.fps)
        if self.next == len(self.images):
            if self.error is not None:
                raise self.error
            return None
        self.next += 1
        now = time.monotonic()
        stamp = now if self.live else (self.next - 1) / self.fps
        return Frame(self.images[self.next - 1], self.next - 1, stamp, now)

    def close(self) -> None:
        pass


def check_account(*cameras: RecordedCamera) -> None:
    for camera in cameras:
        assert camera.captured == camera.written + camera.dropped + camera.failed
