"""Cameras attached to this machine, read by OpenCV: V4L2 on Linux, with the kernel's timestamps."""

import os
import re
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edgefuse.errors import LostError, SourceError
from edgefuse.images import bits_of, parse_size, scale_bits
from edgefuse.runtime.frames import Role
from edgefuse.runtime.sources.opencv import WAIT_SECONDS, CaptureSource, open_capture
from edgefuse.runtime.sources.text import Spec, positive_number, yes_or_no

__all__ = ["DeviceCamera"]

DEVICES = Path("/dev")
UNCONVERTED = {"GREY": 8, "Y10": 10, "Y12": 12, "Y14": 14, "Y16": None}
"""Formats that are taken as they are, and their bits, where known; OpenCV would make 8-bit BGR of them."""
MANUAL, AUTO = 1, 3  # V4L2_EXPOSURE_MANUAL, V4L2_EXPOSURE_APERTURE_PRIORITY: what UVC cameras know
LARGEST_GAIN = 2**31 - 1  # V4L2 knows 32 bits
EXPOSURE_UNIT_MS = 0.1  # of V4L2_CID_EXPOSURE_ABSOLUTE


def device_of(target: str) -> str:
    """Return the device that `camN` stands for on Linux; any other text as it is."""
    numbered = re.fullmatch(r"cam(\d{1,3})", target)
    return str(DEVICES / f"video{int(numbered[1])}") if numbered else target


class DeviceCamera(CaptureSource):
    """`cam0` (the camera's number) or a device path such as `/dev/v4l/by-id/…`, which outlives a restart.

    Options, which are read back and must hold: `size`, `fps`, `format` (a V4L2 four-character code: `Y16`
    for raw 16-bit infrared, `MJPG`, `YUYV`, `GREY`), `exposure` (`auto`, or milliseconds), `gain` (in the
    camera's own units). Further: `raw=1` takes the two bytes of each pixel as a 16-bit count, for infrared
    that is sent as if it were `YUYV`; `bits=12` says how many of the 16 bits of a visible picture are in use.
    """

    texts = "cam0, /dev/video2"
    reopens = True

    @staticmethod
    def accepts(target: str) -> bool:
        """Whether the target is `camN`, or under /dev and no place for files, which /dev/shm is."""
        if re.fullmatch(r"cam\d{1,3}", target):
            return True
        path = Path(target)
        return target.startswith("/dev/") and not (
            path.is_file() or path.is_dir() or (target.startswith("/dev/shm/") and not path.exists())
        )

    def __init__(self, spec: Spec, role: Role) -> None:
        options = spec.read_options(
            {
                "size": parse_size,
                "fps": positive_number,
                "format": _format,
                "exposure": _exposure,
                "gain": _gain,
                "raw": yes_or_no,
                "bits": bits_of,
            }
        )
        self._raw = options.pop("raw", False) or options.get("format") in UNCONVERTED
        self._bytes = 1 if options.get("format") == "GREY" else 2
        bits = options.pop("bits", UNCONVERTED.get(options.get("format", "")))
        self._visible_bits = bits if role == "vis" else None  # infrared keeps its counts
        linux = sys.platform.startswith("linux")
        numbered = spec.target.startswith("cam")
        device = device_of(spec.target) if linux or not numbered else int(spec.target[3:])
        if isinstance(device, str):
            _check_device(spec.name, Path(device))
        # OpenCV waits for 10 s on its own; it reads this once, when the first camera is read.
        os.environ.setdefault("OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT", str(WAIT_SECONDS))
        capture = open_capture(device, cv2.CAP_V4L2 if linux else cv2.CAP_ANY, _settings(options, self._raw))
        if capture is None:
            raise LostError(
                f"{spec.name}: {device} cannot be opened as a camera with these settings: it may be busy in "
                "another program, not a capture device, or not offer that size, rate or format"
            )
        super().__init__(spec.name, capture, role)
        try:
            self._check_settings(options)
            # A camera that is busy in another program opens, and fails at the first frame.
            self._prove("is it busy in another program?")
        except SourceError:
            self.close()
            raise

    def _check_settings(self, options: dict[str, Any]) -> None:
        for name, asked in options.items():
            given = self._setting(name)
            if not _same(name, asked, given):
                raise SourceError(
                    f"{self.name}: the camera gives {name} {_text(given)} in place of {_text(asked)}"
                )

    def _decode(self, image: NDArray[Any]) -> NDArray[Any]:
        """Give raw data its shape: some versions of OpenCV return it as one line of bytes."""
        if self._raw:
            width, height = self._setting("size")
            data = np.ascontiguousarray(image).reshape(-1).view(np.uint8)
            if data.size != width * height * self._bytes:
                raise SourceError(
                    f"{self.name}: {data.size} bytes do not make a raw picture of {width}x{height}"
                )
            image = data.view(np.uint16 if self._bytes == 2 else np.uint8).reshape(height, width)
        image = super()._decode(image)
        if self._visible_bits and image.dtype == np.uint16:
            return scale_bits(image, self._visible_bits)
        return image

    def _setting(self, name: str) -> Any:
        """Read one setting back."""
        get = self._capture.get
        match name:
            case "size":
                return round(get(cv2.CAP_PROP_FRAME_WIDTH)), round(get(cv2.CAP_PROP_FRAME_HEIGHT))
            case "fps":
                return self.fps
            case "format":
                return _name_of(int(get(cv2.CAP_PROP_FOURCC)))
            case "gain":
                return float(get(cv2.CAP_PROP_GAIN))
            case "exposure" if get(cv2.CAP_PROP_AUTO_EXPOSURE) == MANUAL:
                return get(cv2.CAP_PROP_EXPOSURE) * EXPOSURE_UNIT_MS
            case _:
                return "auto"


