"""Reading, checking, writing and colouring images: the one place for each.

Images are numpy arrays as OpenCV has them: uint8 (infrared also uint16), `[H, W]` for grey and
`[H, W, 3]` in B, G, R order for colour, values 0..255.
"""

import logging
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from edgefuse.errors import InputError
from edgefuse.files import replace_file
from edgefuse.stored import MAX_SIDE, Stored, check_jpeg, read_stored, upright

logger = logging.getLogger(__name__)

Image: TypeAlias = NDArray[np.uint8]
Role: TypeAlias = Literal["ir", "vis"]

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".pgm", ".ppm"})
MIN_SIDE = 16
"""Smallest width and height, in pixels, that the networks and metrics are defined for."""
MEASURED = (np.int16, np.int32, np.uint32, np.float32, np.float64)
"""Pixel types that infrared may have beside uint8 and uint16."""
TWELVE_BITS = 4095
"""A visible picture of 16 bits with hardly a larger value is suspected to hold fewer bits."""
FEW = 0.005
"""Share of the pixels that may have larger values all the same."""
_WARNED: set[tuple[str, str]] = set()


def read_image(path: str | Path, role: Role | None = None, bits: int | None = None) -> NDArray[Any]:
    """Read an image file, upright and with the meaning that the file gives its pixels.

    What the picture loses on the way, or may mean, is logged once a folder.

    Args:
        path: the file.
        role: what it is to be. `ir` may have int16 and float pixels too, see `plain`; 16 bits whose bytes are
            swapped are put right. `vis` becomes uint8, see `as_visible`.
        bits: of a visible 16-bit image; None: as the file says, else 16.

    Returns:
        uint8 or uint16, `[H, W]` or `[H, W, 3]` BGR; an alpha channel is dropped.

    Raises:
        InputError: the file is missing, a folder, unreadable, too large, no image, damaged, or has another
            pixel type.
    """
    path = Path(path)
    folder = str(path.parent)
    data = _bytes_of(path)
    stored = read_stored(data, str(path))
    # From bytes rather than by name: OpenCV cannot tell a missing file from a damaged one.
    if stored.kind == "JPEG":
        check_jpeg(data, str(path))
    try:
        with quiet_opencv():
            image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED) if data else None
    except cv2.error:
        image = None
    if image is None:
        raise InputError(f"{path} is not an image that can be decoded ({len(data)} bytes)")
    image = upright(plain(image, str(path), measured=role == "ir"), stored)
    if stored.pages > 1:
        warn_once(folder, "only the first page or frame of each image is used")
    if abs(stored.aspect - 1) > 0.02:
        warn_once(folder, f"the files say that pixels are {stored.aspect:.3g}:1: treating them as square")
    if role == "ir" and stored.radiometric:
        warning = (
            "images are radiometric JPEGs: using the rendered picture, not the temperatures; extract those "
            "with `exiftool -b -RawThermalImage FILE`"
        )
        warn_once(folder, warning)
    return _as_meant(image, stored, role, bits, folder)


def _as_meant(
    image: NDArray[Any], stored: Stored, role: Role | None, bits: int | None, folder: str
) -> NDArray[Any]:
    """Give decoded values the meaning that the file gives them, or that they must have."""
    if image.dtype == np.uint8 and stored.white is not None and stored.white < 255:  # of a PGM
        image = cv2.convertScaleAbs(image, alpha=255 / max(stored.white, 1))
    if role == "ir" and stored.no_data is not None and image.dtype != np.uint8:
        image = _without(image, stored.no_data)
    if image.dtype == np.uint16:
        if stored.white_is_zero:  # which OpenCV minds for 8 bits only
            image = cv2.bitwise_not(image)
        if role == "ir":
            image = _unwrapped(_unswapped(image, folder), folder)
    if role != "vis":
        return image
    scaled = stored.kind == "PNG" and stored.white is not None and _is_scaled(image, stored.white)
    return as_visible(image, 16 if scaled and not bits else bits, stored.white, folder)


def _bytes_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"no such image file: {path}") from None
    except IsADirectoryError:
        raise InputError(f"{path} is a folder, an image file is needed") from None
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None


def warn_once(place: str, warning: str) -> None:
    """Log a warning about one of many pictures, once for all those of a folder or camera."""
    if (place, warning) not in _WARNED:
        _WARNED.add((place, warning))
        logger.warning("%s: %s", place, warning)


