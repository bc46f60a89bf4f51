"""Outputs of the live loop: video files, image sequences, a still, a window."""

from pathlib import Path

from edgefuse.errors import InputError
from edgefuse.runtime.sinks.base import FusedFrame, Sink, SinkWriter
from edgefuse.runtime.sinks.images import ImageSequence, Still
from edgefuse.runtime.sinks.video import CODECS, VideoOut
from edgefuse.runtime.sinks.window import Window

__all__ = ["FusedFrame", "ImageSequence", "Sink", "SinkWriter", "Still", "VideoOut", "Window", "open_output"]


def open_output(out: str, fps: float, keep_pace: bool, triptych: bool) -> Sink:
    """Open the output that a path asks for: a video by its suffix, a folder by a final / or no suffix.

    Raises:
        InputError: it cannot be written to; the message says why.
    """
    if not out:
        raise InputError(f"the output is empty: give a video ({', '.join(CODECS)}) or a folder")
    path = Path(out)
    if out.endswith("/") or path.is_dir() or not path.suffix:
        return ImageSequence(path, triptych)
    return VideoOut(path, fps, keep_pace, triptych)
