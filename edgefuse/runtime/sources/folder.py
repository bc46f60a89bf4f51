"""The images of a folder, or those that a pattern matches, as a recording."""

import logging
import time
from collections.abc import Callable
from glob import escape, glob, has_magic
from pathlib import Path
from typing import Any

import numpy as np

from edgefuse.errors import FrameError, InputError, SourceError, counted
from edgefuse.images import IMAGE_SUFFIXES, bits_of, read_image
from edgefuse.pairs import Files, images_by_stem, natural_key, pair_files, printable
from edgefuse.runtime.frames import NOMINAL_FPS, Frame, Role
from edgefuse.runtime.sources.base import Source
from edgefuse.runtime.sources.text import Spec, positive_number, seconds, yes_or_no

logger = logging.getLogger(__name__)


class ImageFolder(Source):
    """The images of a folder, or of a pattern such as `frames/*_ir.png`, in natural order (2 before 10).

    Options: `fps` (25), `start` in seconds, `loop=1` to start over at the end; for visible
    images `bits`, those of 16 that are used.
    """

    texts = "frames/, 'frames/*.png'"
    live = False

    @staticmethod
    def accepts(target: str) -> bool:
        """Whether the target is a folder or a pattern with `*` or `[ ]`."""
        return Path(target).is_dir() or (has_magic(target) and not Path(target).exists())

    def __init__(self, spec: Spec, role: Role) -> None:
        readers: dict[str, Callable[[str], Any]] = {
            "fps": positive_number,
            "start": seconds,
            "loop": yes_or_no,
        }
        if role == "vis":
            readers["bits"] = bits_of
        options = spec.read_options(readers)
        self.name = spec.name
        self.fps = options.get("fps", NOMINAL_FPS)
        self._start, self._loop = options.get("start", 0.0), options.get("loop", False)
        self.by_stem = _files(spec.target, role)
        """All its images, those before `start` too."""
        self.length: int | None = None
        self.use(list(self.by_stem.values()))
        self._next = self._unread = 0
        self._role = role
        self._bits: int | None = options.get("bits")
        self._signed = False

    def use(self, files: list[Path]) -> None:
        """Read these files, from `start` on.

        Raises:
            SourceError: there are none from there on.
        """
        self._files = files[round(self._start * self.fps) :]
        if not self._files:
            raise SourceError(
                f"{self.name} has {counted(len(files), 'image')}, none of them after {self._start:g} s"
            )
        self.length = None if self._loop else len(self._files)

    def read(self) -> Frame | None:
        """Return the next image; None after the last.

        Raises:
            FrameError: a file is not an image; the next call returns the one after it.
            SourceError: none of them is, in a folder that starts over at its end.
        """
        if self._next == self.length:
            return None
        index, captured = self._next, time.monotonic()
        self._next += 1
        try:
            image = read_image(self._files[index % len(self._files)], self._role, self._bits)
        except InputError as error:
            self._unread += 1
            if self.length is None and self._unread >= len(self._files):
                raise SourceError(f"{self.name} has no image that can be read: {error}") from None
            raise FrameError(str(error)) from None
        self._unread = 0
        # Below zero was recognised in one picture: those wholly above or below count from the same zero.
        self._signed = self._signed or image.dtype == np.int16
        if self._signed and image.dtype == np.uint16 and image.ndim == 2:
            degrees = image.view(np.int16)
            if (np.abs(degrees.astype(np.int32)) <= 20_000).all():
                image = degrees
        return Frame(image, index, index / self.fps, captured)


def pair_by_stem(ir: ImageFolder, vis: ImageFolder) -> None:
    """Leave out the images of two sources that have no partner of equal stem, and say how many.

    Stems may end in `_ir`, `_vis` and the like. Where no stem is in both, images are paired in order, which
    is logged. Each one's `start` counts from the first pair.

    Raises:
        SourceError: no pair is left from `start` on.
    """
    try:
        pairs = pair_files(ir.by_stem, vis.by_stem, ir.name, vis.name).pairs
    except InputError as error:
        if ir.by_stem == vis.by_stem:  # without endings: `crop` takes two parts of each image
            return
        logger.warning("%s and %s: pairing their images in order (%s)", ir.name, vis.name, error)
        return
    for source, files in ((ir, [pair[1] for pair in pairs]), (vis, [pair[2] for pair in pairs])):
        if left := len(source.by_stem) - len(files):
            logger.warning(
                "%s: ignoring %d of %d images, which have no partner", source.name, left, len(source.by_stem)
            )
        source.use(files)


def _files(target: str, role: Role) -> Files:
    """Return the images by stem, in natural order."""
    if Path(target).is_dir():
        try:
            return images_by_stem(target, role=role)
        except InputError as error:
            raise SourceError(str(error)) from None
    root = _root(target)
    pattern = target if root is None else str(Path(escape(str(root)), Path(target).relative_to(root)))
    found = [Path(name) for name in glob(pattern, recursive=True)]
    images = [path for path in found if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()]
    if not images:
        raise SourceError(f"no images match {target} ({len(found)} other files do)")
    by_stem: Files = {}
    for path in sorted(images, key=natural_key):
        inside = path if root is None else path.relative_to(root)
        stem = printable(inside.with_suffix("").as_posix())
        by_stem[stem if stem not in by_stem else printable(inside.as_posix())] = path
    return by_stem


def _root(target: str) -> Path | None:
    """Return the folder that a pattern begins with. Its name, such as `data[1]`, stands for itself."""
    return next((parent for parent in Path(target).parents if parent.is_dir()), None)
