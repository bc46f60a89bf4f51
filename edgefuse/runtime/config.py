"""The settings of a live run, and how it is asked to end."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

from edgefuse.settings import check, setting
from edgefuse.spec import Aspect
from edgefuse.weights import DEFAULT_MODEL

OnLoss: TypeAlias = Literal["passthrough", "hold", "black", "stop"]


class StopRequest:
    """A request to end the loop, from a signal handler, a window or a thread. The first reason stays."""

    def __init__(self) -> None:
        self.reason: str | None = None
        self.immediate = False
        """Somebody waits: outputs that do not finish at once are given up."""

    def __call__(self, reason: str, immediate: bool = False) -> None:
        """Ask for the end."""
        self.reason = self.reason or reason
        self.immediate = self.immediate or immediate


@dataclass(frozen=True)
class LiveConfig:
    """How a live run goes.

    Raises:
        InputError: a value out of range.
    """

    duration: float | None = setting(
        None,
        "Stop after SECONDS.",
        metavar="SECONDS",
        above=0,
        below=float("inf"),
    )
    rate: Literal["ir", "vis"] | None = setting(
        None,
        "The reference camera, whose frames set the pace.",
        unset="vis; the slower of two recordings of a steady rate",
    )
    max_skew: float | None = setting(
        None,
        "Largest time between the two frames of a pair, in seconds.",
        unset="0.25, or 2.5 frame periods if that is longer; a frame period of recordings of a steady rate",
        above=0,
        below=float("inf"),
    )
    max_age: float | None = setting(
        None,
        "Seconds for which the last infrared picture is fused, with a label, while the shutter is closed.",
        unset="3 for a camera that repeats its picture meanwhile, 0 for one that is silent",
        least=0,
        below=float("inf"),
    )
    on_loss: OnLoss = setting(
        "passthrough",
        "While one is lost: passthrough (the other), hold, black or stop.",
        metavar="MODE",
    )
    contrast: Literal["off", "auto"] = setting(
        "off", "auto: stretch the fused picture to the full range of grey, slowly, without flicker."
    )
    aspect: Aspect = setting(
        "stretch",
        "Infrared of other proportions than the visible picture: stretch, fit inside it, or crop.",
        metavar="MODE",
    )
    quality: int | None = setting(
        None, "Score every K-th fused frame in the background.", unset="none", least=1
    )

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class StreamConfig(LiveConfig):
    """Everything that `edgefuse stream` is told: the cameras, the outputs, the model and the run."""

    ir: str | None = setting(
        None,
        "Infrared: cam0, /dev/video0, video, folder of images or of a recording, URL, or sim; with options: "
        "sim?seed=3&size=640x480.",
        metavar="SOURCE",
    )
    vis: str | None = setting(None, "Visible: a source as for --ir.", metavar="SOURCE")
    realtime: bool = setting(False, "Play recordings at their own rate.")
    show: bool = setting(False, "Show a window; Q closes it and stops.")
    out: tuple[str, ...] = setting(
        (),
        "Video (.mp4, .avi, lossless .mkv), folder for a PNG per frame (frames/), or - for raw BGR frames; "
        "repeatable.",
        metavar="FILE",
    )
    side_by_side: bool = setting(False, "In --out and --show: infrared, visible and fused.")
    codec: Literal["h264", "h265", "ffv1", "mjpeg"] | None = setting(
        None, "Codec of --out.", unset="h264 in .mp4, ffv1 in .mkv, mjpeg in .avi"
    )
    segment: float | None = setting(None, "Start a new video file every SECONDS.", metavar="SECONDS")
    max_size: float | None = setting(
        None,
        "Size limit: the oldest segments are deleted, or the output ends.",
        metavar="MB",
    )
    serve: str | None = setting(
        None,
        "Serve a live page, health and metrics; 8080 is the usual port.",
        metavar="[[HOST:]PORT]",
    )
    max_dropped: float | None = setting(
        None,
        "Share of the frames, dropped in the last 10 s, beyond which /healthz of --serve is not well.",
        unset="no limit",
        least=0,
        most=1,
    )
    max_latency: float | None = setting(
        None,
        "Mean seconds from camera to output over the last 10 s beyond which /healthz is not well.",
        unset="no limit",
        above=0,
    )
    still: str | None = setting(None, "Save infrared, visible and fused of the last frame.", metavar="FILE")
    rig: str | None = setting(
        None, "Rig file of `edgefuse calibrate`, which aligns infrared.", metavar="FILE", unset="resized only"
    )
    distance: float | None = setting(
        None,
        "Align for things METRES away; needs a rig file with parallax.",
        metavar="METRES",
        above=0,
    )
    refine: Literal["off", "live", "distance"] = setting(
        "off",
        "live: follow slow changes of the alignment; distance: follow how far away things are, by the rig "
        "file's parallax; off: only report. Needs a rig file.",
    )
    crop: Literal["none", "overlap"] = setting(
        "none", "overlap: outputs show only the rectangle that infrared covers."
    )
    model: str = setting(DEFAULT_MODEL, "Shipped model, .onnx or .engine file.", metavar="NAME|FILE")
    threads: int | None = setting(None, "CPU threads for the network.", unset="all cores", least=1)
    engine: str | None = setting(
        None, "cpu, cuda, openvino or tensorrt.", metavar="NAME", unset="the first that can be used"
    )
    log: Literal["text", "json"] = setting("text", "json: one JSON object a line on standard error.")
    rebuild: bool = setting(True, "Rebuild a TensorRT engine of another machine instead of refusing it.")
