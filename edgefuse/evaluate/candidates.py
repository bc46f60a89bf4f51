"""What is evaluated: baselines, models, and folders of images that somebody else has fused."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from edgefuse.errors import InputError
from edgefuse.evaluate.baselines import BASELINES, COPIES, UNROUNDED
from edgefuse.evaluate.foreign import open_foreign
from edgefuse.images import Image, as_visible, read_image
from edgefuse.metrics import grey
from edgefuse.pairs import images_by_stem
from edgefuse.thermal import as_infrared
from edgefuse.thermal_config import ThermalConfig
from edgefuse.weights import shipped

__all__ = ["Candidate", "FuseFunction", "baseline", "folder", "model", "named", "read_grey", "unique"]

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


def read_grey(
    path: Path, infrared: bool = False, video: bool = False, thermal: ThermalConfig | None = None
) -> Image:
    """Read an image file as the metrics see it: uint8 `[H, W]`, colour as its rounded luma.

    Args:
        path: the file. 16 bits are scaled by 1/257, those of an infrared image as `as_infrared` does.
        infrared: it is an infrared image.
        video: and a frame of a video.
        thermal: how infrared becomes 8 bits; None: as usual.

    Raises:
        InputError: not an image, or a 16-bit infrared frame of a video without a window for all frames.
    """
    image = read_image(path, "ir" if infrared else "vis")
    thermal = thermal or ThermalConfig()
    if not infrared or (image.dtype == np.uint8 and thermal == ThermalConfig()):
        return grey(as_visible(image))
    if video and image.dtype != np.uint8 and thermal.window is None:
        raise InputError(
            f"{path} has 16 bits, and scaling each frame by itself would add flicker: give one scale for "
            "all frames, such as --window 7000-9000"
        )
    return as_infrared(image, thermal)


def baseline(name: str) -> Candidate:
    """Return the baseline of that name."""
    return Candidate(name, "baseline")


def model(source: str | Path, engine: str | None = None) -> Candidate:
    """Return a shipped model by its name, or the file of a model, named by its stem.

    An ONNX file from elsewhere may be followed by options: see `edgefuse.evaluate.foreign`.
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
