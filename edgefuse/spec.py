"""What a model file takes and gives, and how it was verified. Both travel inside the file, as metadata."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

import msgspec

from edgefuse.errors import InputError, ModelError, unknown_name
from edgefuse.files import read_bytes

METADATA_KEY = "edgefuse"
FORMAT = 1
"""Of the metadata that this version writes; files from before there was a number have 0."""
LEVELS = (
    "infrared median",
    "infrared spread",
    "visible median",
    "visible spread",
    "infrared spread above the median",
)
"""How bright both pictures are, in the order in which a network takes it: see `edgefuse.images`."""
PRECISIONS = ("fp32", "fp16", "int8")
COLOURS = ("bgr", "rgb")
FORMER_GRAPHS = {"core": "network", "deploy": "end_to_end"}
GRAPHS = tuple(FORMER_GRAPHS.values())
FORMER_KEYS = {"multiple": "size_divisor", "receipt": "verification"}
MAX_DIVISOR, LONGEST = 256, 1 << 16
"""What no network or camera exceeds; more would make buffers that no machine has."""
METADATA_PROPS = 14
"""Field of an ONNX ModelProto that holds the metadata: messages of key (1) and value (2), see onnx.proto."""
GRAPH, NODE, NODE_TYPE, NODE_DOMAIN = 7, 1, 4, 7
"""Fields of ModelProto, GraphProto and NodeProto, see onnx.proto."""


def graph_kind(name: str) -> str:
    """Return the kind of graph that a name means, `network` or `end_to_end`; their former names count too.

    Raises:
        InputError: unknown name.
    """
    kind = FORMER_GRAPHS.get(name, name.replace("-", "_"))
    if kind not in GRAPHS:
        raise InputError(unknown_name("graph", name, GRAPHS))
    return kind


class Tensor(NamedTuple):
    """An input or output of a graph."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]
    """Open dimensions by name: `N`, `H`, `W`."""
    meaning: str

    def __str__(self) -> str:
        """Return such as `ir uint8 [N, H, W, 1]: infrared, white = hot`."""
        return f"{self.name} {self.dtype} [{', '.join(map(str, self.shape))}]: {self.meaning}"


@dataclass(frozen=True)
class GateResult:
    """One limit that a file must keep, and what was measured."""

    name: str
    limit: float
    value: float | None
    """None: infinite, or, of a gate that failed, no number."""
    pair: str
    """The pair where it is worst; empty: it is measured on no pair."""
    passed: bool


@dataclass(frozen=True)
class VerificationReport:
    """How far an exported file is from its checkpoint."""

    compared_on: str
    pairs: int
    sizes: tuple[str, ...]
    """Sizes that were compared, such as `640x480`."""
    max_difference: float
    """Largest absolute difference of any pixel, in [0, 1]; in an end-to-end graph a grey level is 1/255."""
    psnr: float | None
    """Lowest peak signal-to-noise ratio of any pair, dB; None: infinite, all are equal."""
    ssim: float
    """Lowest structural similarity of the two fused images of any pair."""
    worst: str
    """The pair with the lowest PSNR."""
    metrics: dict[str, float] = field(default_factory=dict)
    """Mean change of each fusion metric, file minus checkpoint; negative is worse."""
    layers: dict[str, int] = field(default_factory=dict)
    """Number of layers by the precision that they compute in."""
    kept: tuple[str, ...] = ()
    """Layers of an int8 file that stay in float because they lose too much."""
    calibration: str = ""
    """What the ranges of an int8 file come from."""
    int8_share: float | None = None
    """Share of an int8 file's multiplications that ONNX Runtime's CPU really did in 8 bits, 0 to 1."""
    run_on: str = ""
    """The engine and device that ran the file, such as `ONNX Runtime on cpu`."""
    gates: tuple[GateResult, ...] = ()
    of: str = ""
    """The ONNX file that was compared, where an engine was built from it and not compared itself."""

    @property
    def passed(self) -> bool:
        """Whether all gates hold."""
        return all(gate.passed for gate in self.gates)


Aspect: TypeAlias = Literal["stretch", "fit", "crop"]
"""What becomes of infrared of other proportions than visible. It stands here, where nothing heavy
is imported, for the settings of the command line."""


