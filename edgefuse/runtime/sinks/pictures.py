"""Outputs of single pictures: a folder, the last one as a still, raw frames, a window."""

import logging
import os
import select
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

from edgefuse.errors import InputError
from edgefuse.files import check_writable
from edgefuse.images import IMAGE_SUFFIXES, Image, size_of, write_image
from edgefuse.runtime.compose import letterbox, side_by_side
from edgefuse.runtime.frames import FusedFrame
from edgefuse.runtime.sinks.base import OutputOptions, Sink
from edgefuse.runtime.sinks.naming import DiskQuota, check_limits


class ImageSequence(Sink):
    """Writes every frame as `000000.png`, `000001.png` … into a folder, which is made if needed.

    Args:
        folder: must have no images in it.
        triptych: write infrared | visible | fused in place of the fused picture alone.
        max_size: bytes of all files, at which the output ends; None: no limit.

    Raises:
        InputError: the folder cannot be made, or has images in it already, or a size that is too small.
    """

    texts = "a folder (frames/)"
    options = frozenset({"max_size"})
    in_main_thread = False

    @staticmethod
    def accepts(out: str) -> bool:
        """Whether the text is a folder, ends in / or has no suffix."""
        return "://" not in out and (out.endswith("/") or Path(out).is_dir() or not Path(out).suffix)

    @classmethod
    def open(cls, out: str, options: OutputOptions) -> "ImageSequence":
        """Write into a folder."""
        return cls(out, options.triptych, max_size=options.max_size)

    def __init__(self, folder: str | Path, triptych: bool = False, *, max_size: int | None = None) -> None:
        check_limits(None, max_size)
        self.name = str(folder)
        self._folder, self._triptych = Path(folder), triptych
        self._quota = DiskQuota(self._folder, self.name, max_size, ring=False)
        self._size = 0  # bytes of all files
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"cannot make folder {folder}: {error.strerror}") from None
        if any(p.suffix.lower() in IMAGE_SUFFIXES for p in self._folder.iterdir()):
            raise InputError(f"{folder} already has images in it: give an empty or a new folder")

    def write(self, frame: FusedFrame) -> None:
        """Write one file.

        Raises:
            InputError: the disk is full.
            QuotaReachedError: `max_size` is reached.
        """
        self._quota.admit(self._size)
        image = side_by_side(frame.ir, frame.vis, frame.fused) if self._triptych else frame.fused
        path = self._folder / f"{frame.index:06d}.png"
        write_image(path, image)
        self._size += path.stat().st_size


class Still(Sink):
    """Keeps the last frame and writes infrared | visible | fused as one image at the end.

    Raises:
        InputError: unknown suffix, or no folder to write to.
    """

    in_main_thread = False
    timed = False

    def __init__(self, path: str | Path) -> None:
        self.name = str(path)
        self._path = Path(path)
        if self._path.suffix.lower() not in IMAGE_SUFFIXES:
            known = ", ".join(sorted(IMAGE_SUFFIXES))
            raise InputError(f"cannot write {path}: the suffix of a still must be one of {known}")
        check_writable(self._path)
        self._last: FusedFrame | None = None

    def write(self, frame: FusedFrame) -> None:
        """Keep the frame."""
        self._last = frame

    def close(self) -> None:
        """Write the last frame, if there was any."""
        frame, self._last = self._last, None
        if frame is not None:
            write_image(self._path, side_by_side(frame.ir, frame.vis, frame.fused))


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
