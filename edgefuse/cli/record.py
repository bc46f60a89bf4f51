"""`edgefuse record`: save two cameras, unfused and without loss."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from edgefuse.cli.signals import stopping_on_signals
from edgefuse.errors import SourceError

if TYPE_CHECKING:
    from edgefuse.runtime.recording import RecordedCamera
    from edgefuse.runtime.sources import Role

__all__ = ["record"]


def record(
    ir: str = typer.Option(..., "--ir", metavar="SOURCE", help="Infrared, as for `edgefuse stream`."),
    vis: str = typer.Option(..., "--vis", metavar="SOURCE", help="Visible: likewise."),
    out: str = typer.Option(..., "--out", metavar="FOLDER", help="Made if needed; must hold no recording."),
    duration: float | None = typer.Option(
        None, "--duration", metavar="SECONDS", help="End after so many seconds."
    ),
) -> None:
    """Record both cameras without loss, 16-bit infrared too, to be replayed or trained on.

    Writes ir.mkv and vis.mkv (FFV1, with every bit) and the times of their frames beside them. Replay with
    `edgefuse stream --ir FOLDER/ir.mkv --vis FOLDER/vis.mkv`.
    """
    from edgefuse.runtime import live, recording

    console = Console()
    stop = live.Stop()
    with stopping_on_signals(stop), ExitStack() as stack:
        ir_camera, vis_camera = live.connect(ir, "ir"), live.connect(vis, "vis")
        stack.enter_context(ir_camera)
        stack.enter_context(vis_camera)
        console.print(
            f"{escape(ir_camera.name)} + {escape(vis_camera.name)} → {escape(out)}"
            f"{'' if duration else '; Ctrl-C ends'}",
            highlight=False,
            soft_wrap=True,
        )
        with _status(console) as progress:
            result = recording.record(
                {"ir": ir_camera, "vis": vis_camera}, out, duration=duration, stop=stop, progress=progress
            )
    _print_result(result, console)
    if error := next((camera.error for camera in result if camera.error), None):
        raise SourceError(error)


@contextmanager
def _status(console: Console) -> "Iterator[Callable[[Mapping[Role, int]], None]]":
    """Show a line of live status while there is a terminal."""
    if not console.is_terminal:
        yield lambda _: None
        return
    with console.status("waiting for the cameras") as line:
        yield lambda frames: line.update(f"frames: infrared {frames['ir']}, visible {frames['vis']}")


def _print_result(result: "tuple[RecordedCamera, RecordedCamera]", console: Console) -> None:
    table = Table(title="recorded", title_justify="left")
    table.add_column("camera", overflow="fold")
    table.add_column("files", overflow="fold")
    for column in ("frames", "dropped", "lost", "MB"):
        table.add_column(column, justify="right")
    for camera in result:
        files = ", ".join(str(path) for path in camera.files) or "none"
        counts = (camera.written, camera.dropped, camera.reconnects, f"{camera.size / 1e6:.1f}")
        table.add_row(escape(camera.name), escape(files), *map(str, counts))
    console.print(table)
