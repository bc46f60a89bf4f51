"""The recording that a viewer starts and ends."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from edgefuse.runtime.frames import FusedFrame
from edgefuse.runtime.live import SinkReport
from edgefuse.runtime.sinks import CONTAINERS, OutputOptions, Sink, SinkWriter, open_output
from edgefuse.runtime.sinks.naming import check_limits
from edgefuse.runtime.sinks.writer import Deadline

FINISH_SECONDS = 5.0  # for a recording to complete


@dataclass(frozen=True)
class Recorded:
    """What a request to record came to."""

    recording: str | None
    """The file that is being written; of parts, with a `*` for their numbers."""
    file: str | None = None
    """The one that was completed; None: it has no picture, or failed."""
    written: int = 0
    """Its pictures."""
    dropped: int = 0
    """Pictures that it missed."""
    problem: str | None = None
    """Why it ended by itself, or has no file; None: all went well."""


class Recorder:
    """Records pictures into a new file in the current folder, whenever somebody wants it.

    Args:
        options: how files are written, as for the other outputs of the run.
        crop: cuts an output down, as the other outputs of the run.

    Raises:
        InputError: a limit of the options is out of range.
    """

    def __init__(self, options: OutputOptions, crop: Callable[[Sink], Sink] = lambda sink: sink) -> None:
        check_limits(options.segment, options.max_size)
        self._options, self._crop = options, crop
        self._commands = threading.Lock()  # one after the other
        self._order = threading.Lock()  # of frames; held for no longer than it takes to queue one
        self._writer: SinkWriter | None = None  # of this recording, or of the last one
        self._name, self._open = "", False
        self._newest: FusedFrame | None = None

    @property
    def recording(self) -> str | None:
        """The file that is being recorded."""
        writer = self._writer
        return self._name if self._open and writer is not None and not writer.stopped else None

    @property
    def problem(self) -> str | None:
        """Why the last recording failed, or ended by itself."""
        writer = self._writer
        return None if writer is None else writer.error or writer.full

    def report(self) -> SinkReport | None:
        """Return what this recording, or the last one, has done; None: there was none."""
        if (writer := self._writer) is None:
            return None
        return SinkReport(f"recording {self._name}", writer.written, writer.dropped, writer.error)

    def record(self, on: bool, first: FusedFrame | None = None) -> Recorded:
        """Start or end a recording. To end one that has ended by itself also dismisses its problem.

        Args:
            on: start one, unless there is one.
            first: the picture that is shown now, with which it begins.

        Raises:
            EdgefuseError: the file cannot be written.
        """
        with self._commands:
            if on and self.recording is not None:
                return Recorded(self.recording)
            if not on:
                return self._end()
            self._end()
            name, parts = self._free_name()
            writer = SinkWriter(self._crop(open_output(name, self._options)), None, lambda: False)
            writer.start()
            with self._order:
                self._writer, self._name, self._open, self._newest = writer, parts, True, first
                if first is not None:
                    writer.put(first)
            return Recorded(self.recording)

    def write(self, frame: FusedFrame) -> None:
        """Hand a picture over, if there is a recording."""
        with self._order:
            if self._open and self._writer is not None and frame is not self._newest:
                self._newest = frame
                self._writer.put(frame)

    def _end(self) -> Recorded:
        with self._order:
            writer, was_open, self._open, self._newest = self._writer, self._open, False, None
        if writer is None:
            return Recorded(None)
        if not was_open:
            self._writer = None
            return Recorded(None)
        by_itself = writer.stopped
        writer.finish(Deadline(FINISH_SECONDS))
        problem = self.problem or (None if writer.written else "there was no picture to record")
        if by_itself or not (writer.written or writer.error):
            self._writer = None
        file = self._name if writer.written and writer.error is None else None
        return Recorded(None, file, writer.written, writer.dropped, problem)

    def _free_name(self) -> tuple[str, str]:
        """Return a name that no file has or begins with, and what its files are called."""
        codec = self._options.codec
        suffix = next((suffix for suffix, (_, usual, _) in CONTAINERS.items() if usual == codec), ".mp4")
        stem = begun = datetime.now(timezone.utc).strftime("edgefuse-%Y%m%d-%H%M%S")
        number = 1
        while any(Path().glob(f"{stem}[-.]*")):  # one that is being written has more behind it
            number += 1
            stem = f"{begun}-{number}"
        return f"{stem}{suffix}", f"{stem}{'' if self._options.segment is None else '-*'}{suffix}"
