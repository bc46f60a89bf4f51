"""Collecting pairs of pictures that differ: nine scenes say more than a thousand frames of one.

Also what no map can be estimated from, and the sentences that say so.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from edgefuse.align import Align, Aligned
from edgefuse.calibrate.features import Floats, Picture, edge_field
from edgefuse.errors import InputError
from edgefuse.images import IMAGE_SUFFIXES, Image, fit_size, luma, read_image, read_visible, write_image
from edgefuse.pairs import pair_folders
from edgefuse.palettes import has_palette
from edgefuse.thermal import as_infrared, read_infrared

if TYPE_CHECKING:
    from edgefuse.calibrate.manual import Boards
    from edgefuse.runtime.frames import Frame
    from edgefuse.runtime.sources import Source

FLAT = 2.0
"""Standard deviation in grey levels below which a picture shows nothing."""
COLOUR = 6.0
"""Mean difference of colour channels in grey levels from which on a picture is in colour."""
SAME = 0.98
"""Correlation of grey values from which on both pictures come from one camera."""
SHARP = 0.12
"""Part of the gradient that a slight blur removes from a sharp picture, at least."""


EXPECTED_PX = {1: 3.2, 3: 1.2, 5: 1.2, 9: 1.1}
"""Pixels at a width of 640 within which two of three calibrations of real pairs were right, by the number of
scenes: the rows `of all sets` of docs/calibration.md, those of 3 and 5 scenes taken together. How far the
sets are off themselves is in it."""


def expected_error(scenes: int, ir_size: tuple[int, int], vis_size: tuple[int, int]) -> float:
    """Return how far off, in visible pixels, the corners of infrared are in two of three calibrations.

    It is what real pairs with known maps came to, not what these pictures say of themselves: halves of the
    same pictures agree several times better than they are right.

    Args:
        scenes: number of different ones, from 1 on.
        ir_size: width and height of the infrared pictures: what is coarser than 640 pixels is placed as
            much coarser.
        vis_size: likewise, of the visible ones.
    """
    at_640 = float(np.interp(scenes, list(EXPECTED_PX), list(EXPECTED_PX.values())))
    return at_640 * vis_size[0] / min(ir_size[0], vis_size[0], 640)


def both_grey(pairs: "Sequence[Pair]") -> bool:
    """Tell whether the visible pictures have no colour either: nothing then says which camera is which."""
    return _colour([vis for _, vis in pairs]) < COLOUR / 3


class CalibrationError(InputError):
    """The pictures do not determine the map; the message says why, and what to do."""


def refuse_unusable(pairs: Sequence[tuple[Image, Image]]) -> None:
    """Raise `CalibrationError` for pictures that need no look at their edges.

    Args:
        pairs: (infrared, visible), uint8, grey or BGR.
    """
    for index, what in enumerate(("infrared", "visible")):
        deviations = [float(_centre(luma(pair[index])).std()) for pair in pairs]
        if max(deviations) < FLAT:
            raise CalibrationError(
                f"the {what} pictures are uniform (they vary by {max(deviations):.1f} grey levels): a "
                "covered lens, a closed shutter or a plain wall; show the camera buildings, people or cars"
            )
    if all(_same(ir, vis) for ir, vis in pairs):
        raise CalibrationError(
            "both sources give the same pictures: --ir and --vis name one camera; give the infrared one to "
            "--ir and the visible one to --vis"
        )
    refuse_swapped(pairs)


def refuse_swapped(pairs: Sequence[tuple[Image, Image]]) -> None:
    """Raise `CalibrationError` if infrared pictures are in colour and visible ones are not."""
    if _colour([ir for ir, _ in pairs]) > COLOUR and _colour([vis for _, vis in pairs]) < COLOUR / 3:
        raise CalibrationError(
            "the cameras look swapped: --ir gives pictures in colour and --vis grey ones; exchange the two, "
            "or set an infrared camera that paints in false colours to white-hot"
        )


def why_not(
    pairs: Sequence[tuple[Picture, Picture]], z: float, share: float, scenes: int, least: float
) -> str:
    """Return the sentence for pictures whose edges agree no better than chance."""
    found = f"the edges of both pictures agree no better than by chance (z {z:.1f}, {least:g} is needed"
    found += f"; {share:.0%} of the edges)"
    blurred = [what for i, what in enumerate(("infrared", "visible")) if _blurred([p[i].grey for p in pairs])]
    if blurred:
        return f"{found}: the {' and '.join(blurred)} pictures are blurred; focus, and hold the rig still"
    upright = [picture.grey.shape[0] > picture.grey.shape[1] for picture in pairs[0]]
    if upright[0] != upright[1]:
        return f"{found}: one camera stands upright and the other lies; turn one with rotate=90 or 270"
    if scenes < 3:
        seen = "one scene" if scenes == 1 else f"{scenes} scenes"
        return (
            f"{found} on {seen}: turn the rig to three or more scenes with buildings, trees, people or cars "
            "at 10 m or more, and see that both cameras look the same way"
        )
    return (
        f"{found} on {scenes} scenes: see that both cameras look the same way at the same time, that their "
        "fields of view differ by less than a factor of 2.5, and that the pairs belong together"
    )


def _centre(grey: Image) -> Image:
    height, width = grey.shape
    return grey[height // 16 : height - height // 16, width // 16 : width - width // 16]


def _same(ir: Image, vis: Image) -> bool:
    infrared, visible = (fit_size(luma(image), (160, 120)).astype(np.float32) for image in (ir, vis))
    together = np.corrcoef(cv2.blur(infrared, (3, 3)).ravel(), cv2.blur(visible, (3, 3)).ravel())[0, 1]
    return bool(together > SAME)


def _colour(images: Sequence[Image]) -> float:
    spreads = [
        float((image.max(axis=2) - image.min(axis=2)).mean()) if image.ndim == 3 else 0.0 for image in images
    ]
    return float(np.mean(spreads))


def _blurred(greys: Sequence[Image]) -> bool:
    """Tell whether a blur of one pixel changes next to nothing in one direction."""
    ratios = []
    for grey in greys:
        before, after = grey.astype(np.float32), cv2.GaussianBlur(grey.astype(np.float32), (0, 0), 1.0)
        for dx, dy in ((1, 0), (0, 1)):
            sharp, soft = (np.abs(cv2.Sobel(image, cv2.CV_32F, dx, dy)).mean() for image in (before, after))
            ratios.append(1 - float(soft / max(sharp, 1e-6)))
    return bool(min(np.mean(ratios[::2]), np.mean(ratios[1::2])) < SHARP)


ENOUGH_SCENES = 9
MOST_PAIRS = 12
MOST_OF_ONE = 5
"""Pairs to keep while there is one scene: frames of one scene repeat each other's errors."""
SAME_SCENE = 0.5
"""Correlation of edges from which on two visible pictures show the same scene."""
REPEATED = 0.85
"""And from which on next to nothing in it has moved."""
THUMB = 80
"""Longer side of the pictures that are compared: small, so that a shaking rig sees no new scenes."""
STEADY = 0.7
"""Correlation of edges with the frame before from which on the rig counts as held still."""
COLOURS_CHECKED = 3
"""Pairs of cameras or recordings that are looked at for colours in infrared."""
MOST_READ = 200
"""Pairs of folders to look at, evenly out of all."""

