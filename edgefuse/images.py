"""Reading, checking, writing and colouring images: the one place for each.

Images are numpy arrays as OpenCV has them: uint8 (infrared also uint16), `[H, W]` for grey and
`[H, W, 3]` in B, G, R order for colour, values 0..255.
"""

import re
from pathlib import Path
from typing import Any, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from edgefuse.errors import InputError
from edgefuse.files import replace_file

__all__ = [
    "IMAGE_SUFFIXES",
    "MIN_SIDE",
    "Image",
    "as_visible",
    "check_image",
    "fit_size",
    "luma",
    "parse_size",
    "plain",
    "read_image",
    "read_visible",
    "replace_luma",
    "size_of",
    "write_image",
]

Image: TypeAlias = NDArray[np.uint8]

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".pgm", ".ppm"})
MIN_SIDE = 16
"""Smallest width and height, in pixels, that the networks and metrics are defined for."""


def read_image(path: str | Path, measured: bool = False) -> NDArray[Any]:
    """Read an image file as it is stored.

    Args:
        path: the file.
        measured: take int16 and float pixels too, as `plain` does.

    Returns:
        uint8 or uint16, `[H, W]` or `[H, W, 3]` BGR; an alpha channel is dropped.

    Raises:
        InputError: the file is missing, a folder, unreadable, no image, or has another pixel type.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"no such image file: {path}") from None
    except IsADirectoryError:
        raise InputError(f"{path} is a folder, an image file is needed") from None
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    # From bytes rather than by name: OpenCV cannot tell a missing file from a damaged one.
    if hasattr(cv2.utils, "logging"):  # what OpenCV would print of a damaged one, the error below says
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED) if data else None
    except cv2.error:
        image = None
    if image is None:
        raise InputError(f"{path} is not an image that can be decoded ({len(data)} bytes)")
    return plain(image, str(path), measured)


def plain(image: NDArray[Any], what: str = "the image", measured: bool = False) -> NDArray[Any]:
    """Return a decoded image without its alpha channel, or the dimension of a single channel.

    Args:
        image: as a decoder gave it.
        what: begins the error's sentence.
        measured: take int16 and float too, `[H, W]` or `[H, W, 1]`: temperatures.

    Returns:
        uint8 or uint16, `[H, W]` or `[H, W, 3]` BGR; the image itself if it is that already.

    Raises:
        InputError: other pixel types or shapes.
    """
    channels = 1 if image.ndim == 2 else image.shape[2] if image.ndim == 3 else 0
    if channels not in (1, 2, 3, 4) or 0 in image.shape:
        raise InputError(f"{what} has shape {image.shape}; [H, W] and [H, W, 1 to 4] are supported")
    if image.dtype not in (np.uint8, np.uint16):
        temperatures = image.dtype in (np.int16, np.float32, np.float64) and channels == 1
        if not (measured and temperatures):
            only = ", and as infrared int16 and float temperatures of one channel" if temperatures else ""
            raise InputError(
                f"{what} has {image.dtype} pixels; 8-bit and 16-bit integers are supported{only}"
            )
    if image.ndim == 3 and channels <= 2:  # grey, or grey and alpha
        return np.ascontiguousarray(image[:, :, 0])
    return np.ascontiguousarray(image[:, :, :3]) if channels == 4 else image


def read_visible(path: str | Path) -> Image:
    """Read a visible image as uint8 `[H, W]` or `[H, W, 3]` BGR; 16-bit is scaled by 1/257."""
    return as_visible(read_image(path))


def as_visible(image: NDArray[Any]) -> Image:
    """Return a decoded visible image as uint8, grey or BGR as it was."""
    image = plain(image)
    return image if image.dtype == np.uint8 else cv2.convertScaleAbs(image, alpha=1 / 257)


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


def parse_size(text: str) -> tuple[int, int]:
    """Read `640x480` as (width, height) in pixels.

    Raises:
        InputError: not of that form, or a side outside 16..16384.
    """
    match = re.fullmatch(r"(\d{1,6})[x×](\d{1,6})", text.strip().lower())
    if not match:
        raise InputError(f"size {text!r} is not WIDTHxHEIGHT, such as 640x480")
    width, height = int(match[1]), int(match[2])
    if not (MIN_SIDE <= width <= 16384 and MIN_SIDE <= height <= 16384):
        raise InputError(f"size {text!r} is outside {MIN_SIDE}x{MIN_SIDE} to 16384x16384")
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
