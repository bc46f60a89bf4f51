"""Fusing two cameras live: `for pair in edgefuse.live("cam0", "cam1"): …`, or `run` with outputs."""

import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import fields
from pathlib import Path
from typing import Any

from edgefuse.align import Align
from edgefuse.errors import InputError, SourceError, unknown_name
from edgefuse.images import Image
from edgefuse.rig import as_align
from edgefuse.runtime.cameras.camera import Camera, connect, connect_pair
from edgefuse.runtime.config import LiveConfig, OnLoss, StopRequest
from edgefuse.runtime.frames import ROLES, FusedFrame, Role
from edgefuse.runtime.live.background import BackgroundWorker
from edgefuse.runtime.live.pairing import choose_reference
from edgefuse.runtime.live.report import Report, SinkReport, SourceReport
from edgefuse.runtime.live.session import Session
from edgefuse.runtime.sinks.base import Sink
from edgefuse.runtime.sources.base import Source
from edgefuse.settings import from_plain
from edgefuse.weights import DEFAULT_MODEL

__all__ = [
    "BackgroundWorker",
    "Live",
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
    "live",
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


class Live:
    """Fused frames, as an iterator and a context manager; see `live`.

    One that is not used any more, as after a `break`, gives its cameras and threads back too.
    """

    def __init__(self, session: Session, resources: ExitStack) -> None:
        self._session, self._resources = session, resources
        self._frames = iter(session)
        self._abandoned = weakref.finalize(self, _close_abandoned, session, resources)

    def __iter__(self) -> Iterator[FusedFrame]:
        return self

    def __next__(self) -> FusedFrame:
        try:
            return next(self._frames)
        except StopIteration:
            self.close()
            if (error := self.report().error) is not None:
                raise SourceError(error) from None
            raise
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "Live":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def stop(self, reason: str = "stopped") -> None:
        """End the iteration, from this or another thread."""
        self._session.stop(reason)

    def close(self) -> None:
        """Stop reading and give the cameras back. Can be called twice."""
        if self._abandoned.detach():
            _close(self._session, self._resources)

    def report(self) -> Report:
        """Return what the run has come to so far; from any thread."""
        return self._session.snapshot()


def _close(session: Session, resources: ExitStack) -> None:
    """End a run and its threads, and close the cameras."""
    session.stop("closed")
    with resources:
        session.close()


def _close_abandoned(session: Session, resources: ExitStack) -> None:
    """Close what nothing refers to any more.

    The garbage collector may call this in one of the run's own threads, all of which are daemons: it cannot
    wait for its own end, and may hold a lock.
    """
    if threading.current_thread().daemon:
        threading.Thread(target=_close, args=(session, resources), name="close").start()
    else:
        _close(session, resources)


def live(
    ir: int | str | Path | Source | Camera,
    vis: int | str | Path | Source | Camera,
    model: str | Path | Callable[[Image, Image], Image] = DEFAULT_MODEL,
    *,
    threads: int | None = None,
    realtime: bool = False,
    align: Align | str | Path | None = None,
    **config: Any,
) -> Live:
    """Fuse two cameras or recordings, and yield each result.

    Between cameras, what comes while the caller is busy is dropped; of recordings, nothing is lost.

    >>> for pair in edgefuse.live("cam0", "cam1"):
    ...     show(pair.fused, pair.timestamp, pair.stats.latency)

    Args:
        ir: infrared: a text as for `edgefuse stream`, the number of a camera, or an open source, such as a
            `PushSource`.
        vis: visible, likewise.
        model: name or file of a model, or a function (infrared, visible) → fused.
        threads: CPU threads for the network; None: all cores.
        realtime: play recordings at their own rate.
        align: brings infrared onto the visible image, or the name of a rig file; None: it is resized.
        config: fields of `LiveConfig`, such as `duration=60` or `on_loss="hold"`.

    Returns:
        An iterator of `FusedFrame`: `fused`, `ir`, `vis`, `timestamp`, `wall_time`, `state`, `stats`. Used in
        a `with`, it gives the cameras back at the end of that; else when nothing refers to it any more.

    Raises:
        EdgefuseError: a source, model or setting that cannot be used; while iterating: a source that failed.
    """
    from edgefuse.runtime.engines.fuser import Fuser

    ir, vis = _as_source(ir), _as_source(vis)
    known = [*(each.name for each in fields(LiveConfig)), "threads", "realtime", "align"]
    for name in config:
        if name not in known:
            raise InputError(f"live: {unknown_name('setting', name, known)}")
    settings = from_plain(LiveConfig, config, "live")
    with ExitStack() as stack:
        fuse = model if callable(model) else stack.enter_context(Fuser(model, threads))
        if isinstance(ir, str) and isinstance(vis, str):
            ir, vis = connect_pair(ir, vis, realtime)
        cameras: list[Source | Camera] = []
        for role, asked in zip(ROLES, (ir, vis), strict=True):
            camera = connect(asked, role, realtime) if isinstance(asked, str) else asked
            stack.enter_context(camera)
            cameras.append(camera)
        session = Session(cameras[0], cameras[1], fuse, settings, align=as_align(align))
        return Live(session, stack.pop_all())


def _as_source(asked: int | str | Path | Source | Camera) -> str | Source | Camera:
    """Return the text of a camera's number or a path, or the source itself.

    Raises:
        InputError: it is none of these.
    """
    if isinstance(asked, int) and not isinstance(asked, bool) and asked >= 0:
        return f"cam{asked}"
    if isinstance(asked, str | Path):
        return str(asked)
    if not isinstance(asked, int) and (isinstance(asked, Camera) or hasattr(asked, "read")):
        return asked
    raise InputError(
        f"{asked!r} is not a source: give a text such as 'cam0' or 'video.mp4', the number of a camera, or "
        "an open source"
    )
