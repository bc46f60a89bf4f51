"""Fusing live into outputs."""

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from edgefuse.images import Image
from edgefuse.runtime.capture import Prepare
from edgefuse.runtime.config import LiveConfig, Stop
from edgefuse.runtime.report import Progress, Report, SinkReport, SourceReport
from edgefuse.runtime.session import Session
from edgefuse.runtime.sinks.base import Sink, SinkWriter
from edgefuse.runtime.sources import Role, Source, can_return, open_source, safe_name
from edgefuse.runtime.supervise import Connection

__all__ = [
    "LiveConfig",
    "Progress",
    "Report",
    "Session",
    "SinkReport",
    "SourceReport",
    "Stop",
    "connect",
    "file_rate",
    "run",
]

FINISH_SECONDS, HURRY_SECONDS = 10.0, 0.7  # for outputs to complete, at the end and after a request to stop


def connect(text: str, role: Role, realtime: bool = False) -> Source | Connection:
    """Return what `text` asks for, as a context manager: open, or to be opened when the run begins.

    Args:
        text: see `open_source`.
        role: which of the two cameras it is to be.
        realtime: play a recording at its own rate.

    Raises:
        SourceError: there is no such thing, or a recording cannot be opened.
    """
    if can_return(text):
        return Connection(safe_name(text), partial(open_source, text, role))
    return open_source(text, role, realtime)


def file_rate(ir: Source | Connection, vis: Source | Connection, rate: Role | None = None) -> float | None:
    """Return the frame rate of a video made of them; None: frames come at times of their own."""
    if isinstance(ir, Connection) or isinstance(vis, Connection) or ir.live or vis.live:
        return None
    return min(ir.fps, vis.fps) if rate is None else {"ir": ir.fps, "vis": vis.fps}[rate]


def run(
    ir: Source | Connection,
    vis: Source | Connection,
    fuse: Callable[[Image, Image], Image],
    sinks: Sequence[Sink] = (),
    config: LiveConfig | None = None,
    *,
    stop: Stop | None = None,
    progress: Callable[[Progress], None] = lambda _: None,
    prepare: Mapping[Role, Prepare] | None = None,
) -> Report:
    """Fuse until a source ends, the duration is over or `stop` is called. The sinks are closed here.

    Arguments, and what they do, are those of `Session`.

    Returns:
        The report. A source or output that failed is in it (`error`), and is not raised.

    Raises:
        InputError: `fuse` refuses the first frame.
    """
    session = Session(ir, vis, fuse, config, stop=stop, progress=progress, prepare=prepare)
    writers = [SinkWriter(sink, session.times, session.waits_for_sinks) for sink in sinks]
    try:
        with session:
            for frame in session:
                for writer in writers:
                    writer.put(frame)
                if writers and all(writer.stopped for writer in writers):
                    failed = any(writer.error for writer in writers)
                    session.stop("every output failed" if failed else "every output is full")
    finally:
        deadline = time.monotonic() + (HURRY_SECONDS if session.stop.hurry else FINISH_SECONDS)
        for writer in writers:
            writer.finish(deadline)
    return session.report(writers)
