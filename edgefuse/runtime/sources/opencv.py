"""Cameras of this machine (V4L2, with the kernel's times) and GStreamer pipelines, read by OpenCV."""

import logging
import os
import re
import sys
import threading
import time
from collections import deque
from pathlib import Path
from statistics import median
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edgefuse.errors import LostError, SourceError, counted
from edgefuse.images import bits_of, parse_size, quiet_opencv, scale_bits
from edgefuse.runtime.frames import NOMINAL_FPS, Frame, Role
from edgefuse.runtime.sources.base import SILENCE, Source, Spec, positive_number, yes_or_no

logger = logging.getLogger(__name__)

MOST_TORN = 10  # frames in a row that cannot be decoded
WAIT_SECONDS = 1  # that the library waits for one frame; a camera may be silent for several times as long
KNOWN_PERIODS = 9  # pauses between frames, whose median is the usual one
MOST_PAUSE = 0.5  # seconds; longer, the camera was silent, and dropped nothing
KERNEL_SECONDS = 5.0  # older than this, a timestamp is of another clock


def open_capture(target: str | int, api: int, settings: list[int] | None = None) -> Any | None:
    """Return an open `cv2.VideoCapture`, or None when OpenCV cannot open the target."""
    with quiet_opencv():
        try:
            capture = cv2.VideoCapture(target, api, settings or [])
        except cv2.error:
            return None
        if capture.isOpened():
            return capture
        capture.release()
    return None


class CaptureSource(Source):
    """A live source on a `cv2.VideoCapture`. The first frame is read at once: only that proves it works."""

    live = True
    length = None

    def __init__(self, name: str, capture: Any, role: Role, fps: float | None = None) -> None:
        self.name = name
        self.limit = SILENCE[role].read
        # Some drivers report 0, others their clock (90000).
        reported = capture.get(cv2.CAP_PROP_FPS)
        known = 0 < reported <= 1000
        self.fps = reported if known else NOMINAL_FPS
        if not known and not fps:
            logger.info("%s states no frame rate: assuming %g per second", name, NOMINAL_FPS)
        self.fps = fps or self.fps
        self._logged_clock = False
        self._capture = capture
        self._busy = threading.Lock()
        self._closing = False
        self._next = 0
        self._gaps = Gaps(1 / self.fps)
        self._first: Frame | None = None

    def _prove(self, hint: str) -> None:
        """Read the first frame, or raise `LostError` with a hint why there is none."""
        self._first = self._grab()
        if self._first is None:
            raise LostError(f"{self.name} gives no picture: {hint}")

    def read(self) -> Frame | None:
        """Return the next frame.

        Raises:
            LostError: none came for about `limit` seconds, or the device is gone.
        """
        frame, self._first = self._first or self._grab(), None
        if frame is None and not self._closing:
            raise LostError(f"{self.name} was lost after {counted(self._next, 'frame')}")
        return frame

    def _grab(self) -> Frame | None:
        """Return the next frame that is whole; None: the device is gone, closed, or gives nothing usable."""
        for _ in range(MOST_TORN):
            with self._busy, quiet_opencv():  # it prints whenever a camera is late
                try:
                    with quiet_opencv():
                        if self._closing or not self._wait():
                            return None
                        arrived = time.monotonic()
                        captured = self._kernel_time(arrived)
                        ok, image = self._capture.retrieve()
                except cv2.error:
                    return None
                finally:
                    if self._closing:
                        self._capture.release()
            index = self._next + (self._gaps.missing(captured) if captured != arrived else 0)
            self._next = index + 1
            if ok and image is not None:
                return Frame(self._decode(image), index, timestamp=captured, captured=captured)
        return None

    def _wait(self) -> bool:
        """Wait for a frame: again and again, where the library gives up sooner than it should."""
        begun = time.monotonic()
        while not self._capture.grab():
            now = time.monotonic()
            # What answers at once does not wait: the device is gone.
            if self._closing or now - begun < 0.9 * WAIT_SECONDS or now - begun >= self.limit:
                return False
        return True

    def _kernel_time(self, arrived: float) -> float:
        """Return the driver's time of the frame where that is on `time.monotonic()`, else its arrival."""
        stamp = self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
        if 0 <= arrived - stamp <= KERNEL_SECONDS:
            return stamp
        if not self._logged_clock:
            self._logged_clock = True
            logger.warning(
                "%s: the driver's times are not on this machine's clock: taking those of arrival", self.name
            )
        return arrived

    def _decode(self, image: NDArray[Any]) -> NDArray[Any]:
        return image[:, :, 0] if image.ndim == 3 and image.shape[2] == 1 else image

    def close(self) -> None:
        """Release the device: now, or, where a reader is at it, as soon as that one returns."""
        self._closing = True
        if self._busy.acquire(timeout=0.1):  # releasing it under a reader would crash OpenCV
            try:
                self._capture.release()
            finally:
                self._busy.release()


