"""The video's contrast stretch: full range, no flicker, noise not blown up."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefuse.runtime.compose import MAX_GAIN, Contrast, curve


def dull(seed=0, low=60, high=190):
    rng = np.random.default_rng(seed)
    return rng.integers(low, high + 1, (96, 128, 3), dtype=np.uint8)


def test_a_dull_picture_fills_the_range():
    stretched = Contrast()(dull())
    assert stretched.shape == (96, 128, 3)
    assert np.percentile(stretched.mean(2), 1) < 40
    assert np.percentile(stretched.mean(2), 99) > 215


@given(st.floats(0, 255), st.floats(0, 255))
def test_the_curve_rises_stays_in_range_and_keeps_to_its_gain(a, b):
    levels = curve(min(a, b), max(a, b)).astype(int)
    steps = np.diff(levels)
    assert steps.min() >= 0
    assert steps.max() <= np.ceil(MAX_GAIN)
    assert levels[round(max(a, b))] - levels[round(min(a, b))] >= abs(a - b) - 2


def test_dark_stays_dark_and_bright_stays_bright():
    assert Contrast()(dull(low=5, high=25)).max() < 60
    assert Contrast()(dull(low=220, high=240)).min() > 190


def test_a_still_scene_keeps_its_curve():
    contrast = Contrast()
    first = contrast(dull())
    assert all((contrast(dull()) == first).all() for _ in range(5))


def test_a_lamp_that_lights_up_does_not_make_the_picture_jump():
    contrast, each = Contrast(), []
    for n in range(40):
        frame = dull(low=60, high=120)
        if n >= 10:
            frame[:20, :20] = 255  # 3 % of the picture
        each.append(contrast(frame)[50:, 50:].astype(float).mean())
    steps = np.abs(np.diff(each))
    assert steps.max() < 6
    per_image = abs(Contrast()(dull(low=60, high=120))[50:, 50:].mean() - each[-1])
    assert per_image == pytest.approx(steps.sum(), rel=0.2)
    assert per_image > 20


def test_grey_pictures_too():
    assert Contrast()(dull()[..., 0]).shape == (96, 128)
