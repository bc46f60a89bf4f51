"""Cameras attached to this machine, read by OpenCV (V4L2 on Linux)."""

import os
import re
import sys
from pathlib import Path
from typing import Any

import cv2

from edgefuse.errors import SourceError
from edgefuse.images import parse_size
from edgefuse.runtime.opencv_video import open_capture
from edgefuse.runtime.sources.base import Frame, Role, Spec, positive_number
from edgefuse.runtime.sources.video import CaptureSource

__all__ = ["Camera"]

DEVICES = Path("/dev")


class Camera(CaptureSource):
    """`cam0` (the camera's number) or a device path. Options: `size`, `fps`; read back, they must hold."""

    live = True

    @staticmethod
    def accepts(target: str) -> bool:
        """Whether the target is `camN` or under /dev."""
        return re.fullmatch(r"cam\d{1,3}", target) is not None or target.startswith("/dev/")

    def __init__(self, spec: Spec, role: Role) -> None:
        del role
        options = spec.read_options({"size": parse_size, "fps": positive_number})
        linux = sys.platform.startswith("linux")
        device: str | int = spec.target
        if spec.target.startswith("cam"):
            number = int(spec.target[3:])
            device = str(DEVICES / f"video{number}") if linux else number
        if isinstance(device, str):
            _check_device(spec.name, Path(device))
        settings: list[int] = []
        if "size" in options:
            width, height = options["size"]
            settings += [cv2.CAP_PROP_FRAME_WIDTH, width, cv2.CAP_PROP_FRAME_HEIGHT, height]
        if "fps" in options:
            settings += [cv2.CAP_PROP_FPS, round(options["fps"])]
        capture = open_capture(device, cv2.CAP_V4L2 if linux else cv2.CAP_ANY, settings)
        if capture is None:
            raise SourceError(
                f"{spec.name}: {device} cannot be opened as a camera with these settings: it may be busy in "
                "another program, not a capture device, or not offer that size or rate"
            )
        super().__init__(spec.name, capture)
        try:
            self._check_settings(options)
            # A camera that is busy in another program opens, and fails at the first frame.
            self._pending = self._grab()
            if self._pending is None:
                raise SourceError(f"{spec.name}: {device} gives no picture: is it busy in another program?")
        except SourceError:
            self.close()
            raise

    def _check_settings(self, options: dict[str, Any]) -> None:
        width, height = (
            round(self._capture.get(p)) for p in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT)
        )
        asked = options.get("size", (width, height))
        if asked != (width, height):
            raise SourceError(
                f"{self.name}: the camera gives {width}x{height} in place of {asked[0]}x{asked[1]}"
            )
        fps = options.get("fps", self.fps)
        if abs(self.fps - fps) > 0.5:
            raise SourceError(
                f"{self.name}: the camera gives {self.fps:g} frames per second in place of {fps:g}"
            )

    def read(self) -> Frame | None:
        """Return the next frame.

        Raises:
            SourceError: the camera was unplugged or stopped.
        """
        grabbed, self._pending = self._pending or self._grab(), None
        if grabbed is None:
            raise SourceError(f"{self.name}: the camera was lost after {self._next} frames")
        return Frame(grabbed[0], self._next - 1, timestamp=grabbed[1], captured=grabbed[1])


def _check_device(name: str, device: Path) -> None:
    if not device.exists():
        present = ", ".join(sorted(str(p) for p in DEVICES.glob("video*"))) or "none"
        raise SourceError(f"{name}: there is no camera {device} (cameras present: {present})")
    if not os.access(device, os.R_OK | os.W_OK):
        raise SourceError(f"{name}: no permission for {device}: add the user to the group 'video'")
