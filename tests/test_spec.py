import json

import pytest

from edgefuse.errors import ModelError, unknown_name
from edgefuse.spec import METADATA_KEY, ModelSpec


def test_a_spec_survives_its_metadata():
    spec = ModelSpec("nano", 4, (640, 480), "fp16", 18, "1.2", {"steps": 3}, {"psnr": None}, "deploy", "rgb")
    assert ModelSpec.from_metadata(spec.to_metadata()) == spec


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({}, "edgefuse export"),
        ({METADATA_KEY: "{"}, "damaged"),
        ({METADATA_KEY: "[1]"}, "damaged"),
        ({METADATA_KEY: '{"model": "nano"}'}, "damaged"),
        ({METADATA_KEY: '{"model": "nano", "multiple": 4, "size": [1]}'}, "damaged"),
        ({METADATA_KEY: '{"model": "nano", "multiple": 4, "version": "9.9", "rig": 1}'}, "9.9.*rig"),
        ({METADATA_KEY: '{"model": "nano", "multiple": 4, "precision": "fp8"}'}, "fp8"),
        ({METADATA_KEY: '{"model": "nano", "multiple": 0}'}, "multiple"),
        ({METADATA_KEY: '{"model": "nano", "multiple": 4, "graph": "shell"}'}, "graph.*core, deploy"),
    ],
)
def test_unusable_metadata_is_named(metadata, words):
    with pytest.raises(ModelError, match=words):
        ModelSpec.from_metadata(metadata, "x.onnx")


def test_metadata_is_one_entry_of_plain_json():
    (text,) = ModelSpec("nano", 4).to_metadata().values()
    assert json.loads(text)["model"] == "nano"


def test_unknown_names_list_the_known_ones():
    assert unknown_name("sink", "x", []) == "unknown sink 'x': known are none"
    assert (
        unknown_name("sink", "vidio", ["video"])
        == "unknown sink 'vidio' (did you mean 'video'?): known are video"
    )
