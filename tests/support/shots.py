"""Pictures for outputs, and what is found in a video."""

from pathlib import Path
from typing import Any

import cv2
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
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    frames: list[Any] = []
    while True:
        ok, image = capture.read()
        if not ok:
            return frames
        frames.append(image)


def noise(index: int, at: float = 0.0) -> FusedFrame:
    image = np.random.default_rng(index).integers(0, 256, (240, 320, 3), np.uint8)
    return FusedFrame(image[:, :, 0], image, image, index, at)