@dataclass(frozen=True)
class ModelSpec:
    """What a model file takes and gives; `inputs` and `outputs` list it.

    A `network` graph maps planes in [0, 1] to a plane: infrared and visible luma to the fused luma. An
    `end_to_end` graph maps two images to an image, all uint8.
    """

    model: str
    """Network, such as `nano`."""
    size_divisor: int
    """H and W of the network's input must be multiples of this; an `end_to_end` graph pads by itself."""
    size: tuple[int, int] | None = None
    """Width and height that the graph is fixed to, with a batch of 1; None: any."""
    precision: str = "fp32"
    """Arithmetic inside the graph."""
    opset: int = 0
    """ONNX operator set."""
    version: str = ""
    """Version of edgefuse that wrote the file."""
    training: dict[str, Any] = field(default_factory=dict)
    """How the weights were made: paradigm, data, steps, seed."""
    verification: VerificationReport | None = None
    """How far the file is from its checkpoint, as measured when it was written."""
    graph: str = "network"
    """`network` or `end_to_end`, as above."""
    colours: str = "bgr"
    """Order of the colours of an `end_to_end` graph's images."""
    levels: bool = False
    """Whether the graph also takes how bright both pictures are, see `edgefuse.images`."""
    level_count: int = 4
    """How many of `LEVELS` it takes, the first ones: earlier versions had four."""
    engines: tuple[str, ...] = ()
    """For which engines the graph is arranged, such as `cpu`; empty: an earlier version wrote it."""
    format: int = FORMAT
    """Of the metadata."""

    def __post_init__(self) -> None:
        for what, known in (("precision", PRECISIONS), ("graph", GRAPHS), ("colours", COLOURS)):
            if (value := getattr(self, what)) not in known:
                raise ModelError(f"{what} {value!r} is unknown: known are {', '.join(known)}")
        if not self.model.isprintable():  # it is shown on terminals
            raise ModelError(f"model {self.model!r} is not a name: it has control characters")
        for what, values, least, most in (
            ("size_divisor", [self.size_divisor], 1, MAX_DIVISOR),
            ("size", self.size or [], 1, LONGEST),
            ("level_count", [self.level_count], 1, len(LEVELS)),
        ):
            if not all(least <= value <= most for value in values):
                given = getattr(self, what)
                raise ModelError(
                    f"{what} is {given}, it must be from {least} to {most}: export the file again"
                )

    @property
    def end_to_end(self) -> bool:
        """Whether the graph maps images to an image."""
        return self.graph == "end_to_end"

    def inputs(self) -> tuple[Tensor, ...]:
        """Return what the graph takes, in this order."""
        n, height, width = self._sides()
        if self.end_to_end:
            order = ", ".join(self.colours.upper())
            tensors = [
                Tensor("ir", "uint8", (n, height, width, 1), "infrared, white = hot"),
                Tensor("vis", "uint8", (n, height, width, 3), f"visible, {order}"),
            ]
        else:
            meaning = "infrared and visible luma, in [0, 1]"
            tensors = [Tensor("sources", "float32", (n, 2, height, width), meaning)]
        if self.levels:
            meaning = f"{', '.join(LEVELS[: self.level_count])}, in [0, 1]"
            tensors.append(Tensor("levels", "float32", (n, self.level_count), meaning))
        return tuple(tensors)

    def outputs(self) -> tuple[Tensor, ...]:
        """Return what the graph gives."""
        n, height, width = self._sides()
        if self.end_to_end:
            return (Tensor("fused", "uint8", (n, height, width, 3), "fused, colours in the same order"),)
        return (Tensor("fused", "float32", (n, 1, height, width), "fused luma, in [0, 1]"),)

    def _sides(self) -> tuple[int | str, int | str, int | str]:
        return ("N", "H", "W") if self.size is None else (1, self.size[1], self.size[0])

    def to_metadata(self) -> dict[str, str]:
        """Return the metadata entries that `from_metadata` reads."""
        return {METADATA_KEY: msgspec.json.encode(self, order="sorted").decode()}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str], path: object = "the model file") -> "ModelSpec":
        """Read the spec out of a model file's metadata, of this version or an earlier one.

        Unknown keys of a later version are ignored.

        Raises:
            ModelError: no entry of ours, or a damaged one.
        """
        if METADATA_KEY not in metadata:
            raise ModelError(
                f"{path} does not say what it takes and gives (no {METADATA_KEY!r} metadata): "
                "use a file written by `edgefuse export`, or `edgefuse wrap` for a network of another project"
            )
        try:
            values = msgspec.json.decode(metadata[METADATA_KEY])
        except (msgspec.DecodeError, UnicodeError) as error:
            raise ModelError(f"{path} has damaged metadata: {error}") from None
        return spec_from_dict(values, path)

    def built_from(self, onnx: str) -> "ModelSpec":
        """Return the spec of an engine whose graph was compared, but not the engine itself."""
        if self.verification is None:
            return self
        return replace(self, verification=replace(self.verification, of=onnx))


