from typing import Any

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from edgefuse.errors import InputError
from edgefuse.train.config import LossConfig
from edgefuse.train.losses import (
    Batch,
    active_losses,
    add_loss,
    gradient,
    gradient_loss,
    intensity_loss,
    share,
    ssim,
    ssim_loss,
    total_loss,
)

SEEDS = st.integers(0, 2**31)
GRADIENT_SCALES: tuple[Any, ...] = ("image", "batch", "none")


def fusion_losses(fused, ir, vis, config, score=None):
    names = active_losses(config, adversarial=score is not None)
    return total_loss(Batch(fused, ir, vis, noisy=torch.zeros(len(fused)), critic_score=score), config, names)


def distillation_losses(fused, target, vis, noisy, config):
    names = active_losses(config, teacher=True)
    return total_loss(Batch(fused, vis, vis, target, noisy), config, names)


def images(seed, count=3, shape=(2, 1, 24, 33)):
    generator = torch.Generator().manual_seed(seed)
    return [torch.rand(shape, generator=generator) for _ in range(count)]


def plain_ssim(a, b):
    """The definition, with a two-dimensional window and one image at a time."""
    taps = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
    window = torch.tensor(np.outer(taps, taps) / taps.sum() ** 2, dtype=torch.float64)[None, None]

    def blur(x):
        return F.conv2d(F.pad(x.double(), (5, 5, 5, 5), mode="reflect"), window)

    ma, mb = blur(a), blur(b)
    va, vb, vab = blur(a * a) - ma**2, blur(b * b) - mb**2, blur(a * b) - ma * mb
    c1, c2 = 1e-4, 9e-4
    return (((2 * ma * mb + c1) * (2 * vab + c2)) / ((ma**2 + mb**2 + c1) * (va + vb + c2))).mean((1, 2, 3))


@settings(max_examples=20)
@given(SEEDS)
def test_ssim_is_its_definition(seed):
    a, b, _ = images(seed)
    torch.testing.assert_close(ssim(a, b).double(), plain_ssim(a, b), atol=2e-6, rtol=0)
    torch.testing.assert_close(ssim(a, b), ssim(b, a))
    torch.testing.assert_close(ssim(a, a), torch.ones(2))


def test_shares_add_up_to_one():
    a, b, _ = images(0)
    torch.testing.assert_close(share(a, b) + share(b, a), torch.ones_like(a), atol=1e-5, rtol=0)
    assert share(torch.zeros(1), torch.zeros(1)) == 0


@given(SEEDS)
def test_the_intensity_loss_wants_the_closed_form(seed):
    ir, vis, fused = images(seed)
    best = (ir * ir + vis * vis) / (ir + vis)
    assert intensity_loss(best, ir, vis) < 1e-6
    torch.testing.assert_close(intensity_loss(fused, ir, vis), (fused - best).abs().mean())


def test_the_gradient_is_a_sobel_magnitude_over_each_image_from_0_to_1():
    ramp = torch.zeros(1, 1, 16, 16)
    ramp[..., 8:] = 1.0
    answer = gradient(torch.cat((ramp, ramp * 0.5)))
    assert answer[0].max() == answer[1].max() == 1  # each image by its own range
    assert answer[0, 0, :, :6].abs().max() == answer[0, 0, :, 10:].abs().max() == 0  # no edge at the borders
    assert (answer[0, 0, :, 7:9] == 1).all()
    faint = gradient(ramp / 1000)
    assert faint.max() < 0.3  # an edge far below one grey level is not stretched to a full one


def plain_sobel(x):
    kernel = torch.tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]], dtype=torch.float64)
    padded = F.pad(x.double(), (1, 1, 1, 1), mode="replicate")
    across, down = (F.conv2d(padded, k[None, None]) for k in (kernel, kernel.T))
    return torch.sqrt(across**2 + down**2)


@settings(max_examples=10)
@given(SEEDS)
def test_the_gradient_is_the_sobel_magnitude(seed):
    x, _, _ = images(seed)
    expected = plain_sobel(x)
    torch.testing.assert_close(gradient(x, "none").double(), expected / 4, atol=1e-4, rtol=0)
    low, high = expected.amin((2, 3), keepdim=True), expected.amax((2, 3), keepdim=True)
    stretched = (expected - low) / (high - low)
    torch.testing.assert_close(gradient(x, "image").double(), stretched, atol=1e-4, rtol=0)


