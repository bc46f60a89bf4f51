"""What must hold for any images: identity, range, symmetry, invariances, and a number in every case."""

import math

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgefuse.images import Image
from edgefuse.metrics import (
    METRICS,
    PROTOCOLS,
    FusionScorer,
    correlation,
    entropy,
    mutual_information,
    score,
    ssim,
    vif,
)
from edgefuse.metrics.fidelity import LEAST, NOISE, Moments, _left_over, _moments, scales_of
from edgefuse.metrics.windows import bands, gaussian

ROUNDING = 1e-4
# No variance of grey levels is above 127.5².
MOST_INFORMATION = math.log(1 + 127.5**2 / 2)
# Lowest and highest score of any triple.
RANGES = {
    "EN": (0, 8),
    "MI": (0, 2 * 8 * math.log(2)),
    "VIF": (0, 2 * MOST_INFORMATION / LEAST),
    "Qabf": (0, 1),
    "SSIM": (-2, 2),
    "SD": (0, 127.5),
    "SF": (0, 255 * math.sqrt(2)),
    "AG": (0, 255),
    "SCD": (-2, 2),
    "CC": (-1, 1),
    "PSNR": (-math.inf, 100),
    "VIF_ir": (0, MOST_INFORMATION / LEAST),
    "VIF_vis": (0, MOST_INFORMATION / LEAST),
    "Qcb": (0, 1),
    "Qcv": (0, math.inf),
    **dict.fromkeys(("Detail_ir", "Detail_vis", "Detail_ir_rest", "Detail_vis_rest"), (-math.inf, math.inf)),
    **dict.fromkeys(("Area_ir", "Area_vis", "Target"), (0, 1)),
}
few = settings(max_examples=40)


@st.composite
def triples(draw: st.DrawFn) -> tuple[Image, Image, Image]:
    """Three images of one size from 16×16 up, odd ones too."""
    shape = draw(st.tuples(st.integers(16, 50), st.integers(16, 50)))
    return draw(one_image(shape)), draw(one_image(shape)), draw(one_image(shape))


def one_image(shape: tuple[int, int]) -> st.SearchStrategy[Image]:
    rng = st.integers(0, 2**32 - 1).map(np.random.default_rng)
    noise = rng.map(lambda r: r.integers(0, 256, shape).astype(np.uint8))
    smooth = noise.map(lambda image: cv2.GaussianBlur(image, (0, 0), 4))
    constant = st.sampled_from([0, 1, 128, 254, 255]).map(lambda level: np.full(shape, level, np.uint8))
    nearly = rng.map(lambda r: (250 + (r.random(shape) < 0.01)).astype(np.uint8))
    binary = rng.map(lambda r: (255 * (r.random(shape) < r.random())).astype(np.uint8))
    return st.one_of(noise, smooth, constant, nearly, binary)


def textured(seed: int = 0, shape: tuple[int, int] = (61, 83)) -> Image:
    noise = np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)
    return cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 2), None, 20, 235, cv2.NORM_MINMAX)


def test_ranges_are_stated_for_all() -> None:
    assert RANGES.keys() == METRICS.keys()


@pytest.mark.parametrize("protocol", PROTOCOLS)
@few
@given(images=triples())
def test_scores_are_finite_and_in_range(protocol: str, images: tuple[Image, Image, Image]) -> None:
    for name, parts in FusionScorer(images[1], images[2], protocol).parts(images[0]).items():
        low, high = RANGES[name]
        for value in parts:
            assert value is None or (math.isfinite(value) and low - ROUNDING <= value <= high + ROUNDING), (
                name
            )


@few
@given(images=triples())
def test_the_sources_have_equal_rights(images: tuple[Image, Image, Image]) -> None:
    fused, ir, vis = images
    found, swapped = score(fused, ir, vis), score(fused, vis, ir)
    for one, other in (("_ir", "_vis"), ("_vis", "_ir")):
        for name in [name for name in found if one in name]:
            assert found.pop(name) == pytest.approx(swapped[name.replace(one, other)], rel=1e-5, abs=1e-5)
    found.pop("Target", None)
    assert found == pytest.approx({name: swapped[name] for name in found}, rel=1e-5, abs=1e-5)


@few
@given(images=triples())
def test_symmetric_measures(images: tuple[Image, Image, Image]) -> None:
    a, b, _ = images
    for measure in (mutual_information, ssim, correlation):
        assert measure(a, b) == pytest.approx(measure(b, a), abs=1e-5)


