from collections.abc import Iterable

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgefuse.errors import InputError
from edgefuse.runtime.cameras.thermal import (
    COUNTS,
    CURVES,
    DEAD_BAND,
    MAX_GAIN,
    MAX_STEP,
    ThermalAgc,
    ThermalConfig,
    linear_curve,
    plateau_curve,
)

FPS = 30.0


def scene(low: float, high: float, noise: float = 0.0, seed: int = 0) -> np.ndarray:
    """A ramp from `low` to `high` counts with noise, 160x120."""
    rng = np.random.default_rng(seed)
    ramp = np.linspace(low, high, 160)[None] + rng.normal(0, noise or 1e-9, (120, 160))
    return ramp.round().clip(0, 65535).astype(np.uint16)


@pytest.fixture(params=list(CURVES))
def front(request) -> ThermalAgc:
    return ThermalAgc(ThermalConfig(agc=request.param))


@given(
    histogram=st.lists(st.integers(0, 5000), min_size=1, max_size=100).filter(any),
    first=st.integers(0, COUNTS - 400),
    curve=st.sampled_from([linear_curve, plateau_curve]),
)
def test_a_curve_rises_from_0_to_255_and_never_too_steeply(histogram, first, curve) -> None:
    greys = curve(np.array(histogram), first)
    assert greys.shape == (COUNTS,)
    assert greys.dtype == np.float32
    assert greys.min() >= 0
    assert greys.max() <= 255.001
    steps = np.diff(greys)
    assert steps.min() >= -1e-3
    assert steps.max() <= MAX_GAIN + 1e-3


def test_the_linear_curve_spends_the_scale_on_the_scene() -> None:
    grey = ThermalAgc()(scene(7000, 9000), 0.0)
    assert grey.dtype == np.uint8
    assert grey.shape == (120, 160)
    assert grey[0, 0] == 0
    assert grey[0, -1] == 255
    assert grey[0, 80] == pytest.approx(128, abs=2)


def test_the_plateau_gives_a_large_cold_area_less_than_its_share() -> None:
    """A hot tenth of the picture keeps its contrast beside nine tenths of sky."""
    image = np.concatenate((scene(5000, 5300, 20)[:108], scene(9000, 9300, 20)[:12]))
    linear = ThermalAgc(ThermalConfig(agc="linear"))(image, 0.0)
    plateau = ThermalAgc(ThermalConfig(agc="plateau"))(image, 0.0)
    assert np.ptp(plateau[:108]) > 2 * np.ptp(linear[:108])
    assert np.ptp(plateau[108:]) > np.ptp(linear[108:])


def test_a_flat_scene_is_not_stretched_into_noise(front: ThermalAgc) -> None:
    image = scene(8000, 8000, noise=3)
    assert front(image, 0.0).std() <= image.std() * MAX_GAIN + 0.5


@pytest.mark.parametrize("fps", [9.0, 30.0, 60.0])
def test_a_step_in_the_scene_moves_no_still_pixel_by_more_than_the_limit(
    front: ThermalAgc, fps: float
) -> None:
    before = scene(7000, 8000, noise=4)
    after = before.copy()
    after[40:80, 60:100] = 30_000  # something very hot comes into the picture
    last = front(before, 0.0)
    jumps = []
    for n in range(1, 200):
        grey = front(after if n < 100 else before, n / fps)
        still = np.ones(grey.shape, bool)
        still[40:80, 60:100] = False
        jumps.append(int(cv2.absdiff(grey, last)[still].max()))
        last = grey
    assert max(jumps) <= MAX_STEP + 1  # rounding to whole grey levels
    assert max(jumps[50:99]) <= 1 or fps < 30  # and it settles


@pytest.mark.parametrize("noise", [1.0, 5.0, 20.0])
@pytest.mark.parametrize("span", [50, 1000, 20_000])
def test_noise_alone_never_moves_the_curve(front: ThermalAgc, noise: float, span: int) -> None:
    front(scene(8000, 8000 + span, noise), 0.0)
    table = front._table.copy()
    for n in range(1, 30):
        front(scene(8000, 8000 + span, noise, seed=n), n / FPS)
        assert np.array_equal(front._table, table)


def test_the_curve_arrives_where_the_scene_has_gone(front: ThermalAgc) -> None:
    front(scene(2000, 3000, 3), 0.0)
    for n in range(1, 300):
        grey = front(scene(12_000, 14_000, 3, seed=n), n / FPS)
    fresh = ThermalAgc(front.config)(scene(12_000, 14_000, 3, seed=n), 0.0)
    assert cv2.absdiff(grey, fresh).max() <= DEAD_BAND + 1


@given(st.lists(st.tuples(st.integers(0, 60_000), st.integers(1, 5000)), min_size=2, max_size=8))
@settings(max_examples=40)
def test_a_curve_in_motion_still_rises(scenes) -> None:
    front = ThermalAgc(ThermalConfig(agc="plateau"))
    for n, (low, span) in enumerate(scenes):
        front(scene(low, low + span, 2, seed=n), n / FPS)
        assert np.diff(front._table.astype(int)).min() >= 0


def test_black_hot_is_turned_round() -> None:
    image = scene(7000, 9000)
    white, black = (ThermalAgc(ThermalConfig(polarity=p))(image, 0.0) for p in ("white", "black"))
    assert np.array_equal(black, 255 - white)
    grey = white.copy()
    assert np.array_equal(ThermalAgc(ThermalConfig(polarity="black"))(grey, 0.0), 255 - grey)


