"""A folder of images as a recording."""

import re
import time
from pathlib import Path

from edgefuse.errors import InputError, SourceError
from edgefuse.images import read_image
from edgefuse.pairs import images_by_stem
from edgefuse.runtime.sources.base import Frame, Role, Source, Spec, positive_number

__all__ = ["ImageFolder"]

DEFAULT_FPS = 25.0


class ImageFolder(Source):
    """The images of a folder in natural order (2.png before 10.png). Option: `fps` (25)."""

    live = False

    @staticmethod
    def accepts(target: str) -> bool:
        """Whether the target is a folder."""
        return Path(target).is_dir()

    def __init__(self, spec: Spec, role: Role) -> None:
        del role
        options = spec.read_options({"fps": positive_number})
        try:
            files = images_by_stem(spec.target)
        except InputError as error:
            raise SourceError(str(error)) from None
        self.name = spec.name
        self.fps = options.get("fps", DEFAULT_FPS)
        self._files = sorted(files.values(), key=_natural)
        self.length: int | None = len(self._files)
        self._next = 0

    def read(self) -> Frame | None:
        """Return the next image; None after the last.

        Raises:
            SourceError: a file is not an image.
        """
        if self._next == len(self._files):
            return None
        index, captured = self._next, time.monotonic()
        self._next += 1
        try:
            return Frame(read_image(self._files[index]), index, index / self.fps, captured)
        except InputError as error:
            raise SourceError(str(error)) from None

    def close(self) -> None:
        """Nothing is held open between two images."""


def _natural(path: Path) -> list[tuple[int, str]]:
    """Return a sorting key in which runs of digits count as numbers."""
    parts = re.split(r"(\d+)", path.name.casefold())
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]
