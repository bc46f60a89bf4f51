"""`edgefuse stream`: fuse two cameras or recordings, live; what it prints meanwhile, and at the end."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.markup import escape

from edgefuse.cli.console import (
    ExitCode,
    Output,
    ending_on_signals,
    log_as_json,
    stderr,
    stdout,
    stopping_on_signals,
    table,
)
from edgefuse.cli.options import CAMERAS, HIDDEN, OUTPUTS, bytes_of, required, with_settings
from edgefuse.errors import InputError, SourceError, counted
from edgefuse.files import check_writable
from edgefuse.runtime.config import StopRequest, StreamConfig

if TYPE_CHECKING:
    from edgefuse.align import Align
    from edgefuse.calibrate.drift import Drift
    from edgefuse.runtime.alignment import Alignment
    from edgefuse.runtime.cameras.camera import Camera
    from edgefuse.runtime.live import Report, SourceReport
    from edgefuse.runtime.serve import LivePage
    from edgefuse.runtime.sinks import OutputOptions, Sink

WAITING = ("pair", "total", "output")
"""Stages that in recordings, which are read ahead, mostly measure how long a frame waits for its turn."""
MAX_DROPPED = 0.05
"""Share of the visible frames beyond which the machine counts as too slow for the camera."""
MAX_UNPAIRED = 0.05
"""Share of the visible frames without infrared beyond which the two do not fit together."""
MAX_STARVED = 0.05
"""Share of the time that threads may wait for a core."""


@contextmanager
def live_status(console: Output) -> "Iterator[Callable[[Report], None] | None]":
    """Show a line of live status while there is a terminal."""
    if not console.is_terminal:
        yield None
        return
    last_frames, last_seconds = 0, 0.0
    with console.status("waiting for the first pair") as line:

        def show(report: "Report") -> None:
            nonlocal last_frames, last_seconds
            rate = (report.frames - last_frames) / max(report.seconds - last_seconds, 1e-9)
            last_frames, last_seconds = report.frames, report.seconds
            cameras = (f"{s.camera} {s.state}, {s.dropped + s.unpaired} dropped" for s in report.sources)
            line.update(f"{counted(report.frames, 'frame')}, {rate:.1f} per second; {'; '.join(cameras)}")

        yield show


def print_report(report: "Report", console: Output) -> None:
    """Print a verdict in one line, then tables of stages, sources and outputs, and a summary."""
    problems, sentence = verdict(report)
    console.say(sentence, "bold" if problems else "bold green")
    stages = table("time per stage in ms", ["stage"], ["p50", "p95", "p99", "max", "count"])
    for name, times in report.stages.items():
        if report.live or name not in WAITING:
            values = (times.p50, times.p95, times.p99, times.max)
            stages.add_row(name, *(f"{1000 * value:.2f}" for value in values), str(times.count))
    if report.stages:
        console.print(stages)
    _print_frames(report, console)
    for line in _facts(report):
        console.say(line)


def verdict(report: "Report") -> tuple[list[str], str]:
    """Return what went wrong, and one line on how the run went."""
    problems = list(_problems(report))
    facts = [f"{report.fps:.1f} fps"]
    latency = report.stages.get("output") or report.stages.get("total")
    if report.live and latency:
        to = "output" if "output" in report.stages else "fused picture"
        facts.append(f"{1000 * latency.p50:.0f} ms from camera to {to}")
    infrared, visible = report.sources
    if report.live:  # of a faster infrared camera, frames without a partner are no loss
        unused = {"visible": visible.dropped + visible.unpaired, "infrared": infrared.dropped}
    else:  # nothing is dropped but what was read ahead
        unused = {"visible": visible.unpaired, "infrared": infrared.unpaired}
    captured = {"visible": visible.captured, "infrared": infrared.captured}
    lost = [f"{n} of {captured[name]} {name} frames not fused" for name, n in unused.items() if n]
    if not lost and not any(sink.dropped for sink in report.sinks):
        lost = ["nothing dropped"]
    how = "Problems" if problems else "All well"
    return problems, "; ".join([f"{how}: {', '.join([*facts, *lost])}", *problems])


def _problems(report: "Report") -> Iterator[str]:
    for source in report.sources:
        if not source.captured:
            yield f"{source.camera} gave no picture"
        elif source.losses:
            yield f"{source.camera} was lost {_times(source.losses)}, for {source.downtime_s:.1f} s"
        if source.failed:
            yield f"{counted(source.failed, 'frame')} of {source.camera} could not be used"
    visible = report.sources[1]
    if report.live and visible.dropped > MAX_DROPPED * visible.captured:
        yield f"too slow: {visible.dropped / visible.captured:.0%} of the visible frames were dropped"
    infrared = report.sources[0]  # it may be the faster camera, so what it has left over is no problem
    most = 1 + MAX_UNPAIRED * visible.captured  # one of a short clip may stand alone at its end
    if visible.unpaired > most and infrared.captured and not infrared.losses:
        share = visible.unpaired / visible.captured
        yield f"infrared has no picture for {share:.0%} of the visible frames"
    if report.starved_s > MAX_STARVED * report.seconds:
        yield f"this machine is too busy: threads waited {report.starved_s:.1f} s for a core"
    for sink in report.sinks:
        if sink.error:
            yield f"{sink.name} failed"
        elif sink.dropped:
            yield f"{sink.name} was too slow for {counted(sink.dropped, 'frame')}"


def _print_frames(report: "Report", console: Output) -> None:
    frames = table("frames", ["", "name"], ["in", "fused", "unpaired", "dropped", "failed"])
    for source in report.sources:
        counts = (source.captured, source.fused, source.unpaired, source.dropped, source.failed)
        frames.add_row(source.camera, escape(source.name), *map(str, counts))
    for sink in report.sinks:
        kind = "output, failed" if sink.error else "output"
        frames.add_row(kind, escape(sink.name), str(sink.written), "", "", str(sink.dropped), "")
    console.print(frames)


def _facts(report: "Report") -> Iterator[str]:
    """Yield the lines below the tables."""
    for source in report.sources:
        yield from _camera_facts(source)
    if report.held:
        yield f"{counted(report.held, 'frame')} fused with an earlier infrared frame, labelled"
    if report.shown_alone or report.repeated:
        yield f"without a partner: {report.shown_alone} shown alone, {report.repeated} held or black"
    delays = {"skew": report.skew} | {f"age of {role}": ages for role, ages in report.ages.items()}
    for name, delay in delays.items():
        if delay.count:
            shares = (f"{label} {count / delay.count:.1%}" for label, count in delay.bins())
            yield f"{name}, ms: {', '.join(shares)}"
    if (clock := report.clock) is not None:
        yield (
            f"infrared clock: {1000 * clock.offset:+.1f} ms against the visible one, "
            f"drift {clock.drift:+.1f} ppm, set {_times(clock.jumps)}"
        )
    if (quality := report.quality) is not None:
        means = ", ".join(f"{name} {value:.3f}" for name, value in quality.means.items())
        yield (
            f"quality of {counted(quality.scored, 'frame')} ({quality.skipped} skipped, "
            f"{quality.failed} failed), protocol {quality.protocol}: {means or 'none scored'}"
        )
    if (alignment := report.alignment) is not None and alignment.measured + alignment.unclear:
        yield alignment.sentence()
    yield (
        f"{counted(report.frames, 'frame')} in {report.seconds:.1f} s, {report.fps:.1f} per second, "
        f"{100 * report.cpu_seconds / max(report.seconds, 1e-9):.0f} % of a core; "
        f"ended: {report.ended or 'still running'}"
    )


def _camera_facts(source: "SourceReport") -> Iterator[str]:
    if source.losses or source.reconnects or source.stuck_threads or source.state == "waiting":
        yield (
            f"{source.camera}: lost {_times(source.losses)}, for {source.downtime_s:.1f} s; reopened "
            f"{_times(source.reconnects)}; {source.stuck_threads} stuck threads replaced; "
            f"{source.state} at the end"
        )
    if source.calibrations:
        yield f"{source.name}: {counted(source.calibrations, 'shutter calibration')}"


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


MODEL, RUN = "Model", "Run"


@with_settings(
    StreamConfig,
    {
        CAMERAS: "ir vis rig realtime on_loss",
        HIDDEN: "distance refine crop",
        OUTPUTS: "show out side_by_side segment max_size still serve",
        MODEL: "model threads engine",
        RUN: "duration log",
    },
)
def stream(
    config: StreamConfig,
    check: bool = typer.Option(False, "--check", help="Check all settings; open no camera, write nothing."),
) -> None:
    """Fuse two cameras or recordings live.

    With a camera, each visible frame is fused with the infrared frame nearest in time; excess frames
    are dropped and counted, a lost camera is reopened. Two recordings are fused frame by frame, as fast
    as possible. At the end, a table says how long each stage took.
    """
    from edgefuse.machine import share_arenas

    if config.log == "json":
        log_as_json()
    share_arenas()
    from edgefuse.rig import as_align
    from edgefuse.runtime import live
    from edgefuse.runtime.engines.fuser import Fuser
    from edgefuse.runtime.service import ServiceNotifier

    ir, vis = required(config, "ir"), required(config, "vis")
    for written in (*config.out, config.still):
        refuse_own_input(written, ir, vis)
    if check:
        _check(config)
        return
    console = stderr() if "-" in config.out else stdout()
    stop = StopRequest()
    with ending_on_signals(), ExitStack() as stack:
        service = stack.enter_context(closing(ServiceNotifier()))
        align = as_align(config.rig, config.distance)
        fuser = stack.enter_context(
            Fuser(config.model, config.threads, config.engine, rebuild=config.rebuild)
        )
        ir_camera, vis_camera = live.connect_pair(ir, vis, config.realtime)
        stack.enter_context(ir_camera)
        stack.enter_context(vis_camera)
        cameras = ir_camera, vis_camera
        drift, alignment = _watch_alignment(config, align, *cameras)
        outputs, page = _open_outputs(config, cameras, align, alignment, fuser.engine.device, stop)
        for output in outputs:
            stack.enter_context(output)
        with stopping_on_signals(lambda reason: stop(reason, immediate=True)):
            names = f"{ir_camera.name} + {vis_camera.name} → {config.model}"
            console.say(f"{names} on {fuser.engine.device}{'' if config.duration else '; Ctrl-C ends'}")
            with live_status(console) as show:
                session = live.Session(
                    ir_camera,
                    vis_camera,
                    fuser,
                    config,
                    sinks=outputs,
                    stop=stop,
                    progress=service.beating(show),
                    align=align,
                    background=[drift] if drift else [],
                )
                with session:
                    if page is not None:
                        page.start(session)
                        console.say(f"live page: {page.url}")
                    for _ in session:
                        pass
                    service.stopping()
                report = session.snapshot()
    if report.frames or report.shown_alone or report.error is None:
        print_report(report, console)
    _raise_failure(report)


def _check(config: StreamConfig) -> None:
    """Say whether a run could begin: all that can be known without a camera and without writing."""
    from edgefuse.rig import as_align
    from edgefuse.runtime import live, sinks
    from edgefuse.runtime.engines.fuser import Fuser
    from edgefuse.runtime.serve import Access, Address, require_packages
    from edgefuse.runtime.sinks.pictures import check_display

    align = as_align(config.rig, config.distance)
    with ExitStack() as stack:
        ir, vis = live.connect_pair(required(config, "ir"), required(config, "vis"), config.realtime)
        stack.enter_context(ir)
        stack.enter_context(vis)
        _watch_alignment(config, align, ir, vis)
        fuser = stack.enter_context(Fuser(config.model, config.threads, config.engine, rebuild=False))
        options = _output_options(config, ir, vis)
        for written in config.out:
            sinks.kind_of_output(written, options)
            _check_folder(written)
        if config.still is not None:
            check_writable(Path(config.still))
        if config.show:
            check_display()
        if config.serve is not None:
            Access(Address.parse(config.serve))
            require_packages()
        stdout().say(f"All well: {ir.name} + {vis.name} → {config.model} on {fuser.engine.device}", "green")


def _check_folder(written: str) -> None:
    """Raise `InputError` if the nearest folder above an output that is there cannot be written into."""
    if written != "-":
        there = next(path for path in Path(written).absolute().parents if path.exists())
        check_writable(there / Path(written).name)


def _raise_failure(report: "Report") -> None:
    """End with an error if an output or camera failed, or nothing was fused; else list unreadable files."""
    if any(sink.error for sink in report.sinks):  # which was said when it happened
        raise typer.Exit(ExitCode.ERROR)
    if report.error is not None:
        raise SourceError(report.error)
    silent = [source.name for source in report.sources if source.captured == 0]
    if silent:  # whatever was shown in its place
        raise SourceError(f"nothing was fused: {' and '.join(silent)} never gave a picture")
    if unreadable := [reason for source in report.sources for reason in source.unreadable]:
        if not report.frames + report.shown_alone:
            raise SourceError(unreadable[0])
        errors = stderr()
        errors.say(f"Not read, {counted(len(unreadable), 'file')}:", "red")
        for reason in unreadable:
            errors.say(f"  {reason}")
        raise typer.Exit(ExitCode.PARTIAL)


def _open_outputs(
    config: StreamConfig,
    cameras: "tuple[Camera, Camera]",
    align: "Align | None",
    alignment: "Alignment | None",
    engine: str,
    stop: StopRequest,
) -> "tuple[list[Sink], LivePage | None]":
    """Open what is asked for: files, a still, a window, and last the live page."""
    from edgefuse.rig import RigAlign
    from edgefuse.runtime import sinks

    overlap = align.overlap if isinstance(align, RigAlign) and config.crop == "overlap" else None
    if config.crop == "overlap" and overlap is None:
        raise InputError("--crop overlap needs to know where infrared is: give --rig FILE")

    def crop(output: "Sink") -> "Sink":
        return output if overlap is None else sinks.Cropped(output, overlap)

    options = _output_options(config, *cameras)
    outputs = [sinks.open_output(written, options) for written in config.out]
    if config.still is not None:
        outputs.append(sinks.Still(config.still))
    if config.show:
        from edgefuse.calibrate.nudge import Nudge

        keys = None if alignment is None else Nudge(alignment)
        outputs.append(sinks.Window(lambda: stop("the window was closed"), config.side_by_side, keys))

    outputs = [crop(output) for output in outputs]
    if config.serve is None:
        return outputs, None
    from edgefuse.runtime.serve import Address, Limits, LivePage, Recorder

    limits = Limits(config.max_dropped, config.max_latency)
    address, recorder = Address.parse(config.serve), Recorder(options, crop)
    page = LivePage(address, config.model, engine, alignment, recorder, limits)
    return [*outputs, page], page


def _output_options(config: StreamConfig, ir: "Camera", vis: "Camera") -> "OutputOptions":
    from edgefuse.runtime import live, sinks

    for name in ("segment", "max_size"):
        if getattr(config, name) is not None and not config.out and config.serve is None:
            raise InputError(f"--{name.replace('_', '-')} is about the files of --out: give one")
    if double := next((written for written in config.out if config.out.count(written) > 1), None):
        raise InputError(f"the output {double} is given twice")
    rate, most = live.file_rate(ir, vis, config.rate), bytes_of(config.max_size)
    return sinks.OutputOptions(rate, config.side_by_side, config.codec, config.segment, most)


def _watch_alignment(
    config: StreamConfig, align: "Align | None", ir: "Camera", vis: "Camera"
) -> "tuple[Drift | None, Alignment | None]":
    """Return what watches over the alignment of a rig file, and what moves it by hand."""
    from edgefuse.rig import RigAlign
    from edgefuse.runtime.alignment import Alignment, doubt_rig

    doubt_rig(align, ir, vis)
    if config.rig is None or not isinstance(align, RigAlign):
        if config.refine != "off":
            raise InputError(f"--refine {config.refine} needs an alignment to start from: give --rig FILE")
        return None, None
    from edgefuse.calibrate.drift import Drift, FollowDistance
    from edgefuse.calibrate.nudge import by_frame

    following = config.refine == "distance"
    drift = FollowDistance(align) if following else Drift(align, refine=config.refine == "live")
    return drift, Alignment(config.rig, align, by_frame)


def refuse_own_input(written: str | None, *sources: str) -> None:
    """Raise `InputError` if an output is one of the sources, or lies in a folder that is one."""
    if written is None or written == "-":
        return
    target = Path(written).resolve()
    for source in sources:
        path = Path(source if Path(source).exists() else source.partition("?")[0])
        if path.exists() and path.resolve() in (target, target.parent):
            raise InputError(f"{written} would overwrite the source {source}: write somewhere else")
