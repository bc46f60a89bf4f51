"""`edgefuse export`."""

from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.console import Console

if TYPE_CHECKING:
    from edgefuse.runtime.sidecar import BuildOptions
    from edgefuse.spec import ModelSpec

__all__ = ["export"]


def export(
    checkpoint: str = typer.Argument(
        None, help="Checkpoint (.pt, .safetensors) or a shipped model's name.", show_default="default model"
    ),
    graph: str = typer.Option(
        "core", help="core: planes of floats in and out; deploy: uint8 images in and out, all work inside."
    ),
    rgb: bool = typer.Option(False, "--rgb", help="A deploy graph's images are R, G, B instead of B, G, R."),
    fp16: bool = typer.Option(False, "--fp16", help="Half-precision arithmetic; input and output stay."),
    int8: bool = typer.Option(
        False, "--int8", help="8-bit arithmetic, calibrated on --calib-ir/--calib-vis."
    ),
    size: str | None = typer.Option(
        None, help="Fix the graph to this width x height, such as 640x480.", show_default="any size"
    ),
    dynamic: bool = typer.Option(
        False, "--dynamic", help="Any batch, height and width: the default without --size."
    ),
    opset: int | None = typer.Option(None, help="ONNX operator set, 18 to 21.", show_default="20"),
    out: Path | None = typer.Option(
        None, help="The .onnx file to write.", show_default="MODEL[-deploy][-fp16|-int8].onnx"
    ),
    pairs_ir: Path | None = typer.Option(
        None, help="Infrared folder to compare file and checkpoint on: 8 pairs, evenly spread."
    ),
    pairs_vis: Path | None = typer.Option(None, help="Visible folder, paired by file stem."),
    calib_ir: Path | None = typer.Option(
        None, help="Infrared folder to calibrate int8 on: 16 pairs, evenly spread."
    ),
    calib_vis: Path | None = typer.Option(None, help="Visible folder, paired by file stem."),
    calib_method: str = typer.Option("mse", help="How ranges follow from values: mse, minmax, percentile."),
    tensorrt: bool = typer.Option(
        False, "--tensorrt", help="Also build a TensorRT engine for this machine's GPU, and prove it."
    ),
    for_tensorrt: bool = typer.Option(
        False, "--for-tensorrt", help="Arrange the graph for an engine that is built elsewhere."
    ),
    tensorrt_sizes: str | None = typer.Option(
        None,
        help="Smallest, usual and largest size of an engine without --size.",
        show_default="64x64,640x480,1920x1088",
    ),
    tensorrt_batch: int | None = typer.Option(
        None, help="Largest batch of an engine without --size.", show_default="1"
    ),
    workspace: int | None = typer.Option(
        None, help="Most GPU memory for one layer of an engine, in MB.", show_default="1024"
    ),
    max_difference: float = typer.Option(1e-4, help="Gate of fp32 core graphs, in [0, 1]."),
    max_levels: int = typer.Option(1, help="Gate of fp32 deploy graphs, in grey levels."),
    min_psnr: float | None = typer.Option(None, help="Gate in dB.", show_default="55 for fp16, 40 for int8"),
    min_extreme_psnr: float = typer.Option(
        40.0, help="Gate of fp16 and int8 on all white and all black, in dB."
    ),
    max_worse: float = typer.Option(0.02, help="Gate of int8: mean loss of any of the five metrics."),
) -> None:
    """Write a checkpoint as an ONNX file that runs without torch, and prove it.

    The file is run beside the checkpoint, on the given pairs or on frames of the simulated rig. If they
    differ by more than the gates allow, the exit status is not 0, the file is kept as NAME.failed.onnx, and
    an earlier one stays as it was.
    """
    from edgefuse.cli.needs import needs
    from edgefuse.errors import GateError, InputError, unknown_name
    from edgefuse.images import parse_size
    from edgefuse.spec import GRAPHS
    from edgefuse.weights import DEFAULT_MODEL, checkpoint_file

    needs("export", "torch", "safetensors", "onnx", "onnxscript")
    needs("cpu", "onnxruntime")
    from edgefuse.export.calibrate import METHODS
    from edgefuse.export.gates import Gates, failed_path
    from edgefuse.export.graph import OPSET
    from edgefuse.export.pipeline import Calibration
    from edgefuse.export.pipeline import export as run
    from edgefuse.export.receipt import folder_pairs, simulated_pairs
    from edgefuse.export.report import failure, table
    from edgefuse.export.tensorrt import check_pairs, export_engine

    source = checkpoint_file(checkpoint or DEFAULT_MODEL)
    wanted = parse_size(size) if size else None
    if graph not in GRAPHS:
        raise InputError(unknown_name("graph", graph, GRAPHS))
    if calib_method not in METHODS:
        raise InputError(unknown_name("calibration method", calib_method, METHODS))
    if rgb and graph != "deploy":
        raise InputError("--rgb is about the images of a deploy graph: add --graph deploy")
    if dynamic and wanted:
        raise InputError("--dynamic and --size exclude each other: choose one")
    parts = [source.stem, *(["deploy"] if graph == "deploy" else []), *(["fp16"] if fp16 else [])]
    target = out or Path("-".join([*parts, *(["int8"] if int8 else [])]) + ".onnx")
    if target.suffix != ".onnx":
        raise InputError(f"cannot write {target}: the suffix must be .onnx")
    if bool(pairs_ir) != bool(pairs_vis):
        raise InputError("give both --pairs-ir and --pairs-vis, or neither to compare on the simulated rig")
    gates = Gates(max_difference, max_levels, min_psnr, min_extreme_psnr, max_worse)
    options = _engine_options(tensorrt, wanted, tensorrt_sizes, tensorrt_batch, workspace)
    calibration = None
    if int8:
        if not (calib_ir and calib_vis):
            raise InputError("--int8 needs real pairs to calibrate on: give --calib-ir and --calib-vis")
        described, found = folder_pairs(calib_ir, calib_vis, limit=16)
        calibration = Calibration(found, described, calib_method)
    elif calib_ir or calib_vis:
        raise InputError("--calib-ir and --calib-vis are for --int8")
    usual = options.sizes.opt if options and not wanted else wanted
    compared_on, pairs = (
        folder_pairs(pairs_ir, pairs_vis) if pairs_ir and pairs_vis else simulated_pairs(usual)
    )
    if options and not wanted:
        check_pairs(pairs, options.sizes)
    console = Console()

    def judge(path: Path, spec: "ModelSpec") -> None:
        text = failure(path, spec)
        console.print(table(path if text is None else failed_path(path), spec))
        if text is not None:
            raise GateError(text)

    with console.status(f"Exporting {source.name} …") as status:
        spec, _ = run(
            source,
            target,
            pairs,
            compared_on,
            fp16=fp16,
            int8=calibration,
            size=wanted,
            graph=graph,
            colours="rgb" if rgb else "bgr",
            opset=OPSET if opset is None else opset,
            tensorrt=tensorrt or for_tensorrt,
            gates=gates,
            progress=lambda text: status.update(f"Exporting {source.name}: {text} …"),
        )
    judge(target, spec)
    if options is None:
        return

    engine = target.with_suffix(".engine")
    with console.status(f"Building {engine} …") as status:
        spec = export_engine(
            target,
            engine,
            source,
            pairs,
            compared_on,
            options=options,
            gates=gates,
            progress=lambda phase, k, n: status.update(f"Building {engine}: {phase} {k}/{n} …"),
        )
    judge(engine, spec)


def _engine_options(
    tensorrt: bool, fixed: tuple[int, int] | None, sizes: str | None, batch: int | None, workspace: int | None
) -> "BuildOptions | None":
    """Return what an engine is built with, None if none is wanted; say what is missing before the work."""
    from edgefuse.errors import InputError

    given = {"--tensorrt-sizes": sizes, "--tensorrt-batch": batch, "--workspace": workspace}
    for name, value in given.items():
        if value is not None and not tensorrt:
            raise InputError(f"{name} is for --tensorrt")
        if value is not None and fixed and name != "--workspace":
            raise InputError(f"{name} is for an engine without --size, which fixes sizes and batch")
    if not tensorrt:
        return None
    from edgefuse.runtime.profiles import SizeRange
    from edgefuse.runtime.sidecar import BuildOptions
    from edgefuse.runtime.tensorrt import this_machine

    this_machine()
    batch = 1 if batch is None else batch
    served = SizeRange.parse(sizes, batch) if sizes else SizeRange(batch=batch)
    return BuildOptions(served) if workspace is None else BuildOptions(served, workspace)
