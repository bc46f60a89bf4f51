"""The infrared camera's way to 8 bits: the AGC, held while the camera is behind its shutter."""

from typing import Any

from numpy.typing import NDArray

from edgefuse.images import Image
from edgefuse.runtime.cameras.freeze import StillDetector
from edgefuse.thermal import ThermalAgc
from edgefuse.thermal_config import ThermalConfig

__all__ = ["ThermalPreprocess"]


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
