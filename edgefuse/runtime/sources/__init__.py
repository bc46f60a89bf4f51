"""Sources of frames: cameras, files, folders, network streams and the simulated rig."""

from typing import Any

from edgefuse.errors import SourceError, unknown_name
from edgefuse.runtime.sources.base import Frame, Role, Source, Spec, safe_name
from edgefuse.runtime.sources.camera import Camera
from edgefuse.runtime.sources.folder import ImageFolder
from edgefuse.runtime.sources.paced import RealTime
from edgefuse.runtime.sources.simulated import SimulatedCamera
from edgefuse.runtime.sources.video import NetworkStream, VideoFile

__all__ = ["SOURCES", "Frame", "RealTime", "Role", "Source", "open_source", "safe_name"]

# A class here has `accepts(target)` and the constructor `(spec, role)`. The first that accepts is taken.
SOURCES: dict[str, Any] = {
    "sim": SimulatedCamera,
    "camera": Camera,
    "url": NetworkStream,
    "folder": ImageFolder,
    "video": VideoFile,
}


def open_source(text: str, role: Role) -> Source:
    """Open what `text` asks for.

    Args:
        text: `cam0`, `/dev/video2`, a video file, a folder of images, a URL, or `sim`; the kinds that have
            options take them as `sim?seed=3&size=320x240`.
        role: which of the two cameras it is to be.

    Raises:
        SourceError: it cannot be opened; the message says why. Nothing stays open.
    """
    spec = Spec.parse(text)
    for kind in SOURCES.values():
        if kind.accepts(spec.target):
            return kind(spec, role)
    if kind_like := _misspelt(spec.target):
        raise SourceError(kind_like)
    raise SourceError(f"no such file or folder: {spec.target}")


def _misspelt(target: str) -> str | None:
    """Return a sentence if the target can hardly be meant as a path."""
    if "/" in target or "." in target or "\\" in target:
        return None
    return unknown_name("source", target, ["cam0", "sim", "a file", "a folder", "a URL"])
