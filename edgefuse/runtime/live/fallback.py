"""What is shown while a camera is lost."""

import cv2
import numpy as np

from edgefuse.align import Align
from edgefuse.images import Image
from edgefuse.runtime.compose import with_label
from edgefuse.runtime.config import OnLoss
from edgefuse.runtime.frames import FrameState, FusedFrame
from edgefuse.runtime.live.pairing import Pair

__all__ = ["Fallback"]


class Fallback:
    """Makes pictures for frames without a partner, of the size and colours of the fused ones before."""

    def __init__(self, on_loss: OnLoss, align: Align) -> None:
        self._on_loss, self._align = on_loss, align
        self._last: FusedFrame | None = None

    def remember(self, frame: FusedFrame) -> None:
        """Take note of a fused frame."""
        self._last = frame

    def alone(self, pair: Pair, index: int, timestamp: float, *, calibrates: bool) -> FusedFrame:
        """Return what is shown for a frame whose partner is lost or, if it calibrates, late."""
        ir, vis = self._pictures(pair)
        missing = f"{'infrared' if pair.ir is None else 'visible'} {'calibrating' if calibrates else 'lost'}"
        if self._on_loss == "passthrough":
            state: FrameState = "visible only" if pair.ir is None else "infrared only"
            fused = with_label(vis if pair.ir is None else self._as_visible(ir), missing)
        else:
            fused, state = self._stand_in(vis, missing)
        return FusedFrame(ir, vis, fused, index, timestamp, state, pair.captured)

    def nothing(self, index: int, now: float) -> FusedFrame | None:
        """Return what is shown while both cameras are lost; None: nothing."""
        if self._on_loss not in ("hold", "black") or self._last is None:
            return None
        ir, vis = np.zeros_like(self._last.ir), np.zeros_like(self._last.vis)
        fused, state = self._stand_in(vis, "both cameras lost")
        return FusedFrame(ir, vis, fused, index, now, state, now)

    def _pictures(self, pair: Pair) -> tuple[Image, Image]:
        """Return the infrared and the visible picture; the one that is missing is black."""
        if pair.ir is None:
            assert pair.vis is not None
            vis = pair.vis.image
            return np.zeros(vis.shape[:2], np.uint8), vis
        if self._last is None:  # nothing to align it with yet
            return pair.ir.image, np.zeros_like(pair.ir.image)
        vis = self._last.vis
        return self._align(pair.ir.image, vis.shape[:2]).image, np.zeros_like(vis)

    def _as_visible(self, ir: Image) -> Image:
        grey = self._last is None or self._last.vis.ndim == 2
        return ir if grey else cv2.cvtColor(ir, cv2.COLOR_GRAY2BGR)

    def _stand_in(self, like: Image, label: str) -> tuple[Image, FrameState]:
        """Return the held picture, or a black one if none is to be held or was there yet."""
        if self._on_loss == "hold" and self._last is not None:
            return with_label(self._last.fused, label), "held"
        return with_label(np.zeros_like(like), label), "black"
