"""`edgefuse stream`: fuse two cameras or recordings, live."""

from contextlib import ExitStack
from pathlib import Path

import typer

from edgefuse.cli.console import stderr, stdout
from edgefuse.cli.options import CAMERAS, OUTPUTS, bytes_of, required, with_settings
from edgefuse.cli.run_report import live_status, print_report
from edgefuse.cli.signals import ending_on_signals, stopping_on_signals
from edgefuse.errors import InputError, SourceError
from edgefuse.runtime.config import StreamConfig

__all__ = ["stream"]

MODEL, RUN = "Model", "Run"


@with_settings(
    StreamConfig,
    {
        CAMERAS: "ir vis rig realtime on_loss",
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
    from edgefuse.rig import RigAlign, as_align
    from edgefuse.runtime import live, sinks
    from edgefuse.runtime.engines.fuser import Fuser

    ir, vis = required(config, "ir"), required(config, "vis")
    out, still, realtime = config.out, config.still, config.realtime
    for written in (*out, still):
        refuse_own_input(written, ir, vis)
    if double := next((written for written in out if out.count(written) > 1), None):
        raise InputError(f"the output {double} is given twice")
    console = stderr() if "-" in out else stdout()
    stop = live.StopRequest()
    with ending_on_signals(), ExitStack() as stack:
        align = as_align(config.rig, config.distance)
        fuser = Fuser(config.model, config.threads, config.engine, rebuild=config.rebuild)
        ir_camera, vis_camera = live.connect_pair(ir, vis, realtime)
        stack.enter_context(ir_camera)
        stack.enter_context(vis_camera)
        outputs: list[sinks.Sink] = []
        options = sinks.OutputOptions(
            live.file_rate(ir_camera, vis_camera, config.rate),
            config.side_by_side,
            config.codec,
            config.segment,
            bytes_of(config.max_size),
        )
        outputs += [sinks.open_output(written, options) for written in out]
        if still is not None:
            outputs.append(sinks.Still(still))
        if config.show:
            outputs.append(sinks.Window(lambda: stop("the window was closed"), config.side_by_side))
        if config.crop == "overlap":
            if not isinstance(align, RigAlign):
                raise InputError("--set crop=overlap needs to know where infrared is: give --rig FILE")
            outputs = [sinks.Cropped(output, align.overlap) for output in outputs]
        for output in outputs:
            stack.enter_context(output)
        with stopping_on_signals(lambda reason: stop(reason, immediate=True)):
            console.say(
                f"{ir_camera.name} + {vis_camera.name} → {config.model} "
                f"on {fuser.engine.device}{'' if config.duration else '; Ctrl-C ends'}"
            )
            with live_status(console) as progress:
                report = live.run(
                    ir_camera,
                    vis_camera,
                    fuser,
                    outputs,
                    config,
                    stop=stop,
                    progress=progress,
                    align=align,
                )
    if report.frames or report.shown_alone or report.error is None:
        print_report(report, console)
    if any(sink.error for sink in report.sinks):  # which was said when it happened
        raise typer.Exit(1)
    if report.error is not None:
        raise SourceError(report.error)
    silent = [source.name for source in report.sources if source.captured == 0]
    if silent:  # whatever was shown in its place
        raise SourceError(f"nothing was fused: {' and '.join(silent)} never gave a picture")


def refuse_own_input(written: str | None, *sources: str) -> None:
    """Raise `InputError` if an output is one of the sources, or lies in a folder that is one."""
    if written is None or written == "-":
        return
    target = Path(written).resolve()
    for source in sources:
        path = Path(source if Path(source).exists() else source.partition("?")[0])
        if path.exists() and path.resolve() in (target, target.parent):
            raise InputError(f"{written} would overwrite the source {source}: write somewhere else")
