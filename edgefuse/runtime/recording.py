"""Recording two cameras, unfused and without loss, each with its times on one common clock."""

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path

from edgefuse.errors import InputError
from edgefuse.runtime.cameras.camera import Camera
from edgefuse.runtime.config import Stop
from edgefuse.runtime.parts import Shelf
from edgefuse.runtime.sinks.quota import DiskQuota, check_limits
from edgefuse.runtime.sources.base import ROLES, Role, Source
from edgefuse.runtime.sources.recording import recorded_parts
from edgefuse.runtime.sources.timesheet import STARTED_TAG
from edgefuse.runtime.track import RecordedCamera, Track

__all__ = ["RecordedCamera", "record"]

POLL_SECONDS = 0.025
FINISH_SECONDS = 30.0  # for what is queued to be written
HURRY_SECONDS = 0.6  # likewise, when somebody waits for the end
COMPLETE_SECONDS = 0.5  # for the frame in progress, and the end of the files
CAMERA_SECONDS = 0.5  # for a camera's thread to end


def record(
    cameras: Mapping[Role, Source | Camera],
    folder: str | Path,
    *,
    duration: float | None = None,
    segment: float | None = None,
    max_size: int | None = None,
    stop: Stop | None = None,
    progress: Callable[[Mapping[Role, int]], None] = lambda _: None,
) -> tuple[RecordedCamera, RecordedCamera]:
    """Write each camera into a folder of its own, `ir/` and `vis/`: `0001.mkv` and `0001.times.csv` …

    Ends after `duration`, at `max_size`, on `stop`, or when a live source ends; two recordings are copied in
    full. A camera that is lost is reopened if it was connected, and the other one goes on meanwhile.
    A frame of another size or format than the one before begins a new part; one that cannot be kept is
    left out and counted.

    Args:
        cameras: infrared and visible. The caller closes open sources.
        folder: is made if needed; must hold no recording.
        duration: seconds from now on; None: no limit.
        segment: seconds of each part, at the same times for both cameras; None: one part.
        max_size: bytes of everything; with segments, the oldest parts are removed, without, it is the end.
        stop: call it with a reason to end; in a hurry, what is not written soon is dropped.
        progress: gets the frames written so far, about four times a second.

    Raises:
        InputError: the folder cannot be used, or a number that is out of range.
        SourceError: a camera that cannot be opened and never will.
    """
    if duration is not None and not duration > 0:
        raise InputError(f"duration is {duration:g} s, it must be over 0")
    check_limits(segment, max_size)
    folder, stop = _prepared(Path(folder)), stop or Stop()
    used = {role: Camera.of(camera) for role, camera in cameras.items()}
    live = any(camera.live for camera in used.values())
    started = time.monotonic()
    tags = {STARTED_TAG: datetime.now(timezone.utc).isoformat(timespec="microseconds")}
    shelf = Shelf(folder, segment, DiskQuota(str(folder), max_size, segment is not None), tags)
    if live:
        used = {role: camera.paced() for role, camera in used.items()}
    tracks = [Track(role, used[role], shelf, started, live) for role in ROLES]
    shown = started
    try:
        for track in tracks:
            track.start()
        while stop.reason is None:
            time.sleep(POLL_SECONDS)
            now = time.monotonic()
            for track in tracks:
                track.supervisor.check(now)
            _notice_end(tracks, live, stop)
            if duration is not None and now - started >= duration:
                stop(f"{duration:g} s are over")
            if now - shown >= 0.25:
                progress({track.role: track.written for track in tracks})
                shown = now
    finally:
        _finish(tracks, stop)
    for track in tracks:
        if track.defect is not None:
            raise track.defect
    ir, vis = (track.report() for track in tracks)
    return ir, vis


def _notice_end(tracks: Sequence[Track], live: bool, stop: Stop) -> None:
    """Stop when nothing more can be recorded, and say why."""
    over = [track for track in tracks if track.over]
    full = next((track.full for track in over if track.full), None)
    if full is not None:
        stop(full)
    elif over and (live or len(over) == len(tracks)):
        stop(over[0].error or f"end of {over[0].supervisor.name}")


def _finish(tracks: Sequence[Track], stop: Stop) -> None:
    """End the threads, and complete the files, in a bounded time."""
    for track in tracks:
        track.supervisor.stop()
    ends = time.monotonic() + CAMERA_SECONDS
    for track in tracks:
        track.close(ends)
    ends = time.monotonic() + FINISH_SECONDS
    while any(track.writing for track in tracks) and time.monotonic() < ends:
        if stop.hurry:  # which may come as late as now
            ends = min(ends, time.monotonic() + HURRY_SECONDS)
        time.sleep(POLL_SECONDS)
    for track in tracks:
        track.give_up()
    ends = time.monotonic() + COMPLETE_SECONDS
    for track in tracks:
        track.join(ends)


def _prepared(folder: Path) -> Path:
    try:
        for role in ROLES:
            (folder / role).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make folder {folder}: {error.strerror}") from None
    if any(recorded_parts(folder / role) for role in ROLES):
        raise InputError(f"{folder} holds a recording already: give an empty or a new folder")
    return folder
