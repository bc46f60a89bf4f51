"""The restoration in front of `nano`: what it measures, what it can take away."""

import cv2
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from edgefuse.degrade import sensor_noise
from edgefuse.train.models.restoration import PHASES, SMOOTH, Restoration


def phases(ir, vis):
    levels = torch.from_numpy(np.stack([ir, vis])[None].astype(np.float32))
    return F.pixel_unshuffle((levels - 128) / 255, 4)


def picture(p, side=0):
    return 255 * F.pixel_shuffle(p[:, side * PHASES :][:, :PHASES], 4)[0, 0].detach().numpy() + 128


@pytest.fixture
def scene():
    rng = np.random.default_rng(0)
    soft = cv2.GaussianBlur(rng.integers(0, 256, (96, 128)).astype(np.float32), (0, 0), 6)
    levels = 128 + 6 * (soft - soft.mean())
    return levels.clip(0, 255).astype(np.uint8)


def with_gains(filtered=0.0, striped=0.0):
    """A restoration with the same two gains for whatever it sees."""
    restoration = Restoration(channels=4)
    assert restoration.gains.bias is not None
    with torch.no_grad():
        restoration.gains.weight.zero_()
        restoration.gains.bias[: 2 * PHASES] = filtered
        restoration.gains.bias[2 * PHASES : 4 * PHASES] = striped
    return restoration


def test_without_gain_nothing_changes(scene):
    p = phases(scene, scene[::-1])
    restored, trust = with_gains()(p)
    assert torch.equal(restored, p)
    assert torch.equal(trust, torch.ones(1, 4, 1, 1))


def test_the_filter_begins_as_a_gaussian_of_the_whole_picture(scene):
    restored = picture(with_gains(filtered=1.0)(phases(scene, scene))[0])
    taps = cv2.getGaussianKernel(9, SMOOTH)
    expected = cv2.sepFilter2D(scene.astype(np.float32), -1, taps, taps)
    inner = (slice(4, -4), slice(4, -4))
    np.testing.assert_allclose(restored[inner], expected[inner], atol=0.01)


def test_the_columns_begin_as_a_cure_for_stripes(scene):
    striped = sensor_noise(scene, seed=1, columns=8.0, grain=0.0)
    restored, _ = with_gains(striped=1.0)(phases(striped, scene))
    inner = (slice(None), slice(8, -8))
    before, after = (np.abs(p - scene)[inner].mean() for p in (striped.astype(float), picture(restored)))
    assert after < 0.6 * before
    clean, _ = with_gains(striped=1.0)(phases(scene, scene))
    assert np.abs(picture(clean) - scene)[inner].mean() < 0.3 * before


def measured(restoration, p):
    return F.conv2d(p, restoration.bands).abs().mean((2, 3))[0]


def test_what_is_measured_tells_noise_from_none_and_blur_from_sharpness(scene):
    restoration = Restoration(channels=4)
    flat = np.full_like(scene, 200)
    assert measured(restoration, phases(flat, flat)).max() < 1e-6
    noisy = sensor_noise(scene, seed=2)
    of_ir, of_vis = measured(restoration, phases(noisy, scene)).split(4)
    assert (of_ir > 3 * of_vis).all()
    sharp = np.random.default_rng(3).integers(0, 256, scene.shape, dtype=np.uint8)
    blurred = cv2.GaussianBlur(sharp, (0, 0), 1.5)
    of_blurred, of_sharp = measured(restoration, phases(blurred, sharp)).split(4)
    ratio = of_blurred / of_sharp
    assert ratio[0] < 0.2 * ratio[2:].min()  # fine detail goes first


def test_white_noise_answers_alike_to_all_bands():
    noise = np.random.default_rng(4).normal(128, 10, (256, 256)).clip(0, 255).astype(np.uint8)
    found = measured(Restoration(channels=4), phases(noise, noise))
    assert found.max() < 1.25 * found.min()


@pytest.mark.parametrize("peak", [1.0, 255.0])
def test_deployed_it_answers_the_same(scene, peak):
    torch.manual_seed(0)
    restoration = Restoration(channels=4)
    p = phases(sensor_noise(scene, 5), scene)
    expected, trust = restoration(p)
    restoration.deploy(peak)
    restored, again = restoration(peak * p)
    torch.testing.assert_close(restored / peak, expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(again, trust, atol=1e-6, rtol=0)
