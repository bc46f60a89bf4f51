"""Reading an ONNX file's metadata without the onnx package, which small devices do not have."""

from collections.abc import Iterator
from pathlib import Path

from edgefuse.errors import InputError, ModelError

__all__ = ["parse_metadata", "read_metadata"]

METADATA_PROPS = 14
"""Field of a ModelProto that holds the entries, each a message of key (1) and value (2), see onnx.proto."""


def read_metadata(path: Path) -> dict[str, str]:
    """Return the metadata entries of an ONNX file.

    Raises:
        InputError: the file cannot be read.
        ModelError: it is not an ONNX file, or is cut off.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from None
    try:
        return parse_metadata(data)
    except ValueError:
        raise ModelError(f"{path} is not an ONNX file, or is cut off") from None


def parse_metadata(data: bytes) -> dict[str, str]:
    """Return the metadata entries of a serialised ModelProto.

    Raises:
        ValueError: the bytes are no protocol buffer, or end too soon.
    """
    found = {}
    for number, entry in _fields(memoryview(data)):
        if number == METADATA_PROPS:
            parts = dict(_fields(entry))
            found[str(parts.get(1, b""), "utf-8")] = str(parts.get(2, b""), "utf-8")
    return found


def _fields(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Yield number and bytes of every length-delimited field; others are stepped over."""
    at = 0
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
            yield tag >> 3, data[at : at + size]
            at += size
        else:
            raise ValueError(f"unknown wire type {kind}")


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for k in range(10):
        if at + k >= len(data):
            raise ValueError("cut off")
        value |= (data[at + k] & 0x7F) << (7 * k)
        if data[at + k] < 0x80:
            return value, at + k + 1
    raise ValueError("a number without end")
