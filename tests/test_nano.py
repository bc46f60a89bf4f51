"""`nano`, which neither the level of infrared nor a dead camera impresses, and its teacher."""

import cv2
import numpy as np
import pytest
import torch

from edgefuse.degrade import level
from edgefuse.images import measure_levels
from edgefuse.train.models.nano import BRIGHT, DEAD_INFRARED, KEPT, Nano, levels_of, tone_of
from edgefuse.train.target import PyramidTarget


def scene(seed=0, side=96):
    """Smooth pictures with some texture, infrared with a hot spot; uint8."""
    rng = np.random.default_rng(seed)
    pictures = []
    for low, high in ((40, 160), (40, 120)):
        soft = cv2.GaussianBlur(rng.standard_normal((side, side)).astype(np.float32), (0, 0), 3)
        soft = (soft - soft.min()) / np.ptp(soft)
        pictures.append(low + (high - low) * soft + rng.normal(0, 2, (side, side)))
    pictures[0][30:50, 40:52] = 215
    return [picture.round().clip(0, 255).astype(np.uint8) for picture in pictures]


def tensors(ir, vis):
    x = torch.from_numpy(np.stack((ir, vis))[None].astype(np.float32) / 255)
    return x, torch.from_numpy(measure_levels(ir, vis))[None]


@pytest.fixture
def network():
    """One whose shares differ from block to block."""
    torch.manual_seed(0)
    network = Nano().eval()
    for shares in (network.near_shares, network.wide_shares):
        torch.nn.init.normal_(shares.weight, std=0.1)
    return network


def fused(network, ir, vis):
    with torch.no_grad():
        return 255 * network(*tensors(ir, vis))[0, 0].numpy()


def test_levels_are_measured_as_everywhere():
    ir, vis = scene()
    x, levels = tensors(ir, vis)
    torch.testing.assert_close(levels_of(x), levels, atol=1e-6, rtol=0)


@pytest.mark.parametrize("make", [Nano, PyramidTarget])
def test_the_level_of_infrared_does_not_count(make, network):
    fuse = network if make is Nano else PyramidTarget()
    ir, vis = scene()
    before = fused(fuse, ir, vis)
    for changed in (level(ir, offset=30), level(ir, offset=-30)):
        assert np.abs(fused(fuse, changed, vis) - before).max() < 0.01
    assert np.sqrt(np.mean((fused(fuse, level(ir, 0.8, 30), vis) - before) ** 2)) < 3  # of rounding


@pytest.mark.parametrize("dead", [0, 90, 255])
def test_with_a_dead_camera_the_other_picture_comes_back_as_it_is(network, dead):
    ir, vis = scene()
    nothing = np.full_like(ir, dead)
    np.testing.assert_allclose(fused(network, nothing, vis), vis, atol=1e-3)
    np.testing.assert_allclose(fused(network, ir, nothing), ir, atol=1e-3)


def test_a_camera_is_dead_by_degrees():
    levels = torch.tensor(
        [[0.5, spread, 0.5, 0.2, spread / 2] for spread in (*DEAD_INFRARED, sum(DEAD_INFRARED) / 2)]
    )
    assert tone_of(levels).both.flatten().tolist() == pytest.approx([0, 1, 0.5])


def test_only_bright_pictures_are_lowered():
    levels = torch.tensor([[0.5, 0.2, visible, 0.2, 0.1] for visible in (0.1, BRIGHT, BRIGHT + 0.2)])
    assert tone_of(levels).shift.flatten().tolist() == pytest.approx([0, 0, 0.2 * (KEPT - 1)])


def test_equal_shares_give_a_blend_without_blocks(network):
    """Bands add up: with all shares alike the answer is one blend, and detail is not blurred."""
    ir, vis = scene()
    median = np.median(ir)
    spread = np.abs(ir - median).mean()
    ir = ir.clip(round(median - spread / 2), round(median + spread / 2))  # nothing is hot
    with torch.no_grad():
        for shares in (network.near_shares, network.wide_shares):
            shares.weight.zero_()
        network.near_shares.bias.fill_(1)
        network.wide_shares.bias.copy_(torch.tensor([1.0, 1, 0, 1, 1, 0, 0, 0.5]))
    of_ir = fused(network, ir, vis)
    with torch.no_grad():
        network.near_shares.bias.zero_()
        network.wide_shares.bias[[0, 1, 3, 4]] = 0
    of_vis = fused(network, ir, vis)
    np.testing.assert_allclose(of_vis, vis, atol=1e-3)
    # Infrared's detail at its gain, on the visible ground.
    gain = float(tone_of(tensors(ir, vis)[1]).warm_gain)
    detail = [image - cv2.blur(image.astype(np.float32), (9, 9)) for image in (of_ir, gain * ir)]
    inner = (slice(12, -12), slice(12, -12))
    assert np.corrcoef(detail[0][inner].ravel(), detail[1][inner].ravel())[0, 1] > 0.99


def test_shares_that_change_do_so_smoothly(network):
    """Between two even pictures nothing but the shares makes edges: none at the borders of blocks."""
    ir, vis = np.full((96, 96), 100, np.uint8), np.full((96, 96), 60, np.uint8)
    ir[:, 48:], vis[:, 48:] = 130, 65
    answer = fused(network, ir, vis)
    steps = np.abs(np.diff(answer[:, 52:92], axis=1)).max(0)
    assert steps[3::4].max() < 1.5 * np.delete(steps, np.s_[3::4]).max() + 0.1


def test_what_is_hot_is_bright_before_a_bright_ground_too():
    ir, vis = scene()
    vis = vis + 90
    target = fused(PyramidTarget(), ir, vis)
    hot = np.zeros(ir.shape, bool)
    hot[32:48, 42:50] = True
    assert target[hot].mean() > target[~hot].mean() + 60


def test_the_target_takes_the_stronger_detail():
    ir, vis = scene()
    ir[30:50, 40:52] = 100
    y, x = np.mgrid[:96, :96]
    ir[:, :48] = (90 + 40 * np.sin(x / 1.3))[:, :48].round()
    vis[:, 48:] = (90 + 40 * np.sin(y / 1.3))[:, 48:].round()
    answer = fused(PyramidTarget(), ir, vis)

    def like(a, b, columns):
        a, b = (v[16:-16, columns] - cv2.blur(v[16:-16, columns].astype(np.float32), (9, 9)) for v in (a, b))
        return np.corrcoef(a.ravel(), b.ravel())[0, 1]

    assert like(answer, ir, slice(8, 40)) > 0.85
    assert like(answer, vis, slice(56, 88)) > 0.85
