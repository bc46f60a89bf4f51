"""Model repositories for Triton: what the server's own messages make of the configuration."""

import os
from dataclasses import replace

import onnx
import pytest

from edgefuse.errors import InputError
from edgefuse.export.pipeline import write_repository
from edgefuse.runtime.engines.engine_cache import (
    BuildOptions,
    Machine,
    Sidecar,
    SizeRange,
    file_hash,
    write_sidecar,
)
from edgefuse.spec import ModelSpec, read_spec
from edgefuse.weights import model_file


def parsed(folder):
    messages = pytest.importorskip("tritonclient.grpc.model_config_pb2")
    from google.protobuf import text_format

    return text_format.Parse((folder / "config.pbtxt").read_text("utf-8"), messages.ModelConfig()), messages


@pytest.fixture
def graph(tmp_path):
    """A file of ours with another spec."""

    def write(**changes):
        made = onnx.load(model_file("cnn"))
        spec = replace(read_spec(model_file("cnn")), **changes)
        onnx.helper.set_model_props(made, spec.to_metadata())
        onnx.save(made, tmp_path / "cnn.onnx")
        return tmp_path / "cnn.onnx"

    return write


@pytest.fixture
def said(monkeypatch):
    """What was warned of."""
    texts: list[str] = []
    monkeypatch.setattr(
        "edgefuse.export.pipeline.logger.warning", lambda text, *facts: texts.append(text % facts)
    )
    return texts


def test_a_graph_of_any_size_is_batched(graph, tmp_path):
    file = graph(levels=True)
    folder = write_repository(file, tmp_path / "models")
    assert (folder / "1" / "model.onnx").read_bytes() == file.read_bytes()
    config, messages = parsed(folder)
    assert (config.name, config.backend, config.max_batch_size) == ("cnn", "onnxruntime", 8)
    assert [(i.name, i.data_type, list(i.dims)) for i in config.input] == [
        ("sources", messages.TYPE_FP32, [2, -1, -1]),
        ("levels", messages.TYPE_FP32, [4]),
    ]
    assert [(o.name, list(o.dims)) for o in config.output] == [("fused", [1, -1, -1])]
    assert config.HasField("dynamic_batching")
    assert [(group.count, group.kind) for group in config.instance_group] == [
        (1, messages.ModelInstanceGroup.KIND_AUTO)
    ]


def test_a_graph_of_images_of_one_size_is_not_batched(graph, tmp_path):
    config, messages = parsed(write_repository(graph(graph="end_to_end", size=(61, 47)), tmp_path / "models"))
    assert config.max_batch_size == 0
    assert not config.HasField("dynamic_batching")
    assert [(i.name, i.data_type, list(i.dims)) for i in config.input] == [
        ("ir", messages.TYPE_UINT8, [1, 47, 61, 1]),
        ("vis", messages.TYPE_UINT8, [1, 47, 61, 3]),
    ]


@pytest.mark.parametrize(("engines", "kind"), [(("cpu", "openvino"), "CPU"), (("cpu", "cuda"), "AUTO")])
def test_a_graph_that_cuda_does_not_take_runs_on_the_servers_cpu(engines, kind, graph, tmp_path, said):
    config, messages = parsed(write_repository(graph(engines=engines), tmp_path / "models"))
    assert config.instance_group[0].kind == messages.ModelInstanceGroup.Kind.Value(f"KIND_{kind}")
    assert ("export the model with --for-tensorrt" in "".join(said)) == (kind == "CPU")


@pytest.mark.parametrize(("batch", "size", "most"), [(3, None, 3), (1, None, 0), (3, (64, 48), 0)])
def test_an_engine_is_served_as_it_was_built(batch, size, most, tmp_path, said):
    file = tmp_path / "a.engine"
    file.write_bytes(b"an engine")
    spec = ModelSpec("a", 1, size, graph="end_to_end", engines=("tensorrt",))
    options = BuildOptions(SizeRange(batch=batch))
    machine = Machine("10.3.0", "12.6", "12.6", "Orin", "8.7", "14")
    write_sidecar(file, Sidecar(machine, "a.onnx", "0", file_hash(file), {}, options, spec, {}))
    folder = write_repository(file, tmp_path / "models")
    assert (folder / "1" / "model.plan").read_bytes() == b"an engine"
    config, messages = parsed(folder)
    assert (config.name, config.backend, config.max_batch_size) == ("a", "tensorrt", most)
    assert [(i.name, i.data_type) for i in config.input] == [
        ("ir", messages.TYPE_UINT8),
        ("vis", messages.TYPE_UINT8),
    ]
    assert not said


@pytest.mark.skipif(os.name == "nt", reason="names of files there have no such characters")
def test_a_name_is_escaped(graph, tmp_path):
    name = 'a "b" \\ ä'
    file = graph().rename(tmp_path / f"{name}.onnx")
    assert parsed(write_repository(file, tmp_path / "models"))[0].name == name


def test_a_repository_that_cannot_be_written_is_named(graph, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot make the folder"):
        write_repository(graph(), tmp_path / "file")
