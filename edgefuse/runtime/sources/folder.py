"""The images of a folder, or those that a pattern matches, as a recording."""

import logging
import time
from collections.abc import Callable
from glob import escape, glob, has_magic
from pathlib import Path
from typing import Any

from edgefuse.errors import FrameError, InputError, SourceError, counted
from edgefuse.images import IMAGE_SUFFIXES, bits_of, read_image
from edgefuse.pairs import images_by_stem, natural_key, pair_folders
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
        skipped = round(options.get("start", 0.0) * self.fps)
        files = _files(spec.target, role)
        self._files = files[skipped:]
        if not self._files:
            raise SourceError(
                f"{self.name} has {counted(len(files), 'image')}, none of them after {options['start']:g} s"
            )
        self.length: int | None = None if options.get("loop") else len(self._files)
        self._target = spec.target
        self._whole = Path(spec.target).is_dir() and not skipped
        self._next = self._unread = 0
        self._role = role
        self._bits: int | None = options.get("bits")

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
        return Frame(image, index, index / self.fps, captured)


def pair_by_stem(ir: ImageFolder, vis: ImageFolder) -> None:
    """Leave out the images of two folders that have no partner of equal stem, and say how many.

    Where no stem is in both, or one is not a whole folder, images are paired in order.
    """
    if not (ir._whole and vis._whole):
        return
    try:
        pairs = pair_folders(ir._target, vis._target).pairs
    except InputError as error:
        if Path(ir._target).samefile(vis._target):
            raise SourceError(str(error)) from None
        logger.warning("%s and %s: pairing their images in order (%s)", ir.name, vis.name, error)
        return
    for source, files in ((ir, [pair[1] for pair in pairs]), (vis, [pair[2] for pair in pairs])):
        if left := len(source._files) - len(files):
            logger.warning(
                "%s: ignoring %d of %d images, which have no partner", source.name, left, len(source._files)
            )
        source._files = files
        source.length = None if source.length is None else len(files)


def _files(target: str, role: Role) -> list[Path]:
    if Path(target).is_dir():
        try:
            return list(images_by_stem(target, role=role).values())
        except InputError as error:
            raise SourceError(str(error)) from None
    found = [Path(name) for name in glob(_pattern(target), recursive=True)]
    images = [path for path in found if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()]
    if not images:
        raise SourceError(f"no images match {target} ({len(found)} other files do)")
    return sorted(images, key=natural_key)


def _pattern(target: str) -> str:
    """Return a pattern in which folders that exist, such as `data[1]`, stand for themselves."""
    path = Path(target)
    existing = next((parent for parent in path.parents if parent.is_dir()), None)
    return target if existing is None else str(Path(escape(str(existing)), path.relative_to(existing)))
