"""An image and what the metrics need of it, each part computed at most once."""

from functools import cached_property

import cv2
import numpy as np

from edgefuse.errors import InputError
from edgefuse.images import Image, check_image, size_of
from edgefuse.metrics.detail import Layers, Target, find_targets, layers
from edgefuse.metrics.edges import Edges, edges_of
from edgefuse.metrics.fidelity import Moments, scales_of
from edgefuse.metrics.perceptual import Perceived
from edgefuse.metrics.statistics import entropy
from edgefuse.metrics.structure import WindowSums, window_sums
from edgefuse.metrics.windows import Banded

__all__ = ["Prepared", "check_sizes", "grey"]


def grey(image: Image) -> Image:
    """Return the grey image that metrics are computed on: 0.299 R + 0.587 G + 0.114 B, rounded.

    OpenCV's conversion of 8-bit pixels rounds its weights first and differs by one level where the sum
    ends in .5, which moves SCD by 4e-4; so the sum is done in float32 here, as the reference does.
    """
    if image.ndim == 2:
        return image
    return np.rint(cv2.cvtColor(image.astype(np.float32), cv2.COLOR_BGR2GRAY)).astype(np.uint8)


def check_sizes(**images: Image) -> None:
    """Raise `InputError` unless all, given by what they are, are images of one size."""
    for what, image in images.items():
        check_image(what, image)
    if len({image.shape[:2] for image in images.values()}) > 1:
        sizes = " and ".join(f"the {what} image is {size_of(image)}" for what, image in images.items())
        raise InputError(f"{sizes}; metrics need one size, and resizing either would change the scores")


class Prepared:
    """A grey image `[H, W]` uint8 with the intermediate results that several metrics or pairs share.

    Args:
        image: uint8 `[H, W]` or `[H, W, 3]` BGR.
        keep: keep those results for the next pair.
    """

    def __init__(self, image: Image, keep: bool = False) -> None:
        self.image = np.ascontiguousarray(grey(image))
        self._keep = keep

    @cached_property
    def entropy(self) -> float:
        """Entropy of the grey levels, bits."""
        return entropy(self.image)

    @cached_property
    def edges(self) -> Banded[Edges]:
        """Gradient for Qabf."""
        return edges_of(self.image, self._keep)

    @cached_property
    def windows(self) -> Banded[WindowSums]:
        """Window sums for SSIM."""
        return window_sums(self.image, self._keep)

    @cached_property
    def scales(self) -> list[Banded[Moments]]:
        """Local moments for VIF."""
        return scales_of(self.image, self._keep)

    @cached_property
    def perceived(self) -> Perceived:
        """Spectrum, contrast and saliency for Qcb and Qcv."""
        return Perceived(self.image)

    @cached_property
    def layers(self) -> Layers:
        """Detail and brightness, for the detail kept."""
        return layers(self.image)

    @cached_property
    def targets(self) -> list[Target]:
        """Thermal targets, of an infrared image."""
        return find_targets(self.image)
