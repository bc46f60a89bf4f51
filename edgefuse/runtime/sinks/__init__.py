"""Outputs of the live loop: video files, image sequences, raw frames, a still, a window, a function."""

from pathlib import Path

from edgefuse.errors import InputError
from edgefuse.runtime.sinks.base import FrameState, FrameStats, FusedFrame, QuotaReachedError, Sink
from edgefuse.runtime.sinks.callback import Callback
from edgefuse.runtime.sinks.encoder import CODECS, CONTAINERS
from edgefuse.runtime.sinks.images import ImageSequence, Still
from edgefuse.runtime.sinks.raw import RawOut
from edgefuse.runtime.sinks.video import VideoOut
from edgefuse.runtime.sinks.window import Window
from edgefuse.runtime.sinks.writer import SinkWriter

__all__ = [
    "CODECS",
    "CONTAINERS",
    "Callback",
    "FrameState",
    "FrameStats",
    "FusedFrame",
    "ImageSequence",
    "QuotaReachedError",
    "RawOut",
    "Sink",
    "SinkWriter",
    "Still",
    "VideoOut",
    "Window",
    "open_output",
]


def open_output(
    out: str,
    fps: float | None,
    triptych: bool = False,
    *,
    codec: str | None = None,
    segment: float | None = None,
    max_size: int | None = None,
) -> Sink:
    """Open the output that a text asks for.

    Args:
        out: `-` for raw frames on standard output; a folder ends in / or has no suffix; else a video.
        fps, triptych, codec, segment, max_size: see `VideoOut`; codec and segment are for videos only,
            and raw frames have no largest size either.

    Raises:
        InputError: it cannot be written to; the message says why.
    """
    if not out:
        raise InputError(f"the output is empty: give a video ({', '.join(CONTAINERS)}), a folder, or -")
    path = Path(out)
    folder = out.endswith("/") or path.is_dir() or not path.suffix
    if not folder:
        return VideoOut(path, fps, triptych, codec=codec, segment=segment, max_size=max_size)
    if codec is not None or segment is not None:
        raise InputError(f"a codec and segments are for videos, and {out} is none")
    if out != "-":
        return ImageSequence(path, triptych, max_size=max_size)
    if max_size is not None:
        raise InputError("a largest size is for files, and raw frames on standard output are none")
    return RawOut(triptych=triptych)