@few
@given(images=triples())
def test_identity_is_best(images: tuple[Image, Image, Image]) -> None:
    a, b, _ = images
    assert ssim(a, a) == pytest.approx(1, abs=1e-6)
    assert ssim(a, b) <= 1 + 1e-6
    assert vif(a, a) == pytest.approx(float(information(a) >= LEAST), abs=ROUNDING)
    assert mutual_information(a, a) == pytest.approx(entropy(a) * math.log(2), abs=1e-9)
    assert mutual_information(a, b) <= mutual_information(a, a) + 1e-9
    assert correlation(a, a) == pytest.approx(1 if a.std() > 0 else 0, abs=1e-5)
    of_itself, of_other = (score(image, a, a, metrics=["Qabf"])["Qabf"] for image in (a, b))
    assert of_itself >= of_other - 1e-3


def information(image: Image) -> float:
    """Mean of log(1 + variance / 2) over VIF's windows."""
    parts = [scale[band] for scale in scales_of(image) for band in range(len(scale))]
    return sum(p.information for p in parts) / sum(p.spread.size for p in parts) - math.log(NOISE)


@few
@given(images=triples())
def test_no_image_explains_more_than_it_holds(images: tuple[Image, Image, Image]) -> None:
    source, image, _ = images
    if information(source) >= LEAST:
        assert vif(source, image) * information(source) <= information(image) + 1e-5
    else:
        assert vif(source, image) == 0


def test_a_source_without_information_lifts_no_score() -> None:
    flat = np.full((61, 83), 90, np.uint8)
    speckled = flat + (np.random.default_rng(0).random(flat.shape) < 0.01).astype(np.uint8)
    for source in (flat, speckled):
        for image in (source, flat, textured()):
            assert vif(source, image) == 0
        parts = FusionScorer(source, textured()).parts(textured(), ["VIF"])["VIF"]
        assert parts == pytest.approx((1, 0, 1, 0), abs=ROUNDING)
    assert vif(flat + (flat_noise() > 0), flat + (flat_noise() > 0)) == pytest.approx(1, abs=ROUNDING)


def flat_noise() -> Image:
    return np.random.default_rng(1).integers(0, 2, (61, 83)).astype(np.uint8)


@few
@given(images=triples(), data_range=st.sampled_from([2.0, 255.0]))
def test_ssim_is_that_of_exact_integers(images: tuple[Image, Image, Image], data_range: float) -> None:
    a, b = images[0].astype(np.int64), images[1].astype(np.int64)

    def sums(values: np.ndarray) -> np.ndarray:
        windows = np.lib.stride_tricks.sliding_window_view(values, (7, 7))
        return windows.sum(axis=(2, 3))

    c1, c2 = (0.01 * data_range) ** 2 * 49**2, (0.03 * data_range) ** 2 * 49 * 48
    mean_a, mean_b = sums(a), sums(b)
    var_a, var_b = 49 * sums(a * a) - mean_a**2, 49 * sums(b * b) - mean_b**2
    above = (2 * mean_a * mean_b + c1) * (2 * (49 * sums(a * b) - mean_a * mean_b) + c2)
    exact = above / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))
    assert ssim(images[0], images[1], data_range) == pytest.approx(exact.mean(), abs=1e-5)


def test_identity_of_a_textured_image() -> None:
    a = textured()
    found = score(a, a, a)
    assert found["Qabf"] == pytest.approx(0.9994 * 0.9879 / (1 + math.exp(-22 * 0.2)), abs=1e-3)
    assert found["PSNR"] == 100
    assert found["CC"] == pytest.approx(1)
    assert found["SCD"] == 0  # nothing was added to either source


@few
@given(images=triples(), flip=st.sampled_from([0, 1, -1]))
def test_mirroring_all_three_changes_nothing(images: tuple[Image, Image, Image], flip: int) -> None:
    # VIF takes every second window from the top left, and Qcv has its blocks from there.
    names = [name for name in METRICS if "VIF" not in name and name not in ("Qabf", "Qcv")]
    fused, ir, vis = (cv2.flip(image, flip) for image in images)
    assert score(fused, ir, vis, metrics=names) == pytest.approx(
        score(images[0], images[1], images[2], metrics=names), rel=1e-4, abs=1e-4
    )


