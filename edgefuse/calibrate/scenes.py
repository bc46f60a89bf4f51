"""Collecting pairs of pictures that differ: nine scenes say more than a thousand frames of one."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgefuse.align import Align, Aligned
from edgefuse.calibrate.board import Boards
from edgefuse.calibrate.features import Floats, Picture, edge_field
from edgefuse.errors import InputError
from edgefuse.images import IMAGE_SUFFIXES, Image, fit_size, luma, read_visible, write_image
from edgefuse.pairs import pair_folders
from edgefuse.thermal import read_infrared

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
MOST_READ = 200
"""Pairs of folders to look at, evenly out of all."""

Pair = tuple[Image, Image]


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
                "rig file is for one size of each camera"
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
    scenes: Scenes | Boards,
    wanted: int = ENOUGH_SCENES,
    duration: float | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> None:
    """Offer pairs of two sources to `scenes`: all of a recording, of cameras until there are enough.

    Two folders of images are paired by file stem; recordings and cameras as `edgefuse stream` does.

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
    try:
        for infrared, visible, live in _pairs_of(ir, vis, duration):
            scenes.offer(infrared, visible)
            if progress is not None:
                progress(scenes.count, len(scenes.pairs))
            if live and scenes.count >= wanted:
                return
    except KeyboardInterrupt:
        if not scenes.pairs:
            raise


def _pairs_of(ir: str, vis: str, duration: float | None) -> Iterator[tuple[Image, Image, bool]]:
    """Yield infrared and visible as they are, unaligned, and whether they are live."""
    if _is_image_folder(ir) and _is_image_folder(vis):
        pairs = pair_folders(ir, vis).pairs
        for _, ir_file, vis_file in pairs[:: max(len(pairs) // MOST_READ, 1)]:
            yield read_infrared(ir_file), read_visible(vis_file), False
        return
    from edgefuse.runtime.cameras.camera import connect
    from edgefuse.runtime.live.iterate import live

    unaligned = _Unaligned()
    with connect(ir, "ir") as infrared, connect(vis, "vis") as visible:
        are_live = infrared.live or visible.live
        limit = duration if are_live else None
        with live(infrared, visible, lambda _, image: image, align=unaligned, duration=limit) as frames:
            for frame in frames:
                if frame.vis is not None and unaligned.ir is not None:
                    yield unaligned.ir, frame.vis, are_live
                unaligned.ir = None


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
