"""OpenCV's video reader and writer, opened quietly."""

import os
from typing import Any

import cv2

__all__ = ["open_capture", "open_writer"]


def _silence() -> None:
    """Keep OpenCV and ffmpeg from printing: every failure is ours to tell, in one sentence.

    ffmpeg's level is read from the environment when OpenCV first uses it; a level that the user
    has set stays, to look into a stream that will not open.
    """
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    if hasattr(cv2.utils, "logging"):  # OpenCV 4.6, which Debian 12 has, lacks it
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


def open_capture(target: str | int, api: int, settings: list[int] | None = None) -> Any | None:
    """Return an open `cv2.VideoCapture`, or None when OpenCV cannot open the target."""
    _silence()
    try:
        capture = cv2.VideoCapture(target, api, settings or [])
    except cv2.error:
        return None
    if capture.isOpened():
        return capture
    capture.release()
    return None


def open_writer(path: str, codec: str, fps: float, size: tuple[int, int]) -> Any | None:
    """Return an open `cv2.VideoWriter` for BGR frames of `size` (width, height), or None."""
    _silence()
    try:
        writer = cv2.VideoWriter(path, cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*codec), fps, size)
    except cv2.error:
        return None
    if writer.isOpened():
        return writer
    writer.release()
    return None
