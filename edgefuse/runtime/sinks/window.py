"""A window on the screen as an output."""

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Protocol

import cv2

from edgefuse.errors import InputError
from edgefuse.images import Image
from edgefuse.runtime.compose import side_by_side
from edgefuse.runtime.frames import FusedFrame
from edgefuse.runtime.sinks.base import Sink

TITLE = "edgefuse"


class Keys(Protocol):
    """Answers the window's keyboard."""

    def press(self, key: int) -> bool:
        """Do what a key stands for; tell whether it stands for anything."""

    def draw(self, frame: FusedFrame, image: Image) -> Image:
        """Return what to show in place of `image`, uint8."""


class Window(Sink):
    """Shows the frames; Q, Escape or closing the window ends the stream.

    Args:
        on_close: called once when the user closes the window.
        triptych: show infrared | visible | fused.
        keys: answers all other keys; None: they do nothing.

    Raises:
        InputError: there is no display, or OpenCV has no windows.
    """

    in_main_thread = True
    name = "window"

    def __init__(
        self, on_close: Callable[[], None], triptych: bool = False, keys: Keys | None = None
    ) -> None:
        check_display()
        self._on_close, self._triptych, self._keys = on_close, triptych, keys
        cv2.namedWindow(TITLE, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO)
        self._sized = False

    def write(self, frame: FusedFrame) -> None:
        """Show one frame and answer the keyboard."""
        image = side_by_side(frame.ir, frame.vis, frame.fused) if self._triptych else frame.fused
        if self._keys is not None:
            image = self._keys.draw(frame, image)
        if not self._sized:
            cv2.resizeWindow(TITLE, min(image.shape[1], 1600), min(image.shape[0], 900))
            self._sized = True
        cv2.imshow(TITLE, image)
        self.idle()

    def idle(self) -> None:
        """Answer the keyboard and the mouse, also while no camera gives frames."""
        if not self._sized:
            cv2.waitKey(1)
            return
        key = cv2.waitKey(1) & 0xFF
        if key in (ord("q"), 27) or cv2.getWindowProperty(TITLE, cv2.WND_PROP_VISIBLE) < 1:
            self._on_close()
        elif self._keys is not None and key != 255:
            self._keys.press(key)

    def close(self) -> None:
        """Close the window."""
        cv2.destroyAllWindows()


def check_display() -> None:
    """Raise `InputError` unless a window can be opened here."""
    if sys.platform.startswith("linux") and not (
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    ):
        raise InputError(
            "no display to show a window on (neither DISPLAY nor WAYLAND_DISPLAY is set): "
            "run on a desktop or over ssh -X, or write a file with --out"
        )
    # A display that is named but unreachable makes the window toolkit abort the whole process,
    # so the first window is opened in another one.
    probe = subprocess.run(
        [sys.executable, "-c", "import cv2; cv2.namedWindow('probe'); cv2.destroyAllWindows()"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        timeout=30,
        check=False,
    )
    if probe.returncode != 0:
        raise InputError(
            f"no window can be opened (display {os.environ.get('DISPLAY') or 'default'!r}): the display does "
            "not answer, or this build of OpenCV has no windows; write a file with --out"
        )
