"""What the default model does, held fast: on simulated frames, with a dead camera, in 8 bits, in noise."""

import numpy as np
import pytest

from edgefuse import Fuser
from edgefuse.degrade import level, sensor_noise
from edgefuse.evaluate.baselines import maximum
from edgefuse.images import luma
from edgefuse.metrics import CORE_METRICS, score
from edgefuse.metrics.detail import detail_kept, layers
from edgefuse.sim import Rig, RigConfig
from edgefuse.weights import model_file, shipped

QUALITY = {"EN": 7.18, "MI": 2.926, "VIF": 0.975, "Qabf": 0.675, "SSIM": 1.059}
"""Means over `frames`."""


@pytest.fixture(scope="module")
def frames():
    rig = Rig(RigConfig(size=(320, 240)))
    return [(rig.frame("ir", n), luma(rig.frame("vis", n))) for n in (0, 40, 80)]


@pytest.mark.parametrize(("name", "tolerance"), [("nano-fp32", 0.003), ("nano-int8", 0.02)])
def test_quality_on_simulated_frames_stays(frames, name, tolerance):
    fuser = Fuser(name, engine="cpu")
    scores = [score(fuser(ir, vis), ir, vis, metrics=CORE_METRICS) for ir, vis in frames]
    assert {m: np.mean([s[m] for s in scores]) for m in CORE_METRICS} == pytest.approx(QUALITY, abs=tolerance)


def test_the_file_in_8_bits_is_what_it_says():
    card = shipped()["nano"]
    assert card.int8 == model_file("nano-int8")
    assert card.int8.stat().st_size < 250_000
    spec = Fuser("nano-int8").spec
    assert (spec.model, spec.precision, spec.size) == ("nano", "int8", None)
    assert spec.verification.passed
    assert spec.verification.layers["int8"] == 5
    assert shipped()["cnn"].int8 is None


@pytest.mark.parametrize("name", ["nano", "nano-int8"])
@pytest.mark.parametrize("level_of_all", [0, 128, 255])
def test_with_a_dead_camera_the_other_picture_comes_back(frames, name, level_of_all):
    fuser = Fuser(name, engine="cpu")
    for ir, vis in frames:
        dead = np.full_like(ir, level_of_all)
        assert np.abs(fuser(dead, vis).astype(int) - vis).max() <= 1
        assert np.abs(fuser(ir, dead).astype(int) - ir).max() <= 1


@pytest.mark.parametrize("offset", [40, -40])
def test_how_bright_infrared_happens_to_be_does_not_count(frames, offset):
    fuser = Fuser(engine="cpu")
    for ir, vis in frames:
        ir = level(ir, 0.6, 50)  # so that nothing is cut off
        moved = fuser(level(ir, offset=offset), vis).astype(float) - fuser(ir, vis)
        assert np.sqrt(np.mean(moved**2)) < 0.5


def test_noise_in_infrared_is_kept_out(frames):
    fuser = Fuser(engine="cpu")
    for k, (ir, vis) in enumerate(frames):
        noisy = sensor_noise(ir, seed=k)
        ours, theirs = (
            score(fuse(noisy, vis), ir, vis, metrics=["VIF", "SSIM"]) for fuse in (fuser, maximum)
        )
        assert ours["VIF"] > theirs["VIF"] + 0.3
        assert ours["SSIM"] > theirs["SSIM"] + 0.2


@pytest.mark.parametrize(("name", "most"), [("nano-fp32", 1), ("nano-int8", 4)])
def test_openvino_gives_the_same_picture(frames, name, most):
    pytest.importorskip("openvino")
    here, there = Fuser(name, engine="cpu"), Fuser(name, engine="openvino")
    for ir, vis in frames:
        change = np.abs(here(ir, vis).astype(int) - there(ir, vis))
        assert change.max() <= most
        assert change.mean() < 0.5


def test_with_16_bits_and_the_default_agc_visible_detail_stays():
    """The camera counts the cold sky, too; infrared as a display would show it says where it is brighter."""
    deep, shallow = (Rig(RigConfig(size=(320, 240), ir_depth=depth)) for depth in (16, 8))
    fuser, kept = Fuser(engine="cpu"), []
    for n in (0, 40, 80):
        vis, shown = luma(deep.frame("vis", n)), shallow.frame("ir", n)
        assert deep.frame("ir", n).dtype == np.uint16
        fused = fuser(deep.frame("ir", n), vis)
        found = detail_kept(layers(fused), layers(vis), layers(shown)).dimmed
        assert found is not None
        kept.append(found)
    assert np.mean(kept) > 0.7
