"""`edgefuse calibrate`: find out where the infrared camera's pixels lie in the visible one's."""

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console
from rich.markup import escape

from edgefuse.cli.console import stdout
from edgefuse.cli.options import OUTPUTS, InfraredSource, VisibleSource
from edgefuse.errors import InputError, SourceError, counted

if TYPE_CHECKING:
    from edgefuse.calibrate import Estimate
    from edgefuse.rig import Rig


def calibrate(
    ir: InfraredSource,
    vis: VisibleSource,
    out: Annotated[
        Path,
        typer.Option("--out", metavar="FILE", rich_help_panel=OUTPUTS, help="The rig file to write."),
    ] = Path("rig.json"),
    pictures: Annotated[
        bool,
        typer.Option(
            "--pictures/--no-pictures",
            rich_help_panel=OUTPUTS,
            help="Save a picture of before and after beside the rig file.",
        ),
    ] = True,
    keep: Annotated[
        Path | None,
        typer.Option(
            "--keep",
            metavar="FOLDER",
            rich_help_panel=OUTPUTS,
            help="Keep the scenes in FOLDER, and start with those that an earlier run kept there.",
        ),
    ] = None,
    model: Annotated[
        Literal["similarity", "affine", "homography"] | None,
        typer.Option(
            "--model", help="The kind of map; without it, a similarity unless several scenes ask for more."
        ),
    ] = None,
    points: Annotated[
        str | None,
        typer.Option(
            "--points",
            metavar="X,Y:X,Y …",
            help="Set the map by hand: two or more points, each in infrared and in visible pixels.",
        ),
    ] = None,
    baseline: Annotated[
        str | None,
        typer.Option(
            "--baseline",
            metavar="METRES",
            help="How far infrared is right of the visible camera, or RIGHT,DOWN: for `distance` of stream.",
        ),
    ] = None,
    focal: Annotated[
        float | None,
        typer.Option("--focal", metavar="PX", help="Focal length of the visible camera, for --baseline."),
    ] = None,
    distance: Annotated[
        float | None,
        typer.Option(
            "--distance",
            metavar="METRES",
            help="How far away the scenes are, for --baseline.",
            show_default="far",
        ),
    ] = None,
    scenes: Annotated[
        int, typer.Option("--scenes", metavar="N", min=1, help="Scenes of a live camera to wait for.")
    ] = 9,
    duration: Annotated[
        float,
        typer.Option("--duration", metavar="SECONDS", min=0.1, help="Longest time to watch live cameras."),
    ] = 120.0,
) -> None:
    """Align two cameras from what they see: no target is needed.

    Show both cameras several scenes with buildings, trees, people or cars at
    the distance that matters. Recordings and two folders of images with equal
    file names serve as well. Ctrl-C ends the collecting and uses what is there.
    """
    from edgefuse.calibrate import Scenes, collect, estimate, load_pairs, make_rig, save_pairs
    from edgefuse.calibrate.manual import from_points, parallax_of, parallax_table, parse_points
    from edgefuse.calibrate.pictures import before_and_after
    from edgefuse.files import check_writable
    from edgefuse.images import write_image
    from edgefuse.runtime.sources import safe_name

    if (baseline is None) != (focal is None) or (distance is not None and baseline is None):
        raise InputError("--baseline METRES and --focal PX belong together; --distance needs both")
    parallax = parallax_of(baseline, focal) if baseline is not None and focal is not None else None
    by_hand = from_points(parse_points(points)) if points is not None else None
    check_writable(out)
    console = stdout()
    collected = Scenes()
    for pair in load_pairs(keep):
        collected.offer(*pair)
    waiting = console.status("waiting for pictures") if console.is_terminal else nullcontext()
    with waiting as line:

        def progress(count: int, pairs: int) -> None:
            if line is not None:
                line.update(f"{count} of {scenes} scenes, {pairs} pairs; turn the rig to another scene")

        collect(ir, vis, collected, scenes, duration, progress)
    if keep is not None:
        save_pairs(keep, collected.pairs)
    if not collected.pairs:
        raise SourceError(f"{safe_name(ir)} and {safe_name(vis)} gave no pair of pictures")
    found = by_hand or estimate(collected.pairs, model)
    rig = make_rig(found, collected.pairs[0], safe_name(ir), safe_name(vis))
    rig = replace(rig, parallax=parallax, distance=distance, model="points" if by_hand else rig.model)
    rig = replace(rig, confidence=1.0) if by_hand else rig
    rig.save(out)
    if pictures:
        picture = out.with_suffix(".png")
        write_image(picture, before_and_after(rig, *collected.pairs[0]))
    _print(console, rig, found, out)
    if parallax is not None:
        console.print(f"Off at other distances: {parallax_table(rig)}", highlight=False, soft_wrap=True)


def _print(console: Console, rig: "Rig", found: "Estimate", out: Path) -> None:
    scale, turn, right, down = found.moves(rig.ir_size, rig.vis_size)
    flip = f", infrared is {found.flip}" if found.flip else ""
    console.print(
        f"{counted(found.scenes, 'scene')}, {counted(found.pairs, 'pair')} → {rig.model}{flip}: scale "
        f"{scale:.3f}, turn {turn:+.1f}°, centre {right:+.1f}, {down:+.1f} px; infrared covers "
        f"{rig.overlap:.0%} of the visible picture",
        highlight=False,
    )
    console.print(
        f"residual {rig.residual_px:.1f} px, confidence {rig.confidence:.2f} (z {found.z:.1f}) → "
        f"[bold]{escape(str(out))}[/]",
        highlight=False,
    )
    if 0 < found.scenes < 3:
        console.print("More scenes make it better: 3 or more, best 9, at the distance that matters.")