@pytest.mark.parametrize("scale", GRADIENT_SCALES)
@settings(max_examples=10)
@given(seed=SEEDS)
def test_the_gradient_loss_is_equation_5(scale, seed):
    ir, vis, fused = images(seed)
    g_ir, g_vis, g = (gradient(x, scale) for x in (ir, vis, fused))
    of_ir = g_ir / (g_ir + g_vis)
    weighted = (g - (of_ir * g_ir + (1 - of_ir) * g_vis)).abs().mean()
    torch.testing.assert_close(gradient_loss(fused, ir, vis, scale), weighted, atol=1e-5, rtol=0)
    larger = (g - torch.maximum(g_ir, g_vis)).abs().mean()
    torch.testing.assert_close(gradient_loss(fused, ir, vis, scale, "larger"), larger)


@pytest.mark.parametrize("loss", [intensity_loss, gradient_loss, ssim_loss])
@given(seed=SEEDS)
def test_losses_do_not_care_which_source_is_which(loss, seed):
    ir, vis, fused = images(seed)
    torch.testing.assert_close(loss(fused, ir, vis), loss(fused, vis, ir))


@pytest.mark.parametrize("loss", [intensity_loss, gradient_loss, ssim_loss])
def test_equal_sources_are_best_kept(loss):
    ir, other = images(3, 2)
    assert loss(ir, ir, ir) < 2e-6
    assert loss(other, ir, ir) > 0.05


def test_the_ssim_loss_weighs_the_nearer_source_more():
    ir, vis, _ = images(5)
    fused = 0.9 * ir + 0.1 * vis
    s_ir, s_vis = ssim(ir, fused), ssim(vis, fused)
    expected = (1 - (s_ir**2 + s_vis**2) / (s_ir + s_vis)).mean()
    assert (s_vis > 0).all()
    torch.testing.assert_close(ssim_loss(fused, ir, vis), expected, atol=1e-6, rtol=0)


FLAT = {
    "black": torch.zeros(1, 1, 32, 32),
    "white": torch.ones(1, 1, 32, 32),
    "grey": torch.full((1, 1, 32, 32), 0.5),
    "noise": torch.rand(1, 1, 32, 32, generator=torch.Generator().manual_seed(0)),
}


CHOICES = [
    LossConfig(),
    *(LossConfig(gradient_scale=scale) for scale in GRADIENT_SCALES if scale != "image"),
    LossConfig(gradient_target="larger", intensity_power=2),
    LossConfig(ssim_weights="batch"),
]


@pytest.mark.parametrize("config", CHOICES)
@pytest.mark.parametrize("fused", FLAT)
@pytest.mark.parametrize("ir", FLAT)
@pytest.mark.parametrize("vis", FLAT)
def test_gradients_are_finite_on_flat_and_identical_images(fused, ir, vis, config):
    output = FLAT[fused].clone().requires_grad_()
    total, terms = fusion_losses(output, FLAT[ir], FLAT[vis], config)
    total.backward()
    assert torch.isfinite(total)
    assert all(torch.isfinite(term) for term in terms.values())
    assert output.grad is not None
    assert torch.isfinite(output.grad).all()
    assert output.grad.abs().max() < 10


def test_scoring_first_does_not_keep_training_from_its_gradients():
    a, b, _ = images(1, shape=(1, 1, 37, 41))  # sides that nothing else uses
    with torch.inference_mode():
        ssim(a, b)
    a.requires_grad_()
    ssim(a, b).sum().backward()
    assert a.grad is not None
    torch.testing.assert_close(ssim(a.double(), b.double()), plain_ssim(a, b), atol=1e-9, rtol=0)


def test_images_too_small_for_the_window_are_refused():
    a, b, _ = images(1, shape=(1, 1, 16, 5))
    with pytest.raises(InputError, match="at least 6 pixels a side, one has 5"):
        ssim(a, b)


def test_the_total_is_the_weighted_sum_of_its_terms():
    ir, vis, fused = images(9)
    total, terms = fusion_losses(fused, ir, vis, LossConfig(1, 2, 0.5))
    torch.testing.assert_close(total, terms["intensity"] + 2 * terms["gradient"] + 0.5 * terms["ssim"])


def test_gradient_scales():
    ramp = torch.zeros(1, 1, 16, 16)
    ramp[..., 8:] = 0.5
    both = torch.cat((ramp, ramp / 2))
    assert gradient(both, "image").amax((1, 2, 3)).tolist() == [1, 1]
    assert gradient(both, "batch").amax((1, 2, 3)).tolist() == pytest.approx([1, 0.5], abs=1e-3)
    assert gradient(both, "none").amax((1, 2, 3)).tolist() == pytest.approx([0.5, 0.25], abs=1e-4)
    with pytest.raises(InputError, match=r"'frame'.*batch, image, none"):
        LossConfig(gradient_scale="frame")  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [-1, float("nan"), float("inf")])
