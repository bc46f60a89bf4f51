"""`edgefuse export`."""

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from edgefuse.cli.console import phases, stderr, stdout
from edgefuse.cli.options import with_settings
from edgefuse.errors import InputError
from edgefuse.export.config import ExportConfig

if TYPE_CHECKING:
    from edgefuse.export.pipeline import Calibration
    from edgefuse.runtime.engines.engine_cache import BuildOptions
    from edgefuse.spec import ModelSpec


@with_settings(
    ExportConfig,
    {
        "Form": "graph rgb fp16 int8 size",
        "Verification and calibration": "pairs_ir pairs_vis calib_ir calib_vis",
        "TensorRT": "tensorrt for_tensorrt triton",
    },
)
def export(
    config: ExportConfig,
    checkpoint: str = typer.Argument(
        None, help="Checkpoint (.pt, .safetensors) or a shipped model's name.", show_default="default model"
    ),
    out: Path | None = typer.Option(
        None, help="The .onnx file to write.", show_default="MODEL[-end_to_end][-fp16|-int8].onnx"
    ),
    model: str | None = typer.Option(
        None, metavar="FILE.py:CLASS", help="The checkpoint's network, if it is one of your own."
    ),
    force: bool = typer.Option(False, "--force", help="Replace a file of another model."),
) -> None:
    """Write a checkpoint as an ONNX model file.

    The file runs without torch. To verify it, checkpoint and file are compared on real or simulated
    pairs. If they differ by more than the gates allow, the exit status is not 0, the file is kept as
    NAME.failed.onnx, and an earlier one stays as it was.
    """
    from edgefuse.images import parse_size
    from edgefuse.packages import require
    from edgefuse.weights import DEFAULT_MODEL, checkpoint_file

    require("export", "torch", "safetensors", "onnx", "onnxscript")
    require("cpu", "onnxruntime")
    from edgefuse.export.pipeline import check_pairs, export_engine, write_repository
    from edgefuse.export.pipeline import export as run
    from edgefuse.export.verify import folder_pairs, simulated_pairs
    from edgefuse.train.models import add_model

    if model is not None:
        add_model(model)
    source = checkpoint_file(checkpoint or DEFAULT_MODEL)
    wanted = parse_size(config.size) if config.size else None
    target = out or _target(config, source.stem)
    if target.suffix != ".onnx":
        raise InputError(f"cannot write {target}: the suffix must be .onnx")
    options = _engine_options(config, wanted)
    if config.pairs_ir and config.pairs_vis:
        compared_on, pairs = folder_pairs(Path(config.pairs_ir), Path(config.pairs_vis))
    else:
        compared_on, pairs = simulated_pairs(wanted or (options.sizes.opt if options else None))
    if options and not wanted:
        check_pairs(pairs, options.sizes)
    with phases(stderr(), f"Exporting {source.name}") as tell:
        spec = run(
            source,
            target,
            pairs,
            compared_on,
            fp16=config.fp16,
            int8=_calibration(config),
            size=wanted,
            graph=config.graph,
            colours="rgb" if config.rgb else "bgr",
            tensorrt=config.tensorrt or config.for_tensorrt,
            gates=config,
            force=force,
            progress=tell,
        )
    _judge(target, spec)
    served = target
    if options is not None:
        served = target.with_suffix(".engine")
        with phases(stderr(), f"Building {served}") as tell:
            spec = export_engine(
                target,
                served,
                source,
                pairs,
                compared_on,
                options=options,
                gates=config,
                progress=lambda phase, k, n: tell(f"{phase} {k}/{n}"),
            )
        _judge(served, spec)
    if config.triton:
        stdout().say(f"Triton model: {write_repository(served, Path(config.triton))}")


def _judge(path: Path, spec: "ModelSpec") -> None:
    """Show how far a file is from its checkpoint; end with an error if that is too far."""
    from edgefuse.errors import GateError
    from edgefuse.export.report import failure, table
    from edgefuse.export.verify import failed_path

    text = failure(path, spec)
    stdout().print(table(path if text is None else failed_path(path), spec))
    if text is not None:
        raise GateError(text)


def _calibration(config: ExportConfig) -> "Calibration | None":
    from edgefuse.export.pipeline import Calibration
    from edgefuse.export.verify import folder_pairs

    if not (config.calib_ir and config.calib_vis):
        return None
    described, found = folder_pairs(Path(config.calib_ir), Path(config.calib_vis), limit=16)
    return Calibration(found, described)


def _target(config: ExportConfig, stem: str) -> Path:
    marks = {"end_to_end": config.graph == "end_to_end", "fp16": config.fp16, "int8": config.int8}
    return Path("-".join([stem, *(mark for mark, given in marks.items() if given)]) + ".onnx")


def _engine_options(config: ExportConfig, fixed: tuple[int, int] | None) -> "BuildOptions | None":
    """Return what an engine is built with, None if none is wanted; say what is missing before the work."""
    for name in ("tensorrt_sizes", "tensorrt_batch", "workspace"):
        if getattr(config, name) is not None and not config.tensorrt:
            raise InputError(f"{name} is an option of TensorRT engines: add --tensorrt, or leave it out")
        if getattr(config, name) is not None and fixed and name != "workspace":
            raise InputError(f"{name} and --size exclude each other: --size fixes size and batch")
    if not config.tensorrt:
        return None
    from edgefuse.runtime.engines.engine_cache import BuildOptions, SizeRange
    from edgefuse.runtime.engines.tensorrt import this_machine

    this_machine()
    batch = config.tensorrt_batch or 1
    sizes = config.tensorrt_sizes
    served = SizeRange.parse(sizes, batch) if sizes else SizeRange(batch=batch)
    return BuildOptions(served) if config.workspace is None else BuildOptions(served, config.workspace)
