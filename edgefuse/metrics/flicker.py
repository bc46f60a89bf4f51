"""Flicker of fused video: frame-to-frame change beyond that of the sources, where the scene stands still.

Our own measure. A fusion whose output changes by no more than the larger change of its two inputs, as every
weighted mean with constant weights and the pixel-wise maximum do, scores 0.
Under camera motion the frame before is first warped onto this one, by the dense optical flow of one of the
sources (Kroeger et al., ECCV 2016). What moves in its own way, and what was covered before, is left out.
"""

from functools import cached_property
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from edgefuse.images import Image

NEIGHBOURHOOD = (9, 9)
STILL = 0.9
"""With so much of the frame at rest, no motion of the camera is looked for."""
LEAST = 0.25
"""With less than this at rest, flicker is undefined."""
SMALLEST = 64
"""The smallest side that the flow is computed for; OpenCV may crash below, so such frames are extended."""
NOISE_CHANGE = 2 / np.sqrt(np.pi)
"""Mean |difference| of two frames with independent Gaussian noise, by its standard deviation."""

Frames: TypeAlias = tuple[Image, Image]


def flicker(fused: Frames, ir: Frames, vis: Frames) -> float | None:
    """Return the mean change of the fused frames beyond that of the sources, where the scene stands still.

    Args:
        fused: two consecutive frames, uint8 `[H, W]`.
        ir: the infrared frames they were made of.
        vis: the visible frames they were made of.

    Returns:
        Grey levels per frame, 0 (best) to 255: the mean over the pixels at rest of
        max(0, |ΔF| − max(|ΔI|, |ΔV|)). None if less than a quarter of the frame is at rest, even with the
        camera's motion compensated: after a cut, say.
    """
    return SourceChange(ir, vis).flicker(fused)


class SourceChange:
    """What flicker needs of two frames of both sources, for many fusions of them.

    Args:
        ir: two consecutive infrared frames, uint8 `[H, W]`.
        vis: two consecutive visible frames.
    """

    def __init__(self, ir: Frames, vis: Frames) -> None:
        self._sources = ir, vis
        self._limits = [2 * NOISE_CHANGE * _noise(source[1]) + 1 for source in self._sources]
        self._before: NDArray[np.float32] | None = None
        self.still: Image = self._still(None)
        """255 where the scene stands still: where the mean change around a pixel (9×9) is at most 1 grey
        level above twice what the noise within the frame explains, in both sources."""
        if np.count_nonzero(self.still) < STILL * self.still.size:
            self._compensate()

    def flicker(self, fused: Frames) -> float | None:
        """Return the flicker of one fusion, as `flicker` does."""
        if np.count_nonzero(self.still) < LEAST * self.still.size:
            return None
        excess = cv2.subtract(_change(fused, self._before), self._largest)  # saturates at 0
        return float(cv2.mean(excess, self.still)[0])

    @cached_property
    def _largest(self) -> Image:
        ir, vis = (_change(source, self._before) for source in self._sources)
        return cv2.max(ir, vis)

    def _compensate(self) -> None:
        """Take the motion, if any, that leaves most of the frame at rest."""
        for before, after in self._sources:
            places = _places_before(before, after)
            still = self._still(places)
            if np.count_nonzero(still) > np.count_nonzero(self.still):
                self._before, self.still = places, still

    def _still(self, places: NDArray[np.float32] | None) -> Image:
        still: Image = np.full(self._sources[0][0].shape, 255, np.uint8)
        for source, limit in zip(self._sources, self._limits, strict=True):
            still[cv2.blur(_change(source, places).astype(np.float32), NEIGHBOURHOOD) > limit] = 0
        if places is not None:
            height, width = self._sources[0][0].shape
            inside = cv2.inRange(places, (0, 0), (width - 1, height - 1))
            still &= inside
        return still


def _change(frames: Frames, places: NDArray[np.float32] | None) -> Image:
    before, after = frames
    if places is not None:
        before = cv2.remap(before, places, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return cv2.absdiff(before, after)


def _places_before(before: Image, after: Image) -> NDArray[np.float32]:
    """Where each pixel was in the frame before: x and y, float32 `[H, W, 2]`."""
    height, width = after.shape
    more = [max(0, SMALLEST - side) for side in (height, width)]
    if any(more):
        before, after = (
            cv2.copyMakeBorder(image, 0, more[0], 0, more[1], cv2.BORDER_REPLICATE)
            for image in (before, after)
        )
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST).calc(after, before, None)
    flow = flow[:height, :width]
    flow += np.dstack(np.meshgrid(np.arange(width), np.arange(height))).astype(np.float32)
    return flow


def _noise(image: Image) -> float:
    """Standard deviation of the noise; from the median, for most of an image has no edges.

    Reference: Immerkær, Computer Vision and Image Understanding 64(2), 1996.
    """
    mask = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)
    response = np.abs(cv2.filter2D(image, cv2.CV_32F, mask))
    return float(np.median(response)) / (0.6745 * 6)
