"""Pictures for outputs, and what is found in a video."""

import contextlib
from pathlib import Path
from typing import Any

import av
import numpy as np

from edgefuse.images import Image
from edgefuse.runtime.frames import FusedFrame


def shot(index: int = 0, size: tuple[int, int] = (64, 48), grey: bool = False, at: float = 0.0) -> FusedFrame:
    width, height = size
    shape = (height, width) if grey else (height, width, 3)
    ir = np.full((height, width), 200, np.uint8)
    vis, fused = np.full(shape, 20, np.uint8), np.full(shape, 20 * index % 256, np.uint8)
    return FusedFrame(ir, vis, fused, index, at)


def both(frame: FusedFrame) -> tuple[Image, Image]:
    """Return infrared and visible of a frame that has both."""
    assert frame.ir is not None
    assert frame.vis is not None
    return frame.ir, frame.vis


def frames_of(path: Path) -> list[Any]:
    frames: list[Any] = []
    with (
        av.open(str(path)) as file,
        contextlib.suppress(av.error.InvalidDataError),
    ):  # of a file that is cut off
        frames.extend(frame.to_ndarray(format="bgr24") for frame in file.decode(video=0))
    return frames


def noise(index: int, at: float = 0.0) -> FusedFrame:
    image = np.random.default_rng(index).integers(0, 256, (240, 320, 3), np.uint8)
    return FusedFrame(image[:, :, 0], image, image, index, at)
