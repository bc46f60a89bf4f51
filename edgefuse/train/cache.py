"""Images decoded once into one memory-mapped uint8 file."""

import errno
import math
import tempfile
from collections.abc import Hashable, Iterable, Iterator, Sequence
from copy import copy
from itertools import zip_longest
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgefuse.errors import InputError, counted
from edgefuse.images import Image, as_visible, luma, read_visible
from edgefuse.pairs import Files, halves, images_by_stem
from edgefuse.rig import Overlap, Rig
from edgefuse.runtime.cameras.camera import ThermalPreprocess
from edgefuse.runtime.frames import ROLES, Role
from edgefuse.runtime.sources import open_source
from edgefuse.runtime.sources.folder import recorded_parts
from edgefuse.thermal import read_infrared
from edgefuse.thermal_config import ThermalConfig

SIMULATED_FRAMES = 48


class ImageCache:
    """Grey images of any sizes behind one another in one memory-mapped file.

    Args:
        images: (key, uint8 `[H, W]`) of each image; read once, one at a time.
    """

    def __init__(self, images: Iterable[tuple[Hashable, Image]]) -> None:
        self.keys: list[Hashable] = []
        self._places: list[tuple[int, tuple[int, int]]] = []
        self._counts: dict[int, NDArray[np.float64]] = {}
        # Unnamed: the disk gets the space back however the process ends.
        with tempfile.TemporaryFile() as file:
            try:
                for key, image in images:
                    self._places.append((file.tell(), (image.shape[0], image.shape[1])))
                    file.write(np.ascontiguousarray(image).tobytes())
                    self.keys.append(key)
                file.flush()
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                    raise
                start, (height, width) = self._places[-1]
                raise InputError(
                    f"the temporary folder {tempfile.gettempdir()} is full after "
                    f"{counted(len(self.keys), 'image')} ({(start + height * width) / 1e9:.1f} GB): "
                    "set TMPDIR to a folder with more room"
                ) from None
            # Copy on write, which never happens: torch takes no read-only memory.
            pixels = np.memmap(file, np.uint8, "c") if file.tell() else np.empty(0, np.uint8)
        self._pixels = torch.from_numpy(pixels)

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index: int) -> Image:
        """Return image `index`, uint8 `[H, W]`; in main memory it is a view, not to be written."""
        return self.tensor(index).cpu().numpy()

    def tensor(self, index: int) -> Tensor:
        """Return a view of image `index`, uint8 `[H, W]`, where the cache is."""
        start, (height, width) = self._places[index]
        return self._pixels[start : start + height * width].view(height, width)

    def counts(self, index: int) -> NDArray[np.float64]:
        """Return how often each grey level is in image `index`, float64 `[256]`; counted once."""
        place = self._places[index][0]
        if place not in self._counts:
            counts = torch.bincount(self.tensor(index).flatten(), minlength=256)
            self._counts[place] = counts.cpu().numpy().astype(np.float64)
        return self._counts[place]

    def shape(self, index: int) -> tuple[int, int]:
        """Return (height, width) of image `index`."""
        return self._places[index][1]

    def to(self, device: torch.device) -> "ImageCache":
        """Return the cache with its pixels on a device."""
        moved = copy(self)
        moved._pixels = self._pixels.to(device)
        return moved

    @property
    def nbytes(self) -> int:
        """Memory that the pixels take, in bytes."""
        return self._pixels.nbytes

    def subset(self, positions: Sequence[int]) -> "ImageCache":
        """Return a cache of some of the images, over the same memory."""
        part = copy(self)
        part.keys = [self.keys[i] for i in positions]
        part._places = [self._places[i] for i in positions]
        return part

    def smallest_side(self) -> tuple[int, str]:
        """Return the shortest side of all images, in pixels, and the name of the image that has it."""
        return min(
            (min(shape), name_of(key)) for key, (_, shape) in zip(self.keys, self._places, strict=True)
        )