def spec_from_dict(values: Any, path: object) -> ModelSpec:
    """Return the spec of plain values, as JSON has them, of this version or an earlier one.

    Raises:
        ModelError: a missing key, or a value of the wrong type.
    """
    try:
        if isinstance(values, dict) and not values.get("format"):
            values = {FORMER_KEYS.get(key, key): value for key, value in values.items()}
            values["format"] = 0
            values["verification"] = values.get("verification") or None
            graph = values.get("graph", GRAPHS[0])
            values["graph"] = FORMER_GRAPHS.get(graph, graph) if isinstance(graph, str) else graph
        return msgspec.convert(values, ModelSpec)
    except msgspec.ValidationError as error:
        raise ModelError(f"{path} has damaged metadata ({error}): export it again") from None


def read_spec(path: Path, data: bytes | None = None) -> ModelSpec:
    """Read the spec of an ONNX file, without the onnx package, which small devices do not have.

    Args:
        path: the file.
        data: what is in it, if it has been read already.

    Raises:
        InputError: the file cannot be read.
        ModelError: it is not an ONNX file, is cut off, or is not ours.
    """
    try:
        metadata = _metadata(read_bytes(path) if data is None else data)
    except ValueError:
        raise ModelError(f"{path} is not an ONNX file, or is cut off") from None
    return ModelSpec.from_metadata(metadata, path)


def read_operators(data: bytes) -> set[str]:
    """Return the operators of an ONNX file, those of other domains as `DOMAIN.NAME`, without onnx.

    Raises:
        ValueError: it is not an ONNX file, or is cut off.
    """
    found = set()
    for graph in (content for number, content in _fields(memoryview(data)) if number == GRAPH):
        for node in (content for number, content in _fields(graph) if number == NODE):
            parts = dict(_fields(node))
            names = [str(parts.get(number, b""), "utf-8", "replace") for number in (NODE_DOMAIN, NODE_TYPE)]
            found.add(".".join(name for name in names if name not in ("", "ai.onnx")))
    return found


def _metadata(data: bytes) -> dict[str, str]:
    """Return the metadata entries of a serialised ModelProto; ValueError: it is none, or ends too soon."""
    found = {}
    for number, entry in _fields(memoryview(data)):
        if number == METADATA_PROPS:
            parts = dict(_fields(entry))
            found[str(parts.get(1, b""), "utf-8")] = str(parts.get(2, b""), "utf-8")
    return found


def _fields(data: memoryview) -> list[tuple[int, memoryview]]:
    """Return number and bytes of every length-delimited field of a message; others are skipped."""
    found, at = [], 0
    while at < len(data):
        tag, at = _varint(data, at)
        kind = tag & 7
        if kind == 0:
            _, at = _varint(data, at)
        elif kind in (1, 5):
            at += 8 if kind == 1 else 4
        elif kind == 2:
            size, at = _varint(data, at)
            if at + size > len(data):
                raise ValueError("cut off")
            found.append((tag >> 3, data[at : at + size]))
            at += size
        else:
            raise ValueError(f"unknown wire type {kind}")
    return found


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for k in range(10):
        if at + k >= len(data):
            raise ValueError("cut off")
        value |= (data[at + k] & 0x7F) << (7 * k)
        if data[at + k] < 0x80:
            return value, at + k + 1
    raise ValueError("a number that does not end")
