"""Connecting a camera or recording: its text is read once, and everything about it stands in one object."""

from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

from numpy.typing import NDArray

from edgefuse.errors import InputError, SourceError
from edgefuse.images import Image, as_visible
from edgefuse.pairs import pair_folders
from edgefuse.runtime.cameras.thermal import ThermalPreprocess
from edgefuse.runtime.frames import NOMINAL_FPS, Role
from edgefuse.runtime.sources import kind_of, open_kind
from edgefuse.runtime.sources.base import SILENCE, SilencePolicy, Source
from edgefuse.runtime.sources.folder import ImageFolder, pair_by_stem
from edgefuse.runtime.sources.opencv import device_of
from edgefuse.runtime.sources.text import Spec, yes_or_no
from edgefuse.runtime.sources.wrappers import RealTime, inside
from edgefuse.thermal_config import ThermalConfig

Preprocess: TypeAlias = Callable[[NDArray[Any], float], Image]
"""Makes 8-bit pictures of a camera's frames, in its capture thread: (image, timestamp) → uint8."""

THERMAL = ("agc", "polarity", "window")
"""Options of every infrared source, which are those of `ThermalConfig`."""


@dataclass(frozen=True)
class Camera:
    """One camera of a run, or a recording in its place: what is known of it, and how it is opened.

    As a context manager it closes a recording at the end; a camera is closed by the thread that reads it.
    """

    name: str
    """To print, without passwords."""
    open: Callable[[], Source]
    """Called in a thread. Raises `LostError` while the source is not there."""
    reopens: bool = True
    """It is opened by its reader, and again whenever it is lost. False: it is open already, and `open`
    returns it."""
    live: bool = True
    """Frames are lost if nobody reads. What is not live waits."""
    recorded: bool = False
    """It is a recording, if only one that is played at its own rate."""
    fps: float = NOMINAL_FPS
    """Nominal, as far as it is known before the opening."""
    length: int | None = None
    """Frames of a recording, where that is known, if only about."""
    synchronised: bool = False
    """As `Source.synchronised`."""
    steady: bool = True
    """As `Source.steady`."""
    thermal: ThermalConfig = field(default_factory=ThermalConfig)
    """How infrared frames become 8-bit ones."""
    silence: SilencePolicy | None = None
    """When silence is a fault; None: that of its role in `SILENCE`."""

    @classmethod
    def of(cls, source: "Source | Camera") -> "Camera":
        """Return an open source as a camera, which is not opened again; its owner closes it."""
        if isinstance(source, Camera):
            return source
        return cls(
            source.name,
            lambda: source,
            reopens=False,
            live=source.live,
            recorded=not source.live or isinstance(source, RealTime),
            fps=source.fps,
            length=source.length,
            synchronised=source.synchronised,
            steady=source.steady,
        )

    def paced(self) -> "Camera":
        """Return a recording as it is played at its own rate; a camera as it is."""
        if self.live:
            return self
        return replace(self, open=partial(_opened, RealTime(self.open())), live=True)

    def preprocess(self, role: Role) -> Preprocess:
        """Return what makes 8-bit pictures of its frames; a new one for each run."""
        if role == "ir":
            return ThermalPreprocess(self.thermal)
        return lambda image, _: as_visible(image, place=self.name)

    def policy(self, role: Role) -> SilencePolicy:
        """Return when silence of this camera is a fault."""
        return self.silence or SILENCE[role]

    def close(self) -> None:
        """Close what was open from the start. Can be called twice."""
        if not self.reopens:
            self.open().close()

    def __enter__(self) -> "Camera":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def connect(text: str, role: Role, realtime: bool = False) -> Camera:
    """Return what `text` asks for. Recordings are open already; cameras are opened when the run begins.

    Args:
        text: as for `sources.open_source`; for infrared also with the options `agc`, `polarity`, `window`.
        role: which of the two cameras it is to be.
        realtime: play a recording at its own rate, as its option `realtime=1` does.

    Raises:
        SourceError: there is no such thing, an option cannot be used, or a recording cannot be opened.
    """
    spec = Spec.parse(text)
    kind = kind_of(spec)
    thermal = ThermalConfig()
    if role == "ir":
        options, spec = spec.split(THERMAL)
        try:
            thermal = ThermalConfig.from_options(options.options)
        except InputError as error:
            raise SourceError(f"{spec.name}: {error}") from None
    common, spec = spec.split(["realtime"])
    realtime = common.read_options({"realtime": yes_or_no}).get("realtime", realtime)
    if kind.reopens:
        return Camera(spec.name, partial(open_kind, kind, spec, role), thermal=thermal)
    camera = replace(Camera.of(open_kind(kind, spec, role)), thermal=thermal)
    return camera.paced() if realtime else camera


def connect_pair(ir: str, vis: str, realtime: bool = False) -> tuple[Camera, Camera]:
    """Connect both cameras; two folders or patterns of images are paired by the stems of their files.

    Arguments and errors are those of `connect`, and:

    Raises:
        SourceError: both texts ask for the same camera, folder or file.
    """
    check_distinct(Spec.parse(ir), Spec.parse(vis))
    with ExitStack() as opened:
        cameras = [opened.enter_context(connect(ir, "ir", realtime))]
        cameras.append(connect(vis, "vis", realtime))
        opened.pop_all()
    sources = [inside(camera.open()) for camera in cameras if not camera.reopens]
    if len(sources) == 2 and all(isinstance(source, ImageFolder) for source in sources):
        pair_by_stem(*sources)  # type: ignore[arg-type]
        cameras = [
            replace(camera, length=source.length) for camera, source in zip(cameras, sources, strict=True)
        ]
    return cameras[0], cameras[1]


def check_distinct(ir: Spec, vis: Spec) -> None:
    """Refuse one source for both.

    Two parts of one file or camera are two sources: then `crop` tells them apart. So are two halves of a
    folder.
    """
    of_ir, of_vis = (Path(device_of(spec.target)) for spec in (ir, vis))
    same = of_ir == of_vis or (of_ir.exists() and of_vis.exists() and of_ir.samefile(of_vis))
    if same and of_ir.is_dir():
        with suppress(InputError):  # that it holds the same images for both
            pair_folders(of_ir, of_vis)
            return
    if same and ir.target != "sim" and ir.options.get("crop") == vis.options.get("crop"):
        raise SourceError(f"both cameras are {ir.name}: give the infrared and the visible one")


def _opened(source: Source) -> Source:
    return source
