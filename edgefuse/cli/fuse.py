"""`edgefuse fuse`."""

from pathlib import Path
from typing import TYPE_CHECKING, cast

import typer

from edgefuse.cli.console import ExitCode, progress, stderr
from edgefuse.errors import InputError, counted, listed
from edgefuse.weights import DEFAULT_MODEL

if TYPE_CHECKING:
    from edgefuse.spec import Aspect

READING = "Reading files"
MANY = 64
"""Number of images from which on starting worker processes takes less time than they save."""


def fuse(
    ir: Path = typer.Option(..., help="Infrared image or folder (8 or 16 bit), or video or recording."),
    vis: Path = typer.Option(..., help="Visible image, folder, video or recording; paired by file stem."),
    out: Path = typer.Option(..., help="Image or video to write, or folder for fused images."),
    model: str = typer.Option(
        DEFAULT_MODEL, help="Shipped model (see `edgefuse models`), .onnx or .engine file."
    ),
    threads: int | None = typer.Option(None, help="CPU threads.", show_default="all cores"),
    engine: str | None = typer.Option(
        None, help="cpu, cuda, openvino or tensorrt.", show_default="the first that can be used"
    ),
    processes: int | None = typer.Option(
        None, "--jobs", help="Processes.", show_default="one per core for many images"
    ),
    cluster: str | None = typer.Option(
        None, "--engine-cluster", metavar="NAME", help="Fuse on a cluster: ray.", show_default="this machine"
    ),
    address: str | None = typer.Option(
        None, metavar="HOST:PORT", help="Address of the cluster.", show_default="one on this machine"
    ),
    resume: bool = typer.Option(
        False, "--resume", help="Keep what an earlier run with --resume has fused, if it is whole."
    ),
    rig: Path | None = typer.Option(
        None, help="Rig file of `edgefuse calibrate`, which aligns infrared.", show_default="resized only"
    ),
    no_rebuild: bool = typer.Option(
        False, "--no-rebuild", help="Refuse a TensorRT engine of another machine instead of rebuilding it."
    ),
    agc: str = typer.Option(
        "auto", help="16-bit infrared to 8: auto, fusion or linear.", rich_help_panel=READING
    ),
    polarity: str = typer.Option(
        "white", help="What is hot in infrared: white or black.", rich_help_panel=READING
    ),
    window: str | None = typer.Option(
        None,
        metavar="LOW-HIGH",
        help="Infrared values to show as black and white.",
        rich_help_panel=READING,
    ),
    aspect: str = typer.Option(
        "stretch",
        help="Infrared of other proportions than the visible image: stretch, fit or crop.",
        rich_help_panel=READING,
    ),
    bits: str | None = typer.Option(
        None, metavar="N", help="Bits that visible 16-bit images use, such as 12.", rich_help_panel=READING
    ),
) -> None:
    """Fuse infrared and visible images or videos.

    Takes two images, two folders or two videos; the result is in colour. Files that cannot be read are
    listed at the end, and the exit code is then 3.
    """
    from edgefuse.batch import FuseConfig, are_recordings, check_resumed, fuse_files, fuse_recordings, plan
    from edgefuse.images import bits_of
    from edgefuse.machine import usable_cores
    from edgefuse.thermal_config import ThermalConfig
    from edgefuse.workers import distribution

    console = stderr()
    texts = {"agc": agc, "polarity": polarity} | ({"window": window} if window else {})
    config = FuseConfig(
        model,
        threads,
        engine,
        rebuild=not no_rebuild,
        rig=rig,
        aspect=cast("Aspect", aspect),
        thermal=ThermalConfig.from_options(texts),
        bits=bits_of(bits) if bits else None,
        resume=resume,
    )
    if processes is not None and processes < 1:
        raise InputError(f"--jobs is {processes}, it must be at least 1")
    distribute = distribution(cluster, address)
    if are_recordings(ir, vis):
        if distribute or resume:
            raise InputError(f"{ir} is a recording: --engine-cluster and --resume are for folders of images")
        count = 0
        with progress(console, "Fusing") as show:
            for count in fuse_recordings(ir, vis, out, config, texts):
                show(count)
        console.say(f"Wrote {counted(count, 'fused frame')}: {out}")
        return
    jobs = plan(ir, vis, out)
    if resume and ir.is_dir():
        check_resumed(out, config)
    if processes is None and distribute is None:
        processes = usable_cores() if len(jobs.files) >= MANY and engine in (None, "cpu", "openvino") else 1
    results = fuse_files(jobs, config, processes, distribute)
    for side, stems in (("visible", jobs.only_ir), ("infrared", jobs.only_vis)):
        if stems:
            console.say(f"No {side} image for: {listed(stems)}", "yellow")
    failed, skipped = list[Exception](), 0
    with progress(console, "Fusing", len(jobs.files)) as show:
        for done, fused in enumerate(results, 1):
            show(done, text=fused.path.name)
            skipped += fused.skipped
            if fused.error is not None:
                failed.append(fused.error)
    if len(failed) == len(jobs.files):
        raise failed[0]
    written = len(jobs.files) - len(failed) - skipped
    kept = f", kept {skipped} from before" if skipped else ""
    console.say(f"Wrote {counted(written, 'fused image')}{kept}: {out}")
    if failed:
        console.say(f"Not fused, {len(failed)} of {len(jobs.files)}:", "red")
        for reason in failed:
            console.say(f"  {reason}")
        raise typer.Exit(ExitCode.PARTIAL)
