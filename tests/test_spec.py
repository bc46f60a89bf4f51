import json
from dataclasses import replace

import pytest

from edgefuse.errors import InputError, ModelError, unknown_name
from edgefuse.spec import METADATA_KEY, GateResult, ModelSpec, VerificationReport, graph_kind, read_spec
from edgefuse.weights import shipped

REPORT = VerificationReport(
    "two pairs",
    2,
    ("640x480",),
    0.01,
    None,
    1.0,
    "a",
    {"EN": -0.01},
    {"fp16": 3},
    gates=(GateResult("PSNR", 55.0, None, "a", True), GateResult("EN", 0.0, -0.01, "b", False)),
)


def test_a_spec_survives_its_metadata():
    spec = ModelSpec(
        "nano", 4, (640, 480), "fp16", 18, "1.2", {"steps": 3}, REPORT, "end_to_end", "rgb", True
    )
    assert ModelSpec.from_metadata(spec.to_metadata()) == spec
    assert not REPORT.passed


def test_files_of_earlier_versions_are_read():
    gate = {"name": "PSNR", "limit": 40.0, "value": 62.0, "pair": "a", "passed": True}
    receipt = {
        **{"compared_on": "x", "pairs": 1, "sizes": ["64x48"], "max_difference": 0.04, "psnr": None},
        **{"ssim": 1, "worst": "a", "metrics": {"MI": -0.01}, "layers": {"int8": 6}, "kept": ["conv"]},
        **{"calibration": "two, mse", "run_on": "ONNX Runtime on cpu", "gates": [gate], "passed": True},
    }
    values = {"model": "nano", "multiple": 4, "size": [61, 47], "graph": "deploy", "receipt": receipt}
    spec = ModelSpec.from_metadata({METADATA_KEY: json.dumps(values)})
    assert (spec.format, spec.size_divisor, spec.size, spec.graph) == (0, 4, (61, 47), "end_to_end")
    assert spec.verification is not None
    assert spec.verification.passed
    assert spec.verification.gates == (GateResult("PSNR", 40.0, 62.0, "a", True),)
    plain = ModelSpec.from_metadata({METADATA_KEY: '{"model": "nano", "multiple": 4, "receipt": {}}'})
    assert (plain.verification, plain.graph) == (None, "network")


@pytest.mark.parametrize("card", shipped().values(), ids=shipped())
def test_shipped_files_are_read(card):
    for path in filter(None, (card.onnx, card.int8)):
        spec = read_spec(path)
        assert spec.verification is not None
        assert spec.verification.passed


def test_files_of_later_versions_are_read():
    values = json.loads(ModelSpec("nano", 4, verification=REPORT).to_metadata()[METADATA_KEY])
    values |= {"format": 9, "rig": {"a": 1}}
    values["verification"]["energy"] = 3
    values["verification"]["gates"][0]["unit"] = "dB"
    spec = ModelSpec.from_metadata({METADATA_KEY: json.dumps(values)})
    assert spec == replace(ModelSpec("nano", 4, verification=REPORT), format=9)


def test_inputs_and_outputs_are_listed():
    network = ModelSpec("nano", 4, levels=True)
    assert [(t.name, t.dtype, t.shape) for t in network.inputs()] == [
        ("sources", "float32", ("N", 2, "H", "W")),
        ("levels", "float32", ("N", 4)),
    ]
    (fused,) = ModelSpec("nano", 4, (61, 47), graph="end_to_end", colours="rgb").outputs()
    assert (fused.dtype, fused.shape) == ("uint8", (1, 47, 61, 3))
    ir, vis = ModelSpec("nano", 4, graph="end_to_end", colours="rgb").inputs()
    assert str(ir) == "ir uint8 [N, H, W, 1]: infrared, white = hot"
    assert str(vis) == "vis uint8 [N, H, W, 3]: visible, R, G, B"


def test_former_names_of_graphs_count():
    assert [graph_kind(name) for name in ("core", "network", "deploy", "end_to_end", "end-to-end")] == [
        *("network", "network"),
        *("end_to_end", "end_to_end", "end_to_end"),
    ]
    with pytest.raises(InputError, match=r"unknown graph 'netwrok' \(did you mean 'network'"):
        graph_kind("netwrok")


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({}, "edgefuse export"),
        ({METADATA_KEY: "{"}, "damaged"),
        ({METADATA_KEY: "[1]"}, "damaged"),
        ({METADATA_KEY: '{"model": "nano"}'}, "damaged"),
        ({METADATA_KEY: '{"model": "nano", "multiple": 4, "size": [1]}'}, "damaged"),
        ({METADATA_KEY: '{"model": "nano", "size_divisor": 4, "format": 1, "opset": "x"}'}, "damaged.*opset"),
        ({METADATA_KEY: '{"model": "nano", "multiple": 4, "receipt": {"psnr": "high"}}'}, "damaged"),
        ({METADATA_KEY: '{"model": "nano", "multiple": 4, "precision": "fp8"}'}, "fp8"),
        ({METADATA_KEY: '{"model": "\\u001b[2J", "multiple": 4}'}, "control characters"),
        ({METADATA_KEY: '{"model": "nano", "multiple": 0}'}, "size_divisor"),
        ({METADATA_KEY: '{"model": "nano", "multiple": 1000000000}'}, "size_divisor is 1000000000, .*to 256"),
        (
            {METADATA_KEY: '{"model": "nano", "multiple": 4, "size": [0, -5]}'},
            r"size is \(0, -5\), .* from 1",
        ),
        ({METADATA_KEY: '{"model": "nano", "multiple": 4, "size": [64, 99999]}'}, "size is .* to 65536"),
        (
            {METADATA_KEY: '{"model": "nano", "multiple": 4, "level_count": -3}'},
            "level_count is -3, .* 1 to 5",
        ),
        ({METADATA_KEY: '{"model": "nano", "multiple": 4, "graph": "shell"}'}, "graph.*network, end_to_end"),
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
