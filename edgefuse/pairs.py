"""Folders of images and how two of them are paired: by equal names, never by order."""

import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from edgefuse.errors import InputError, counted
from edgefuse.files import readable
from edgefuse.images import IMAGE_SUFFIXES, Role

Files: TypeAlias = dict[str, Path]

SUBFOLDERS: dict[Role, tuple[str, ...]] = {
    "ir": ("ir", "infrared", "thermal", "lwir", "tir"),
    "vis": ("vis", "vi", "visible", "rgb", "visual"),
}
"""Names of the two halves of a data set, in lower case."""
ENDINGS: dict[Role, tuple[str, ...]] = {
    "ir": ("ir", "infrared", "thermal", "lwir", "tir", "t", "previewdata"),
    "vis": ("vis", "vi", "visible", "rgb", "visual", "color", "colour", "co", "v"),
}
"""What a stem of such a half may end in, behind `_` or `-`."""


@dataclass(frozen=True)
class FolderPairs:
    """The result of pairing two folders."""

    pairs: list[tuple[str, Path, Path]]
    """(stem, infrared file, visible file), in natural order: 9 before 10."""
    only_ir: list[str]
    """Stems without a visible image."""
    only_vis: list[str]
    """Stems without an infrared image."""


def natural_key(path: Path | str) -> list[tuple[int, str]]:
    """Return a sorting key in which runs of digits count as numbers, and upper case as lower case."""
    parts = re.split(r"(\d+)", Path(path).as_posix().casefold())
    return [(int(part), part) if part.isdecimal() else (-1, part) for part in parts]


def printable(name: str) -> str:
    r"""Return a file's name so that it can be printed and compared.

    Bytes that are no UTF-8 become `\xff`. Letters with marks are composed: macOS stores `ü` in two parts.
    """
    return unicodedata.normalize("NFC", readable(name))


def images_by_stem(
    folder: str | Path, doubled: dict[str, str] | None = None, role: Role | None = None
) -> Files:
    """Return the image files of a folder by stem, in natural order.

    If there is no image in the folder itself, those of its subfolder for the role are taken (such as `ir/` or
    `Vis/`), else those of all its subfolders, whose stems are then paths: `day/0001`.

    Args:
        folder: to look in.
        doubled: if given, stems of two images are left out, and added here with the reason.
        role: which half of a data set to look for.

    Raises:
        InputError: no such folder, no image in it, or two images of one stem.
    """
    folder = Path(folder)
    if not folder.exists():
        raise InputError(f"no such folder: {folder}")
    if not folder.is_dir():
        raise InputError(f"{folder} is a file, a folder of images is needed")
    try:
        root, images = _images(folder, role)
    except OSError as error:
        raise InputError(f"cannot read folder {folder}: {error.strerror}") from None
    found: Files = {}
    for path in images:
        stem = printable(path.relative_to(root).with_suffix("").as_posix())
        if stem in found:
            reason = f"{folder} has two images of stem {stem!r}: {found[stem].name} and {path.name}"
            if doubled is None:
                raise InputError(reason)
            doubled[stem] = reason
        found[stem] = path
    if not found:
        raise InputError(f"no images in {folder} (looked for {', '.join(sorted(IMAGE_SUFFIXES))})")
    return {stem: path for stem, path in found.items() if stem not in (doubled or ())}


def _images(folder: Path, role: Role | None) -> tuple[Path, list[Path]]:
    """Return where the images of a folder are, and the images."""
    entries = [path for path in folder.iterdir() if not path.name.startswith(".")]
    if images := [path for path in entries if _is_image(path)]:
        return folder, sorted(images, key=natural_key)
    folders = [path for path in entries if path.is_dir()]
    half = [path for path in folders if role and path.name.casefold() in SUBFOLDERS[role]]
    if len(half) == 1:
        return _images(half[0], None)
    images = [
        path
        for inside in folders
        for path in inside.rglob("*")
        if _is_image(path) and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]
    return folder, sorted(images, key=natural_key)


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and path.is_file()


def pair_folders(ir: str | Path, vis: str | Path, doubled: dict[str, str] | None = None) -> FolderPairs:
    """Pair the images of two folders by stem, or by what a stem is without `_ir`, `_vis` and the like.

    One folder may be given for both, if its halves are subfolders or endings.

    Raises:
        InputError: as `images_by_stem`, or no pair is found.
    """
    ir_files, vis_files = images_by_stem(ir, doubled, "ir"), images_by_stem(vis, doubled, "vis")
    return pair_files(ir_files, vis_files, f"{ir}", f"{vis}", doubled)


def pair_files(
    ir_files: Files, vis_files: Files, ir: str, vis: str, doubled: dict[str, str] | None = None
) -> FolderPairs:
    """Pair files as `pair_folders` does.

    Args:
        ir_files: infrared, by stem.
        vis_files: visible, by stem.
        ir: where infrared is from, to print.
        vis: where visible is from, to print.
        doubled: stems that were left out.

    Raises:
        InputError: no pair is found.
    """
    ir_files, vis_files = halves(ir_files, vis_files, ir)
    if ir_files.keys().isdisjoint(vis_files):
        raise InputError(
            f"no stem is in both folders: {ir} has {counted(len(ir_files), 'image')} "
            f"such as {min(ir_files)!r}, {vis} has {len(vis_files)} such as {min(vis_files)!r}; "
            "pairs must have equal file stems, which may end in _ir and _vis"
        )
    return FolderPairs(
        pairs=[(stem, ir_files[stem], vis_files[stem]) for stem in ir_files if stem in vis_files],
        only_ir=sorted(ir_files.keys() - vis_files.keys() - (doubled or {}).keys()),
        only_vis=sorted(vis_files.keys() - ir_files.keys() - (doubled or {}).keys()),
    )


def halves(ir_files: Files, vis_files: Files, ir: str) -> tuple[Files, Files]:
    """Return the images by stem, of which equal ones are a pair: without endings, if whole ones make no pair.

    Args:
        ir_files: infrared, by stem.
        vis_files: visible, by stem.
        ir: where infrared is from, to print.

    Raises:
        InputError: both are the same images.
    """
    same = ir_files.keys() == vis_files.keys() and all(vis_files[s].samefile(f) for s, f in ir_files.items())
    if same or ir_files.keys().isdisjoint(vis_files):
        ends = _without_endings(ir_files, "ir"), _without_endings(vis_files, "vis")
        if not ends[0].keys().isdisjoint(ends[1]):
            return ends
        if same:
            raise InputError(f"{ir} is given for both cameras, and holds the same images for both")
    return ir_files, vis_files


def _without_endings(files: Files, role: Role) -> Files:
    """Return the files whose stems end in a name of the role, by what stands before it."""
    ending = re.compile(rf"(.*[^_-])[_-]+(?:{'|'.join(ENDINGS[role])})", re.IGNORECASE)
    found = [(ending.fullmatch(stem), path) for stem, path in files.items()]
    return {match[1]: path for match, path in found if match}