def _unswapped(image: NDArray[Any], folder: str) -> NDArray[Any]:
    """Exchange the two bytes of each pixel if the picture is far smoother then.

    FLIR's cameras store raw PNGs with the lower byte first, where PNG has the higher one first.
    """
    swapped = image.byteswap()
    low_byte = image.astype(np.uint8)
    if image.ndim == 3 or not low_byte.any() or np.ptp(swapped) >= np.ptp(image):
        return image
    rough, smooth = (float(np.abs(np.diff(i.astype(np.int32), axis=1)).mean()) for i in (image, swapped))
    if rough < 8 * smooth:
        return image
    warn_once(
        folder, "the bytes of each pixel are swapped, as in raw PNGs of FLIR cameras: swapping them back"
    )
    return swapped


def _unwrapped(image: NDArray[Any], folder: str) -> NDArray[Any]:
    """Take hundredths of a degree Celsius as signed, if those below zero came out as large numbers."""
    wrapped = (image >= 32768) & (image < 65535)
    if image.ndim == 3 or not 0.01 < wrapped.mean() < 0.99:
        return image
    signed = image.view(np.int16)
    if np.ptp(signed.astype(np.int32)) > 20_000 or np.ptp(image) < 40_000:
        return image
    warn_once(folder, "negative values are stored as 65535 and below: reading the pixels as signed")
    return signed


def _is_scaled(image: NDArray[Any], white: int) -> bool:
    """Whether fewer bits have been scaled to 16 already, as PNG wants it of a file with sBIT.

    Section 12.5 of the PNG specification (2003) names these ways: the low bits are zeros, or repeat the high
    ones, or the value is the rounded multiple. The brightness does not tell it: a night may be all dark.
    """
    if image.dtype != np.uint16:
        return False
    bits = white.bit_length()
    value = image >> (16 - bits)
    high = value << (16 - bits)
    ways = high, high | value >> (2 * bits - 16), np.rint(value * np.float64(65535 / white))
    return any(np.array_equal(image, way) for way in ways)


def _without(image: NDArray[Any], no_data: float) -> NDArray[Any]:
    """Put what is read as no measurement where a file has its number for that."""
    # As text the tag may be any number, or nan, whatever the pixels can hold.
    limits = np.finfo(image.dtype) if image.dtype.kind == "f" else np.iinfo(image.dtype)
    whole = image.dtype.kind == "f" or no_data.is_integer()
    if not (whole and float(limits.min) <= no_data <= float(limits.max)):
        return image
    nothing = {"f": np.nan, "u": 0, "i": np.iinfo(np.int16).min}[image.dtype.kind]
    return np.where(image == image.dtype.type(no_data), image.dtype.type(nothing), image)


def scale_bits(image: NDArray[Any], bits: int) -> Image:
    """Return a picture of which `bits` bits are in use, uint16 of any shape, as uint8 of the whole range."""
    return cv2.convertScaleAbs(image, alpha=255 / (2**bits - 1))


def plain(image: NDArray[Any], what: str = "the image", measured: bool = False) -> NDArray[Any]:
    """Return a decoded image without its alpha channel, or the dimension of a single channel.

    Args:
        image: as a decoder gave it.
        what: begins the error's sentence.
        measured: take `MEASURED` too, `[H, W]` or `[H, W, 1]`: temperatures.

    Returns:
        uint8 or uint16, `[H, W]` or `[H, W, 3]` BGR; the image itself if it is that already.

    Raises:
        InputError: other pixel types or shapes.
    """
    channels = 1 if image.ndim == 2 else image.shape[2] if image.ndim == 3 else 0
    if channels not in (1, 2, 3, 4) or 0 in image.shape:
        raise InputError(f"{what} has shape {image.shape}; [H, W] and [H, W, 1 to 4] are supported")
    if image.dtype not in (np.uint8, np.uint16):
        temperatures = image.dtype in MEASURED and channels == 1
        if not (measured and temperatures):
            only = ", and as infrared also signed and float values of one channel" if temperatures else ""
            raise InputError(
                f"{what} has {image.dtype} pixels; 8-bit and 16-bit integers are supported{only}"
            )
    if image.ndim == 3 and channels <= 2:  # grey, or grey and alpha
        return np.ascontiguousarray(image[:, :, 0])
    return np.ascontiguousarray(image[:, :, :3]) if channels == 4 else image


