"""The images of a folder, or those that a pattern matches, as a recording."""

import re
import time
from collections.abc import Callable
from glob import glob, has_magic
from pathlib import Path
from typing import Any

from edgefuse.errors import InputError, SourceError
from edgefuse.images import IMAGE_SUFFIXES, bits_of, read_image
from edgefuse.pairs import images_by_stem
from edgefuse.runtime.sources.base import Frame, Role, Source
from edgefuse.runtime.sources.text import Spec, positive_number, seconds, yes_or_no

__all__ = ["ImageFolder"]

DEFAULT_FPS = 25.0


class ImageFolder(Source):
    """The images of a folder, or of a pattern such as `frames/*_ir.png`, in natural order (2 before 10).

    Options: `fps` (25), `start` in seconds, `loop=1` to begin again at the end; for visible
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
        self.fps = options.get("fps", DEFAULT_FPS)
        skipped = round(options.get("start", 0.0) * self.fps)
        files = _files(spec.target)
        self._files = files[skipped:]
        if not self._files:
            raise SourceError(
                f"{self.name} has {len(files)} images, none of them after {options['start']:g} s"
            )
        self.length: int | None = None if options.get("loop") else len(self._files)
        self._next = 0
        self._role = role
        self._bits: int | None = options.get("bits")

    def read(self) -> Frame | None:
        """Return the next image; None after the last.

        Raises:
            SourceError: a file is not an image.
        """
        if self._next == self.length:
            return None
        index, captured = self._next, time.monotonic()
        self._next += 1
        try:
            image = read_image(self._files[index % len(self._files)], self._role, self._bits)
        except InputError as error:
            raise SourceError(str(error)) from None
        return Frame(image, index, index / self.fps, captured)

    def close(self) -> None:
        """Nothing is held open between two images."""


def _files(target: str) -> list[Path]:
    if Path(target).is_dir():
        try:
            return sorted(images_by_stem(target).values(), key=_natural)
        except InputError as error:
            raise SourceError(str(error)) from None
    found = [Path(name) for name in glob(target, recursive=True)]
    images = [path for path in found if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()]
    if not images:
        raise SourceError(f"no images match {target} ({len(found)} other files do)")
    return sorted(images, key=_natural)


def _natural(path: Path) -> list[tuple[int, str]]:
    """Return a sorting key in which runs of digits count as numbers."""
    parts = re.split(r"(\d+)", path.as_posix().casefold())
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]
