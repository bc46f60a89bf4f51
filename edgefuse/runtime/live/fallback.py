"""What is shown while a camera is lost."""

import cv2
import numpy as np

from edgefuse.align import Align
from edgefuse.images import Image
from edgefuse.runtime.compose import with_label
from edgefuse.runtime.config import OnLoss
from edgefuse.runtime.frames import FrameState, FusedFrame
from edgefuse.runtime.live.pairing import Pair


class Fallback:
    """Makes pictures for frames without a partner, of the size and colours of the fused ones before."""

    def __init__(self, on_loss: OnLoss, align: Align) -> None:
        self._on_loss, self._align = on_loss, align
        self._last: Image | None = None

    def remember(self, fused: Image) -> None:
        """Take note of a fused picture."""
        self._last = fused

    def alone(self, pair: Pair, index: int, label: str) -> FusedFrame:
        """Return what is shown for a frame without a partner."""
        ir, vis, shown = self._pictures(pair)
        if self._on_loss == "passthrough":
            state: FrameState = "visible only" if ir is None else "infrared only"
            fused = with_label(shown, label)
        else:
            fused, state = self._stand_in(shown, label)
        return FusedFrame(ir, vis, fused, index, pair.time, state, pair.captured)

    def nothing(self, index: int, now: float) -> FusedFrame | None:
        """Return what is shown while both cameras are lost; None: nothing."""
        if self._on_loss not in ("hold", "black") or self._last is None:
            return None
        fused, state = self._stand_in(self._last, "both cameras lost")
        return FusedFrame(None, None, fused, index, now, state, now)

    def _pictures(self, pair: Pair) -> tuple[Image | None, Image | None, Image]:
        """Return the infrared and the visible picture, and the one that there is in the fused colours."""
        if pair.vis is not None:
            return None, pair.vis.image, pair.vis.image
        assert pair.ir is not None
        ir = pair.ir.image
        if self._last is not None:
            ir = self._align(ir, self._last.shape[:2]).image
        grey = self._last is None or self._last.ndim == 2
        return ir, None, ir if grey else cv2.cvtColor(ir, cv2.COLOR_GRAY2BGR)

    def _stand_in(self, like: Image, label: str) -> tuple[Image, FrameState]:
        """Return the held picture, or a black one if none is to be held or was there yet."""
        if self._on_loss == "hold" and self._last is not None:
            return with_label(self._last, label), "held"
        return with_label(np.zeros_like(like), label), "black"
