"""Looking into an exported file without running it."""

from pathlib import Path

import onnx

from edgefuse.errors import ModelError
from edgefuse.export.layers import layer_precisions
from edgefuse.runtime.sidecar import read_sidecar
from edgefuse.spec import ModelSpec

__all__ = ["inspect_file"]


def inspect_file(path: Path) -> tuple[ModelSpec, dict[str, int]]:
    """Return a file's spec, receipt included, and the number of its layers by precision.

    Raises:
        ModelError: missing, damaged or cut off, not ours, or one that reads data outside its folder.
    """
    if not path.is_file():
        raise ModelError(f"no such model file: {path}")
    if path.suffix == ".engine":
        sidecar = read_sidecar(path)
        return sidecar.spec, sidecar.layers
    try:
        graph = onnx.load(path, load_external_data=False)
    except Exception as error:  # protobuf's errors are no others' relatives
        raise ModelError(f"{path} is not a readable ONNX file: {str(error).splitlines()[0]}") from None
    _check_external(graph, path)
    spec = ModelSpec.from_metadata({entry.key: entry.value for entry in graph.metadata_props}, path)
    try:
        return spec, layer_precisions(graph)
    except onnx.shape_inference.InferenceError as error:
        reason = str(error).strip().splitlines()[0][:160]
        raise ModelError(f"{path} is not a valid ONNX graph: {reason}") from None


def _check_external(graph: onnx.ModelProto, path: Path) -> None:
    folder = path.parent.resolve()
    for tensor in graph.graph.initializer:
        for entry in tensor.external_data:
            place = (folder / entry.value).resolve()
            if entry.key == "location" and not place.is_relative_to(folder):
                raise ModelError(
                    f"{path} keeps weights in {entry.value}, outside its folder, which is not read: "
                    "use a file written by `edgefuse export`, which holds all of its weights"
                )
