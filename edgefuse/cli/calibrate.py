"""`edgefuse calibrate`: find out where the infrared camera's pixels lie in the visible one's."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import typer

from edgefuse.cli.console import Output, stderr, stdout
from edgefuse.cli.options import OUTPUTS, InfraredSource, VisibleSource
from edgefuse.errors import InputError, SourceError, counted

if TYPE_CHECKING:
    from edgefuse.calibrate import Boards, Estimate, Scenes
    from edgefuse.calibrate.scenes import Pair
    from edgefuse.calibrate.search import ModelName
    from edgefuse.rig import Matrix, Rig


def calibrate(
    ir: InfraredSource,
    vis: VisibleSource,
    out: Path = typer.Option(
        Path("rig.json"), metavar="FILE", rich_help_panel=OUTPUTS, help="The rig file to write."
    ),
    pictures: bool = typer.Option(True, rich_help_panel=OUTPUTS, help="Save a picture of before and after."),
    keep: Path | None = typer.Option(
        None,
        metavar="FOLDER",
        rich_help_panel=OUTPUTS,
        help="Keep the scenes in FOLDER, and start with those that an earlier run kept there.",
    ),
    model: Literal["similarity", "affine", "homography"] | None = typer.Option(
        None, help="Kind of map. By default the scenes decide."
    ),
    points: str | None = typer.Option(
        None,
        metavar="X,Y:X,Y …",
        help="Set the map by hand: two or more points, each in infrared and in visible pixels.",
    ),
    board: str | None = typer.Option(
        None,
        metavar="9x6|7x5:circles",
        help="Set the map by a board that both cameras see, heated or cut out: inner corners of a "
        "chessboard, or circles.",
    ),
    nudge: bool = typer.Option(
        False,
        "--nudge",
        help="Then adjust the map in a window: keys move, zoom and turn infrared, R refines, K keeps.",
    ),
    refine: bool = typer.Option(False, "--refine", help="Refine a map that --points or --board set."),
    distortion: str | None = typer.Option(
        None,
        metavar="K[,K]",
        help="Distortion of infrared and visible lens: r becomes r (1 + K r²), in half diagonals.",
        show_default="estimated",
    ),
    baseline: str | None = typer.Option(
        None,
        metavar="METRES",
        help="How far infrared is right of the visible camera, or RIGHT,DOWN: for `distance` of stream.",
    ),
    focal: float | None = typer.Option(
        None, metavar="PX", help="Focal length of the visible camera, for --baseline."
    ),
    distance: float | None = typer.Option(
        None, metavar="METRES", help="How far away the scenes are, for --baseline.", show_default="far"
    ),
    distances: str | None = typer.Option(
        None, metavar="METRES,…", help="How far away each scene is: learns the parallax."
    ),
    scenes: int = typer.Option(9, metavar="N", min=1, help="Scenes of a live camera to wait for."),
    duration: float = typer.Option(
        120.0, metavar="SECONDS", min=0.1, help="Longest time to watch live cameras."
    ),
) -> None:
    """Align two cameras by what they see.

    No target is needed: show both cameras several scenes with buildings, trees, people or cars at the
    distance that matters. Recordings and two folders of images with equal file names serve as well.
    Ctrl-C ends the collecting and uses what is there.
    """
    from edgefuse.calibrate import Board, Boards, Scenes, collect, load_pairs, make_rig, save_pairs
    from edgefuse.calibrate.manual import (
        learn_parallax,
        parallax_of,
        parse_distances,
        parse_distortion,
        parse_points,
    )
    from edgefuse.calibrate.nudge import before_and_after
    from edgefuse.files import check_writable
    from edgefuse.images import write_image
    from edgefuse.runtime.sinks.pictures import check_display
    from edgefuse.runtime.sources import safe_name

    if (baseline is None) != (focal is None) or (distance is not None and baseline is None):
        raise InputError("--baseline METRES and --focal PX belong together; --distance needs both")
    if distances is not None and baseline is not None:
        raise InputError("--distances and --baseline are two ways to say what parallax is: give one")
    if points is not None and board is not None:
        raise InputError("--points and --board are two ways to set the map: give one")
    if refine and points is None and board is None:
        raise InputError("--refine refines a map that was set by hand: give --points or --board too")
    parallax = parallax_of(baseline, focal) if baseline is not None and focal is not None else None
    typed = None if points is None else parse_points(points)
    bent = None if distortion is None else parse_distortion(distortion)
    collected = Scenes() if board is None else Boards(Board.parse(board))
    check_writable(out)
    if nudge:
        check_display()
    console = stdout()
    for pair in load_pairs(keep):
        collected.offer(*pair)
    with _progress(console, collected, scenes) as show:
        collect(ir, vis, collected, scenes, duration, show)
    if keep is not None:
        save_pairs(keep, collected.pairs)
    if board is None and not collected.pairs:
        raise SourceError(f"{safe_name(ir)} and {safe_name(vis)} gave no pair of pictures")
    found = _map(collected, typed, model, refine, bent, laid_over=nudge)
    by_hand = "points" if typed is not None else "board" if board is not None else None
    if distances is not None:
        metres = parse_distances(distances, len(collected.pairs))
        matrix, parallax = learn_parallax(collected.pairs, found, metres)
        found = replace(found, matrix=matrix)
    rig = make_rig(found, collected.pairs[0], safe_name(ir), safe_name(vis))
    rig = replace(rig, parallax=parallax, distance=distance, model=by_hand or rig.model)
    rig = replace(rig, confidence=1.0) if by_hand and not refine else rig
    if nudge:
        rig = _nudged(rig, collected, out)
    rig.save(out)
    if pictures:
        write_image(out.with_suffix(".png"), before_and_after(rig, *collected.pairs[0]))
    _print(console, rig, found, out, collected)


def _map(
    collected: "Scenes | Boards",
    points: "Matrix | None",
    model: "ModelName | None",
    refine: bool,
    distortion: tuple[float, float] | None,
    laid_over: bool,
) -> "Estimate":
    """Return the map; with `laid_over`, where the scenes do not say it, infrared stretched over visible."""
    from edgefuse.calibrate import Boards, CalibrationError, estimate, refine_from, residual_at
    from edgefuse.calibrate.manual import from_boards, from_points, laid_on, straight_points

    if isinstance(collected, Boards):
        points = collected.points
    if points is None:
        try:
            return estimate(collected.pairs, model, distortion)
        except CalibrationError as error:
            if not laid_over:
                raise
            stderr().say(f"No map was found: {error}. The window begins with both laid on each other.")
            return laid_on(*collected.pairs[0])
    bent = distortion or (0.0, 0.0)
    points = straight_points(points, collected.pairs[0], bent)
    if isinstance(collected, Boards):
        found = from_boards(points, collected.count, model)
    else:
        found = from_points(points, model or "similarity")
    if refine:
        return refine_from(collected.pairs, found.matrix, found.model, collected.count, bent)
    if not isinstance(collected, Boards):  # points say nothing of themselves if there are no more than needed
        edges = residual_at(collected.pairs, found.matrix, bent)
        found = replace(found, residual_px=max(found.residual_px, edges))
    return replace(found, ir_distortion=bent[0], vis_distortion=bent[1])


REMIND_SECONDS = 15.0
"""Without another scene; where there is no terminal whose line changes."""


@contextmanager
def _progress(
    console: Output, collected: "Scenes | Boards", wanted: int
) -> "Iterator[Callable[[int, int], None]]":
    """Show how many scenes there are, and how near a map from so many of them usually is."""
    from edgefuse.calibrate import Scenes

    def text(count: int) -> str:
        if isinstance(collected, Scenes):
            return progress_of(collected.pairs, count, wanted)
        return f"{count} of {wanted} views of the board"

    if console.is_terminal:
        with console.status("waiting for pictures") as line:
            yield lambda count, _: line.update(f"{text(count)}; now show another one")
        return
    last, said = 0, time.monotonic()

    def note(count: int, _: int) -> None:
        nonlocal last, said
        late = time.monotonic() - said > REMIND_SECONDS
        if count > last or late:
            reminder = "" if count > last else "; now show another one, Ctrl-C takes what is there"
            console.say(text(count) + reminder)
            last, said = count, time.monotonic()

    yield note


def progress_of(pairs: "Sequence[Pair]", count: int, wanted: int) -> str:
    """Return what has been seen so far: `4 of 9 scenes, ± 0.7 px`."""
    return f"{count} of {wanted} scenes" + (f", ± {_expected(pairs, count):.1f} px" if count else "")


def _expected(pairs: "Sequence[Pair]", count: int) -> float:
    from edgefuse.calibrate import expected_error

    ir, vis = ((image.shape[1], image.shape[0]) for image in pairs[0])
    return expected_error(count, ir, vis)


def _nudged(rig: "Rig", collected: "Scenes | Boards", out: Path) -> "Rig":
    """Return what the keys of a window made of a rig."""
    from edgefuse.calibrate.nudge import adjust

    kept = adjust(rig, collected.pairs, max(collected.count, 1), out)
    if kept is None:
        raise InputError(f"the window was closed before K kept the map: {out} was not written")
    return kept if kept == rig else replace(kept, model="nudged", confidence=1.0)


def _print(console: Output, rig: "Rig", found: "Estimate", out: Path, collected: "Scenes | Boards") -> None:
    import numpy as np

    from edgefuse.calibrate import both_grey
    from edgefuse.calibrate.manual import parallax_table

    found = replace(found, matrix=np.array(rig.matrix))
    scale, turn, right, down = found.moves(rig.ir_size, rig.vis_size)
    if rig.model in ("board", "points"):
        seen = counted(found.scenes, "view") + " of the board" if rig.model == "board" else "points"
    elif found.pairs:
        seen = f"{counted(found.scenes, 'scene')}, {counted(found.pairs, 'pair')}"
    else:
        seen = "by hand"
    flip = f", infrared is {found.flip}" if found.flip else ""
    if rig.ir_distortion or rig.vis_distortion:
        flip += f", distortion {rig.ir_distortion:+.3f} (infrared), {rig.vis_distortion:+.3f} (visible)"
    console.say(
        f"{seen} → {found.model}{flip}: scale "
        f"{scale:.3f}, turn {turn:+.1f}°, centre {right:+.1f}, {down:+.1f} px; infrared covers "
        f"{rig.overlap:.0%} of the visible picture"
    )
    certain = ""
    if found.z and rig.model != "nudged":
        expected = _expected(collected.pairs, max(found.scenes, 1))
        certain = f", expected error ± {expected:.1f} px, confidence {rig.confidence:.2f} (z {found.z:.1f})"
    console.say(f"residual {rig.residual_px:.1f} px{certain} → {out}")
    if 0 < found.scenes < 3 and found.z:
        console.say("More scenes make it better: 3 or more, best 9, at the distance that matters.")
    if both_grey(collected.pairs):
        console.say(
            "Both cameras give grey pictures, so nothing in them says whether --ir and --vis are "
            f"exchanged: look at {out.with_suffix('.png')}, where infrared is orange."
        )
    if rig.parallax is not None:
        if rig.distance is None:
            console.say(
                "This takes what the pictures show for far away. If it is nearer, give --distance METRES: "
                "else moving the map to another distance moves it by too much."
            )
        console.say(f"Off at other distances: {parallax_table(rig)}")
