"""Video files and network streams, read by OpenCV's ffmpeg."""

import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import cv2

from edgefuse.errors import SourceError, unknown_name
from edgefuse.images import IMAGE_SUFFIXES
from edgefuse.runtime.opencv_video import open_capture
from edgefuse.runtime.sources.base import Frame, Role, Source, Spec, positive_number

__all__ = ["CaptureSource", "NetworkStream", "VideoFile"]

DEFAULT_FPS = 25.0
SCHEMES = frozenset({"http", "https", "rtmp", "rtp", "rtsp", "rtsps", "srt", "tcp", "udp"})


class CaptureSource(Source):
    """What all sources on a `cv2.VideoCapture` share."""

    def __init__(self, name: str, capture: Any, fps: float | None = None) -> None:
        self.name = name
        self.length: int | None = None
        # Containers without a rate report 0, some demuxers report their clock (90000).
        reported = capture.get(cv2.CAP_PROP_FPS)
        self.fps = fps or (reported if 0 < reported <= 1000 else DEFAULT_FPS)
        self._capture = capture
        self._busy = threading.Lock()
        self._next = 0

    def _grab(self) -> tuple[Any, float] | None:
        """Return the next image and the `time.monotonic()` of its capture; None: there is none."""
        with self._busy:
            if self._capture is None or not self._capture.grab():
                return None
            captured = time.monotonic()
            ok, image = self._capture.retrieve()
        if not ok or image is None:
            raise SourceError(f"{self.name}: frame {self._next} cannot be decoded")
        if image.ndim == 3 and image.shape[2] == 1:
            image = image[:, :, 0]
        self._next += 1
        return image, captured

    def close(self) -> None:
        """Release the capture; one whose reader hangs inside the driver is left to the end of the process."""
        if self._busy.acquire(timeout=0.5):  # releasing it under a reader would crash OpenCV
            if self._capture is not None:
                self._capture.release()
                self._capture = None
            self._busy.release()


class VideoFile(CaptureSource):
    """A video file, every frame of it. Option: `fps`, in place of the file's own rate."""

    live = False

    @staticmethod
    def accepts(target: str) -> bool:
        """Whether the target is a file."""
        return Path(target).is_file()

    def __init__(self, spec: Spec, role: Role) -> None:
        del role
        options = spec.read_options({"fps": positive_number})
        path = Path(spec.target)
        if path.suffix.lower() in IMAGE_SUFFIXES:
            raise SourceError(
                f"{path} is an image: give a video or a folder of images, or use `edgefuse fuse`"
            )
        if path.stat().st_size == 0:
            raise SourceError(f"{path} is empty (0 bytes), a video file is needed")
        capture = open_capture(str(path), cv2.CAP_FFMPEG)
        if capture is None:
            raise SourceError(f"{path} is not a video that can be decoded ({path.stat().st_size} bytes)")
        super().__init__(spec.name, capture, options.get("fps"))
        count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        self.length = count if count > 0 else None

    def read(self) -> Frame | None:
        """Return the next frame; None at the end of the file."""
        grabbed = self._grab()
        if grabbed is None:
            if self._next == 0:
                raise SourceError(f"{self.name} has no picture that can be decoded")
            return None
        index = self._next - 1
        return Frame(grabbed[0], index, index / self.fps, grabbed[1])


class NetworkStream(CaptureSource):
    """A camera or server on the network: RTSP, MJPEG over HTTP, MPEG-TS over UDP or TCP."""

    live = True
    timeout = 5.0
    """Seconds to wait for the server, at the opening and for every frame."""

    @staticmethod
    def accepts(target: str) -> bool:
        """Whether the target looks like a URL."""
        return "://" in target

    def __init__(self, spec: Spec, role: Role) -> None:
        del role
        try:
            url = urlsplit(spec.target)
            host, _ = url.hostname, url.port
        except ValueError as error:
            raise SourceError(f"{spec.name} is not a valid URL: {error}") from None
        if url.scheme not in SCHEMES:
            raise SourceError(f"{spec.name}: {unknown_name('URL scheme', url.scheme, SCHEMES)}")
        if not host and url.scheme not in ("udp", "rtp"):  # udp://:5000 listens
            raise SourceError(f"{spec.name} names no host")
        limit = round(self.timeout * 1000)
        settings = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, limit, cv2.CAP_PROP_READ_TIMEOUT_MSEC, limit]
        capture = open_capture(spec.target, cv2.CAP_FFMPEG, settings)
        if capture is None:
            raise SourceError(
                f"{spec.name} cannot be opened: nobody answers within {self.timeout:g} s, "
                "or what is there is not a video stream; check address, port and password"
            )
        super().__init__(spec.name, capture)

    def read(self) -> Frame | None:
        """Return the next frame.

        Raises:
            SourceError: the stream ended or was lost; ffmpeg does not tell which.
        """
        grabbed = self._grab()
        if grabbed is None:
            raise SourceError(f"{self.name} was lost or ended after {self._next} frames")
        return Frame(grabbed[0], self._next - 1, timestamp=grabbed[1], captured=grabbed[1])
