"""Folders of images and how two of them are paired: by equal file stem, never by order."""

import re
from dataclasses import dataclass
from pathlib import Path

from edgefuse.errors import InputError
from edgefuse.images import IMAGE_SUFFIXES

__all__ = ["FolderPairs", "images_by_stem", "pair_folders"]


@dataclass(frozen=True)
class FolderPairs:
    """The result of pairing two folders."""

    pairs: list[tuple[str, Path, Path]]
    """(stem, infrared file, visible file), sorted by stem, numbers by their value: 9 before 10."""
    only_ir: list[str]
    """Stems without a visible image."""
    only_vis: list[str]
    """Stems without an infrared image."""


def images_by_stem(folder: str | Path, doubled: dict[str, str] | None = None) -> dict[str, Path]:
    """Return the image files of a folder (not its subfolders) by stem, sorted.

    Args:
        folder: to look in.
        doubled: if given, stems of two images are left out, and added here with the reason.

    Raises:
        InputError: no such folder, no image in it, or two images of one stem.
    """
    folder = Path(folder)
    if not folder.exists():
        raise InputError(f"no such folder: {folder}")
    if not folder.is_dir():
        raise InputError(f"{folder} is a file, a folder of images is needed")
    found: dict[str, Path] = {}
    try:
        entries = sorted(folder.iterdir(), key=_by_number)
    except OSError as error:
        raise InputError(f"cannot read folder {folder}: {error.strerror}") from None
    for path in entries:
        if path.name.startswith(".") or path.suffix.lower() not in IMAGE_SUFFIXES or not path.is_file():
            continue
        if path.stem in found:
            reason = f"{folder} has two images of stem {path.stem!r}: {found[path.stem].name} and {path.name}"
            if doubled is None:
                raise InputError(reason)
            doubled[path.stem] = reason
        found[path.stem] = path
    if not found:
        raise InputError(f"no images in {folder} (looked for {', '.join(sorted(IMAGE_SUFFIXES))})")
    return {stem: path for stem, path in found.items() if stem not in (doubled or ())}


def pair_folders(ir: str | Path, vis: str | Path, doubled: dict[str, str] | None = None) -> FolderPairs:
    """Pair the images of two folders by stem; `doubled` as for `images_by_stem`.

    Raises:
        InputError: as `images_by_stem`, or no stem is in both folders.
    """
    ir_files, vis_files = images_by_stem(ir, doubled), images_by_stem(vis, doubled)
    if ir_files.keys().isdisjoint(vis_files):
        raise InputError(
            f"no stem is in both folders: {ir} has {len(ir_files)} images such as {min(ir_files)!r}, "
            f"{vis} has {len(vis_files)} such as {min(vis_files)!r}; pairs must have equal file stems"
        )
    return FolderPairs(
        pairs=[(stem, ir_files[stem], vis_files[stem]) for stem in ir_files if stem in vis_files],
        only_ir=sorted(ir_files.keys() - vis_files.keys() - (doubled or {}).keys()),
        only_vis=sorted(vis_files.keys() - ir_files.keys() - (doubled or {}).keys()),
    )


def _by_number(path: Path) -> list[tuple[bool, int, str]]:
    parts = re.split(r"(\d+)", path.name)
    return [(part.isdigit(), int(part) if part.isdigit() else 0, part) for part in parts]
