"""What is evaluated: baselines, models, and folders of images that somebody else has fused.

A model may be an ONNX file that edgefuse did not write. Such a file does not say what it takes, so its form
is told from the graph: two images, each with one channel or three, or one input with two channels; float32 in
0..1. Which image is infrared is told from the names of the inputs, else infrared comes first, as in one input
with two channels. Where a file needs something else, `FILE.onnx?order=vis,ir&range=-1,1` says so.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias
from urllib.parse import parse_qsl

import cv2
import numpy as np
from numpy.typing import NDArray

from edgefuse.errors import InputError, ModelError, unknown_name
from edgefuse.evaluate.baselines import BASELINES, COPIES, UNROUNDED
from edgefuse.files import model_argument
from edgefuse.images import Image, read_image, read_visible, size_of
from edgefuse.metrics import grey
from edgefuse.packages import require, stay_offline
from edgefuse.pairs import images_by_stem
from edgefuse.palettes import is_coloured
from edgefuse.spec import METADATA_KEY
from edgefuse.thermal import as_infrared
from edgefuse.thermal_config import ThermalConfig
from edgefuse.weights import shipped

FuseFunction: TypeAlias = Callable[[str, Image, Image], Image | NDArray[np.float32]]
"""(stem, infrared, visible) → fused; all `[H, W]`, uint8 or, if asked for, unrounded float32 of 0..255."""


@dataclass(frozen=True)
class Candidate:
    """One row of the table. It holds names only, so it travels to worker processes."""

    name: str
    kind: Literal["baseline", "model", "folder"]
    source: str = ""
    """Shipped name or file of a model, path of a folder."""
    engine: str | None = None
    """What runs a model; None: the first engine that is installed."""

    @property
    def fuses(self) -> bool:
        """Whether it can fuse other images than the given ones."""
        return self.kind != "folder"

    @property
    def competes(self) -> bool:
        """Whether it may be the best: a copy of one source fuses nothing."""
        return self.kind != "baseline" or self.name not in COPIES

    def open(self, unrounded: bool = False) -> FuseFunction:
        """Load what is needed to fuse.

        Args:
            unrounded: give fractions of grey levels, where there are any.

        Raises:
            InputError: the folder cannot be used.
            ModelError: the model cannot be used.
            BackendError: no inference engine is installed.
        """
        if self.kind == "baseline":
            fuse = (BASELINES | UNROUNDED if unrounded else BASELINES)[self.name]
            return lambda _stem, ir, vis: fuse(ir, vis)
        if self.kind == "model":
            if foreign := open_foreign(self.source):
                return _foreign(foreign, unrounded)
            from edgefuse.runtime.engines.fuser import Fuser

            fuser = Fuser(self.source, threads=1, engine=self.engine)
            run = fuser.fuse_unrounded if unrounded else fuser.fuse_luma
            return lambda _stem, ir, vis: run(ir, vis)
        doubled: dict[str, str] = {}
        files = images_by_stem(self.source, doubled)

        def read(stem: str, _ir: Image, _vis: Image) -> Image:
            if stem in doubled:
                raise InputError(doubled[stem])
            if stem not in files:
                raise InputError(f"no fused image of stem {stem!r} in {self.source}")
            return read_grey(files[stem])

        return read


def _foreign(fuse: Callable[[Image, Image], NDArray[np.float32]], unrounded: bool) -> FuseFunction:
    if unrounded:
        return lambda _stem, ir, vis: fuse(ir, vis)
    return lambda _stem, ir, vis: np.rint(fuse(ir, vis)).astype(np.uint8)


def read_grey(path: Path, bits: int | None = None) -> Image:
    """Read a visible or fused image as the metrics see it: uint8 `[H, W]`, colour as its rounded luma.

    Args:
        path: the file.
        bits: of 16, how many are in use; None: as the file says.
    """
    return grey(read_visible(path, bits))


def read_grey_infrared(path: Path, video: bool = False, thermal: ThermalConfig | None = None) -> Image:
    """Read an infrared image as the metrics see it: uint8 `[H, W]`, white = hot.

    Args:
        path: the file.
        video: it is a frame of a video.
        thermal: how it becomes 8 bits; None: as usual.

    Raises:
        InputError: not an image, or a 16-bit frame of a video without a window for all frames.
    """
    image = read_image(path, "ir")
    thermal = thermal or ThermalConfig()
    bytes_of_grey = image.dtype == np.uint8 and (image.ndim == 2 or not is_coloured(image))
    if bytes_of_grey and thermal == ThermalConfig():
        return grey(image)
    if video and image.dtype != np.uint8 and thermal.window is None:
        raise InputError(
            f"{path} has 16 bits, and scaling each frame by itself would add flicker: give one scale for "
            "all frames, such as --window 7000-9000"
        )
    return as_infrared(image, thermal, str(path.parent))


def baseline(name: str) -> Candidate:
    """Return the baseline of that name."""
    return Candidate(name, "baseline")


def model(source: str | Path, engine: str | None = None) -> Candidate:
    """Return a shipped model by its name, or the file of a model, named by its stem.

    An ONNX file from elsewhere may be followed by options: see above.
    """
    path = Path(str(source).partition("?")[0])
    return Candidate(path.stem if path.suffix else str(source), "model", str(source), engine)


def folder(path: str | Path, name: str | None = None) -> Candidate:
    """Return a folder of fused images, named by its last part unless a name is given."""
    return Candidate(name or Path(path).resolve().name, "folder", str(path))


def named(text: str, engine: str | None = None) -> Candidate:
    """Return what a text means: a baseline, else a shipped model, else a folder, else a model file."""
    if text in BASELINES:
        return baseline(text)
    return folder(text) if text not in shipped() and Path(text).is_dir() else model(text, engine)


def unique(candidates: list[Candidate]) -> list[Candidate]:
    """Drop repeated candidates, and name by kind and whole source those whose short names are equal."""
    kept = list(dict.fromkeys(candidates))
    names = [c.name for c in kept]
    return [
        replace(c, name=f"{c.kind} {c.source}") if names.count(c.name) > 1 and c.source else c for c in kept
    ]


Floats = NDArray[np.float32]

INFRARED = re.compile(r"(^|[^a-z])(ir|inf|infrared|thermal|lwir|tir)([^a-z]|$)", re.IGNORECASE)
VISIBLE = re.compile(r"(^|[^a-z])(vis|vi|visible|rgb|y)([^a-z]|$)", re.IGNORECASE)
OPTIONS = ("order", "range")


def split_options(source: str) -> tuple[Path, dict[str, str]]:
    """Split `FILE.onnx?order=vis,ir` into the file and its options.

    Raises:
        InputError: an unknown option.
    """
    path, _, query = source.partition("?")
    options = dict(parse_qsl(query, keep_blank_values=True))
    for name in options:
        if name not in OPTIONS:
            raise InputError(unknown_name(f"option of {path}", name, OPTIONS))
    return Path(path), options


def open_foreign(source: str) -> "ForeignNetwork | None":
    """Open an ONNX file that edgefuse did not write, on the CPU with one thread.

    Args:
        source: a file, with options.

    Returns:
        The network; None for one of our own files, and for what is no ONNX file at all.

    Raises:
        InputError: unknown options.
        ModelError: no ONNX file, or one whose inputs are of no known form.
    """
    path, options = split_options(source)
    if path.suffix != ".onnx" or not path.is_file():
        return None
    require("cpu", "onnxruntime")
    stay_offline()
    import onnxruntime as ort

    settings = ort.SessionOptions()
    settings.intra_op_num_threads = 1
    settings.log_severity_level = 4
    try:
        session = ort.InferenceSession(model_argument(path), settings, ["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime has many kinds
        raise ModelError(f"{path} cannot be opened as an ONNX file: {_short(error)}") from None
    if METADATA_KEY in session.get_modelmeta().custom_metadata_map:
        return None
    return ForeignNetwork(path, session, options)


class ForeignNetwork:
    """An opened file: (infrared, visible), grey uint8 `[H, W]` → fused, float32 `[H, W]` of 0..255."""

    def __init__(self, path: Path, session: Any, options: Mapping[str, str]) -> None:
        self._path, self._session = path, session
        self._inputs = session.get_inputs()
        self.channels = [_channels(path, entry) for entry in self._inputs]
        self.names = [entry.name for entry in self._inputs]
        if len(self._inputs) == 2 and set(self.channels) <= {1, 3}:
            self.order = _order(self.names, options)
        elif self.channels == [2]:
            self.order = _order([], options)
        else:
            shapes = ", ".join(f"{entry.name} {entry.shape}" for entry in self._inputs)
            raise ModelError(
                f"{path} takes {shapes}: two images of one or three channels, or one input of two, can be fed"
            )
        self.low, self.high = _range(path, options)
        self.answer_channels = 0
        """Of its last answer."""

    @property
    def size(self) -> tuple[int, int] | None:
        """Width and height that it is fixed to; None: any."""
        height, width = self._inputs[0].shape[2:]
        return (width, height) if isinstance(height, int) and isinstance(width, int) else None

    def __call__(self, ir: Image, vis: Image) -> Floats:
        """Fuse two grey images."""
        scale = np.float32((self.high - self.low) / 255)
        sources = {"ir": ir, "vis": vis}
        planes = [sources[role].astype(np.float32) * scale + np.float32(self.low) for role in self.order]
        if len(self._inputs) == 1:
            feed = {self._inputs[0].name: np.stack(planes)[None]}
        else:
            feed = {
                entry.name: np.repeat(plane[None, None], channels, axis=1)
                for entry, plane, channels in zip(self._inputs, planes, self.channels, strict=True)
            }
        try:
            answer = self._session.run(None, feed)[0]
        except Exception as error:  # ONNX Runtime has many kinds
            raise InputError(f"{self._path} cannot fuse images of {size_of(vis)}: {_short(error)}") from None
        return self._luma(np.asarray(answer, np.float32), vis) / scale

    def _luma(self, answer: Floats, vis: Image) -> Floats:
        if answer.ndim != 4 or answer.shape[0] != 1 or answer.shape[1] not in (1, 3):
            raise InputError(
                f"{self._path} gives {list(answer.shape)}, which is not an image [1, 1 or 3, H, W]"
            )
        self.answer_channels = answer.shape[1]
        if answer.shape[2:] != vis.shape:
            raise InputError(f"{self._path} gives {list(answer.shape)} for images of {size_of(vis)}")
        if not np.isfinite(answer).all():
            raise InputError(f"{self._path} gives values that are not finite")
        grey = (
            cv2.cvtColor(answer[0].transpose(1, 2, 0), cv2.COLOR_RGB2GRAY)
            if answer.shape[1] == 3
            else answer[0, 0]
        )
        return np.clip(grey, self.low, self.high) - np.float32(self.low)


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def _channels(path: Path, entry: Any) -> int:
    shape = entry.shape
    if entry.type != "tensor(float)" or len(shape) != 4 or not isinstance(shape[1], int):
        raise ModelError(
            f"{path} takes {entry.name} as {entry.type} {shape}: float32 [N, channels, H, W] can be fed"
        )
    return shape[1]


def _order(names: list[str], options: Mapping[str, str]) -> list[str]:
    """Return which image comes first and which second: `ir` and `vis`."""
    given = [name.strip() for name in options.get("order", "").split(",") if name.strip()]
    if given:
        if sorted(given) != ["ir", "vis"]:
            raise InputError(f"order is {options['order']!r}: it is ir,vis or vis,ir")
        return given
    swapped = len(names) == 2 and bool(INFRARED.search(names[1]) or VISIBLE.search(names[0]))
    return ["vis", "ir"] if swapped else ["ir", "vis"]


def _range(path: Path, options: Mapping[str, str]) -> tuple[float, float]:
    text = options.get("range", "0,1")
    try:
        low, high = map(float, text.split(","))
    except ValueError:
        raise InputError(
            f"range of {path} is {text!r}: give the values of black and white, as in range=-1,1"
        ) from None
    if not low < high:
        raise InputError(f"range of {path} is {text!r}: black must be below white")
    return low, high
