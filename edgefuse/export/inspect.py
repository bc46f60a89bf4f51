"""Looking into an exported file without running it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx

from edgefuse.errors import ModelError
from edgefuse.export.layers import layer_precisions
from edgefuse.runtime.sidecar import read_sidecar
from edgefuse.spec import ModelSpec

__all__ = ["inspect_file"]


def inspect_file(path: Path) -> tuple[ModelSpec, dict[str, int]]:
    """Return a file's spec, receipt included, and the number of its layers by precision.

    Raises:
        ModelError: missing, damaged (its receipt, too) or cut off, not ours, or one that reads data outside
            its folder.
    """
    if not path.is_file():
        raise ModelError(f"no such model file: {path}")
    if path.suffix == ".engine":
        sidecar = read_sidecar(path)
        _check_notes(sidecar.spec, path)
        return sidecar.spec, sidecar.layers
    try:
        graph = onnx.load(path, load_external_data=False)
    except Exception as error:  # protobuf's errors are no others' relatives
        raise ModelError(f"{path} is not a readable ONNX file: {str(error).splitlines()[0]}") from None
    _check_external(graph, path)
    spec = ModelSpec.from_metadata({entry.key: entry.value for entry in graph.metadata_props}, path)
    _check_notes(spec, path)
    try:
        return spec, layer_precisions(graph)
    except onnx.shape_inference.InferenceError as error:
        reason = str(error).strip().splitlines()[0][:160]
        raise ModelError(f"{path} is not a valid ONNX graph: {reason}") from None


def _check_external(graph: onnx.ModelProto, path: Path) -> None:
    folder = path.parent.resolve()
    for tensor in _tensors(graph):
        for entry in tensor.external_data:
            place = (folder / entry.value).resolve()
            if entry.key == "location" and not place.is_relative_to(folder):
                raise ModelError(
                    f"{path} keeps weights in {entry.value}, outside its folder, which is not read: "
                    "use a file written by `edgefuse export`, which holds all of its weights"
                )


def _tensors(message: Any) -> Iterator[onnx.TensorProto]:
    """Find the tensors anywhere in a file: initializers, sparse ones, nodes' attributes, graphs in graphs."""
    if isinstance(message, onnx.TensorProto):
        yield message
        return
    for field, value in message.ListFields():
        if field.message_type is not None:
            for part in [value] if hasattr(value, "ListFields") else value:
                yield from _tensors(part)


NUMBER = (int, float)
MAYBE = (int, float, type(None))
"""A number, or None for infinite."""
PARTS: dict[str, tuple[type, ...]] = {
    "compared_on": (str,),
    "sizes": (list,),
    "max_difference": NUMBER,
    "psnr": MAYBE,
    "ssim": NUMBER,
    "worst": (str,),
    "metrics": (dict,),
    "layers": (dict,),
    "kept": (list,),
    "calibration": (str,),
    "run_on": (str,),
    "gates": (list,),
}
"""What is shown of a receipt."""
GATE: dict[str, tuple[type, ...]] = {
    "name": (str,),
    "limit": NUMBER,
    "value": MAYBE,
    "pair": (str,),
    "passed": (bool,),
}


def _check_notes(spec: ModelSpec, path: Path) -> None:
    """See that a receipt, or none, and the training can be shown: a file of ours may have been changed."""
    receipt = spec.receipt
    if not isinstance(spec.training, dict):
        raise ModelError(f"{path} has damaged notes on its training: export it again")
    if receipt == {}:
        return
    sound = isinstance(receipt, dict) and _fits(receipt, PARTS)
    if sound:
        sound = all(isinstance(number, NUMBER) for number in receipt["metrics"].values())
        sound &= all(isinstance(name, str) for name in (*receipt["sizes"], *receipt["kept"]))
        for gate in receipt["gates"]:
            # Only of a PSNR is None the number; of a gate that fails, none was found.
            sound &= isinstance(gate, dict) and _fits(gate, GATE)
            sound &= sound and (
                gate["value"] is not None or gate["name"].startswith("PSNR") or not gate["passed"]
            )
    if not sound:
        raise ModelError(f"{path} has a damaged receipt: export it again")


def _fits(values: dict[str, Any], wanted: dict[str, tuple[type, ...]]) -> bool:
    return all(name in values and isinstance(values[name], types) for name, types in wanted.items())