def read_visible(path: str | Path, bits: int | None = None) -> Image:
    """Read a visible image as uint8 `[H, W]` or `[H, W, 3]` BGR; see `as_visible`."""
    return read_image(path, "vis", bits)


def as_visible(
    image: NDArray[Any], bits: int | None = None, white: int | None = None, place: str = "visible"
) -> Image:
    """Return a decoded visible image as uint8, grey or BGR as it was.

    Args:
        image: uint8 or uint16, as `plain` takes it.
        bits: how many of 16 are in use, by the user; larger values are white.
        white: the same as the largest value, by a file's header, which is not believed where a picture has
            more than a few larger ones: then it has been scaled already.
        place: folder or camera, for the warning that 16 bits look as if they were fewer.
    """
    image = plain(image)
    if image.dtype == np.uint8:
        return image
    if bits:
        return scale_bits(image, bits)
    top = white or TWELVE_BITS
    # Neither dead pixels nor a date that is burnt in say how many bits there are.
    low = image[image <= top]
    few = top < 65535 and low.size >= (1 - FEW) * image.size
    if few and white:
        return cv2.convertScaleAbs(image, alpha=255 / white)
    if few and (largest := int(low.max())):
        found = max(8, largest.bit_length())
        warn_once(
            place,
            f"visible pictures of 16 bits have hardly any value over {largest}, so they look nearly black: "
            f"if they hold {found} bits, give bits={found}",
        )
    return scale_bits(image, 16)


def check_image(what: str, image: NDArray[Any]) -> None:
    """Raise `InputError` unless `image` is uint8 `[H, W]` or `[H, W, 3]` of at least 16×16 pixels."""
    if not isinstance(image, np.ndarray):
        raise InputError(f"the {what} image is a {type(image).__name__}, a numpy array is needed")
    if image.dtype != np.uint8:
        raise InputError(f"the {what} image has dtype {image.dtype}, uint8 (0..255) is needed")
    if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] != 3):
        raise InputError(f"the {what} image has shape {image.shape}, [H, W] or [H, W, 3] is needed")
    if min(image.shape[:2]) < MIN_SIDE:
        raise InputError(f"the {what} image is {size_of(image)}, at least {MIN_SIDE}x{MIN_SIDE} is needed")


def luma(image: Image) -> Image:
    """Return the grey image `[H, W]`: 0.299 R + 0.587 G + 0.114 B (BT.601, full range), rounded."""
    return image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)


def replace_luma(vis: Image, grey: Image, fused: Image) -> Image:
    """Give the fused luma the colours of the visible image.

    In full-range YCbCr, new luma and old chroma is the same as adding `fused - grey` to B, G and R.

    Args:
        vis: visible image, `[H, W]` or `[H, W, 3]`.
        grey: its luma, `[H, W]`.
        fused: the fused luma, `[H, W]`.

    Returns:
        uint8, of the shape of `vis`, saturated at 0 and 255.
    """
    if vis.ndim == 2:
        return fused
    # Of each pixel's two saturating differences one is 0, so two uint8 passes are exact.
    brighter = cv2.cvtColor(cv2.subtract(fused, grey), cv2.COLOR_GRAY2BGR)
    darker = cv2.cvtColor(cv2.subtract(grey, fused), cv2.COLOR_GRAY2BGR)
    return cv2.subtract(cv2.add(vis, brighter, dst=brighter), darker, dst=darker)


def fit_size(image: Image, size: tuple[int, int]) -> Image:
    """Resize an image to (width, height): area down, bilinear up; one that has the size is returned."""
    width, height = size
    if image.shape[:2] == (height, width):
        return image
    shrinks = image.shape[0] > height and image.shape[1] > width
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def size_of(image: NDArray[Any]) -> str:
    """Return the size as text, width × height, such as `640x480`."""
    return f"{image.shape[1]}x{image.shape[0]}"


def bits_of(text: str) -> int:
    """Read the number of bits of a picture, 8 to 16.

    Raises:
        InputError: anything else.
    """
    if not text.isdecimal() or not 8 <= int(text) <= 16:
        raise InputError(f"{text!r} is not a number of bits from 8 to 16")
    return int(text)


