"""What an image file says about its pixels beside their values: the one place where metadata is read.

Pillow parses the files' headers; the pixels come from OpenCV, which keeps 16 bits, int16 and floats in colour
and grey alike but leaves out most of what is read here.
"""

import os
import re
import struct
import warnings
from dataclasses import dataclass
from importlib import import_module
from io import BytesIO
from typing import Any

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from edgefuse.errors import InputError

MAX_SIDE = 16384
"""Pixels of the longest side that a size may have."""
MAX_PIXELS = MAX_SIDE * MAX_SIDE
"""Largest image that is decoded; the environment variable `EDGEFUSE_MAX_PIXELS` says otherwise. A few hundred
kilobytes of PNG can hold more pixels than there is memory."""

# First bytes of a file → (Pillow's module, class). `Image.open` warns and raises by a limit of its own.
READERS = {
    b"\x89PNG": ("PngImagePlugin", "PngImageFile"),
    b"\xff\xd8": ("JpegImagePlugin", "JpegImageFile"),
    b"II*\0": ("TiffImagePlugin", "TiffImageFile"),
    b"MM\0*": ("TiffImagePlugin", "TiffImageFile"),
    b"RIFF": ("WebPImagePlugin", "WebPImageFile"),
    b"BM": ("BmpImagePlugin", "BmpImageFile"),
    b"P5": ("PpmImagePlugin", "PpmImageFile"),
    b"P6": ("PpmImagePlugin", "PpmImageFile"),
}
ORIENTATION, PHOTOMETRIC, NO_DATA = 274, 262, 42113  # tags of EXIF and TIFF, the last one of GDAL
STRAY_BYTES = 32
"""Webcams write a few before the end marker of a JPEG that is whole."""
DAMAGED = (
    OSError,
    SyntaxError,
    ValueError,
    LookupError,
    TypeError,
    ArithmeticError,
    EOFError,
    struct.error,
)
"""What Pillow raises for damaged headers."""


@dataclass(frozen=True)
class Stored:
    """What a file says."""

    kind: str = ""
    """`PNG`, `JPEG`, `TIFF` …; empty: unknown."""
    orientation: int = 1
    """EXIF's 1 to 8: how the stored pixels are to be turned for display."""
    white_is_zero: bool = False
    """A TIFF whose 0 is white."""
    white: int | None = None
    """Largest value that a sample can have, where that is not all of its bits: of a PNG's sBIT, of a PGM."""
    no_data: float | None = None
    """Value of a GeoTIFF where nothing was measured."""
    pages: int = 1
    aspect: float = 1.0
    """Width of a pixel over its height."""
    radiometric: bool = False
    """A JPEG of a FLIR camera, in which the measured values stand beside the picture."""


def read_stored(data: bytes, name: str) -> Stored:
    """Read the header of an image file.

    Args:
        data: the whole file.
        name: begins the error's sentence.

    Raises:
        InputError: more pixels than the limit.
    """
    reader = next((reader for magic, reader in READERS.items() if data.startswith(magic)), None)
    if reader is None:
        return Stored()
    # What is wrong with metadata, Pillow prints. The decoder says whether there is a picture.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            image = getattr(import_module(f"PIL.{reader[0]}"), reader[1])(BytesIO(data))
        except DAMAGED:
            return _of_tags(data, name) if reader[1] == "TiffImageFile" else Stored()
        with image:
            _check_size(image.size, name)
            try:
                return _described(image, data)
            except DAMAGED:
                return Stored(image.format)


def _of_tags(data: bytes, name: str) -> Stored:
    """Describe a TIFF whose pixels Pillow does not know, such as those of 12 bits."""
    from PIL.TiffImagePlugin import ImageFileDirectory_v2

    try:
        tags = ImageFileDirectory_v2(data[:8])
        file = BytesIO(data)
        file.seek(tags.next)
        tags.load(file)
        size = int(tags[256]), int(tags[257])
    except DAMAGED:
        return Stored()
    _check_size(size, name)
    return Stored("TIFF", white_is_zero=tags.get(PHOTOMETRIC) == 0, no_data=_number(tags.get(NO_DATA)))


def _number(text: object) -> float | None:
    try:
        return float(str(text).strip("\0 "))
    except ValueError:
        return None


