"""Raw frames on standard output, for another program to read."""

import logging
import os
import select

import cv2
import numpy as np

from edgefuse.errors import InputError
from edgefuse.images import Image, size_of
from edgefuse.runtime.compose import letterbox, side_by_side
from edgefuse.runtime.frames import FusedFrame
from edgefuse.runtime.sinks.base import OutputOptions, Sink

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.1


class RawOut(Sink):
    """Writes every picture as height x width x 3 bytes in B, G, R order, nothing between them.

    All have the size of the first, which is logged: others are fitted into it, since the reader could not
    tell them apart. A reader that has gone away ends this output; one that is slow is waited for, by this
    output alone.

    Args:
        descriptor: of the pipe or file; standard output by default.
        triptych: write infrared | visible | fused in place of the fused picture alone.

    Raises:
        InputError: it is a terminal.
    """

    texts = "- (raw BGR frames on standard output)"
    options = frozenset[str]()
    in_main_thread = False
    name = "standard output"

    @staticmethod
    def accepts(out: str) -> bool:
        """Whether the text is a single hyphen."""
        return out == "-"

    @classmethod
    def open(cls, out: str, options: OutputOptions) -> "RawOut":
        """Write to standard output."""
        del out
        return cls(triptych=options.triptych)

    def __init__(self, descriptor: int = 1, triptych: bool = False) -> None:
        if os.isatty(descriptor):
            raise InputError(
                "raw frames do not belong on a terminal: pipe them into a program, as in "
                "edgefuse stream … --out - | ffplay -f rawvideo -pixel_format bgr24 -video_size 640x480 -"
            )
        self._descriptor, self._triptych = descriptor, triptych
        self._shape: tuple[int, ...] = ()
        self._said: set[str] = set()
        self._interrupted = False

    def write(self, frame: FusedFrame) -> None:
        """Write one picture.

        Raises:
            InputError: the reader has gone away, or takes nothing and `interrupt` was called.
            OSError: the disk is full.
        """
        image = side_by_side(frame.ir, frame.vis, frame.fused) if self._triptych else frame.fused
        if not self._shape:
            self._shape = (*image.shape[:2], 3)
            logger.info("standard output: raw BGR pictures of %s, 3 bytes a pixel", size_of(image))
        if image.shape[:2] != self._shape[:2]:
            self._say_fitted(size_of(image))
        if image.ndim == 2:
            image = cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
        try:
            self._send(letterbox(image, self._shape))
        except BrokenPipeError:
            raise InputError("standard output: the program that read the pictures has ended") from None

    def _say_fitted(self, size: str) -> None:
        if size not in self._said:
            self._said.add(size)
            height, width = self._shape[:2]
            logger.warning(
                "standard output: pictures are now %s, and are fitted into %dx%d", size, width, height
            )

    def _send(self, image: Image) -> None:
        left = np.ascontiguousarray(image).data.cast("B")
        while left:
            # A plain write would not return as long as nobody reads, not even at the end of the stream.
            if select.select([], [self._descriptor], [], POLL_SECONDS)[1]:
                left = left[os.write(self._descriptor, left[: select.PIPE_BUF]) :]
            elif self._interrupted:
                raise InputError("standard output: the program that reads the pictures has stopped reading")

    def interrupt(self) -> None:
        """Have a `write` for which nobody reads give up."""
        self._interrupted = True