def _settings(options: dict[str, Any], raw: bool) -> list[int]:
    """Return OpenCV's settings, in the order in which a driver can take them."""
    settings = [cv2.CAP_PROP_CONVERT_RGB, 0] if raw else []
    if "format" in options:
        settings += [cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*options["format"].ljust(4))]
    if "size" in options:
        width, height = options["size"]
        settings += [cv2.CAP_PROP_FRAME_WIDTH, width, cv2.CAP_PROP_FRAME_HEIGHT, height]
    if "fps" in options:
        settings += [cv2.CAP_PROP_FPS, round(options["fps"])]
    if "exposure" in options:
        exposure = options["exposure"]
        settings += [cv2.CAP_PROP_AUTO_EXPOSURE, AUTO if exposure == "auto" else MANUAL]
        if exposure != "auto":
            settings += [cv2.CAP_PROP_EXPOSURE, round(exposure / EXPOSURE_UNIT_MS)]
    if "gain" in options:
        settings += [cv2.CAP_PROP_GAIN, round(options["gain"])]
    return settings


def _same(name: str, asked: Any, given: Any) -> bool:
    if name == "fps":
        return abs(asked - given) <= 0.5
    if isinstance(asked, float) and isinstance(given, float):
        return abs(asked - given) <= max(0.1, 0.05 * asked)  # drivers round exposures and gains
    return bool(asked == given)


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return "x".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _format(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9]{3,4}", text):
        raise ValueError(f"{text!r} is not a four-character code such as Y16, MJPG or YUYV")
    return text.upper()


def _exposure(text: str) -> float | str:
    return "auto" if text == "auto" else positive_number(text)


def _gain(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a number") from None
    if not abs(value) <= LARGEST_GAIN:  # nor is NaN
        raise ValueError(f"{text!r} is outside -{LARGEST_GAIN} to {LARGEST_GAIN}")
    return value


def _name_of(fourcc: int) -> str:
    return fourcc.to_bytes(4, "little", signed=fourcc < 0).decode("ascii", "replace").rstrip(" \0")


def _check_device(name: str, device: Path) -> None:
    if not device.exists():
        present = ", ".join(sorted(str(p) for p in DEVICES.glob("video*"))) or "none"
        raise LostError(f"{name}: there is no camera {device} (cameras present: {present})")
    if not os.access(device, os.R_OK | os.W_OK):
        raise SourceError(f"{name}: no permission for {device}: add the user to the group 'video'")
