"""An alignment judged and adjusted by eye: the keys of a window, and pictures of before and after."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from edgefuse.align import Aligned, show_visible_outside
from edgefuse.calibrate.drift import watched
from edgefuse.calibrate.features import Picture
from edgefuse.calibrate.registration import Pairs, nearby, refine_from, residual_at, residual_of
from edgefuse.errors import InputError
from edgefuse.images import Image, fit_size, luma
from edgefuse.rig import Matrix, Rig, rows
from edgefuse.runtime.alignment import Alignment, Improve
from edgefuse.runtime.frames import FusedFrame
from edgefuse.runtime.sinks import Window

HELP = "W A S D move (Shift: 10 px), + - zoom, [ ] turn, < > distance, R refine, E edges, K keep, U undo"
DIRECTIONS = {"w": (0, -1), "a": (-1, 0), "s": (0, 1), "d": (1, 0)}
FAST = 10
"""Pixels at once with Shift."""
ZOOM, TURN, FARTHER = 1.002, math.radians(0.1), 1.05
FAR = 100.0
"""Metres to begin with where none are set."""
SHOWN_SECONDS = 4.0
REFRESH_SECONDS = 0.03
WAIT_TO_REFINE = 4
"""Frames that may be under way when a key is pressed."""
LARGEST = 640
"""Longer side of each of the four pictures."""
TILES = 8
TINT = (0.7, 0.88, 1.0)  # B, G, R
INFRARED, VISIBLE = (60, 120, 255), (255, 200, 60)  # B, G, R


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
        self.scene = 0
        """How often N asked for the next one of several scenes."""
        self.kept = False
        """K has kept it."""
        self.message = HELP
        self._until = clock() + 2 * SHOWN_SECONDS
        self._frame: FusedFrame | None = None
        self._refine_in = 0
        """Frames until the refining that R asked for: those before may be aligned as before the last key."""

    def press(self, key: int) -> bool:
        """Do what a key (its code in ASCII) stands for; tell whether it stands for anything."""
        letter = chr(key) if 0 < key < 128 else ""
        return self._say(lambda: self._do(letter))

    def _say(self, do: Callable[[], str | None]) -> bool:
        """Do something and show what it says of itself, or why it cannot be done."""
        try:
            said = do()
        except InputError as error:
            said = str(error)
        if said is None:
            return False
        self.message, self._until = said, self._clock() + SHOWN_SECONDS
        return True

    def draw(self, frame: FusedFrame, image: Image) -> Image:
        """Return what to show for a frame: `image` or the edges, and the last message for some seconds."""
        self._frame = frame
        if self._refine_in:
            self._refine_in -= 1
            if not self._refine_in:
                self._say(self._refine)
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
            self._alignment.save(self._frame)
            self.kept = True
            return "kept in the rig file"
        if letter in ("r", "R"):
            self._refine_in = WAIT_TO_REFINE
            return "refining"
        if letter in ("n", "N"):
            self.scene += 1
            return "next scene"
        if letter in ("u", "U"):
            self._alignment.reset()
            return "as in the rig file"
        return HELP if letter in ("h", "?") else None

    def _refine(self) -> str:
        if self._frame is None or self._frame.state != "fused":
            raise InputError("there is no picture of both cameras to refine by")
        self._alignment.refine(self._frame)
        return f"refined, residual {self._alignment.state().residual_px:.1f} px; K keeps it in the rig file"

    def _about_middle(self, scale: float, turn: float) -> Matrix:
        width, height = self._alignment.size
        x, y = (width - 1) / 2, (height - 1) / 2
        a, b = scale * math.cos(turn), scale * math.sin(turn)
        return np.array([[a, -b, x - a * x + b * y], [b, a, y - b * x - a * y], [0, 0, 1]])

    def _where(self) -> str:
        state = self._alignment.state()
        distance = f"{state.distance:.3g} m; " if state.distance and state.has_distance else ""
        return f"moved; {distance}{'as in' if state.saved else 'K keeps it in'} the rig file"


def by_frame(rig: Rig, frame: FusedFrame, move: bool) -> Rig:
    """Return a rig, refined by one frame that it aligned (`move`), with the residual that this frame shows.

    Raises:
        CalibrationError: the edges do not agree near that map; the message says why.
    """
    assert frame.vis is not None
    pairs: Pairs = [watched(frame)]
    to_working = Picture.working(frame.vis.shape)
    if move:
        found = nearby(pairs, np.eye(3))
        rig = rig.moved(np.linalg.inv(to_working) @ found.matrix @ to_working, frame.vis.shape)
    residual = found.residual_px if move else residual_of(pairs, np.eye(3))
    scale = to_working[0, 0] * frame.vis.shape[1] / rig.vis_size[0]
    return replace(rig, residual_px=round(float(residual / scale), 3))


def by_pairs(pairs: Sequence[tuple[Image, Image]], scenes: int) -> Improve:
    """Return what refines a rig by these pictures, or only measures its residual."""

    def improve(rig: Rig, _: FusedFrame, move: bool) -> Rig:
        bent = rig.ir_distortion, rig.vis_distortion
        if not move:
            return replace(rig, residual_px=round(residual_at(pairs, np.array(rig.matrix), bent), 3))
        found = refine_from(pairs, np.array(rig.matrix), "similarity", scenes, bent)
        return replace(rig, matrix=rows(found.matrix), residual_px=round(found.residual_px, 3))

    return improve


def adjust(rig: Rig, pairs: Sequence[tuple[Image, Image]], scenes: int, path: Path) -> Rig | None:
    """Show pairs in a window, one after the other, until K keeps what the keys made of the rig.

    Args:
        rig: to begin with.
        pairs: (infrared, visible).
        scenes: number of different scenes among them.
        path: of the rig file that K writes.

    Returns:
        the rig; None: the window was closed before.

    Raises:
        InputError: no window can be opened.
    """
    align = rig.align()
    keys = Nudge(Alignment(path, align, by_pairs(pairs, scenes), rig))
    keys.edges = True
    closed: list[bool] = []
    with Window(lambda: closed.append(True), keys=keys) as window:
        while not closed and not keys.kept:
            ir, vis = pairs[keys.scene % len(pairs)]
            aligned = align(ir, (vis.shape[0], vis.shape[1]))
            mixed = cv2.addWeighted(luma(vis), 0.5, aligned.image, 0.5, 0)
            shown = show_visible_outside(mixed, luma(vis), aligned.valid)
            window.write(FusedFrame(aligned.image, vis, shown, keys.scene, 0.0, valid=aligned.valid))
            time.sleep(REFRESH_SECONDS)
    return align.rig if keys.kept else None


def before_and_after(rig: Rig, ir: Image, vis: Image) -> Image:
    """Return four pictures in one: above resized only, below by the rig; left tiles, right edges.

    Args:
        rig: whose map to show.
        ir: infrared, uint8 `[H', W']`.
        vis: visible, uint8 `[H, W]` or BGR `[H, W, 3]`.

    Returns:
        uint8 BGR.
    """
    shape = (vis.shape[0], vis.shape[1])
    rows = []
    for label, aligned in (("before", Aligned(fit_size(ir, shape[::-1]))), ("after", rig.align()(ir, shape))):
        row = np.hstack([_shrunk(_checkerboard(aligned, vis)), _shrunk(edge_overlay(aligned, vis))])
        cv2.putText(row, label, (12, 30), cv2.FONT_HERSHEY_SIMPLEX, 0.8, (0, 0, 0), 4, cv2.LINE_AA)
        cv2.putText(row, label, (12, 30), cv2.FONT_HERSHEY_SIMPLEX, 0.8, (255, 255, 255), 1, cv2.LINE_AA)
        rows.append(row)
    return np.vstack(rows)


def _shrunk(image: Image) -> Image:
    factor = min(LARGEST / max(image.shape), 1.0)
    size = (round(image.shape[1] * factor), round(image.shape[0] * factor))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def _checkerboard(aligned: Aligned, vis: Image) -> Image:
    """Return tiles of both pictures in turn, infrared tinted orange: lines must run on from tile to tile.

    Contrast is evened out in both, or nothing would be seen at night.
    """
    height, width = vis.shape[:2]
    side = max(width // TILES, 1)
    rows, columns = np.ogrid[0:height, 0:width]
    infrared = (rows // side + columns // side) % 2 == 1
    if aligned.valid is not None:
        infrared = infrared & (aligned.valid > 0)
    picture = cv2.merge([_evened(luma(vis))] * 3)
    warm = cv2.merge([cv2.convertScaleAbs(_evened(aligned.image), alpha=tint) for tint in TINT])
    picture[infrared] = warm[infrared]
    return picture


def edge_overlay(aligned: Aligned, vis: Image) -> Image:
    """Return the edges of both, infrared in orange and visible in blue: where they meet, white."""
    infrared, visible = _strength(aligned.image), _strength(luma(vis))
    if aligned.valid is not None:
        infrared = infrared * (aligned.valid / np.float32(255))
    picture = infrared[:, :, None] * np.array(INFRARED, np.float32) + visible[:, :, None] * np.array(
        VISIBLE, np.float32
    )
    return np.clip(picture, 0, 255).astype(np.uint8)


def _strength(grey: Image) -> "np.ndarray[tuple[int, ...], np.dtype[np.float32]]":
    smooth = cv2.GaussianBlur(grey.astype(np.float32), (0, 0), 1.0)
    size = cv2.magnitude(cv2.Scharr(smooth, cv2.CV_32F, 1, 0), cv2.Scharr(smooth, cv2.CV_32F, 0, 1))
    mean = cv2.blur(size, (41, 41)) + 0.3 * size.mean() + 1e-3
    strength: np.ndarray[tuple[int, ...], np.dtype[np.float32]] = np.clip(size / mean / 3 - 0.25, 0, 1)
    return strength


def _evened(grey: Image) -> Image:
    low, high = np.percentile(grey, (1, 99))
    stretched = cv2.convertScaleAbs(np.clip(grey, low, high) - low, alpha=255 / max(high - low, 1.0))
    return cv2.createCLAHE(clipLimit=2.0, tileGridSize=(8, 8)).apply(stretched)
