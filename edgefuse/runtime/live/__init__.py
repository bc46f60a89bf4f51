"""Fusing two cameras live: pairing, aligning, fusing, and handing the pictures to outputs."""

from collections.abc import Callable, Sequence

from edgefuse.align import Align
from edgefuse.images import Image
from edgefuse.runtime.cameras.camera import Camera, connect, connect_pair
from edgefuse.runtime.config import LiveConfig, OnLoss, StopRequest
from edgefuse.runtime.frames import FusedFrame, Role
from edgefuse.runtime.live.background import BackgroundWorker
from edgefuse.runtime.live.pairing import choose_reference
from edgefuse.runtime.live.report import Report, SinkReport, SourceReport
from edgefuse.runtime.live.session import Session
from edgefuse.runtime.sinks.base import Sink
from edgefuse.runtime.sources.base import Source

__all__ = [
    "BackgroundWorker",
    "LiveConfig",
    "OnLoss",
    "Report",
    "Session",
    "SinkReport",
    "SourceReport",
    "StopRequest",
    "connect",
    "connect_pair",
    "file_rate",
    "run",
]


def file_rate(ir: Source | Camera, vis: Source | Camera, rate: Role | None = None) -> float | None:
    """Return the frame rate of a video made of them; None: frames come at times of their own."""
    if ir.live or vis.live:
        return None
    if ir.synchronised and vis.synchronised:  # recorded from cameras, which skip frames now and then
        return None
    cameras: dict[Role, Source | Camera] = {"ir": ir, "vis": vis}
    return cameras[choose_reference(cameras, rate)].fps


def run(
    ir: Source | Camera,
    vis: Source | Camera,
    fuse: Callable[..., Image],
    sinks: Sequence[Sink] = (),
    config: LiveConfig | None = None,
    *,
    stop: StopRequest | None = None,
    progress: Callable[[Report], None] | None = None,
    align: Align | None = None,
    background: Sequence[BackgroundWorker[FusedFrame]] = (),
) -> Report:
    """Fuse until a source ends, the duration is over or `stop` is called.

    Arguments, and what they do, are those of `Session`.

    Returns:
        The report. A source or output that failed is in it (`error`), and is not raised.

    Raises:
        InputError: `fuse` refuses the first frame.
    """
    session = Session(
        ir, vis, fuse, config, sinks=sinks, stop=stop, progress=progress, align=align, background=background
    )
    with session:
        for _ in session:
            pass
    return session.snapshot()
