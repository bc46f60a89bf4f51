"""Outputs of the live loop: video files, image sequences, raw frames, a still, a window, a function."""

from edgefuse.errors import InputError
from edgefuse.packages import Registry
from edgefuse.runtime.frames import FrameState, FrameStats, FusedFrame
from edgefuse.runtime.sinks.base import (
    Callback,
    Cropped,
    OutputOptions,
    QuotaReachedError,
    Sink,
    SinkKind,
    SinkWriter,
)
from edgefuse.runtime.sinks.pictures import ImageSequence, RawOut, Still, Window
from edgefuse.runtime.sinks.video import CODECS, CONTAINERS, VideoOut
from edgefuse.runtime.sources.base import safe_name

__all__ = [
    "CODECS",
    "CONTAINERS",
    "SINKS",
    "Callback",
    "Cropped",
    "FrameState",
    "FrameStats",
    "FusedFrame",
    "ImageSequence",
    "OutputOptions",
    "QuotaReachedError",
    "RawOut",
    "Sink",
    "SinkWriter",
    "Still",
    "VideoOut",
    "Window",
    "open_output",
]


SINKS: Registry[SinkKind] = Registry(
    "output", "edgefuse.sinks", {"images": ImageSequence, "video": VideoOut, "raw": RawOut}
)
"""Name → class; the last that accepts a text writes there. To add one, write a `SinkKind`, name it here."""


def open_output(out: str, options: OutputOptions) -> Sink:
    """Open the output that a text asks for.

    Raises:
        InputError: it cannot be written to, or an option is not for it; the message says why.
    """
    return kind_of_output(out, options).open(out, options)


def kind_of_output(out: str, options: OutputOptions) -> SinkKind:
    """Return the kind of output that a text asks for, without opening anything.

    Raises:
        InputError: there is none, or an option is not for it; the message says why.
    """
    known = "; ".join(kind.texts for kind in SINKS.values())
    if not out:
        raise InputError(f"the output is empty: give one of {known}")
    for name, kind in reversed([*SINKS.items()]):
        if not kind.accepts(out):
            continue
        for option in ("codec", "segment", "max_size"):
            if getattr(options, option) is not None and option not in kind.options:
                fit = " or ".join(k.texts for k in SINKS.values() if option in k.options)
                raise InputError(f"{option.replace('_', '-')} is not for {out} ({name}): give {fit}")
        return kind
    if "://" in out:
        raise InputError(
            f"cannot write to {safe_name(out)}: network streams are not supported; write raw frames with "
            "--out - into a program that serves them, such as ffmpeg or GStreamer"
        )
    raise InputError(f"cannot write {out}: known outputs are {known}")
