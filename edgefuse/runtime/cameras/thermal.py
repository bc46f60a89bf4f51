"""The infrared camera's way to 8 bits: the AGC, held while the camera is behind its shutter or frozen."""

from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from edgefuse.images import Image
from edgefuse.runtime.sources.base import SILENCE
from edgefuse.thermal import ThermalAgc
from edgefuse.thermal_config import ThermalConfig

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