def cache_folders(
    ir: Sequence[str | Path],
    vis: Sequence[str | Path],
    thermal: ThermalConfig | None = None,
    bits: int | None = None,
    rig: str | None = None,
) -> tuple[ImageCache, ImageCache]:
    """Read folders, videos and recordings into an infrared and a visible (luma) cache.

    Keys are (place of the folder, stem), or (place of the video, second): of a video, the first frame of
    every second is taken, since those between look the same. So the two videos of a recording that stand
    at the same place are aligned, as folders of equal stems are; stems may end in `_ir` and `_vis`, as for
    `edgefuse.pairs.pair_folders`.

    Args:
        ir: infrared.
        vis: visible.
        thermal: how infrared becomes 8 bits.
        bits: of visible 16-bit images; None: as the files say.
        rig: rig file that infrared is aligned by; both are cut to what it covers. None: neither.

    Raises:
        InputError: a folder or file that cannot be used, or that is given for both cameras.
    """
    files = _files([Path(path) for path in ir], [Path(path) for path in vis])
    of_ir, of_vis = (_images(files[role], role, thermal, bits) for role in ROLES)
    if rig is None:
        return ImageCache(of_ir), ImageCache(of_vis)
    known = Rig.load(rig)
    overlap = Overlap(known)
    shapes: dict[Hashable, tuple[int, ...]] = {}  # of the whole visible images

    def visible() -> Iterator[tuple[Hashable, Image]]:
        for key, image in of_vis:
            shapes[key] = image.shape
            yield key, overlap.visible(image)

    second = ImageCache(visible())
    alone = known.vis_size[::-1]  # without a partner
    first = ImageCache((key, overlap.infrared(image, shapes.get(key, alone))) for key, image in of_ir)
    return first, second


def _files(ir: Sequence[Path], vis: Sequence[Path]) -> dict[Role, list[Path | Files]]:
    """Return what is at each place: a video or recording, or the images of a folder.

    Raises:
        InputError: a folder without images, or a file for both cameras.
    """
    found: dict[Role, list[Path | Files]] = {"ir": [], "vis": []}
    for paths in zip_longest(ir, vis):
        both: list[Path | Files | None] = [
            path if path is None or _is_video(path) else images_by_stem(path, role=role)
            for role, path in zip(ROLES, paths, strict=True)
        ]
        if isinstance(both[0], dict) and isinstance(both[1], dict):
            both[:] = halves(both[0], both[1], str(paths[0]))
        for role, files in zip(ROLES, both, strict=True):
            if files is not None:
                found[role].append(files)
    infrared = {path.resolve() for path in _flat(found["ir"])}
    if twice := next((path for path in _flat(found["vis"]) if path.resolve() in infrared), None):
        raise InputError(f"{twice} is given for both cameras")
    return found


def _flat(places: Sequence[Path | Files]) -> Iterator[Path]:
    for files in places:
        yield from [files] if isinstance(files, Path) else files.values()


def _is_video(path: Path) -> bool:
    return path.is_file() or bool(recorded_parts(path))


def _images(
    places: Sequence[Path | Files], role: Role, thermal: ThermalConfig | None, bits: int | None
) -> Iterator[tuple[tuple[int, str], Image]]:
    for place, files in enumerate(places):
        if isinstance(files, Path):
            yield from (
                ((place, str(second)), image) for second, image in _video_images(files, role, thermal, bits)
            )
            continue
        for stem, file in files.items():
            image = read_infrared(file, thermal) if role == "ir" else luma(read_visible(file, bits))
            yield (place, stem), image


def _video_images(
    path: Path, role: Role, config: ThermalConfig | None, bits: int | None
) -> Iterator[tuple[int, Image]]:
    """Yield the first frame of every second, as `stream` would see it."""
    thermal = ThermalPreprocess(config)
    latest = -1
    with open_source(str(path), role) as source:
        while (frame := source.read()) is not None:
            # Every infrared frame goes through: what one looks like depends on those before.
            image = thermal(frame.image, frame.timestamp) if role == "ir" else None
            second = math.floor(frame.timestamp)
            if second > latest:
                latest = second
                yield second, luma(as_visible(frame.image, bits, place=str(path))) if image is None else image


def cache_simulation(seed: int) -> tuple[ImageCache, ImageCache]:
    """Render aligned frames of the simulated rig, a few seconds apart in several scenes."""
    from edgefuse.sim import Rig, RigConfig

    rigs = [Rig(RigConfig(seed=seed * 1000 + k)) for k in range(4)]
    frames = [(rig, k, n * 40) for k, rig in enumerate(rigs) for n in range(SIMULATED_FRAMES // len(rigs))]
    return (
        ImageCache(((k, n), rig.frame("ir", n)) for rig, k, n in frames),
        ImageCache(((k, n), luma(rig.frame("vis", n))) for rig, k, n in frames),
    )


def name_of(key: Hashable) -> str:
    """Return an image's stem out of its key."""
    return str(key[-1]) if isinstance(key, tuple) else str(key)
