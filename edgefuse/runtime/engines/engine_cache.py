"""TensorRT engines on disk: what one was built from, for and with, and finding one that may run here.

An engine runs only with the TensorRT and on the GPU that it was built with; elsewhere it fails at best.
`model.engine` therefore has `model.engine.json` beside it, its sidecar, and nothing loads an engine without
reading that. A cached engine's name holds all that it depends on, so that engines of several machines,
versions and options lie side by side and none is ever mistaken for another.
"""

import contextlib
import hashlib
import json
import logging
import os
import re
import sys
from collections.abc import Callable, Collection, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import msgspec

from edgefuse.errors import InputError, ModelError
from edgefuse.files import read_bytes, replace_file
from edgefuse.images import parse_size
from edgefuse.spec import ModelSpec, Tensor, spec_from_dict

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SizeRange:
    """Image sizes (width, height) and batch that an engine must serve, where its graph leaves them open.

    Raises:
        InputError: an end that is not positive, or not in ascending order.
    """

    min: tuple[int, int] = (64, 64)
    opt: tuple[int, int] = (640, 480)
    max: tuple[int, int] = (1920, 1088)
    batch: int = 1
    """Largest batch; the usual one is 1."""

    def __post_init__(self) -> None:
        for side, low, usual, high in zip(("width", "height"), self.min, self.opt, self.max, strict=True):
            if not 0 < low <= usual <= high:
                raise InputError(
                    f"the {side}s {low}, {usual}, {high} of the profile are not positive and ascending: "
                    "give them as smallest, usual, largest"
                )
        if self.batch < 1:
            raise InputError(f"the profile's batch is {self.batch}, it must be at least 1")

    def __str__(self) -> str:
        """Return the sizes as `parse` takes them, such as `64x64,640x480,1920x1088`."""
        return ",".join(f"{width}x{height}" for width, height in (self.min, self.opt, self.max))

    @classmethod
    def parse(cls, text: str, batch: int = 1) -> "SizeRange":
        """Read `smallest,usual,largest`, such as `320x256,640x480,1280x1024`; one size stands for all.

        Raises:
            InputError: text of another form.
        """
        sizes = [parse_size(part) for part in text.split(",")]
        if len(sizes) == 1:
            sizes *= 3
        if len(sizes) != 3:
            raise InputError(
                f"the sizes {text!r} are {len(sizes)}, not three: give smallest,usual,largest, "
                "such as 320x256,640x480,1280x1024"
            )
        smallest, usual, largest = sizes
        return cls(smallest, usual, largest, batch)


@dataclass(frozen=True)
class Profile:
    """Shapes that one input may have: kernels are tuned for `opt` and serve all between the ends."""

    min: tuple[int, ...]
    opt: tuple[int, ...]
    max: tuple[int, ...]


def make_profiles(spec: ModelSpec, sizes: SizeRange) -> dict[str, Profile]:
    """Return a profile for each input with an open dimension; sizes are rounded up to what a network takes.

    Args:
        spec: of the graph.
        sizes: what the open dimensions may be.
    """
    divisor = 1 if spec.end_to_end else spec.size_divisor

    def shape(tensor: Tensor, size: tuple[int, int], batch: int = 1) -> tuple[int, ...]:
        width, height = (side + -side % divisor for side in size)
        sides = {"N": batch, "H": height, "W": width}
        return tuple(sides[side] if isinstance(side, str) else side for side in tensor.shape)

    return {
        t.name: Profile(shape(t, sizes.min), shape(t, sizes.opt), shape(t, sizes.max, sizes.batch))
        for t in spec.inputs()
        if spec.size is None
    }


