"""How a recording lies on disk: for each camera a folder of numbered videos, each with its exact times.

`0001.mkv` has `0001.times.csv` beside it, since Matroska's clock has milliseconds only.
"""

import logging
import re
from pathlib import Path
from typing import IO

logger = logging.getLogger(__name__)

PART = re.compile(r"\d{4,}\.mkv")
HEADER = "pts_ms,timestamp_s,index"
STARTED_TAG = "EDGEFUSE_STARTED"
"""Tag of a recorded video: the common zero of the times of both cameras, as UTC."""


def part_name(number: int) -> str:
    """Return the name of a part, which are counted from 1: `0001.mkv`."""
    return f"{number:04d}.mkv"


def recorded_parts(folder: Path) -> list[Path]:
    """Return the parts of a recording in their order; none: the folder holds no recording."""
    if not folder.is_dir():
        return []
    parts = [path for path in folder.iterdir() if PART.fullmatch(path.name)]
    return sorted(parts, key=lambda path: int(path.stem))


def timestamps_path(video: Path) -> Path:
    """Return the name of the times beside a video: `ir.mkv` has `ir.times.csv`."""
    return video.with_suffix(".times.csv")


class Timestamps:
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


def read_timestamps(video: Path) -> dict[int, float]:
    """Return the times that belong to a video, by milliseconds in it; empty if there are none.

    A last line that is not complete, as after a power cut, is left out. A file that is damaged otherwise is
    reported, and read as far as it goes.
    """
    path = timestamps_path(video)
    try:
        lines = path.read_text("ascii", errors="replace").splitlines(keepends=True)
    except FileNotFoundError:
        return {}
    except OSError as error:
        logger.warning("cannot read %s (%s): using the video's own times", path, error.strerror)
        return {}
    if lines[:1] != [f"{HEADER}\n"]:
        if lines:
            logger.warning("%s does not begin with %r: using the video's own times", path, HEADER)
        return {}
    times: dict[int, float] = {}
    for number, line in enumerate(lines[1:], 2):
        fields = line.split(",")
        try:
            if not line.endswith("\n") or len(fields) != 3:
                raise ValueError
            times[int(fields[0])] = float(fields[1])
        except ValueError:
            if number < len(lines):
                logger.warning(
                    "%s is damaged in line %d: using the video's own times from there", path, number
                )
            break
    return times
