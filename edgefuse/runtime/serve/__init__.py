"""The live page of a run, with health, metrics and recordings, as an output of its own (extra `serve`)."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from edgefuse.errors import InputError
from edgefuse.packages import INSTALL_HINTS
from edgefuse.runtime.alignment import Alignment
from edgefuse.runtime.frames import FusedFrame
from edgefuse.runtime.live import Report, Session, SinkReport
from edgefuse.runtime.serve.access import HEADERS, Access, Address
from edgefuse.runtime.serve.metrics import MAX_AGE, Limits
from edgefuse.runtime.serve.views import Preview
from edgefuse.runtime.sinks import CONTAINERS, OutputOptions, Sink, SinkWriter, open_output
from edgefuse.runtime.sinks.base import Deadline
from edgefuse.runtime.sinks.naming import check_limits

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


__all__ = ["Access", "Address", "Limits", "LivePage", "Recorder", "require_packages"]

START_SECONDS, STOP_SECONDS = 5.0, 2.0


class LivePage(Sink):
    """Serves a page that shows the run. Encoding costs something only while somebody looks.

    Args:
        address: where to serve.
        model: name of the model, to show.
        engine: what it runs on, to show.
        alignment: what is adjusted on the page; None: nothing.
        recorder: what records when a viewer wants it; None: one without options.
        limits: beyond which `/healthz` says that the run is degraded; None: no limits.

    Raises:
        InputError: the extra is not installed, or the address cannot be used.
    """

    in_main_thread = False
    timed = False
    extra = "serve"

    def __init__(
        self,
        address: Address,
        model: str,
        engine: str,
        alignment: Alignment | None = None,
        recorder: Recorder | None = None,
        limits: Limits | None = None,
    ) -> None:
        require_packages()
        import uvicorn

        from edgefuse.runtime.serve.app import MAX_CONNECTIONS, ImpatientProtocol, make_app

        self.access = Access(address)
        self._socket = _listen(address)
        self.access = replace(self.access, address=Address(address.host, self._socket.getsockname()[1]))
        self.name = f"page {self.access.address.url}"
        self.preview = Preview()
        self.model, self.engine, self.alignment = model, engine, alignment
        self._report: Callable[[], Report] | None = None
        self.limits = limits or Limits()
        self.recorder = recorder or Recorder(OutputOptions())
        config = uvicorn.Config(
            make_app(self, self.access),
            http=ImpatientProtocol,
            ws="none",
            log_config=None,
            log_level="critical",  # the application logs what fails, in the format asked for
            access_log=False,
            server_header=False,
            headers=list(HEADERS.items()),
            proxy_headers=False,  # else a client on this machine chooses its address
            timeout_keep_alive=5,
            timeout_graceful_shutdown=1,
            limit_concurrency=MAX_CONNECTIONS,
            h11_max_incomplete_event_size=16_384,
        )
        self._server = uvicorn.Server(config)
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """What to open in a browser, with the token where one is needed."""
        return self.access.url

    def start(self, session: Session) -> None:
        """Start serving what there is to see of a run."""
        self._report = session.snapshot
        self._thread = threading.Thread(
            target=self._server.run, args=([self._socket],), name="serve", daemon=True
        )
        self._thread.start()
        deadline = time.monotonic() + START_SECONDS
        while not self._server.started and self._thread.is_alive() and time.monotonic() < deadline:
            time.sleep(0.01)

    def report(self) -> Report:
        """Return the state of the run; the recording is the last of its outputs."""
        assert self._report is not None
        report, recording = self._report(), self.recorder.report()
        return report if recording is None else replace(report, sinks=(*report.sinks, recording))

    def record(self, on: bool) -> Recorded:
        """Start or end a recording of the fused pictures, into a new file in the current folder.

        Raises:
            EdgefuseError: the file cannot be written.
        """
        age = time.monotonic() - self.preview.at
        return self.recorder.record(on, self.preview.frame if age < MAX_AGE else None)

    def write(self, frame: FusedFrame) -> None:
        """Keep the frame for whoever looks, and hand it to the recording."""
        self.preview.update(frame)
        self.recorder.write(frame)

    def close(self) -> None:
        """Stop serving, and complete a recording."""
        self.preview.close()
        self._server.should_exit = True
        if self._thread is not None:
            self._thread.join(STOP_SECONDS)
        self._socket.close()
        self.record(False)


def require_packages() -> None:
    """Raise `InputError` unless the extra `serve` is installed."""
    try:
        import prometheus_client  # noqa: F401
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        hint = INSTALL_HINTS["serve"]
        raise InputError(f"--serve needs {error.name}, which is not installed: {hint}") from None


def _listen(address: Address) -> Any:
    import socket

    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address.host, address.port))
    except OSError as error:
        listener.close()
        raise InputError(
            f"cannot serve on {address.host}:{address.port}: {error.strerror or error}; choose another port"
        ) from None
    return listener
