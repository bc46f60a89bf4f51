"""`edgefuse record`: save two cameras, unfused and without loss."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.markup import escape

from edgefuse.cli.console import Output, ending_on_signals, stdout, stopping_on_signals, table
from edgefuse.cli.options import (
    OUTPUTS,
    Duration,
    InfraredSource,
    MaxSize,
    Segment,
    VisibleSource,
    bytes_of,
)
from edgefuse.errors import SourceError

if TYPE_CHECKING:
    from edgefuse.runtime.frames import Role
    from edgefuse.runtime.record import RecordedCamera


def record(
    ir: InfraredSource,
    vis: VisibleSource,
    out: str = typer.Option(
        ...,
        metavar="FOLDER",
        rich_help_panel=OUTPUTS,
        help="Created if missing; must not contain a recording.",
    ),
    rig: Path | None = typer.Option(
        None, metavar="FILE", rich_help_panel=OUTPUTS, help="Rig file to keep beside the recording."
    ),
    segment: Segment = None,
    max_size: MaxSize = None,
    duration: Duration = None,
) -> None:
    """Record both cameras without loss.

    Writes a folder for each camera, with every bit of its frames (FFV1), of 16-bit infrared too, and
    their times. Replay with `edgefuse stream --ir FOLDER/ir --vis FOLDER/vis`; `edgefuse train` takes
    the same.
    """
    from edgefuse.machine import share_arenas

    share_arenas()
    from edgefuse.rig import Rig
    from edgefuse.runtime import live
    from edgefuse.runtime.record import record as record_cameras
    from edgefuse.thermal_config import ThermalConfig

    console = stdout()
    known = Rig.load(rig) if rig is not None else None
    stop = live.StopRequest()
    with ending_on_signals(), ExitStack() as stack:
        ir_camera, vis_camera = live.connect_pair(ir, vis)
        stack.enter_context(ir_camera)
        stack.enter_context(vis_camera)
        with stopping_on_signals(lambda reason: stop(reason, immediate=True)):
            if ir_camera.thermal != ThermalConfig():
                console.say("Infrared is kept as it comes: give agc, polarity and window to its replay.")
            console.say(f"{ir_camera.name} + {vis_camera.name} → {out}{'' if duration else '; Ctrl-C ends'}")
            with _status(console) as progress:
                result = record_cameras(
                    {"ir": ir_camera, "vis": vis_camera},
                    out,
                    duration=duration,
                    segment=segment,
                    max_size=bytes_of(max_size),
                    stop=stop,
                    progress=progress,
                )
    if known is not None and Path(out).is_dir():
        known.save(Path(out) / "rig.json")
    _print_result(result, stop.reason or "end", console)
    if error := next((camera.error for camera in result if camera.error), None):
        raise SourceError(error)


@contextmanager
def _status(console: Output) -> "Iterator[Callable[[Mapping[Role, int]], None]]":
    """Show a line of live status while there is a terminal."""
    if not console.is_terminal:
        yield lambda _: None
        return
    with console.status("waiting for the cameras") as line:
        yield lambda frames: line.update(f"frames: infrared {frames['ir']}, visible {frames['vis']}")


def _print_result(result: "tuple[RecordedCamera, RecordedCamera]", ended: str, console: Output) -> None:
    numbers = ["parts", "frames", "dropped", "failed", "lost", "MB"]
    recorded = table("recorded", ["camera", "folder"], numbers)
    for camera in result:
        folder = str(camera.files[0].parent) if camera.files else "none"
        counts = (len(camera.files), camera.written, camera.dropped, camera.failed, camera.losses)
        size = f"{camera.size / 1e6:.1f}"
        recorded.add_row(escape(camera.name), escape(folder), *map(str, counts), size)
    console.print(recorded)
    console.say(f"ended: {ended}")
