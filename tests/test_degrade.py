import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edgefuse.degrade import (
    DEGRADATIONS,
    LEVEL_CHANGES,
    agc,
    blur,
    exposure,
    level,
    polarity,
    sensor_noise,
    shift,
    tone,
)
from edgefuse.evaluate.candidates import named, read_grey
from edgefuse.metrics import FusionScorer

CALIBRATED = {"VIF": 0.05, "Qabf": 0.05, "MI": 0.08}  # metric → relative deviation
GREY = np.full((64, 80), 128, np.uint8)
images = arrays(np.uint8, st.tuples(st.integers(16, 40), st.integers(16, 40)))


@pytest.mark.parametrize("name", DEGRADATIONS)
def test_each_is_a_pure_function_that_keeps_size_and_type(name, pair):
    ir, vis = pair[0], pair[1][:, :, 1].copy()
    before = ir.copy(), vis.copy()
    degraded = DEGRADATIONS[name].apply(ir, vis, 5)
    again = DEGRADATIONS[name].apply(ir, vis, 5)
    for source, kept, image, same in zip((ir, vis), before, degraded, again, strict=True):
        assert image.shape == source.shape
        assert image.dtype == np.uint8
        assert np.array_equal(image, same)
        assert np.array_equal(source, kept)
    assert any(not np.array_equal(a, b) for a, b in zip((ir, vis), degraded, strict=True))


def test_noise_has_the_stated_strengths():
    noise = sensor_noise(np.full((480, 640), 128, np.uint8), seed=3).astype(float) - 128
    stripes = noise.mean(axis=0)
    assert stripes.std() == pytest.approx(10, rel=0.1)
    assert (noise - stripes).std() == pytest.approx(15, rel=0.02)
    assert abs(noise.mean()) < 1.5
    assert not np.array_equal(sensor_noise(GREY, 0), sensor_noise(GREY, 1))


def test_blur_keeps_a_constant_image_and_lowers_contrast(pair):
    assert np.array_equal(blur(GREY), GREY)
    assert blur(pair[0]).std() < pair[0].std()


@given(images, st.integers(-20, 20), st.integers(-20, 20))
def test_shift_moves_by_whole_pixels(image, right, down):
    moved = shift(image, right, down)
    height, width = image.shape
    for y, x in ((0, 0), (height // 2, width // 2), (height - 1, width - 1)):
        source = min(max(y - down, 0), height - 1), min(max(x - right, 0), width - 1)
        assert moved[y, x] == image[source]


def test_shift_of_the_set_is_two_pixels(pair):
    ir, vis = pair[0], pair[1][:, :, 0]
    found = {DEGRADATIONS["shift"].apply(ir, vis, seed)[0].tobytes() for seed in range(8)}
    assert found == {shift(ir, x, y).tobytes() for x, y in ((2, 0), (-2, 0), (0, 2), (0, -2))}


@given(images, st.floats(-3, 3))
def test_exposure_is_monotonic_and_saturates(image, stops):
    exposed = exposure(image, stops)
    assert (exposed >= image).all() if stops >= 0 else (exposed <= image).all()
    assert np.array_equal(exposure(image, 0), image)


def test_a_stop_is_twice_the_light():
    linear = (exposure(GREY, 1).astype(float) / 255) ** 2.2
    assert linear == pytest.approx(2 * (GREY / 255) ** 2.2, rel=0.01)


@given(images)
def test_agc_keeps_the_order_of_grey_levels(image):
    gained = agc(image)
    order = np.argsort(image, axis=None, kind="stable")
    assert (np.diff(gained.ravel()[order].astype(int)) >= 0).all()
    if image.min() < image.max():
        assert (gained.min(), gained.max()) == (0, 255)


@given(images)
def test_polarity_twice_is_the_image(image):
    assert np.array_equal(polarity(polarity(image)), image)


@given(images, st.floats(0.3, 3))
def test_tone_keeps_black_white_and_order(image, exponent):
    assert (tone(image, exponent) >= image).all() if exponent <= 1 else (tone(image, exponent) <= image).all()
    assert tone(np.array([[0, 255]], np.uint8), exponent).tolist() == [[0, 255]]
    assert np.array_equal(tone(image, 1), image)


# Not `nano`, which was trained on this very noise.
@pytest.mark.parametrize("name", ["maximum", "average", "laplacian"])
def test_noise_costs_what_real_sensor_noise_does(name, shared):
    """Mean loss over frames of the one recording that there is with and without noise."""
    folder = shared / "data" / "m3svd" / "0111_1753"
    fuse = named(name).open()
    losses: dict[str, list[list[float]]] = {"real": [], "ours": []}
    for path in sorted((folder / "ir").iterdir())[::7]:
        ir, noisy = read_grey(path), read_grey(folder / "ir_noisy" / path.name)
        vis = read_grey(next((folder / "vis").glob(f"{path.stem}.*")))
        ours = DEGRADATIONS["noise"].apply(ir, vis, int(path.stem))[0]
        scorer = FusionScorer(ir, vis)
        clean = scorer.score(fuse("", ir, vis), CALIBRATED)
        for kind, image in (("real", noisy), ("ours", ours)):
            scores = scorer.score(fuse("", image, vis), CALIBRATED)
            losses[kind].append([clean[metric] - scores[metric] for metric in CALIBRATED])
    real, ours = (np.mean(losses[kind], axis=0) for kind in ("real", "ours"))
    assert (np.abs(ours / real - 1) < list(CALIBRATED.values())).all(), ours / real


def test_level_changes_brightness_and_nothing_else() -> None:
    ir = np.arange(256, dtype=np.uint8).reshape(16, 16)
    assert level(ir, offset=40).tolist() == np.minimum(np.arange(256) + 40, 255).reshape(16, 16).tolist()
    assert level(ir, gain=0.5, offset=64)[0, :5].tolist() == [64, 64, 65, 66, 66]
    assert level(ir, gamma=2)[8, 0] == round(255 * (128 / 255) ** 2)
    assert DEGRADATIONS["level-40"].apply(ir, ir, 0)[0].max() == 215
    assert "gamma0.5" in LEVEL_CHANGES
    assert DEGRADATIONS["gain*0.5"].summary == "infrared times 0.5 plus 64 grey levels"