class Gaps:
    """Counts the frames that a driver has dropped, by the kernel's times of those that came.

    OpenCV keeps the kernel's sequence numbers to itself. Where a single pause is as long as several frames,
    those are missing; where pauses stay long, the camera has become slower, as many do in the dark.

    Args:
        period: nominal seconds between two frames.
    """

    def __init__(self, period: float) -> None:
        self._periods = deque([period] * KNOWN_PERIODS, maxlen=KNOWN_PERIODS)
        self._before: float | None = None
        self._doubtful = 0.0  # seconds of a pause that may have been several frames

    def missing(self, captured: float) -> int:
        """Return how many frames are known to be missing before the last one, given the time of the next."""
        before, self._before = self._before, captured
        if before is None:
            return 0
        usual, pause = median(self._periods), captured - before
        self._periods.append(pause)
        long, doubtful = pause > 1.5 * usual, self._doubtful
        self._doubtful = pause if long and pause < MOST_PAUSE else 0.0
        return max(0, round((doubtful + pause) / usual) - 2) if doubtful and not long else 0


OPEN_SECONDS = 5.0
NEWEST = "drop=true max-buffers=1 sync=false"


class Pipeline(CaptureSource):
    """`gst:` and a pipeline that ends in `appsink`, such as a Jetson's `gst:nvarguscamerasrc ! … ! appsink`.

    The pipeline is taken as it is; a bare `appsink` is completed, so that it keeps the newest frame and waits
    for no clock. 16-bit infrared is `video/x-raw,format=GRAY16_LE`.

    Options, behind `#`: `fps`, where the pipeline states none.
    """

    texts = "gst:… ! appsink"
    reopens = True

    @staticmethod
    def accepts(target: str) -> bool:
        """Whether the target begins with `gst:`."""
        return target.startswith("gst:")

    def __init__(self, spec: Spec, role: Role) -> None:
        options = spec.read_options({"fps": positive_number})
        pipeline = _completed(spec)
        if not _has_gstreamer():
            raise SourceError(
                f"{spec.name}: this OpenCV ({cv2.__version__}) was built without GStreamer, as PyPI's is; "
                "on a Jetson use NVIDIA's, elsewhere the distribution's python3-opencv"
            )
        limits = [
            cv2.CAP_PROP_OPEN_TIMEOUT_MSEC,
            round(OPEN_SECONDS * 1000),
            cv2.CAP_PROP_READ_TIMEOUT_MSEC,
            round(SILENCE[role].read * 1000),
        ]
        # Older versions refuse to be limited; what gets stuck in them is left to the supervisor.
        capture = open_capture(pipeline, cv2.CAP_GSTREAMER, limits) or open_capture(
            pipeline, cv2.CAP_GSTREAMER
        )
        if capture is None:
            raise LostError(f"{spec.name}: GStreamer cannot start this pipeline; try it with gst-launch-1.0")
        super().__init__(spec.name, capture, role, options.get("fps"))
        try:
            self._prove("is the source of the pipeline there?")
        except LostError:
            self.close()
            raise

    def _kernel_time(self, arrived: float) -> float:
        """A pipeline tells its position, counted from its own start: frames are stamped as they arrive."""
        return arrived


def _completed(spec: Spec) -> str:
    """Return the pipeline as OpenCV takes it."""
    pipeline = spec.target.removeprefix("gst:").strip()
    *elements, sink = (part.strip() for part in pipeline.split("!"))
    if not elements or not all(elements) or not re.match(r"appsink\b", sink):
        raise SourceError(f"{spec.name}: write the pipeline as SOURCE ! … ! appsink")
    return pipeline if sink != "appsink" else f"{pipeline} {NEWEST}"


def _has_gstreamer() -> bool:
    line = next((x for x in cv2.getBuildInformation().splitlines() if x.strip().startswith("GStreamer:")), "")
    return "YES" in line


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
