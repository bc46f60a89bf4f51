"""`edgefuse stream`: fuse two cameras or recordings, live."""

from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from edgefuse.cli.console import ExitCode, log_as_json, stderr, stdout
from edgefuse.cli.options import CAMERAS, OUTPUTS, bytes_of, required, with_settings
from edgefuse.cli.run_report import live_status, print_report
from edgefuse.cli.signals import ending_on_signals, stopping_on_signals
from edgefuse.errors import InputError, SourceError, counted
from edgefuse.runtime.config import StopRequest, StreamConfig

if TYPE_CHECKING:
    from edgefuse.align import Align
    from edgefuse.calibrate.drift import Drift
    from edgefuse.runtime.cameras.camera import Camera
    from edgefuse.runtime.live import Report
    from edgefuse.runtime.serve import LivePage
    from edgefuse.runtime.sinks import Sink

__all__ = ["stream"]

MODEL, RUN = "Model", "Run"


@with_settings(
    StreamConfig,
    {
        CAMERAS: "ir vis rig realtime on_loss",
        OUTPUTS: "show out side_by_side segment max_size still serve",
        MODEL: "model threads engine",
        RUN: "duration log",
    },
)
def stream(config: StreamConfig) -> None:
    """Fuse two cameras or recordings live; then print how long each stage took.

    With a camera, each visible frame is fused with the infrared frame nearest in
    time; excess frames are dropped and counted, a lost camera is reopened. Two
    recordings are fused frame by frame, as fast as possible.
    """
    from edgefuse.runtime.arenas import share_arenas

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
        drift = _drift(config, align)
        outputs = _open_outputs(config, ir_camera, vis_camera, align, stop)
        page = _open_page(config, fuser.engine.device)
        if page is not None:
            outputs.append(page)
        for output in outputs:
            stack.enter_context(output)
        with stopping_on_signals(lambda reason: stop(reason, immediate=True)):
            console.say(
                f"{ir_camera.name} + {vis_camera.name} → {config.model} "
                f"on {fuser.engine.device}{'' if config.duration else '; Ctrl-C ends'}"
            )
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


def _raise_failure(report: "Report") -> None:
    """End with an error if an output or camera failed, or nothing was fused; else list unreadable files."""
    if any(sink.error for sink in report.sinks):  # which was said when it happened
        raise typer.Exit(1)
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
    config: StreamConfig, ir: "Camera", vis: "Camera", align: "Align | None", stop: StopRequest
) -> "list[Sink]":
    """Open what is asked for: files, a still, a window."""
    from edgefuse.rig import RigAlign
    from edgefuse.runtime import live, sinks

    if double := next((written for written in config.out if config.out.count(written) > 1), None):
        raise InputError(f"the output {double} is given twice")
    options = sinks.OutputOptions(
        live.file_rate(ir, vis, config.rate),
        config.side_by_side,
        config.codec,
        config.segment,
        bytes_of(config.max_size),
    )
    outputs = [sinks.open_output(written, options) for written in config.out]
    if config.still is not None:
        outputs.append(sinks.Still(config.still))
    if config.show:
        outputs.append(sinks.Window(lambda: stop("the window was closed"), config.side_by_side))
    if config.crop == "overlap":
        if not isinstance(align, RigAlign):
            raise InputError("--set crop=overlap needs to know where infrared is: give --rig FILE")
        outputs = [sinks.Cropped(output, align.overlap) for output in outputs]
    return outputs


def _drift(config: StreamConfig, align: "Align | None") -> "Drift | None":
    """Return what watches over the alignment of a rig file."""
    from edgefuse.rig import RigAlign

    if not isinstance(align, RigAlign):
        if config.refine == "live":
            raise InputError("--set refine=live needs an alignment to start from: give --rig FILE")
        return None
    from edgefuse.calibrate.drift import Drift

    return Drift(align, refine=config.refine == "live")


def _open_page(config: StreamConfig, engine: str) -> "LivePage | None":
    if config.serve is None:
        return None
    from edgefuse.runtime.serve import Address, Alignment, LivePage

    alignment = None if config.rig is None else Alignment(config.rig, config.distance)
    return LivePage(Address.parse(config.serve), config.model, engine, alignment)


def refuse_own_input(written: str | None, *sources: str) -> None:
    """Raise `InputError` if an output is one of the sources, or lies in a folder that is one."""
    if written is None or written == "-":
        return
    target = Path(written).resolve()
    for source in sources:
        path = Path(source if Path(source).exists() else source.partition("?")[0])
        if path.exists() and path.resolve() in (target, target.parent):
            raise InputError(f"{written} would overwrite the source {source}: write somewhere else")