@dataclass(frozen=True)
class Machine:
    """Where an engine was built."""

    tensorrt: str
    cuda: str
    """Version of the CUDA bindings, such as 12.9."""
    driver: str
    """Highest CUDA version that the driver supports."""
    gpu: str
    sm: str
    """Compute capability, such as 8.7."""
    multiprocessors: str = "unknown"
    """How many the GPU has: the modules of a Jetson family share name and compute capability."""

    @property
    def bound_to(self) -> dict[str, str]:
        """What an engine is bound to. It outlives other versions of the CUDA bindings and the driver."""
        return {
            "TensorRT": self.tensorrt,
            "GPU": self.gpu,
            "compute capability": self.sm,
            "multiprocessors": self.multiprocessors,
        }

    @property
    def slug(self) -> str:
        """A folder's name for what engines and timings depend on."""
        gpu = re.sub(r"[^a-z0-9]+", "-", self.gpu.lower()).strip("-")
        return f"trt{self.tensorrt}-{gpu}-sm{self.sm.replace('.', '')}"


@dataclass(frozen=True)
class BuildOptions:
    """What a build is asked for.

    Raises:
        InputError: a workspace or level out of range.
    """

    sizes: SizeRange = field(default_factory=SizeRange)
    """For graphs that leave sizes open."""
    workspace_mb: int = 1024
    """Most memory that a layer may use while it runs, in MB."""
    level: int = 3
    """TensorRT's optimisation level, 0 (quickest build) to 5 (longest search)."""

    def __post_init__(self) -> None:
        if self.workspace_mb < 1:
            raise InputError(f"the workspace is {self.workspace_mb} MB, it must be at least 1")
        if not 0 <= self.level <= 5:
            raise InputError(f"the optimisation level is {self.level}, it must be 0 to 5")


@dataclass(frozen=True)
class Sidecar:
    """All that is known about an engine file."""

    machine: Machine
    onnx: str
    """The graph's file, relative to the engine's folder, or absolute."""
    onnx_sha256: str
    engine_sha256: str
    profiles: dict[str, Profile]
    options: BuildOptions
    spec: ModelSpec
    layers: dict[str, int]
    """Layers by precision, as TensorRT's inspector reports them."""


