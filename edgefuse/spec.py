"""ModelSpec: what a model file takes and gives. It travels inside the file, as ONNX metadata."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, TypeAlias

from edgefuse.errors import ModelError

__all__ = ["METADATA_KEY", "Aspect", "ModelSpec"]

METADATA_KEY = "edgefuse"
PRECISIONS = ("fp32", "fp16", "int8")
GRAPHS = ("core", "deploy")
COLOURS = ("bgr", "rgb")

Aspect: TypeAlias = Literal["stretch", "fit", "crop"]
"""What becomes of infrared of other proportions than visible. It stands here, where nothing heavy
is imported, for the settings of the command line."""


@dataclass(frozen=True)
class ModelSpec:
    """What a model file takes and gives.

    A `core` graph maps `sources`, float32 `[N, 2, H, W]` (infrared, visible luma) in [0, 1], to `fused`,
    float32 `[N, 1, H, W]` in [0, 1], the fused luma. A `deploy` graph maps images to an image, all uint8:
    `ir` `[N, H, W, 1]` and `vis` `[N, H, W, 3]` to `fused` `[N, H, W, 3]`. In a graph of fixed size N is 1.
    """

    model: str
    """Network, such as `nano`."""
    multiple: int
    """H and W of the network's input must be multiples of this; a `deploy` graph pads by itself."""
    size: tuple[int, int] | None = None
    """Width and height that the graph is fixed to; None: any."""
    precision: str = "fp32"
    """Arithmetic inside the graph."""
    opset: int = 0
    """ONNX operator set."""
    version: str = ""
    """Version of edgefuse that wrote the file."""
    training: dict[str, Any] = field(default_factory=dict)
    """How the weights were made: paradigm, data, steps, seed."""
    receipt: dict[str, Any] = field(default_factory=dict)
    """How far the file is from its checkpoint, as measured when it was written."""
    graph: str = "core"
    """`core` or `deploy`, as above."""
    colours: str = "bgr"
    """Order of the colours of a `deploy` graph's images."""

    def __post_init__(self) -> None:
        for what, known in (("precision", PRECISIONS), ("graph", GRAPHS), ("colours", COLOURS)):
            if (value := getattr(self, what)) not in known:
                raise ModelError(f"{what} {value!r} is unknown: known are {', '.join(known)}")
        if self.multiple < 1:
            raise ModelError(f"multiple is {self.multiple}, it must be at least 1")

    def to_metadata(self) -> dict[str, str]:
        """Return the metadata entries that `from_metadata` reads."""
        return {METADATA_KEY: json.dumps(asdict(self), sort_keys=True)}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str], path: object = "the model file") -> "ModelSpec":
        """Read the spec out of a model file's metadata.

        Raises:
            ModelError: no entry of ours, a damaged one, or one of a newer version with other keys.
        """
        if METADATA_KEY not in metadata:
            raise ModelError(
                f"{path} does not say what it takes and gives (no {METADATA_KEY!r} metadata): "
                "use a file written by `edgefuse export`"
            )
        try:
            values = json.loads(metadata[METADATA_KEY])
            unknown = values.keys() - {f.name for f in fields(cls)}
            if unknown:
                raise ModelError(
                    f"{path} was written by edgefuse {values.get('version') or '?'} and has unknown "
                    f"metadata {', '.join(sorted(unknown))}: export it again with this version"
                )
            if values.get("size") is not None:
                width, height = values["size"]
                values["size"] = (int(width), int(height))
            return cls(**values)
        except (ValueError, TypeError, AttributeError) as error:
            raise ModelError(f"{path} has damaged metadata: {error}") from None