Pair = tuple[Image, Image]
PairKind: TypeAlias = Literal["live", "recording", "images"]


class Scenes:
    """Keeps the pairs that differ most, out of any number that are offered.

    Args:
        most: pairs to keep.
    """

    def __init__(self, most: int = MOST_PAIRS) -> None:
        self.most = most
        self._kept: list[_Kept] = []

    @property
    def count(self) -> int:
        """Number of different scenes among the pairs."""
        return sum(kept.new for kept in self._kept)

    @property
    def pairs(self) -> list[Pair]:
        """What is kept: one pair of each scene first."""
        return [kept.pair for kept in sorted(self._kept, key=lambda kept: not kept.new)]

    def offer(self, ir: Image, vis: Image) -> bool:
        """Keep a pair if it shows a new scene, or if there is room; tell whether it is a new scene.

        Raises:
            InputError: its sizes are not those of the pairs before.
        """
        if self._kept and _sizes(*self._kept[0].pair) != _sizes(ir, vis):
            raise InputError(
                f"the pictures change their size: {_sizes(*self._kept[0].pair)}, then {_sizes(ir, vis)}; a "
                "rig file is for one size of each camera, so put pictures of another size elsewhere"
            )
        thumb = _thumb(vis)
        alike = max((float((thumb * kept.thumb).sum()) for kept in self._kept), default=-1.0)
        new = alike < SAME_SCENE
        room = MOST_OF_ONE if alike > REPEATED else self.most
        if new and len(self._kept) == self.most:
            again = [kept for kept in self._kept if not kept.new]
            if not again:
                return False
            self._kept.remove(again[-1])
        elif not new and (len(self._kept) >= room or alike > 0.995):
            return False
        self._kept.append(_Kept((ir, vis), thumb, new))
        return new


@dataclass(frozen=True, eq=False)
class _Kept:
    pair: Pair
    thumb: Floats
    new: bool


def _sizes(ir: Image, vis: Image) -> str:
    return f"infrared {ir.shape[1]}x{ir.shape[0]} and visible {vis.shape[1]}x{vis.shape[0]}"


def _thumb(vis: Image) -> Floats:
    field = edge_field(Picture.of(luma(vis)).scaled(THUMB / max(vis.shape)))
    return field / (float(np.linalg.norm(field)) + 1e-6)


