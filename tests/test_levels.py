import statistics

import numpy as np
import pytest

from edgefuse.images import luma, measure_levels


def expected(image):
    median = statistics.median_grouped(image.ravel().tolist())
    away = image - median
    return [median / 255, np.abs(away).mean() / 255, away.clip(0).mean() / 255]


def test_levels_are_median_and_mean_deviation_of_each_picture(pair):
    ir, vis = pair
    levels = measure_levels(ir, vis)
    assert levels.shape == (5,)
    assert levels.dtype == np.float32
    np.testing.assert_allclose(
        levels, [*expected(ir)[:2], *expected(luma(vis))[:2], expected(ir)[2]], atol=1e-6
    )


def test_only_valid_pixels_count_in_both_pictures(pair):
    ir, vis = pair[0], luma(pair[1])
    valid = np.zeros_like(ir)
    valid[:, :40] = 255
    valid[:, 40:60] = 127  # the soft edge, less than half
    np.testing.assert_array_equal(measure_levels(ir, vis, valid), measure_levels(ir[:, :40], vis[:, :40]))


def test_where_nothing_is_valid_everything_counts(pair):
    ir, vis = pair
    np.testing.assert_array_equal(measure_levels(ir, vis, np.zeros_like(ir)), measure_levels(ir, vis))


@pytest.mark.parametrize("grey", [0, 7, 255])
def test_a_flat_picture_has_no_spread(grey):
    flat = np.full((16, 16), grey, np.uint8)
    np.testing.assert_allclose(measure_levels(flat, flat), [*[grey / 255, 0] * 2, 0], atol=1e-7)