def parse_size(text: str) -> tuple[int, int]:
    """Read `640x480` as (width, height) in pixels.

    Raises:
        InputError: not of that form, or a side outside `MIN_SIDE` to `MAX_SIDE`.
    """
    match = re.fullmatch(r"(\d{1,6})[x×](\d{1,6})", text.strip().lower())
    if not match:
        raise InputError(f"size {text!r} is not WIDTHxHEIGHT, such as 640x480")
    width, height = int(match[1]), int(match[2])
    if not (MIN_SIDE <= width <= MAX_SIDE and MIN_SIDE <= height <= MAX_SIDE):
        raise InputError(f"size {text!r} is outside {MIN_SIDE}x{MIN_SIDE} to {MAX_SIDE}x{MAX_SIDE}")
    return width, height


def write_image(path: str | Path, image: NDArray[Any]) -> None:
    """Write an image; the format follows from the suffix. A half-written file never has the final name.

    Raises:
        InputError: unknown suffix, missing folder, or the disk refuses.
    """
    path = Path(path)
    if path.suffix.lower() not in IMAGE_SUFFIXES:
        raise InputError(
            f"cannot write {path}: the suffix must be one of {', '.join(sorted(IMAGE_SUFFIXES))}"
        )
    if path.suffix.lower() == ".pgm" and image.ndim == 3:
        raise InputError(f"cannot write {path}: .pgm holds grey images only, use .ppm or .png for colour")
    encoded, data = cv2.imencode(path.suffix.lower(), image)
    if not encoded:
        raise InputError(f"cannot encode a {image.dtype} image of shape {image.shape} as {path.suffix}")
    replace_file(path, lambda partial: partial.write_bytes(data.tobytes()))


LOGGING: Any = getattr(cv2.utils, "logging", None)  # which OpenCV 4.6 lacks, as Debian 12 has it
LOCK = threading.Lock()
state = {"users": 0, "level": 0}


@contextmanager
def quiet_opencv() -> Iterator[None]:
    """Keep OpenCV from printing meanwhile: a failure is ours to report, in one sentence.

    Its level is one for the whole process: threads may be in here at once, and the last one out restores it.
    """
    if LOGGING is None:
        yield
        return
    with LOCK:
        if not state["users"]:
            state["level"] = LOGGING.getLogLevel()
            LOGGING.setLogLevel(LOGGING.LOG_LEVEL_SILENT)
        state["users"] += 1
    try:
        yield
    finally:
        with LOCK:
            state["users"] -= 1
            if not state["users"]:
                LOGGING.setLogLevel(state["level"])


GREYS = np.arange(256, dtype=np.float64)
LARGE = 256
"""Rows from which on every second one is enough."""


def measure_levels(ir: Image, vis: Image, valid: Image | None = None) -> NDArray[np.float32]:
    """Measure median and spread of a pair.

    Args:
        ir: infrared, uint8 `[H, W]`.
        vis: visible, uint8 `[H, W]`, or `[H, W, 3]` BGR, of which the luma counts; of the same size.
        valid: weights uint8 `[H, W]`: pixels of 128 or more count, in both pictures. None, or nowhere as
            much: all pixels count.

    Returns:
        float32 `[5]` in [0, 1]: `LEVELS`. The median lies between grey levels, as if the pixels of
        one were spread evenly over it, so that it moves smoothly. The spread is the mean absolute deviation
        from it; what the brighter pixels contribute to that of infrared is the spread above the median,
        half of it where both sides are alike.
    """
    mask = None if valid is None else cv2.compare(valid, 128, cv2.CMP_GE)
    if mask is not None and cv2.countNonZero(mask) == 0:
        mask = None
    # Every second row: a picture's neighbours say nearly the same.
    rows = slice(None, None, 2 if len(ir) >= LARGE else 1)
    mask = None if mask is None else mask[rows]
    counts = [cv2.calcHist([image[rows]], [0], mask, [256], [0, 256]).ravel() for image in (ir, luma(vis))]
    return levels_of_counts(np.asarray(counts, np.float64))


def levels_of_counts(counts: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return the levels float32 `[5]` of pictures whose grey levels have the counts `[2, 256]`."""
    measured: list[float] = []
    for of_picture in counts:
        total = of_picture.sum()
        below = np.cumsum(of_picture)
        at = int(np.searchsorted(below, total / 2))
        median = at + 0.5 - (below[at] - total / 2) / of_picture[at]
        away = of_picture * np.abs(GREYS - median)
        measured += [median, away.sum() / total]
        if len(measured) == 2:
            above = away[median < GREYS].sum() / total
    return np.asarray([*measured, above], np.float32) / np.float32(255)