def test_8_bits_stay_as_they_are_unless_asked() -> None:
    grey = np.random.default_rng(0).integers(90, 110, (48, 64), np.uint8)
    assert np.array_equal(ThermalAgc()(grey, 0.0), grey)
    assert np.ptp(ThermalAgc(ThermalConfig(agc="plateau"))(grey, 0.0)) >= np.ptp(grey) - 1


def test_a_window_is_the_same_for_ever() -> None:
    front = ThermalAgc(ThermalConfig(window=(1000, 3000)))
    for n in range(3):
        grey = front(scene(500, 500 + 2000 * (n + 1)), n / FPS)
        assert grey[0, 0] == 0
    assert front(np.full((16, 16), 2000, np.uint16), 1.0)[0, 0] in (127, 128)
    assert front(np.full((16, 16), 65_535, np.uint16), 1.1)[0, 0] == 255


def test_both_ways_to_look_counts_up_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    image = scene(0, 65_535, 300)
    fast = ThermalAgc()(image, 0.0)
    monkeypatch.setattr("edgefuse.runtime.cameras.thermal.WIDE_TABLES", False)
    assert np.array_equal(ThermalAgc()(image, 0.0), fast)


def looks(frames: Iterable[np.ndarray], fps: float = FPS) -> list[str]:
    """Return what a camera that sends these frames looks like after each."""
    front = ThermalAgc()
    seen: list[str] = []
    for n, image in enumerate(frames):
        front(image, n / fps)
        seen.append(front.still.state)
    return seen


def moving(count: int, dtype: type = np.uint16) -> list[np.ndarray]:
    return [
        (scene(7000, 9000, 5, n) // (1 if dtype == np.uint16 else 64)).astype(dtype) for n in range(count)
    ]


@pytest.mark.parametrize("dtype", [np.uint16, np.uint8])
def test_a_shutter_calibration_is_seen(dtype) -> None:
    frames = moving(120, dtype)
    seen = looks(frames[:90] + [frames[89]] * 45 + frames[90:])  # a second and a half behind the shutter
    assert seen[:90] == ["live"] * 90
    assert seen[100:135] == ["calibrating"] * 35
    assert seen[135:] == ["live"] * 30


def test_the_curve_is_held_behind_the_shutter() -> None:
    front, frames = ThermalAgc(), moving(10)
    for n, image in enumerate(frames):
        front(image, n / FPS)
    shutter = scene(15_000, 17_000, 5)  # is warm; the curve sets out for it
    front(shutter, 10 / FPS)
    table = front._table.copy()
    for n in range(11, 60):
        front(shutter, n / FPS)
    assert np.array_equal(front._table, table)


@pytest.mark.parametrize("dtype", [np.uint16, np.uint8])
def test_a_picture_that_stays_is_frozen(dtype) -> None:
    frames = moving(90, dtype)
    seen = looks(frames + [frames[-1]] * 120)
    assert seen[90 + 80] == "calibrating"
    assert seen[90 + 100 :] == ["frozen"] * 20


def test_16_bits_are_frozen_from_the_first_frame_on() -> None:
    assert looks([scene(7000, 9000, 5)] * 120)[-1] == "frozen"


def test_a_coded_still_scene_is_not_frozen() -> None:
    """What a codec skips comes out equal; the next key frame, a second later, does not."""
    still = [image for image in moving(10, np.uint8) for _ in range(30)]
    assert set(looks(still)) == {"live"}
    assert set(looks([still[0]] * 200)) == {"live"}


def test_a_clock_that_jumps_freezes_nothing() -> None:
    front, (image,) = ThermalAgc(), moving(1)
    for stamp in (0.0, 0.03, 3600.0, 3600.03, -5.0):
        front(image, stamp)
        assert front.still.state != "frozen"


@pytest.mark.parametrize("dtype", [np.uint16, np.uint8])
def test_a_camera_that_repeats_each_frame_is_live(dtype) -> None:
    """Sensors of 9 Hz are often read out at 27 or 30."""
    frames = [image for image in moving(40, dtype) for _ in range(3)]
    assert set(looks(frames, 27)) == {"live"}


def test_another_size_goes_on_with_the_curve() -> None:
    front = ThermalAgc()
    front(scene(7000, 9000), 0.0)
    small = front(scene(7000, 9000)[::2, ::2], 0.1)
    assert small.shape == (60, 80)
    assert int(small[0, -1]) > 250


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"agc": "plato"}, "unknown AGC 'plato'.*known are auto, linear, plateau"),
        ({"polarity": "hot"}, "unknown polarity 'hot': known are black, white"),
        ({"window": "hot"}, "window 'hot' is not LOW-HIGH"),
        ({"window": "9-7"}, "window 9-7 is not LOW-HIGH within 0-65535"),
        ({"window": "0-70000"}, "window 0-70000 is not"),
    ],
)
def test_options_that_cannot_be_used(options, sentence) -> None:
    with pytest.raises(InputError, match=sentence):
        ThermalConfig.from_options(options)


def test_options_are_read() -> None:
    config = ThermalConfig.from_options({"agc": "plateau", "polarity": "black", "window": "7000-9000"})
    assert config == ThermalConfig("plateau", "black", (7000, 9000))


def test_time_of_one_frame(benchmark) -> None:
    front = ThermalAgc()
    frames = [cv2.resize(scene(7000, 9000 + 1000 * (n % 2), 5, n), (640, 480)) for n in range(8)]
    numbers = iter(range(10**9))

    def step() -> None:
        n = next(numbers)
        front(frames[n % 8], n / FPS)

    benchmark(step)
