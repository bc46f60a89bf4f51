"""The live page of a run, with health and metrics, as an output beside the others (extra `serve`)."""

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from edgefuse.errors import InputError
from edgefuse.packages import INSTALL_HINTS
from edgefuse.runtime.alignment import Alignment
from edgefuse.runtime.frames import FusedFrame
from edgefuse.runtime.live import Report, Session
from edgefuse.runtime.serve.access import HEADERS, Access, Address
from edgefuse.runtime.serve.metrics import MAX_AGE, Limits
from edgefuse.runtime.serve.recorder import Recorded, Recorder
from edgefuse.runtime.serve.views import Preview
from edgefuse.runtime.sinks import OutputOptions, Sink

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

        from edgefuse.runtime.serve.app import make_app
        from edgefuse.runtime.serve.protocol import MAX_CONNECTIONS, ImpatientProtocol

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
