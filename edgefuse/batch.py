"""Fusing image files: one pair, or two folders paired by stem."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edgefuse.errors import InputError
from edgefuse.images import IMAGE_SUFFIXES, read_visible, write_image
from edgefuse.pairs import pair_folders
from edgefuse.runtime.engines.fuser import Fuser
from edgefuse.thermal import ThermalConfig, read_infrared

__all__ = ["Jobs", "fuse_files", "plan"]


@dataclass(frozen=True)
class Jobs:
    """What is going to be fused."""

    files: list[tuple[Path, Path, Path]]
    """(infrared, visible, fused) files."""
    only_ir: list[str]
    only_vis: list[str]


def plan(ir: Path, vis: Path, out: Path) -> Jobs:
    """Decide which files are fused into which.

    Two folders are paired by stem and fused into a folder, which is made, under the visible image's name.

    Raises:
        InputError: something is missing, a file is given with a folder, or an input would be overwritten.
    """
    for path in (ir, vis):
        if not path.exists():
            raise InputError(f"no such file or folder: {path}")
    if ir.is_dir() != vis.is_dir():
        raise InputError(f"{ir} and {vis}: give two images or two folders, not one of each")
    if not ir.is_dir():
        if out.suffix.lower() not in IMAGE_SUFFIXES:
            known = ", ".join(sorted(IMAGE_SUFFIXES))
            raise InputError(f"--out {out}: an image is written, so the suffix must be one of {known}")
        jobs = Jobs([(ir, vis, out)], [], [])
    else:
        if out.is_file():
            raise InputError(f"--out {out} is a file; two folders are fused into a folder")
        found = pair_folders(ir, vis)
        files = [(a, b, (out / stem).with_name(b.name)) for stem, a, b in found.pairs]
        jobs = Jobs(files, found.only_ir, found.only_vis)
    for a, b, fused in jobs.files:
        if fused.resolve() in (a.resolve(), b.resolve()):
            raise InputError(f"--out would overwrite the input {fused}")
    return jobs


def fuse_files(
    jobs: Jobs, fuser: Fuser, thermal: ThermalConfig | None = None, bits: int | None = None
) -> Iterator[tuple[Path, InputError | None]]:
    """Fuse and write one pair after the other; yield each file, and why it could not be read.

    Args:
        jobs: what is fused.
        fuser: by what.
        thermal: how infrared becomes 8 bits.
        bits: of visible 16-bit images; None: as the files say.

    Raises:
        InputError: a file that cannot be written; what was written before stays.
    """
    for ir, vis, fused in jobs.files:
        try:
            image = fuser(read_infrared(ir, thermal), read_visible(vis, bits))
        except InputError as error:
            yield fused, error
            continue
        try:
            fused.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"cannot make folder {fused.parent}: {error.strerror}") from None
        write_image(fused, image)
        yield fused, None
