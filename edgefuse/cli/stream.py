"""`edgefuse stream`: fuse two cameras or recordings, live."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from edgefuse.cli.options import (
    CAMERAS,
    OUTPUTS,
    Duration,
    InfraredSource,
    MaxSize,
    Segment,
    VisibleSource,
    bytes_of,
)
from edgefuse.cli.signals import ending_on_signals, stopping_on_signals
from edgefuse.errors import InputError, SourceError
from edgefuse.weights import DEFAULT_MODEL

if TYPE_CHECKING:
    from edgefuse.runtime.live import Progress, Report

__all__ = ["print_report", "stream"]

FUSION, MODEL = "Pairing and fusion", "Model"


def stream(
    ir: InfraredSource,
    vis: VisibleSource,
    realtime: bool = typer.Option(
        False, "--realtime", rich_help_panel=CAMERAS, help="Play recordings at their own rate."
    ),
    on_loss: Literal["passthrough", "hold", "black", "stop"] = typer.Option(
        "passthrough",
        "--on-loss",
        rich_help_panel=CAMERAS,
        help="While a camera is lost: show the other one, the last pair, or nothing; or end.",
    ),
    show: bool = typer.Option(
        False, "--show", rich_help_panel=OUTPUTS, help="Show a window; Q closes it and ends the stream."
    ),
    out: str | None = typer.Option(
        None,
        "--out",
        metavar="FILE",
        rich_help_panel=OUTPUTS,
        help="Write a video (.mp4, .avi, or lossless .mkv), a PNG per frame into a folder (frames/), or raw "
        "BGR frames on standard output (-).",
    ),
    side_by_side: bool = typer.Option(
        False,
        "--side-by-side",
        rich_help_panel=OUTPUTS,
        help="In --out and --show: infrared, visible and fused beside each other.",
    ),
    codec: Literal["h264", "h265", "ffv1", "mjpeg"] | None = typer.Option(
        None,
        "--codec",
        rich_help_panel=OUTPUTS,
        help="In place of the usual one: h264 in .mp4, ffv1 in .mkv, mjpeg in .avi.",
    ),
    segment: Segment = None,
    max_size: MaxSize = None,
    still: str | None = typer.Option(
        None,
        "--still",
        metavar="FILE",
        rich_help_panel=OUTPUTS,
        help="Write infrared, visible and fused of the last frame as an image.",
    ),
    rate: Literal["vis", "ir"] | None = typer.Option(
        None,
        "--rate",
        rich_help_panel=FUSION,
        help="The camera that sets the pace; without it, vis, and of two recordings the slower one.",
    ),
    max_skew: float | None = typer.Option(
        None,
        "--max-skew",
        metavar="SECONDS",
        rich_help_panel=FUSION,
        help="Most that the two frames of a pair may be apart.",
    ),
    quality: int | None = typer.Option(
        None,
        "--quality",
        metavar="K",
        rich_help_panel=FUSION,
        help="Score every K-th fused frame in the background.",
    ),
    contrast: Literal["off", "auto"] = typer.Option(
        "off",
        "--contrast",
        rich_help_panel=FUSION,
        help="auto: stretch the fused picture to the full range of grey, slowly, without flicker.",
    ),
    model: str = typer.Option(
        DEFAULT_MODEL,
        "--model",
        metavar="NAME|FILE",
        rich_help_panel=MODEL,
        help="A shipped model, see `edgefuse models`, or an .onnx or .engine file.",
    ),
    threads: int | None = typer.Option(
        None,
        "--threads",
        metavar="N",
        rich_help_panel=MODEL,
        help="CPU threads for the network; without it, all cores.",
    ),
    engine: str | None = typer.Option(
        None,
        "--engine",
        metavar="NAME",
        rich_help_panel=MODEL,
        help="onnxruntime, openvino or tensorrt; without it, the first that is installed.",
    ),
    provider: str | None = typer.Option(
        None,
        "--provider",
        metavar="NAME",
        rich_help_panel=MODEL,
        help="ONNX Runtime's cpu, cuda or tensorrt; without it, the GPU if it can be used.",
    ),
    no_rebuild: bool = typer.Option(
        False,
        "--no-rebuild",
        rich_help_panel=MODEL,
        help="Refuse a TensorRT engine of another machine instead of rebuilding it.",
    ),
    duration: Duration = None,
) -> None:
    """Fuse two cameras or recordings live, and say at the end how long each stage took.

    With a camera, each visible frame is fused with the infrared one that is
    nearest in time, and what comes too fast is dropped and counted; a camera
    that is lost is opened again. Two recordings are fused frame by frame,
    nothing left out, as fast as possible.
    """
    from edgefuse.runtime.arenas import share_arenas

    share_arenas()
    from edgefuse.runtime import live, sinks
    from edgefuse.runtime.contrast import stretched
    from edgefuse.runtime.fuser import Fuser

    for written in (out, still):
        refuse_own_input(written, ir, vis)
    console = Console(stderr=out == "-")
    stop = live.Stop()
    with ending_on_signals(), ExitStack() as stack:
        config = live.LiveConfig(duration, rate, max_skew, on_loss, quality)
        fuser = Fuser(model, threads, engine, provider=provider, rebuild=not no_rebuild)
        ir_camera = live.connect(ir, "ir", realtime)
        stack.enter_context(ir_camera)
        vis_camera = live.connect(vis, "vis", realtime)
        stack.enter_context(vis_camera)
        outputs: list[sinks.Sink] = []
        if out is not None:
            fps = live.file_rate(ir_camera, vis_camera, rate)
            size = bytes_of(max_size)
            outputs.append(
                sinks.open_output(out, fps, side_by_side, codec=codec, segment=segment, max_size=size)
            )
        if still is not None:
            outputs.append(sinks.Still(still))
        if show:
            outputs.append(sinks.Window(lambda: stop("the window was closed"), side_by_side))
        for output in outputs:
            stack.enter_context(output)
        with stopping_on_signals(lambda reason: stop(reason, hurry=True)):
            console.print(
                f"{escape(ir_camera.name)} + {escape(vis_camera.name)} → {escape(model)} "
                f"on {fuser.backend.device}{'' if duration else '; Ctrl-C ends'}",
                highlight=False,
                soft_wrap=True,
            )
            with _status(console) as progress:
                report = live.run(
                    ir_camera,
                    vis_camera,
                    stretched(fuser) if contrast == "auto" else fuser,
                    outputs,
                    config,
                    stop=stop,
                    progress=progress,
                )
    if report.frames or report.passed or report.error is None:
        print_report(report, console)
    if any(sink.error for sink in report.sinks):  # which was said when it happened
        raise typer.Exit(1)
    if report.error is not None:
        raise SourceError(report.error)
    silent = [source.name for source in report.sources if source.captured == 0]
    if silent and not report.passed:
        verb = "gives" if len(silent) == 1 else "give"
        raise SourceError(f"nothing was fused: {' and '.join(silent)} {verb} no picture")


def refuse_own_input(written: str | None, *sources: str) -> None:
    """Raise `InputError` if an output is one of the sources, or lies in a folder that is one."""
    if written is None or written == "-":
        return
    target = Path(written).resolve()
    for source in sources:
        path = Path(source if Path(source).exists() else source.partition("?")[0])
        if path.exists() and path.resolve() in (target, target.parent):
            raise InputError(f"{written} would overwrite the source {source}: write somewhere else")


@contextmanager
def _status(console: Console) -> "Iterator[Callable[[Progress], None]]":
    """Show a line of live status while there is a terminal."""
    if not console.is_terminal:
        yield lambda _: None
        return
    from edgefuse.runtime.capture import NAMES

    with console.status("waiting for the first pair") as line:

        def show(progress: "Progress") -> None:
            cameras = (
                f"{NAMES[role]} {state}, {progress.dropped[role]} dropped"
                for role, state in progress.states.items()
            )
            line.update(f"{progress.frames} frames, {progress.fps:.1f} per second; {'; '.join(cameras)}")

        yield show


def print_report(report: "Report", console: Console) -> None:
    """Print the tables of a finished run: stages, sources, outputs, and a summary."""
    stages = Table(title="latency in ms", title_justify="left")
    stages.add_column("stage")
    for column in ("p50", "p95", "p99", "max", "count"):
        stages.add_column(column, justify="right")
    for name, times in report.stages.items():
        values = (times.p50, times.p95, times.p99, times.max)
        stages.add_row(name, *(f"{1000 * value:.2f}" for value in values), str(times.count))
    if report.stages:
        console.print(stages)
    _print_frames(report, console)
    for line in _facts(report):
        console.print(line, highlight=False, soft_wrap=True)


def _print_frames(report: "Report", console: Console) -> None:
    table = Table(title="frames", title_justify="left")
    for column in ("", "name"):
        table.add_column(column, overflow="fold")
    for column in ("in", "fused", "alone", "dropped", "failed"):
        table.add_column(column, justify="right")
    for source in report.sources:
        kind = "infrared" if source.role == "ir" else "visible"
        counts = (source.captured, source.fused, source.passed, source.dropped, source.failed)
        table.add_row(kind, escape(source.name), *map(str, counts))
    for sink in report.sinks:
        kind = "output, failed" if sink.error else "output"
        table.add_row(kind, escape(sink.name), str(sink.written), "", "", str(sink.dropped), "")
    console.print(table)


def _facts(report: "Report") -> Iterator[str]:
    """Yield the lines below the tables."""
    for source in report.sources:
        if source.losses or source.reconnects or source.abandoned or source.state == "waiting":
            yield (
                f"{'infrared' if source.role == 'ir' else 'visible'}: lost {source.losses} times, "
                f"for {source.down:.1f} s; opened again {source.reconnects} times; "
                f"{source.abandoned} hanging threads replaced; {source.state} at the end"
            )
        if source.calibrations:
            yield (
                f"{escape(source.name)}: {source.calibrations} shutter calibrations, "
                "the picture was held meanwhile"
            )
    if report.passed or report.repeated:
        yield f"without a partner: {report.passed} passed through, {report.repeated} held or black"
    histograms = {"skew": report.skew} | {f"age of {role}": ages for role, ages in report.ages.items()}
    for name, histogram in histograms.items():
        if bins := histogram.bins():
            total = sum(count for _, count in bins)
            yield f"{name}, ms: " + ", ".join(f"{label} {count / total:.1%}" for label, count in bins)
    if (clock := report.clock) is not None:
        yield (
            f"infrared clock: {1000 * clock.offset:+.1f} ms against the visible one, "
            f"drift {clock.drift:+.1f} ppm, set {clock.jumps} times"
        )
    if (quality := report.quality) is not None:
        means = ", ".join(f"{name} {value:.3f}" for name, value in quality.means.items())
        yield (
            f"quality of {quality.scored} frames ({quality.skipped} skipped, {quality.failed} failed), "
            f"protocol {quality.protocol}: {means or 'none scored'}"
        )
    yield (
        f"[bold]{report.frames}[/] frames in {report.seconds:.1f} s, [bold]{report.fps:.1f}[/] per second, "
        f"{100 * report.cpu_seconds / max(report.seconds, 1e-9):.0f} % of a core; "
        f"ended: {escape(report.ended)}"
    )