def sidecar_path(engine: Path) -> Path:
    """Return where an engine's sidecar lies."""
    return engine.with_name(f"{engine.name}.json")


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file's bytes.

    Raises:
        InputError: the file cannot be read.
    """
    return hashlib.sha256(read_bytes(path)).hexdigest()


def write_sidecar(engine: Path, sidecar: Sidecar) -> None:
    """Write the sidecar of an engine file, whole or not at all."""
    text = msgspec.json.format(msgspec.json.encode(sidecar, order="sorted"), indent=2)
    replace_file(sidecar_path(engine), lambda partial: partial.write_bytes(text + b"\n"))


def read_sidecar(engine: Path) -> Sidecar:
    """Read the sidecar of an engine file.

    Raises:
        ModelError: there is none, or it is damaged.
    """
    path = sidecar_path(engine)
    hint = "export the engine again with --tensorrt"
    if not path.exists():
        raise ModelError(f"{engine} has no {path.name} beside it, so its machine is unknown: {hint}")
    try:
        values = msgspec.json.decode(read_bytes(path))
        values["spec"] = spec_from_dict(values["spec"], path)
        return msgspec.convert(values, Sidecar)
    except (msgspec.MsgspecError, UnicodeError, KeyError, TypeError, InputError, ModelError):
        raise ModelError(f"{path} is damaged, or of another version of edgefuse: {hint}") from None


def mismatches(engine: Path, sidecar: Sidecar, machine: Machine) -> list[str]:
    """Say why an engine may not run here; an empty list: it may."""
    built, here = sidecar.machine.bound_to, machine.bound_to
    found = [f"{name} {built[name]}, here {here[name]}" for name in here if built[name] != here[name]]
    if file_hash(engine) != sidecar.engine_sha256:
        found.append("content that differs from its sidecar")
    return found


Build = Callable[[Path, Path, BuildOptions], Sidecar]
"""Builds an ONNX file (first) into an engine file (second) and writes its sidecar."""


def resolve_engine(
    path: Path,
    machine: Machine,
    build: Build,
    options: BuildOptions | None = None,
    *,
    rebuild: bool = True,
    cache: Path | None = None,
    refused: Collection[Path] = (),
) -> tuple[Path, Sidecar]:
    """Return an engine file that may run here, and its sidecar; build it into the cache if there is none.

    Args:
        path: an engine with its sidecar, or an ONNX file.
        machine: this one.
        build: makes an engine.
        options: for an ONNX file; None: the defaults. An engine is built again with its own.
        rebuild: False: raise rather than build.
        cache: folder for built engines; None: `cache_folder()`.
        refused: engine files that should run here, but TensorRT refuses.

    Raises:
        ModelError: a damaged sidecar, or a mismatch that cannot be solved: `rebuild` forbids it, or the ONNX
            file is missing.
        InputError: a file that cannot be read, or a cache that cannot be written.
    """
    sidecar = None
    if path.suffix == ".onnx":
        onnx, options, reason = path, options or BuildOptions(), "there is no engine for this machine yet"
    else:
        sidecar = read_sidecar(path)
        onnx, options = path.parent / sidecar.onnx, sidecar.options
        found = mismatches(path, sidecar, machine)
        if onnx.exists() and file_hash(onnx) != sidecar.onnx_sha256:
            found.append(f"an older {onnx.name}")
        if not found and path not in refused:
            return path, sidecar
        reason = f"it was built with {'; '.join(found)}"
    if refused:
        reason = "TensorRT refuses the engine"
    # Without its graph, an engine that was built from it earlier still serves.
    graph = sidecar.onnx_sha256 if sidecar is not None and not onnx.exists() else file_hash(onnx)
    target = cached_engine(cache or cache_folder(), graph, machine, options)
    if (kept := _valid(target, machine, refused)) is not None:
        return target, kept
    if not rebuild:
        raise ModelError(
            f"{path} cannot run here ({reason}) and rebuilding is off: leave out "
            "--no-rebuild or rebuild=false"
        )
    if not onnx.exists():
        raise ModelError(
            f"{path} cannot run here ({reason}) and {onnx} is not there to build it from: copy it there"
        )
    writable_folder(target.parent)
    with _locked(target):
        if (kept := _valid(target, machine, refused)) is not None:  # built by another process meanwhile
            return target, kept
        logger.warning("building a TensorRT engine for %s (%s) in %s", path, reason, target.parent)
        return target, build(onnx, target, options)


@contextlib.contextmanager
def _locked(engine: Path) -> Iterator[None]:
    """Let one process or thread at a time build an engine: two builds would measure each other."""
    if sys.platform == "win32":  # which has no such locks
        yield
        return
    import fcntl

    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(engine.with_name(f".{engine.stem}.lock").open("w"))
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                logger.warning("another process builds %s: waiting for it", engine)
                fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:  # such as a network folder without locks: both build then, each whole
            logger.warning("%s cannot be locked: %s", engine, error.strerror or error)
        yield


def _valid(engine: Path, machine: Machine, refused: Collection[Path]) -> Sidecar | None:
    """The sidecar of an engine in the cache, or None if there is nothing usable there."""
    if not engine.exists() or engine in refused:
        return None
    try:
        sidecar = read_sidecar(engine)
    except ModelError:
        return None
    return None if mismatches(engine, sidecar, machine) else sidecar


def cached_engine(cache: Path, onnx_sha256: str, machine: Machine, options: BuildOptions) -> Path:
    """Return the cache's file for a graph, machine and options; any difference gives another name."""
    key = json.dumps([onnx_sha256, machine.bound_to, asdict(options)], sort_keys=True)
    return cache / "tensorrt" / machine.slug / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.engine"


def cache_folder() -> Path:
    """Return the folder for what can be made again: `EDGEFUSE_CACHE`, or the user's cache folder."""
    if os.environ.get("EDGEFUSE_CACHE"):
        return Path(os.environ["EDGEFUSE_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgefuse"


def writable_folder(folder: Path) -> Path:
    """Create a folder if need be and see that files can be written in it, before minutes are spent.

    Raises:
        InputError: it cannot be made or written.
    """
    probe = folder / f".probe.{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink(missing_ok=True)  # by another thread of ours
    except OSError as error:
        raise InputError(
            f"cannot write the cache {folder} ({error.strerror or error}): "
            "set EDGEFUSE_CACHE to a folder that can be written"
        ) from None
    return folder
