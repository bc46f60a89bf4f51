"""A model repository for NVIDIA's Triton Inference Server."""

import shutil
from pathlib import Path

from edgefuse.errors import InputError
from edgefuse.files import replace_file
from edgefuse.runtime.engines.engine_cache import read_sidecar
from edgefuse.spec import ModelSpec, Tensor, read_spec

MAX_BATCH = 8
"""Most frames that the server puts together, where a graph takes any number."""
TYPES = {"uint8": "TYPE_UINT8", "float32": "TYPE_FP32"}


def write_repository(file: Path, folder: Path) -> Path:
    """Put a model file and its configuration where Triton looks for them: `FOLDER/NAME/1/model.onnx`.

    Args:
        file: `.onnx`, run by the server's ONNX Runtime, or `.engine`, run by its TensorRT.
        folder: the model repository; it is made if need be, other models in it stay.

    Returns:
        The model's folder.

    Raises:
        InputError: the folder cannot be written.
        ModelError: not a model file of ours.
    """
    engine = file.suffix == ".engine"
    spec, batch = (read_spec(file), MAX_BATCH) if not engine else _of_engine(file)
    model = folder / file.stem
    try:
        (model / "1").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make the folder {model / '1'}: {error.strerror or error}") from None
    target = model / "1" / ("model.plan" if engine else "model.onnx")
    replace_file(target, lambda partial: shutil.copyfile(file, partial))
    text = _configuration(file.stem, spec, "tensorrt" if engine else "onnxruntime", batch)
    replace_file(model / "config.pbtxt", lambda partial: partial.write_text(text, encoding="utf-8"))
    return model


def _of_engine(file: Path) -> tuple[ModelSpec, int]:
    sidecar = read_sidecar(file)
    return sidecar.spec, sidecar.options.sizes.batch


def _configuration(name: str, spec: ModelSpec, backend: str, batch: int) -> str:
    """Return the text of `config.pbtxt`."""
    batched = spec.size is None and batch > 1
    lines = [
        f'name: "{name}"',
        f'backend: "{backend}"',
        f"max_batch_size: {batch if batched else 0}",
        *(_tensor("input", tensor, batched) for tensor in spec.inputs()),
        *(_tensor("output", tensor, batched) for tensor in spec.outputs()),
        "instance_group [ { count: 1 kind: KIND_AUTO } ]",
    ]
    return "\n".join([*lines, *(["dynamic_batching { }"] if batched else [])]) + "\n"


def _tensor(kind: str, tensor: Tensor, batched: bool) -> str:
    sides = tensor.shape[1:] if batched else tensor.shape  # of a batch, the server adds the first
    dims = ", ".join("-1" if isinstance(side, str) else str(side) for side in sides)
    return f'{kind} [ {{ name: "{tensor.name}" data_type: {TYPES[tensor.dtype]} dims: [ {dims} ] }} ]'