def collect(
    ir: str,
    vis: str,
    scenes: "Scenes | Boards",
    wanted: int = ENOUGH_SCENES,
    duration: float | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> None:
    """Offer pairs of two sources to `scenes`: all of a recording, of cameras until there are enough.

    Two folders of images are paired by file stem; recordings and cameras as `edgefuse stream` does. Of these,
    frames that a moving rig sees do not count: they are blurred, and the cameras took them at different
    moments. Only where there are no others they are used.

    Args:
        ir: text of the infrared source.
        vis: text of the visible source.
        scenes: to fill.
        wanted: scenes at which live cameras are given back.
        duration: most seconds to watch cameras; Ctrl-C ends it before.
        progress: told the number of scenes and pairs, after each pair.

    Raises:
        EdgefuseError: a source that cannot be used.
    """
    moving = Scenes()
    last: Floats | None = None
    try:
        for infrared, visible, kind in _pairs_of(ir, vis, duration):
            if kind != "images" and isinstance(scenes, Scenes):
                last, before = _thumb(visible), last
                if before is None or float((last * before).sum()) < STEADY:
                    moving.offer(infrared, visible)
                    continue
            scenes.offer(infrared, visible)
            if progress is not None:
                progress(scenes.count, len(scenes.pairs))
            if kind == "live" and scenes.count >= wanted:
                return
    except KeyboardInterrupt:
        if not scenes.pairs and not moving.pairs:
            raise
    if not scenes.pairs:
        for infrared, visible in moving.pairs:
            scenes.offer(infrared, visible)
        if moving.pairs and progress is not None:
            progress(scenes.count, len(scenes.pairs))


def _pairs_of(ir: str, vis: str, duration: float | None) -> "Iterator[tuple[Image, Image, PairKind]]":
    """Yield infrared and visible as they are, unaligned, and where they come from."""
    if _is_image_folder(ir) and _is_image_folder(vis):
        pairs = pair_folders(ir, vis).pairs
        for _, ir_file, vis_file in pairs[:: max(len(pairs) // MOST_READ, 1)]:
            seen, other = read_image(ir_file, "ir"), read_visible(vis_file)
            _refuse_colours(seen, other)
            yield as_infrared(seen, name=ir), other, "images"
        return
    from edgefuse.runtime.cameras.camera import connect_pair
    from edgefuse.runtime.live import live
    from edgefuse.runtime.sources.base import Spec

    unaligned = _Unaligned()
    infrared, visible = connect_pair(ir, vis)
    raw: deque[NDArray[Any]] = deque(maxlen=1)
    infrared = replace(infrared, open=partial(_noted, infrared.open, raw))
    unchecked = COLOURS_CHECKED
    with infrared, visible:
        kind: PairKind = "live" if infrared.live or visible.live else "recording"
        if all(_is_image_folder(Spec.parse(text).target) for text in (ir, vis)):
            kind = "images"
        limit = duration if kind == "live" else None
        with live(infrared, visible, lambda _, image: image, align=unaligned, duration=limit) as frames:
            for frame in frames:
                if frame.vis is not None and (unplaced := unaligned.ir) is not None:
                    if unchecked and raw:
                        unchecked -= 1
                        _refuse_colours(raw[0], frame.vis)
                    yield unplaced, frame.vis, kind
                unaligned.ir = None


def _refuse_colours(raw: NDArray[Any], vis: Image) -> None:
    """Raise `CalibrationError` for infrared in colours that are no palette beside a grey visible picture."""
    if raw.ndim == 3 and raw.dtype == np.uint8 and not has_palette(raw):
        refuse_swapped([(raw, vis)])


def _noted(open_source: "Callable[[], Source]", raw: "deque[NDArray[Any]]") -> "Source":
    """Open a source whose newest picture is kept as it came."""
    from edgefuse.runtime.sources.base import Spec
    from edgefuse.runtime.sources.wrappers import Placed

    class Noted(Placed):
        def read(self) -> "Frame | None":
            frame = super().read()
            if frame is not None:
                raw.append(frame.image)
            return frame

    source = open_source()
    return Noted(source, Spec(source.name, source.name, {}), "ir")


class _Unaligned(Align):
    """Takes note of the infrared picture as it came."""

    def __init__(self) -> None:
        self.ir: Image | None = None

    def __call__(self, ir: Image, vis_shape: tuple[int, int]) -> Aligned:
        self.ir = ir
        return Aligned(fit_size(ir, (vis_shape[1], vis_shape[0])))


def _is_image_folder(text: str) -> bool:
    folder = Path(text)
    return folder.is_dir() and any(path.suffix.lower() in IMAGE_SUFFIXES for path in folder.iterdir())


def save_pairs(folder: Path, pairs: Sequence[Pair]) -> None:
    """Write pairs into `folder`/ir and `folder`/vis, so that a later calibration can start with them."""
    for role in ("ir", "vis"):
        (folder / role).mkdir(parents=True, exist_ok=True)
    for index, (ir, vis) in enumerate(pairs):
        write_image(folder / "ir" / f"{index:04d}.png", ir)
        write_image(folder / "vis" / f"{index:04d}.png", vis)


def load_pairs(folder: Path | None) -> Iterator[Pair]:
    """Yield the pairs that `save_pairs` wrote; none if there is no such folder."""
    if folder is not None and (folder / "ir").is_dir() and (folder / "vis").is_dir():
        for _, ir, vis in pair_folders(folder / "ir", folder / "vis").pairs:
            yield read_infrared(ir), read_visible(vis)
