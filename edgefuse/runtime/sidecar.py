"""The sidecar of a TensorRT engine: what it was built from, for and with, and whether it may run here.

An engine runs only with the TensorRT and on the GPU that it was built with; elsewhere it fails at best.
`model.engine` therefore has `model.engine.json` beside it, and nothing loads an engine without reading it.
"""

import hashlib
import json
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from edgefuse.errors import InputError, ModelError
from edgefuse.files import replace_file
from edgefuse.runtime.profiles import Profile, SizeRange
from edgefuse.spec import METADATA_KEY, ModelSpec

__all__ = [
    "BuildOptions",
    "Machine",
    "Sidecar",
    "file_hash",
    "mismatches",
    "read_sidecar",
    "sidecar_path",
    "write_sidecar",
]


@dataclass(frozen=True)
class Machine:
    """What an engine is bound to."""

    tensorrt: str
    cuda: str
    """Version of the CUDA runtime, such as 12.9."""
    driver: str
    """Highest CUDA version that the driver supports."""
    gpu: str
    sm: str
    """Compute capability, such as 8.7."""

    @property
    def slug(self) -> str:
        """A file name's part: TensorRT, GPU and compute capability, on which timings depend."""
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
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from None


def write_sidecar(engine: Path, sidecar: Sidecar) -> None:
    """Write the sidecar of an engine file, whole or not at all."""
    text = json.dumps(asdict(sidecar), indent=2, sort_keys=True)
    replace_file(sidecar_path(engine), lambda partial: partial.write_text(text + "\n", encoding="utf-8"))


def read_sidecar(engine: Path) -> Sidecar:
    """Read the sidecar of an engine file.

    Raises:
        ModelError: there is none, or it is damaged.
    """
    path = sidecar_path(engine)
    mend = "export the engine again with --tensorrt"
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(
            f"{engine} has no {path.name} beside it, so nobody knows its machine: {mend}"
        ) from None
    except (OSError, ValueError):
        raise ModelError(f"{path} is damaged: {mend}") from None
    try:
        return _from_dict(values)
    except (KeyError, TypeError, ValueError, AttributeError, InputError, ModelError):
        raise ModelError(f"{path} is damaged, or of another version of edgefuse: {mend}") from None


def _from_dict(values: dict[str, Any]) -> Sidecar:
    sizes = values["options"]["sizes"]
    ends = {end: (int(sizes[end][0]), int(sizes[end][1])) for end in ("min", "opt", "max")}
    options = {**values["options"], "sizes": SizeRange(**ends, batch=sizes["batch"])}
    profiles = values["profiles"].items()
    return Sidecar(
        machine=Machine(**values["machine"]),
        onnx=values["onnx"],
        onnx_sha256=values["onnx_sha256"],
        engine_sha256=values["engine_sha256"],
        profiles={name: Profile(*(tuple(p[end]) for end in ("min", "opt", "max"))) for name, p in profiles},
        options=BuildOptions(**options),
        spec=ModelSpec.from_metadata({METADATA_KEY: json.dumps(values["spec"])}),
        layers={str(name): int(count) for name, count in values["layers"].items()},
    )


def mismatches(engine: Path, sidecar: Sidecar, machine: Machine) -> list[str]:
    """Say why an engine may not run here; an empty list: it may."""
    names = {
        "tensorrt": "TensorRT",
        "cuda": "CUDA",
        "driver": "driver",
        "gpu": "GPU",
        "sm": "compute capability",
    }
    built, here = asdict(sidecar.machine), asdict(machine)
    found = [f"{names[k]} {built[k]}, here {here[k]}" for k in names if built[k] != here[k]]
    if file_hash(engine) != sidecar.engine_sha256:
        found.append("another content than its sidecar says")
    return found