def test_impossible_weights_are_refused(value):
    with pytest.raises(InputError, match="gradient"):
        LossConfig(gradient=value)


def test_weights_of_ssim_may_come_from_the_batch():
    ir, vis, _ = images(3)
    share_of_ir = torch.tensor([0.8, 0.4]).view(2, 1, 1, 1)
    fused = share_of_ir * ir + (1 - share_of_ir) * vis
    s_ir, s_vis = ssim(ir, fused), ssim(vis, fused)
    weight = s_ir.mean() / (s_ir.mean() + s_vis.mean())
    expected = (1 - (weight * s_ir + (1 - weight) * s_vis)).abs().mean()
    torch.testing.assert_close(ssim_loss(fused, ir, vis, "batch"), expected)
    assert not torch.isclose(ssim_loss(fused, ir, vis, "image"), expected, atol=1e-3, rtol=0)
    alone = fused[:1], ir[:1], vis[:1]
    torch.testing.assert_close(ssim_loss(*alone, "batch"), ssim_loss(*alone, "image"))


def test_a_good_score_lowers_the_total():
    ir, vis, fused = images(4)
    without, plain = fusion_losses(fused, ir, vis, LossConfig())
    score = torch.tensor([0.5, -0.1])
    total, terms = fusion_losses(fused, ir, vis, LossConfig(adversarial=0.3), score)
    assert list(terms) == [*plain, "adversarial"]
    torch.testing.assert_close(total, without - 0.3 * 0.2)


def test_targets_beyond_the_papers():
    ir, vis, _ = images(5)
    best = (ir**3 + vis**3) / (ir**2 + vis**2)
    assert intensity_loss(best, ir, vis, 2.0) < 1e-6
    assert intensity_loss(best, ir, vis) > 1e-3
    step = torch.zeros(1, 1, 16, 16)
    step[..., 8:] = 1.0
    flat = torch.full_like(step, 0.5)
    assert gradient_loss(step, step, flat, "none", "larger") < 1e-6
    for changes in ({"gradient_target": "steepest"}, {"intensity_power": 0.0}):
        with pytest.raises(InputError, match=next(iter(changes)).replace("_", ".")):
            LossConfig(**changes)


def test_a_teacher_is_matched_in_level_slope_and_structure():
    a, b, vis = images(7)
    config = LossConfig(intensity=1, gradient=0.5, ssim=0.25, fallback=0.125)
    spoilt = torch.tensor([1.0, 0.0])
    total, terms = distillation_losses(a, b, vis, spoilt, config)
    expected = terms["intensity"] + 0.5 * terms["gradient"] + 0.25 * terms["ssim"] + 0.125 * terms["fallback"]
    torch.testing.assert_close(total, expected)
    torch.testing.assert_close(terms["intensity"], (a - b).abs().mean())
    torch.testing.assert_close(terms["ssim"], 1 - ssim(a, b).mean())
    torch.testing.assert_close(terms["fallback"], (1 - ssim(a, vis)[0]) / 2)
    # OpenCV's Sobel kernels, whose answer to a step from 0 to 1 is 4, as the reference.
    difference = (a - b).numpy()
    slopes = [
        np.abs(cv2.Sobel(image, cv2.CV_32F, dx, 1 - dx, borderType=cv2.BORDER_REPLICATE)).mean()
        for image in difference[:, 0]
        for dx in (0, 1)
    ]
    assert float(terms["gradient"]) == pytest.approx(2 * np.mean(slopes) / 4, rel=1e-5)
    same, _ = distillation_losses(b, b, vis, torch.zeros(2), config)
    assert abs(same) < 1e-6


def test_slopes_of_the_wrong_sign_cost_although_their_size_is_right():
    ramp = torch.linspace(0.2, 0.8, 32).expand(1, 1, 32, 32)
    _, terms = distillation_losses(ramp.flip(3), ramp, ramp, torch.zeros(1), LossConfig())
    assert terms["gradient"] > 0.03
    assert gradient_loss(ramp.flip(3), ramp, ramp, "none") < 1e-6


def test_a_loss_is_named_with_its_weight():
    assert add_loss("ssim") == ("ssim", 1.0)
    assert add_loss("ssim=0.25") == ("ssim", 0.25)
    with pytest.raises(InputError, match="the weight in --loss ssim=much is 'much', it must be a number"):
        add_loss("ssim=much")
    with pytest.raises(InputError, match="simm"):
        add_loss("simm")
