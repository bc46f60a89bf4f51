import logging
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgefuse import Fuser
from edgefuse.align import Aligned
from edgefuse.errors import BackendError, InputError, ModelError
from edgefuse.images import luma, measure_levels, read_visible
from edgefuse.metrics import score
from edgefuse.pairs import pair_folders
from edgefuse.runtime.engines import ENGINES, Engine
from edgefuse.runtime.engines.fuser import network_input
from edgefuse.spec import ModelSpec, read_spec
from edgefuse.thermal import as_infrared, read_infrared
from edgefuse.weights import model_file, shipped


class Takes(Engine):
    """An engine that answers one of its inputs, and remembers what it was given."""

    device = "here"

    def __init__(self, channel, divisor=4, levels=False):
        self.channel, self.spec = channel, ModelSpec("fake", divisor, levels=levels)
        self.given: dict = {}
        self.closed = 0

    def run(self, inputs):
        self.given = {name: value.copy() for name, value in inputs.items()}
        return inputs["sources"][:, self.channel : self.channel + 1]

    def close(self):
        self.closed += 1


def test_taking_the_visible_image_gives_it_back_to_the_bit(pair):
    ir, vis = pair
    np.testing.assert_array_equal(Fuser(Takes(1))(ir, vis), vis)
    np.testing.assert_array_equal(Fuser(Takes(1))(ir, luma(vis)), luma(vis))


def test_taking_the_infrared_gives_its_luma(pair):
    ir, vis = pair
    fused = Fuser(Takes(0))(ir, np.repeat(luma(vis)[..., None], 3, -1))
    np.testing.assert_array_equal(fused, np.repeat(ir[..., None], 3, -1))


def test_a_network_gets_repeated_edges_up_to_its_multiple(pair):
    ir, vis = pair
    fake = Takes(1, divisor=8)
    assert Fuser(fake)(ir, vis).shape == vis.shape
    assert fake.given["sources"].shape == (1, 2, 80, 104)
    expected = np.pad(ir, ((0, 5), (0, 3)), mode="edge") / 255
    np.testing.assert_allclose(fake.given["sources"][0, 0], expected, atol=1e-7)


def test_the_buffer_is_kept_for_frames_of_one_size(pair):
    ir, vis = pair[0], luma(pair[1])
    first = network_input(ir, vis, 4)
    again = network_input(vis, ir, 4, first)
    assert again is first
    np.testing.assert_array_equal(again, network_input(vis, ir, 4))
    assert network_input(ir[:50], vis[:50], 4, first) is not first


def test_infrared_of_another_size_is_resized_and_said_once(pair, caplog):
    ir, vis = pair
    fuser = Fuser(Takes(0))
    with caplog.at_level(logging.WARNING, "edgefuse"):
        for _ in range(3):
            assert fuser(ir[:40, :60], vis).shape == vis.shape
    (message,) = caplog.messages
    assert message.startswith("infrared is resized from 60x40 to the visible camera's 101x75")


def test_a_fuser_closes_its_engine(pair):
    fake = Takes(1)
    with Fuser(fake) as fuser:
        fuser(*pair)
        assert fake.closed == 0
    assert fake.closed == 1


def test_levels_are_measured_where_a_network_takes_them(pair):
    ir, vis = pair
    fake = Takes(1, levels=True)
    fuser = Fuser(fake)
    fuser(ir, vis)
    np.testing.assert_array_equal(fake.given["levels"], measure_levels(ir, vis)[None, :4])
    smoothed = np.array([0.1, 0.2, 0.3, 0.4], np.float32)
    fuser(ir, vis, levels=smoothed)
    np.testing.assert_array_equal(fake.given["levels"], smoothed[None])
    fuser.fuse_luma(ir, luma(vis))
    np.testing.assert_array_equal(fake.given["levels"], measure_levels(ir, vis)[None, :4])
    Fuser(plain := Takes(1))(ir, vis)
    assert plain.given.keys() == {"sources"}


def test_levels_are_of_what_infrared_covers(pair):
    ir, vis = pair
    valid = np.zeros_like(ir)
    valid[:, :40] = 255
    fake = Takes(1, levels=True)
    Fuser(fake, align=lambda image, shape: Aligned(image, valid))(ir, vis)
    np.testing.assert_array_equal(fake.given["levels"], measure_levels(ir, vis, valid)[None, :4])


