"""What the sources that OpenCV reads have in common, and the pipelines that a build with GStreamer reads."""

import logging
import re
import threading
import time
from collections import deque
from statistics import median
from typing import Any

import cv2
from numpy.typing import NDArray

from edgefuse.errors import LostError, SourceError, counted
from edgefuse.images import quiet_opencv
from edgefuse.runtime.frames import NOMINAL_FPS, Frame, Role
from edgefuse.runtime.sources.base import SILENCE, Source
from edgefuse.runtime.sources.text import Spec, positive_number

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