def test_entropy_and_mi_ignore_which_level_is_which() -> None:
    a, b = textured(1), textured(2)
    permuted = np.random.default_rng(3).permutation(256).astype(np.uint8)[a]
    assert entropy(permuted) == pytest.approx(entropy(a))
    assert mutual_information(permuted, b) == pytest.approx(mutual_information(a, b))


def test_vif_ignores_brightness_and_rewards_contrast() -> None:
    a = textured() // 2
    assert vif(a, a + 40) == pytest.approx(1, abs=ROUNDING)
    assert vif(a, a * 2) > 1.01
    assert vif(a, cv2.blur(a, (5, 5))) < 0.7
    assert vif(a, 255 - a) == pytest.approx(0, abs=ROUNDING)  # an inverted source carries nothing


@few
@given(images=triples(), level=st.integers(0, 255))
def test_a_constant_fused_image_keeps_nothing(images: tuple[Image, Image, Image], level: int) -> None:
    _, ir, vis = images
    found = score(np.full_like(ir, level), ir, vis)
    for name in ("EN", "MI", "SD", "SF", "AG", "CC"):
        assert found[name] == pytest.approx(0, abs=1e-5), name


def test_stated_values_where_a_metric_is_undefined() -> None:
    black = np.zeros((20, 20), np.uint8)
    found = score(black, black, black)
    assert found == {
        **dict.fromkeys(("EN", "MI", "SD", "SF", "AG", "SCD", "CC"), 0),
        **dict.fromkeys(("VIF", "VIF_ir", "VIF_vis", "Qabf", "Qcb", "Qcv", "Area_ir", "Area_vis"), 0),
        **{"SSIM": 2, "PSNR": 100},
    }


@pytest.mark.parametrize("shape", [(16, 16), (16, 200), (41, 41), (40, 57), (333, 500), (97, 131)])
def test_any_size_scores_as_its_strided_copy(shape: tuple[int, int]) -> None:
    wide = [textured(seed, (shape[0], shape[1] + 7)) for seed in range(3)]
    views = [image[:, 3 : 3 + shape[1]] for image in wide]
    assert not views[0].flags.c_contiguous
    fused, ir, vis = (view.copy() for view in views)
    assert score(views[0], views[1], views[2]) == pytest.approx(score(fused, ir, vis))


@few
@given(
    height=st.integers(17, 90),
    width=st.integers(17, 90),
    taps=st.sampled_from([3, 5, 9, 17]),
    step=st.sampled_from([1, 2]),
)
def test_gaussian_windows_are_those_of_a_filter(height: int, width: int, taps: int, step: int) -> None:
    image = np.random.default_rng(height * width).random((height, width), np.float32)
    kernel = cv2.getGaussianKernel(taps, taps / 5, cv2.CV_32F)
    inside = slice(taps // 2, -(taps // 2), step)
    expected = cv2.sepFilter2D(image, cv2.CV_32F, kernel, kernel)[inside, inside]
    assert gaussian(image, taps, step) == pytest.approx(expected, abs=1e-6)


@given(height=st.integers(1, 5000), width=st.integers(1, 100_000))
def test_bands_cover_every_row_once(height: int, width: int) -> None:
    rows = [row for band in bands(height, width) for row in range(band.start, band.stop)]
    assert rows == list(range(height))


def test_no_window_explains_more_than_the_image_holds() -> None:
    """Where the image is a multiple of the source all is explained, and rounding must not say more."""
    rng = np.random.default_rng(0)
    noise = cv2.GaussianBlur(rng.integers(0, 256, (17, 6000)).astype(np.float32), (0, 0), 1)
    source = np.rint(cv2.normalize(noise, None, 0, 127, cv2.NORM_MINMAX)).astype(np.uint8)
    of_source, of_image = (
        _moments(image.astype(np.float32) - np.float32(image.mean().round() + 0.5), 17)
        for image in (source, 2 * source)
    )
    for left in range(of_image.spread.shape[1]):
        window = slice(left, left + 1)
        source_window, image_window = (
            Moments(
                m.values[:, left : left + 17],
                m.minus_mean[:, window],
                m.minus_variance[:, window],
                m.minus_divisor[:, window],
                m.spread[:, window],
                0.0,
            )
            for m in (of_source, of_image)
        )
        assert _left_over(source_window, image_window, 17) >= math.log(2) - 2e-4
