"""`edgefuse stream`: fuse two cameras or recordings, live."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from edgefuse.errors import SourceError

if TYPE_CHECKING:
    from edgefuse.runtime.live import Progress, Report, Stop

__all__ = ["print_report", "stream"]

SOURCE_HELP = (
    "cam0, /dev/video0, a video, a folder of images, a URL, or sim; options as sim?seed=3&size=640x480"
)


def stream(
    ir: str = typer.Option(..., "--ir", metavar="SOURCE", help=f"Infrared: {SOURCE_HELP}."),
    vis: str = typer.Option(..., "--vis", metavar="SOURCE", help="Visible: likewise."),
    out: str | None = typer.Option(
        None,
        "--out",
        metavar="FILE",
        help="Write a video (.mp4, .avi, or lossless .mkv), or a PNG per frame into a folder (frames/).",
    ),
    side_by_side: bool = typer.Option(
        False, "--side-by-side", help="In --out and --show: infrared, visible and fused beside each other."
    ),
    still: str | None = typer.Option(
        None,
        "--still",
        metavar="FILE",
        help="Write infrared, visible and fused of the last frame as an image.",
    ),
    show: bool = typer.Option(False, "--show", help="Show a window; Q closes it and ends the stream."),
    duration: float | None = typer.Option(
        None, "--duration", metavar="SECONDS", help="End after so many seconds."
    ),
    model: str = typer.Option(
        "nano",
        "--model",
        metavar="NAME|FILE",
        help="A shipped model, see `edgefuse models`, or an .onnx file.",
    ),
    threads: int | None = typer.Option(
        None, "--threads", metavar="N", help="CPU threads for the network; without it, all cores."
    ),
) -> None:
    """Fuse two cameras or recordings live, and say at the end how long each stage took.

    With a camera, each visible frame is fused with the newest infrared one, and what comes too fast is
    dropped and counted. Two recordings are fused frame by frame, nothing left out, as fast as possible.
    """
    from edgefuse.runtime import live, sinks
    from edgefuse.runtime.fuser import Fuser
    from edgefuse.runtime.sources import open_source

    console = Console()
    stop = live.Stop()
    with _signals(stop), ExitStack() as stack:
        fuser = Fuser(model, threads)
        ir_source = stack.enter_context(open_source(ir, "ir"))
        vis_source = stack.enter_context(open_source(vis, "vis"))
        any_live = ir_source.live or vis_source.live
        outputs: list[sinks.Sink] = []
        if out is not None:
            outputs.append(sinks.open_output(out, vis_source.fps, any_live, side_by_side))
        if still is not None:
            outputs.append(sinks.Still(still))
        if show:
            outputs.append(sinks.Window(lambda: stop("the window was closed"), side_by_side))
        for output in outputs:
            stack.enter_context(output)
        console.print(
            f"{escape(ir_source.name)} + {escape(vis_source.name)} → {escape(model)} "
            f"on {fuser.backend.device}{'' if duration else '; Ctrl-C ends'}",
            highlight=False,
            soft_wrap=True,
        )
        with _status(console) as progress:
            report = live.run(
                ir_source, vis_source, fuser, outputs, duration=duration, stop=stop, progress=progress
            )
    print_report(report, console)
    if any(sink.error for sink in report.sinks):  # which was said when it happened
        raise typer.Exit(1)
    if report.error is not None:
        raise SourceError(report.error)


@contextmanager
def _signals(stop: "Stop") -> Iterator[None]:
    """Let Ctrl-C and SIGTERM end the stream in good order; a second Ctrl-C ends it at once."""

    def handle(number: int, _: FrameType | None) -> None:
        stop("Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name)
        signal.signal(signal.SIGINT, signal.default_int_handler)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _status(console: Console) -> "Iterator[Callable[[Progress], None]]":
    """Show a line of live status while there is a terminal."""
    if not console.is_terminal:
        yield lambda _: None
        return
    with console.status("waiting for the first pair") as line:

        def show(progress: "Progress") -> None:
            drops = progress.dropped
            line.update(
                f"{progress.frames} frames, {progress.fps:.1f} per second, "
                f"dropped: infrared {drops['ir']}, visible {drops['vis']}"
            )

        yield show


def print_report(report: "Report", console: Console) -> None:
    """Print the tables of a finished run: stages, sources, outputs, and one line of summary."""
    stages = Table(title="latency in ms", title_justify="left")
    stages.add_column("stage")
    for column in ("p50", "p95", "p99", "max", "count"):
        stages.add_column(column, justify="right")
    for name, times in report.stages.items():
        values = (times.p50, times.p95, times.p99, times.max)
        stages.add_row(name, *(f"{1000 * value:.2f}" for value in values), str(times.count))
    if report.stages:
        console.print(stages)
    table = Table(title="frames", title_justify="left")
    for column in ("", "name"):
        table.add_column(column, overflow="fold")
    for column in ("in", "dropped", "unpaired"):
        table.add_column(column, justify="right")
    for source in report.sources:
        kind = "infrared" if source.role == "ir" else "visible"
        counts = (source.captured, source.dropped, source.unpaired)
        table.add_row(kind, escape(source.name), *map(str, counts))
    for sink in report.sinks:
        kind = "output, failed" if sink.error else "output"
        table.add_row(kind, escape(sink.name), str(sink.written), str(sink.dropped), "")
    console.print(table)
    console.print(
        f"[bold]{report.frames}[/] frames in {report.seconds:.1f} s, [bold]{report.fps:.1f}[/] per second; "
        f"ended: {escape(report.ended)}",
        highlight=False,
        soft_wrap=True,
    )
