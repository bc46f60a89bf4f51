"""Sources of frames: cameras, files, folders, network streams and the simulated rig."""

from typing import Any

from edgefuse.errors import InputError, SourceError, unknown_name
from edgefuse.runtime.sources.base import Frame, Role, Source
from edgefuse.runtime.sources.camera import Camera
from edgefuse.runtime.sources.folder import ImageFolder
from edgefuse.runtime.sources.gstreamer import Pipeline
from edgefuse.runtime.sources.network import NetworkStream
from edgefuse.runtime.sources.paced import RealTime
from edgefuse.runtime.sources.recording import Recording
from edgefuse.runtime.sources.simulated import SimulatedCamera
from edgefuse.runtime.sources.spec import Spec, safe_name, yes_or_no
from edgefuse.runtime.sources.video import VideoFile
from edgefuse.runtime.thermal import ThermalConfig, ThermalFrontEnd

__all__ = [
    "SOURCES",
    "Frame",
    "RealTime",
    "Role",
    "Source",
    "can_return",
    "front_end",
    "open_source",
    "safe_name",
]

# A class here has `accepts(target)` and the constructor `(spec, role)`. The first that accepts is taken.
SOURCES: dict[str, Any] = {
    "sim": SimulatedCamera,
    "pipeline": Pipeline,
    "camera": Camera,
    "url": NetworkStream,
    "video": VideoFile,
    "recording": Recording,
    "folder": ImageFolder,
}

THERMAL = ("agc", "polarity", "window")
"""Options of every infrared source, which are those of `ThermalConfig`."""


def open_source(text: str, role: Role, realtime: bool = False) -> Source:
    """Open what `text` asks for.

    Args:
        text: `cam0`, `/dev/video2`, a video file, a folder of images, a pattern, a URL, `gst:` and a
            pipeline, or `sim`; with options as in `sim?seed=3&size=320x240`, in a URL behind `#`.
        role: which of the two cameras it is to be.
        realtime: play a recording at its own rate, as its option `realtime=1` does.

    An infrared source's `agc`, `polarity` and `window` are only checked: its frames stay as they are, and
    `front_end` makes 8-bit pictures of them.

    Raises:
        LostError: it is not there now.
        SourceError: it cannot be opened; the message says why. Nothing stays open.
    """
    spec, realtime_wanted = _without_common_options(Spec.parse(text), role)
    source: Source = _kind_of(spec.target)(spec, role)
    return RealTime(source) if not source.live and (realtime or realtime_wanted) else source


def can_return(text: str) -> bool:
    """Whether `text` asks for a camera, stream or pipeline: what may be lost, and come back when reopened.

    Raises:
        SourceError: it asks for nothing that there is.
    """
    return _kind_of(Spec.parse(text).target).live is True


def _kind_of(target: str) -> Any:
    for kind in SOURCES.values():
        if kind.accepts(target):
            return kind
    raise SourceError(_misspelt(target) or f"no such file or folder: {target}")


def front_end(text: str) -> ThermalFrontEnd:
    """Return what makes 8-bit pictures of the infrared frames of the source that `text` asks for.

    Its options `agc`, `polarity` and `window` say how.

    Raises:
        SourceError: one of them cannot be used.
    """
    return ThermalFrontEnd(_thermal(Spec.parse(text)))


def _thermal(spec: Spec) -> ThermalConfig:
    thermal, _ = spec.split(THERMAL)
    try:
        return ThermalConfig.from_options(thermal.options)
    except InputError as error:
        raise SourceError(f"{spec.name}: {error}") from None


def _without_common_options(spec: Spec, role: Role) -> tuple[Spec, bool]:
    """Return the specification with the options of its kind alone, and whether `realtime` was asked for."""
    if role == "ir":
        _thermal(spec)
        _, spec = spec.split(THERMAL)
    common, spec = spec.split(["realtime"])
    return spec, bool(common.read_options({"realtime": yes_or_no}).get("realtime"))


def _misspelt(target: str) -> str | None:
    """Return a sentence if the target can hardly be meant as a path."""
    if "/" in target or "." in target or "\\" in target:
        return None
    return unknown_name("source", target, ["cam0", "sim", "a file", "a folder", "a URL"])
