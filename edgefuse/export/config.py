"""The settings of an export."""

from dataclasses import dataclass

from edgefuse.errors import InputError
from edgefuse.settings import check, setting
from edgefuse.spec import GRAPHS, graph_kind

INFINITE = float("inf")


@dataclass(frozen=True)
class Gates:
    """Limits that a file must keep; which of them count depends on its graph and precision.

    Raises:
        InputError: a limit that is negative or no number.
    """

    max_difference: float = setting(
        1e-4, "fp32 network graph: largest difference of any pixel, in [0, 1].", least=0, below=INFINITE
    )
    max_levels: int = setting(
        1, "fp32 end-to-end graph: largest difference of any pixel, in grey levels.", least=0, below=INFINITE
    )
    min_psnr: float | None = setting(
        None,
        "fp16 and int8: lowest PSNR of any pair, in dB.",
        unset="55 for fp16, 40 for int8",
        least=0,
        below=INFINITE,
    )
    # Lower, as norms divide by next to nothing where a picture is constant, which magnifies any rounding.
    min_extreme_psnr: float = setting(
        40.0,
        "fp16 and int8: lowest PSNR of an all white or all black frame, in dB.",
        least=0,
        below=INFINITE,
    )
    max_worse: float = setting(
        0.02, "int8: how much any of the core metrics may lose on average.", least=0, below=INFINITE
    )

    def __post_init__(self) -> None:
        check(self)

    def psnr(self, precision: str) -> float:
        """Return the lowest PSNR that a precision may have, dB."""
        return (55.0 if precision == "fp16" else 40.0) if self.min_psnr is None else self.min_psnr


@dataclass(frozen=True)
class ExportConfig(Gates):
    """Everything that `edgefuse export` is told, beside the checkpoint and the file to write."""

    graph: str = setting(
        GRAPHS[0], "network: float planes in and out; end_to_end: uint8 images.", metavar="KIND"
    )
    rgb: bool = setting(False, "End-to-end graph: images are RGB instead of BGR.")
    fp16: bool = setting(False, "Half-precision arithmetic; input and output stay.")
    int8: bool = setting(False, "8-bit arithmetic; needs --calib-ir and --calib-vis.")
    size: str | None = setting(
        None,
        "Fix the graph to this size, such as 640x480.",
        unset="any size",
        metavar="WxH",
    )
    pairs_ir: str | None = setting(
        None, "Infrared folder to compare file and checkpoint on.", unset="simulated", metavar="FOLDER"
    )
    pairs_vis: str | None = setting(None, "Visible folder, paired by file stem.", metavar="FOLDER")
    calib_ir: str | None = setting(None, "Infrared folder to calibrate int8 on.", metavar="FOLDER")
    calib_vis: str | None = setting(None, "Visible folder, paired by file stem.", metavar="FOLDER")
    tensorrt: bool = setting(False, "Also build a TensorRT engine for this machine's GPU, and verify it.")
    for_tensorrt: bool = setting(
        False, "Arrange the graph for GPUs: CUDA, and an engine that is built elsewhere."
    )
    triton: str | None = setting(
        None, "Also write a model repository for Triton here.", unset="none", metavar="FOLDER"
    )
    tensorrt_sizes: str | None = setting(
        None,
        "Smallest, usual and largest size of an engine without --size.",
        unset="64x64,640x480,1920x1088",
    )
    tensorrt_batch: int | None = setting(
        None, "Largest batch of an engine without --size.", unset="1", least=1
    )
    workspace: int | None = setting(
        None, "Most GPU memory for one layer of an engine, in MB.", unset="1024", least=1
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "graph", graph_kind(self.graph))
        if self.fp16 and self.int8:
            raise InputError("--fp16 and --int8 exclude each other: choose one precision")
        if self.rgb and self.graph != "end_to_end":
            raise InputError("--rgb applies to end-to-end graphs only: add --graph end_to_end")
        if bool(self.pairs_ir) != bool(self.pairs_vis):
            raise InputError(
                "give both --pairs-ir and --pairs-vis, or neither to compare on the simulated rig"
            )
        if self.int8 and not (self.calib_ir and self.calib_vis):
            raise InputError("--int8 needs real pairs to calibrate on: give --calib-ir and --calib-vis")
        if not self.int8 and (self.calib_ir or self.calib_vis):
            raise InputError("--calib-ir and --calib-vis apply to int8 only: add --int8, or leave them out")
