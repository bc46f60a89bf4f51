"""Fusing live into outputs."""

import time
from collections.abc import Callable, Sequence

from edgefuse.align import Align
from edgefuse.images import Image
from edgefuse.runtime.cameras.camera import Camera, connect
from edgefuse.runtime.cameras.clock import ClockReport
from edgefuse.runtime.config import LiveConfig, Stop
from edgefuse.runtime.report import Progress, Report, SinkReport, SourceReport
from edgefuse.runtime.session import Session
from edgefuse.runtime.sinks.base import Sink
from edgefuse.runtime.sinks.writer import Deadline, SinkWriter
from edgefuse.runtime.sources import Role, Source

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
    "report_of",
    "run",
]

FINISH_SECONDS = 10.0  # for outputs to complete


def file_rate(ir: Source | Camera, vis: Source | Camera, rate: Role | None = None) -> float | None:
    """Return the frame rate of a video made of them; None: frames come at times of their own."""
    if ir.live or vis.live:
        return None
    if ir.synchronised and vis.synchronised:  # recorded from cameras, which skip frames now and then
        return None
    return min(ir.fps, vis.fps) if rate is None else {"ir": ir.fps, "vis": vis.fps}[rate]


def run(
    ir: Source | Camera,
    vis: Source | Camera,
    fuse: Callable[[Image, Image], Image],
    sinks: Sequence[Sink] = (),
    config: LiveConfig | None = None,
    *,
    stop: Stop | None = None,
    progress: Callable[[Progress], None] = lambda _: None,
    align: Align | None = None,
) -> Report:
    """Fuse until a source ends, the duration is over or `stop` is called. The sinks are closed here.

    Arguments, and what they do, are those of `Session`.

    Returns:
        The report. A source or output that failed is in it (`error`), and is not raised.

    Raises:
        InputError: `fuse` refuses the first frame.
    """

    def tell(now: Progress) -> None:
        for sink in sinks:
            sink.idle()
        progress(now)

    session = Session(ir, vis, fuse, config, stop=stop, progress=tell, align=align)
    alone = len(sinks) == 1
    writers = [SinkWriter(sink, session.times, session.waits_for_sinks, alone) for sink in sinks]
    try:
        for writer in writers:
            writer.start()
        with session:
            for frame in session:
                for writer in writers:
                    writer.put(frame)
                if writers and all(writer.stopped for writer in writers):
                    failed = any(writer.error for writer in writers)
                    session.stop("every output failed" if failed else "every output is full")
    finally:
        deadline = Deadline(FINISH_SECONDS, lambda: session.stop.hurry)
        for writer in writers:
            writer.finish(deadline)
    return report_of(session, writers)


def report_of(session: Session, writers: Sequence[SinkWriter] = ()) -> Report:
    """Return what a closed session came to, with the outputs that it was written to."""
    errors = [writer.error for writer in writers if writer.error is not None]
    tally, stop, ir, vis = session.tally, session.stop, session.clocks["ir"], session.clocks["vis"]
    clock = ClockReport(vis.offset - ir.offset, ir.drift - vis.drift, ir.jumps + vis.jumps)
    return Report(
        frames=tally.frames,
        passed=tally.shown,
        repeated=tally.repeated,
        seconds=time.monotonic() - session.started,
        cpu_seconds=time.process_time() - session.started_cpu,
        sources=(_source_report(session, "ir"), _source_report(session, "vis")),
        sinks=tuple(SinkReport(w.sink.name, w.written, w.dropped, w.error) for w in writers),
        stages=session.times.stats(),
        skew=tally.skew,
        ages=tally.ages,
        clock=clock if session.capture.live and tally.frames else None,
        quality=session.quality.finish(0.0 if stop.hurry else 1.0) if session.quality else None,
        ended=stop.reason or "end",
        error=session.error or next(iter(errors), None),
    )


def _source_report(session: Session, role: Role) -> SourceReport:
    counts, tally = session.capture.counts[role], session.tally
    unpaired, health = session.pairer.unpaired[role], session.capture.supervisors[role].health
    return SourceReport(
        role,
        session.cameras[role].name,
        captured=counts.captured,
        fused=tally.fused[role],
        passed=tally.passed[role],
        dropped=counts.dropped + unpaired + tally.unseen[role],
        failed=counts.failed + tally.failed[role],
        unpaired=unpaired,
        state=health.state,
        losses=health.losses,
        calibrations=health.calibrations,
        reconnects=health.reconnects,
        abandoned=health.stuck_threads,
        down=health.downtime_s,
    )