@pytest.mark.parametrize("name", shipped())
@pytest.mark.parametrize("size", [(16, 16), (17, 31), (75, 101), (480, 640)])
def test_shipped_models_fuse_any_size(name, size):
    rng = np.random.default_rng(1)
    ir, vis = rng.integers(0, 256, size, np.uint8), rng.integers(0, 256, (*size, 3), np.uint8)
    fused = Fuser(name)(ir, vis)
    assert fused.shape == vis.shape
    assert fused.dtype == np.uint8
    # Statistics over the frame are summed in another order, which may tip the rounding.
    np.testing.assert_allclose(fused, Fuser(name, threads=1)(ir, vis).astype(int), atol=1)


@pytest.mark.parametrize("name", shipped())
def test_shipped_models_show_what_either_camera_sees(name):
    rng = np.random.default_rng(2)
    ir, vis = (rng.normal(60, 3, (128, 128)) for _ in range(2))
    ir[40:80, 20:50] += 150  # a warm body
    vis[20:100, 70:120] += 90 * (np.arange(50) // 5 % 2)  # a painted fence
    fused = Fuser(name)(ir.astype(np.uint8), vis.astype(np.uint8)).astype(float)
    assert fused[45:75, 25:45].mean() - fused[90:, :50].mean() > 40
    assert fused[25:95, 72:118].std() > 15


@pytest.mark.parametrize("name", shipped())
def test_shipped_files_say_what_they_are(name):
    card = shipped()[name]
    spec = read_spec(card.onnx)
    assert (spec.model, spec.precision, spec.size) == (name, "fp32", None)
    assert spec.training["steps"] >= 4000
    assert spec.verification.passed
    assert not any(Path(folder).is_absolute() for folder in (*spec.training["ir"], *spec.training["vis"]))
    for path in (card.onnx, card.safetensors):
        assert path.stat().st_size < 1_000_000
    assert set(card.quality) >= {"roadscene/test", "llvip/test"}


def test_unusable_arrays_and_threads_are_named(pair):
    ir, vis = pair
    with pytest.raises(InputError, match=r"infrared image has dtype float64"):
        Fuser(Takes(0))(ir / 255, vis)
    with pytest.raises(InputError, match=r"visible image is 10x75"):
        Fuser(Takes(0))(ir, vis[:, :10])
    with pytest.raises(InputError, match="threads is 0, it must be from 1 to 256"):
        Fuser("nano", threads=0)


def test_unusable_models_are_named(tmp_path):
    (tmp_path / "text.onnx").write_text("no model")
    (tmp_path / "empty.onnx").touch()
    whole = model_file("nano").read_bytes()
    (tmp_path / "cut.onnx").write_bytes(whole[: len(whole) // 2])
    for name in ("run.pt", "run.safetensors"):
        (tmp_path / name).touch()
    for model, words in {
        "nanno": "unknown model 'nanno'.*did you mean 'nano'",
        "absent.onnx": "no such model file",
        tmp_path: "is a folder",
        tmp_path / "run.pt": r"run\.pt is a checkpoint: make a model file of it with `edgefuse export ",
        tmp_path / "run.safetensors": "is a checkpoint",
        tmp_path / "text.onnx": "is not an ONNX file, or is cut off",
        tmp_path / "empty.onnx": r"empty\.onnx",
        tmp_path / "cut.onnx": "is not an ONNX file, or is cut off",
    }.items():
        with pytest.raises(ModelError, match=words) as caught:
            Fuser(model, engine="cpu")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"no model"])
def test_openvino_names_unusable_models(tmp_path, content):
    pytest.importorskip("openvino")
    (tmp_path / "bad.onnx").write_bytes(content)
    with pytest.raises(ModelError, match=r"bad\.onnx"):
        Fuser(tmp_path / "bad.onnx", engine="openvino")


def test_every_engine_answers_the_same(pair):
    pytest.importorskip("openvino")
    answers = [Fuser(engine=engine)(*pair).astype(int) for engine in ENGINES if not ENGINES[engine].missing()]
    assert np.abs(answers[0] - answers[1]).max() <= 1


def test_the_former_name_of_an_engine_counts(caplog):
    assert Fuser(engine="onnxruntime").engine.device.startswith("ONNX Runtime on ")
    assert "'onnxruntime' is now called 'cpu' or 'cuda'" in caplog.text


def test_engines_that_cannot_be_used_are_named():
    with pytest.raises(BackendError, match=r"unknown engine 'onnx': known are cpu, cuda, openvino, tensorrt"):
        Fuser(engine="onnx")


def test_without_an_engine_the_error_names_the_extras():
    code = (
        "import sys; sys.modules['onnxruntime'] = sys.modules['openvino'] = None\n"
        "from edgefuse import Fuser, EdgefuseError\n"
        "try: Fuser()\n"
        "except EdgefuseError as error: print(error)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install onnxruntime" in result.stdout
    assert "onnxruntime-gpu" in result.stdout


@pytest.mark.parametrize("data", ["roadscene/test", "llvip/test"])
@pytest.mark.parametrize("name", shipped())
def test_the_quality_that_is_stated_is_the_quality_measured(shared, name, data):
    found = pair_folders(shared / "data" / data / "ir", shared / "data" / data / "vis").pairs
    stated = shipped()[name].quality[data]
    fuser, sums = Fuser(name), dict.fromkeys(stated, 0.0)
    for _, ir_file, vis_file in found:
        ir, vis = read_infrared(ir_file), read_visible(vis_file)
        for metric, value in score(fuser(ir, luma(vis)), ir, vis, metrics=stated).items():
            sums[metric] += value / len(found)
    assert sums == pytest.approx(stated, abs=0.002, rel=0.002)


@pytest.mark.parametrize("engine", [None, Takes(0)])
def test_rgb_in_gives_rgb_out(pair, engine):
    ir, vis = pair
    fuser = Fuser(engine) if engine else Fuser()
    rgb = fuser(ir, vis[:, :, ::-1].copy(), rgb=True)
    np.testing.assert_array_equal(rgb[:, :, ::-1], fuser(ir, vis))
    np.testing.assert_array_equal(fuser(ir, luma(vis), rgb=True), fuser(ir, luma(vis)))


def test_the_answer_is_written_where_it_is_wanted(pair):
    ir, vis = pair
    fuser, out = Fuser(Takes(0)), np.zeros_like(vis)
    assert fuser(ir, vis, out=out) is out
    np.testing.assert_array_equal(out, fuser(ir, vis))
    for wrong in (np.zeros_like(vis[:, :, 0]), vis.astype(np.uint16), vis[1:]):
        with pytest.raises(InputError, match="out is"):
            fuser(ir, vis, out=wrong)


def test_16_bit_infrared_is_taken_as_a_single_image(pair):
    ir, vis = pair
    counts = luma(ir).astype(np.uint16) * 20 + 7000
    fuser = Fuser(Takes(0))
    np.testing.assert_array_equal(fuser(counts, luma(vis)), fuser(as_infrared(counts), luma(vis)))
    with pytest.raises(InputError, match="float32"):
        fuser(counts.astype(np.float32), vis)


def test_swapped_images_are_noticed_by_their_colours(pair):
    ir, vis = pair
    fuser = Fuser(Takes(0))
    for grey in (ir, cv2.cvtColor(ir, cv2.COLOR_GRAY2BGR)):
        fuser(grey, vis)
        with pytest.raises(InputError, match="are they swapped"):
            fuser(vis, grey)
    with pytest.raises(InputError, match="visible image has dtype uint16"):
        fuser(vis, ir.astype(np.uint16))


def test_a_palette_is_removed_from_infrared(pair):
    ir, vis = pair
    coloured = cv2.applyColorMap(ir, cv2.COLORMAP_JET)
    fused = Fuser(Takes(0))(coloured, luma(vis))
    assert cv2.absdiff(fused, Fuser(Takes(0))(ir, luma(vis))).mean() < 3


class TakesColours(Takes):
    """An end-to-end engine that answers the visible image as it gets it."""

    def __init__(self, colours):
        super().__init__(0)
        self.spec = ModelSpec("fake", 1, graph="end_to_end", colours=colours)

    def run(self, inputs):
        self.given = inputs
        return inputs["vis"]


@pytest.mark.parametrize("rgb", [False, True])
@pytest.mark.parametrize("colours", ["bgr", "rgb"])
def test_an_end_to_end_model_gets_its_own_order_of_colours(pair, rgb, colours):
    ir, vis = pair
    engine = TakesColours(colours)
    np.testing.assert_array_equal(Fuser(engine)(ir, vis, rgb=rgb), vis)
    turned = vis if rgb == (colours == "rgb") else vis[:, :, ::-1]
    np.testing.assert_array_equal(engine.given["vis"][0], turned)
