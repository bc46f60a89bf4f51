"""Model repositories for Triton: what the server's own messages make of the configuration."""

from dataclasses import replace

import onnx
import pytest

from edgefuse.errors import InputError
from edgefuse.export.pipeline import write_repository
from edgefuse.spec import read_spec
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


def test_a_repository_that_cannot_be_written_is_named(graph, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot make the folder"):
        write_repository(graph(), tmp_path / "file")
