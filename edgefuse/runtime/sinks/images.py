"""Image files as outputs: a sequence, and a single still."""

from pathlib import Path

from edgefuse.errors import InputError
from edgefuse.images import IMAGE_SUFFIXES, write_image
from edgefuse.runtime.compose import side_by_side
from edgefuse.runtime.frames import FusedFrame
from edgefuse.runtime.sinks.base import OutputOptions, Sink
from edgefuse.runtime.sinks.naming import DiskQuota, check_limits
from edgefuse.runtime.sinks.video import check_folder


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
        check_folder(self._path)
        self._last: FusedFrame | None = None

    def write(self, frame: FusedFrame) -> None:
        """Keep the frame."""
        self._last = frame

    def close(self) -> None:
        """Write the last frame, if there was any."""
        frame, self._last = self._last, None
        if frame is not None:
            write_image(self._path, side_by_side(frame.ir, frame.vis, frame.fused))
