"""`edgefuse stream`: fuse two cameras or recordings, live."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from edgefuse.cli.console import stderr, stdout
from edgefuse.cli.options import CAMERAS, OUTPUTS, bytes_of, required, with_settings
from edgefuse.cli.signals import ending_on_signals, stopping_on_signals
from edgefuse.errors import InputError, SourceError
from edgefuse.runtime.config import StreamConfig

if TYPE_CHECKING:
    from edgefuse.runtime.live import Progress, Report

__all__ = ["print_report", "stream"]

MODEL, RUN = "Model", "Run"


@with_settings(
    StreamConfig,
    {
        CAMERAS: "ir vis realtime on_loss",
        OUTPUTS: "show out side_by_side segment max_size still",
        MODEL: "model threads engine",
        RUN: "duration",
    },
)
def stream(config: StreamConfig) -> None:
    """Fuse two cameras or recordings live; then print how long each stage took.

    With a camera, each visible frame is fused with the infrared frame nearest in
    time; excess frames are dropped and counted, a lost camera is reopened. Two
    recordings are fused frame by frame, as fast as possible.
    """
    from edgefuse.runtime.arenas import share_arenas

    share_arenas()
    from edgefuse.runtime import live, sinks
    from edgefuse.runtime.contrast import stretched
    from edgefuse.runtime.fuser import Fuser

    ir, vis = required(config, "ir"), required(config, "vis")
    out, still, realtime = config.out, config.still, config.realtime
    for written in (out, still):
        refuse_own_input(written, ir, vis)
    console = stderr() if out == "-" else stdout()
    stop = live.Stop()
    with ending_on_signals(), ExitStack() as stack:
        fuser = Fuser(config.model, config.threads, config.engine, rebuild=config.rebuild)
        ir_camera = live.connect(ir, "ir", realtime)
        stack.enter_context(ir_camera)
        vis_camera = live.connect(vis, "vis", realtime)
        stack.enter_context(vis_camera)
        outputs: list[sinks.Sink] = []
        if out is not None:
            fps = live.file_rate(ir_camera, vis_camera, config.rate)
            size = bytes_of(config.max_size)
            outputs.append(
                sinks.open_output(
                    out, fps, config.side_by_side, codec=config.codec, segment=config.segment, max_size=size
                )
            )
        if still is not None:
            outputs.append(sinks.Still(still))
        if config.show:
            outputs.append(sinks.Window(lambda: stop("the window was closed"), config.side_by_side))
        for output in outputs:
            stack.enter_context(output)
        with stopping_on_signals(lambda reason: stop(reason, hurry=True)):
            console.print(
                f"{escape(ir_camera.name)} + {escape(vis_camera.name)} → {escape(config.model)} "
                f"on {fuser.backend.device}{'' if config.duration else '; Ctrl-C ends'}",
                highlight=False,
                soft_wrap=True,
            )
            with _status(console) as progress:
                report = live.run(
                    ir_camera,
                    vis_camera,
                    stretched(fuser) if config.contrast == "auto" else fuser,
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
