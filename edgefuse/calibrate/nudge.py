"""Moving infrared with the keys of a window, with the edges of both pictures to judge by."""

import math
import time
from collections.abc import Callable

import cv2
import numpy as np

from edgefuse.align import Aligned
from edgefuse.calibrate.pictures import edge_overlay
from edgefuse.errors import InputError
from edgefuse.images import Image
from edgefuse.rig import Matrix
from edgefuse.runtime.alignment import Alignment
from edgefuse.runtime.frames import FusedFrame

HELP = "W A S D move (Shift: 10 px), + - zoom, [ ] turn, < > distance, E edges, K keep, U undo"
DIRECTIONS = {"w": (0, -1), "a": (-1, 0), "s": (0, 1), "d": (1, 0)}
FAST = 10
"""Pixels at once with Shift."""
ZOOM, TURN, FARTHER = 1.002, math.radians(0.1), 1.05
FAR = 100.0
"""Metres to begin with where none are set."""
SHOWN_SECONDS = 4.0


class Nudge:
    """Answers keys and draws what they do into the window's picture.

    Args:
        alignment: of the running stream.
        clock: seconds; for how long a message stays.
    """

    def __init__(self, alignment: Alignment, clock: Callable[[], float] = time.monotonic) -> None:
        self._alignment, self._clock = alignment, clock
        self.edges = False
        """Show the edges of both pictures, not the fused one."""
        self.message = HELP
        self._until = clock() + 2 * SHOWN_SECONDS

    def press(self, key: int) -> bool:
        """Do what a key (its code in ASCII) stands for; tell whether it stands for anything."""
        letter = chr(key) if 0 < key < 128 else ""
        try:
            said = self._do(letter)
        except InputError as error:
            said = str(error)
        if said is None:
            return False
        self.message, self._until = said, self._clock() + SHOWN_SECONDS
        return True

    def draw(self, frame: FusedFrame, image: Image) -> Image:
        """Return what to show for a frame: `image` or the edges, and the last message for some seconds."""
        if self.edges and frame.ir is not None and frame.vis is not None:
            image = edge_overlay(Aligned(frame.ir, frame.valid), frame.vis)
        if self._clock() > self._until:
            return image
        image = image.copy() if image.ndim == 3 else cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
        size = image.shape[1] / 1000
        place = (round(12 * size), image.shape[0] - round(14 * size))
        for colour, thick in (((0, 0, 0), 4), ((255, 255, 255), 1)):
            thickness = max(round(thick * size), 1)
            cv2.putText(
                image,
                self.message,
                place,
                cv2.FONT_HERSHEY_SIMPLEX,
                0.7 * size,
                colour,
                thickness,
                cv2.LINE_AA,
            )
        return image

    def _do(self, letter: str) -> str | None:
        change: Matrix | None = None
        if letter.lower() in DIRECTIONS:
            change = np.eye(3)
            pixels = FAST if letter.isupper() else 1
            change[:2, 2] = np.array(DIRECTIONS[letter.lower()]) * pixels
        elif letter in ("+", "=", "-"):
            change = self._about_middle(1 / ZOOM if letter == "-" else ZOOM, 0.0)
        elif letter in ("[", "]"):
            change = self._about_middle(1.0, TURN if letter == "]" else -TURN)
        if change is not None:
            self._alignment.change(change)
            return self._where()
        if letter in ("<", ",", ">", "."):
            distance = self._alignment.state().distance or FAR
            self._alignment.set_distance(distance * FARTHER if letter in (">", ".") else distance / FARTHER)
            return self._where()
        if letter in ("e", "E"):
            self.edges = not self.edges
            return "edges: infrared orange, visible blue, both white" if self.edges else "fused picture"
        if letter in ("k", "K"):
            self._alignment.save()
            return "kept in the rig file"
        if letter in ("u", "U"):
            self._alignment.reset()
            return "as in the rig file"
        return HELP if letter in ("h", "?") else None

    def _about_middle(self, scale: float, turn: float) -> Matrix:
        width, height = self._alignment.size
        x, y = (width - 1) / 2, (height - 1) / 2
        a, b = scale * math.cos(turn), scale * math.sin(turn)
        return np.array([[a, -b, x - a * x + b * y], [b, a, y - b * x - a * y], [0, 0, 1]])

    def _where(self) -> str:
        state = self._alignment.state()
        distance = f"{state.distance:.3g} m; " if state.distance and state.has_distance else ""
        return f"moved; {distance}{'as in' if state.saved else 'K keeps it in'} the rig file"