def _check_size(size: tuple[int, int], name: str) -> None:
    text = os.environ.get("EDGEFUSE_MAX_PIXELS", "")
    if text and not text.isdecimal():
        raise InputError(f"EDGEFUSE_MAX_PIXELS is {text!r}, a number of pixels is needed")
    limit = int(text) if text else MAX_PIXELS
    if size[0] * size[1] > limit:
        raise InputError(
            f"{name} has {size[0]}x{size[1]} = {size[0] * size[1]:,} pixels, more than {limit:,}: "
            "set EDGEFUSE_MAX_PIXELS to a larger number to read it all the same"
        )


def _described(image: Any, data: bytes) -> Stored:
    from PIL.Image import Image

    chunks = _chunks(data) if image.format == "PNG" else {}
    if "eXIf" in chunks:
        image.info["exif"] = chunks["eXIf"]
    # Pillow's method for PNG decodes the whole picture, to see whether EXIF comes behind it.
    exif = Image.getexif(image) if image.format == "PNG" else image.getexif()
    orientation = int(exif.get(ORIENTATION, 1))
    tags = getattr(image, "tag_v2", {})
    across, down = image.info.get("aspect", (1, 1)) if image.format == "PNG" else (1, 1)
    if image.format == "JPEG" and image.info.get("jfif_unit") == 0:
        across, down = image.info.get("jfif_density", (1, 1))
    return Stored(
        image.format,
        orientation=orientation if 1 <= orientation <= 8 else 1,
        white_is_zero=tags.get(PHOTOMETRIC) == 0,
        white=_largest(image.format, data, chunks),
        no_data=_number(tags.get(NO_DATA)),
        pages=getattr(image, "n_frames", 1),
        # Densities are pixels per length: more of them across make a pixel narrower.
        aspect=down / across if across and down else 1.0,
        radiometric=image.format == "JPEG"
        and any(marker == "APP1" and body.startswith(b"FLIR\0") for marker, body in image.applist),
    )


def _largest(kind: str, data: bytes, chunks: dict[str, bytes]) -> int | None:
    """Return the largest value by a PNG's sBIT chunk or a PGM's header, which Pillow does not tell."""
    if kind == "PPM":
        header = re.match(rb"P[56](?:\s+|#[^\n]*\n)+\d+(?:\s+|#[^\n]*\n)+\d+(?:\s+|#[^\n]*\n)+(\d+)\s", data)
        return int(header[1]) if header else None
    bits = max(chunks.get("sBIT", b""), default=16)
    return 2**bits - 1 if 8 <= bits < 16 else None


def _chunks(data: bytes) -> dict[str, bytes]:
    """Return what a PNG holds in the chunks that are read here."""
    found = {}
    place = 8
    while place + 8 <= len(data):
        length, name = int.from_bytes(data[place : place + 4], "big"), data[place + 4 : place + 8]
        if name in (b"sBIT", b"eXIf"):
            found[name.decode()] = data[place + 8 : place + 8 + length]
        place += 12 + length
    return found


def upright(image: NDArray[Any], stored: Stored) -> NDArray[Any]:
    """Turn decoded pixels as their EXIF orientation says. OpenCV has done so for TIFF."""
    if stored.kind == "TIFF" or stored.orientation == 1:
        return image
    if stored.orientation >= 5:  # 5 to 8: rows and columns exchanged
        image = image.swapaxes(0, 1)
    if stored.orientation in (3, 4, 7, 8):
        image = image[::-1]
    if stored.orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    return np.ascontiguousarray(image)


def check_jpeg(data: bytes, name: str) -> None:
    """Raise `InputError` if a JPEG is damaged inside: OpenCV returns it all the same, grey or torn.

    libjpeg notices codes that do not exist, data that ends too soon, and data that is left over. It is asked
    for an eighth of the size, which needs all codes and few sums. Damage after which the codes end as they
    should is noticed by no decoder: a JPEG holds no checksum.
    """
    try:
        simplejpeg.decode_jpeg(data, "GRAY", min_factor=8)
    except ValueError as error:
        damage = re.search(r"(Corrupt JPEG data|Premature end)(: (\d+) extraneous bytes)?", str(error))
        if damage and int(damage[3] or STRAY_BYTES + 1) > STRAY_BYTES:
            raise InputError(f"{name} is damaged: its JPEG data is cut off or has invalid codes") from None
