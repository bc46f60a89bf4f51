"""Sources of frames: cameras, files, folders, network streams and the simulated rig."""

from edgefuse.errors import SourceError, unknown_name
from edgefuse.packages import Registry
from edgefuse.runtime.frames import Frame, Role
from edgefuse.runtime.sources.base import Source, SourceKind, Spec, safe_name
from edgefuse.runtime.sources.folder import ImageFolder, Recording
from edgefuse.runtime.sources.opencv import DeviceCamera, Pipeline
from edgefuse.runtime.sources.video import NetworkStream, VideoFile
from edgefuse.runtime.sources.wrappers import Placed, RealTime, SimulatedCamera

__all__ = [
    "SOURCES",
    "Frame",
    "RealTime",
    "Role",
    "Source",
    "kind_of",
    "open_kind",
    "open_source",
    "safe_name",
]

SOURCES: Registry[SourceKind] = Registry(
    "source",
    "edgefuse.sources",
    {
        "folder": ImageFolder,
        "recording": Recording,
        "video": VideoFile,
        "url": NetworkStream,
        "camera": DeviceCamera,
        "pipeline": Pipeline,
        "sim": SimulatedCamera,
    },
)
"""Name → class. The last that accepts a text opens it; to add one, write a `SourceKind` and name it here."""


def open_source(text: str, role: Role) -> Source:
    """Open what `text` asks for.

    Args:
        text: `cam0`, `/dev/video2`, a video file, a folder of images, a pattern, a URL, `gst:` and a
            pipeline, or `sim`; with options as in `sim?seed=3&size=320x240`, in a URL behind `#`;
            `crop=256x192+0+192` takes a part of each picture, 0 from the left and 192 from the top;
            `rotate=90` turns it clockwise, `flip=h` (`v`, `hv`) mirrors it, `scale=1.1` enlarges what is seen
            and `shift=12,-4` moves it right and down, in this order.
        role: which of the two cameras it is to be.

    Raises:
        LostError: it is not there now.
        SourceError: it cannot be opened; the message says why. Nothing stays open.
    """
    spec = Spec.parse(text)
    return open_kind(kind_of(spec), spec, role)


def open_kind(kind: SourceKind, spec: Spec, role: Role) -> Source:
    """Open a source of this kind, its pictures placed as the options of `Placed` ask for."""
    own = getattr(kind, "own_options", ())  # other packages' kinds need not have it
    placing, spec = spec.split([name for name in Placed.OPTIONS if name not in own])
    source = kind(spec, role)
    return Placed(source, placing, role) if placing.options else source


def kind_of(spec: Spec) -> SourceKind:
    """Return the class that opens what is asked for.

    Raises:
        SourceError: there is none.
    """
    target = spec.target
    for kind in reversed([*SOURCES.values()]):
        if kind.accepts(target):
            return kind
    if not any(mark in target for mark in "/.\\"):  # which can hardly be meant as a path
        known = (text for kind in SOURCES.values() for text in kind.texts.split(", "))
        raise SourceError(unknown_name("source", safe_name(target), known))
    raise SourceError(f"no such file or folder: {safe_name(target)}")
