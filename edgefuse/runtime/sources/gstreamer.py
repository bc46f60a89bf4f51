"""GStreamer pipelines, read by OpenCV where it was built with GStreamer."""

import re

import cv2

from edgefuse.errors import LostError, SourceError
from edgefuse.runtime.sources.base import SILENCE, Role
from edgefuse.runtime.sources.opencv import CaptureSource, open_capture
from edgefuse.runtime.sources.text import Spec, positive_number

__all__ = ["Pipeline"]

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
