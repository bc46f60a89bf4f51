"""The times of a recorded video's frames: a text file beside it, since Matroska has milliseconds only."""

from pathlib import Path
from typing import IO

__all__ = ["STARTED_TAG", "Timesheet", "read_timesheet", "timesheet_path"]

HEADER = "pts_ms,timestamp_s,index"
STARTED_TAG = "EDGEFUSE_STARTED"
"""Tag of a recorded video: the common zero of the times of both cameras, as UTC."""


def timesheet_path(video: Path) -> Path:
    """Return the name of the times beside a video: `ir.mkv` has `ir.times.csv`."""
    return video.with_suffix(".times.csv")


class Timesheet:
    """Writes the times, a line per frame, each complete on disk before the next.

    Args:
        file: open for text; line buffering makes a line survive a crash of the program.
    """

    def __init__(self, file: IO[str]) -> None:
        self._file = file
        file.write(f"{HEADER}\n")

    def add(self, pts: int, timestamp: float, index: int) -> None:
        """Note one frame: its milliseconds in the video, its time in seconds, its number at the source."""
        self._file.write(f"{pts},{timestamp:.6f},{index}\n")


def read_timesheet(video: Path) -> dict[int, float]:
    """Return the times that belong to a video, by milliseconds in it; empty if there are none.

    A last line that is not complete, as after a power cut, is left out.
    """
    try:
        lines = timesheet_path(video).read_text("ascii").splitlines(keepends=True)
    except (OSError, UnicodeDecodeError):
        return {}
    if not lines or lines[0] != f"{HEADER}\n":
        return {}
    times = {}
    for line in lines[1:]:
        fields = line.split(",")
        try:
            if line.endswith("\n") and len(fields) == 3:
                times[int(fields[0])] = float(fields[1])
        except ValueError:
            break
    return times
