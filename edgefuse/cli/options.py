"""Options that several commands about live cameras have in common."""

import math
from typing import Annotated, TypeAlias

import typer

from edgefuse.errors import InputError

__all__ = [
    "CAMERAS",
    "OUTPUTS",
    "Duration",
    "InfraredSource",
    "MaxSize",
    "Segment",
    "VisibleSource",
    "bytes_of",
]

CAMERAS, OUTPUTS = "Cameras", "Outputs"

InfraredSource: TypeAlias = Annotated[
    str,
    typer.Option(
        "--ir",
        metavar="SOURCE",
        rich_help_panel=CAMERAS,
        help="Infrared: cam0, /dev/video0, a video, a folder of images or of a recording, a URL, or sim; "
        "with options, as in sim?seed=3&size=640x480.",
    ),
]
VisibleSource: TypeAlias = Annotated[
    str, typer.Option("--vis", metavar="SOURCE", rich_help_panel=CAMERAS, help="Visible: likewise.")
]
Duration: TypeAlias = Annotated[
    float | None,
    typer.Option(
        "--duration",
        metavar="SECONDS",
        help="End so many seconds after the beginning, whether there are pictures or not.",
    ),
]
Segment: TypeAlias = Annotated[
    float | None,
    typer.Option(
        "--segment",
        metavar="SECONDS",
        rich_help_panel=OUTPUTS,
        help="Begin a new video file every so many seconds.",
    ),
]
MaxSize: TypeAlias = Annotated[
    float | None,
    typer.Option(
        "--max-size",
        metavar="MB",
        rich_help_panel=OUTPUTS,
        help="Millions of bytes of all the files: with --segment the oldest parts are removed, without it "
        "the output ends.",
    ),
]


def bytes_of(megabytes: float | None) -> int | None:
    """Return what a size in MB comes to.

    Raises:
        InputError: no finite number of bytes.
    """
    if megabytes is None:
        return None
    if not math.isfinite(size := megabytes * 1e6):
        raise InputError(f"the largest size is {megabytes:g} MB, it must be a number of at least 1")
    return round(size)
