from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgefuse.errors import InputError
from edgefuse.evaluate import Settings
from edgefuse.images import write_image
from edgefuse.runtime.cameras.camera import ThermalPreprocess
from edgefuse.runtime.engines.fuser import Fuser
from edgefuse.settings import assign, from_plain
from edgefuse.sim import Rig, RigConfig
from edgefuse.thermal import (
    COUNTS,
    DEAD_BAND,
    GROUND,
    MAX_GAIN,
    MAX_STEP,
    Ground,
    as_infrared,
    counts_of,
    fusion_curve,
    read_infrared,
)
from edgefuse.thermal_config import ThermalConfig
from edgefuse.train.config import TrainConfig

FPS = 30.0
LEVEL = 28_500  # counts of the ground


def scene(low: float, high: float, noise: float = 0.0, seed: int = 0) -> np.ndarray:
    """A ramp from `low` to `high` counts with noise, 160x120."""
    rng = np.random.default_rng(seed)
    ramp = np.linspace(low, high, 160)[None] + rng.normal(0, noise or 1e-9, (120, 160))
    return ramp.round().clip(0, 65535).astype(np.uint16)


def street(sky: int = 0, person: int = 1800, seed: int = 0) -> np.ndarray:
    """Ground with a spread of 1 K and a person; the upper `sky` rows of 120 are 30 K colder."""
    image = np.random.default_rng(seed).normal(LEVEL, 150, (120, 160))
    image[60:100, 70:80] = LEVEL + person
    image[:sky] = LEVEL - 3000
    return image.round().astype(np.uint16)


@pytest.fixture(params=["fusion", "linear"])
def agc(request) -> ThermalPreprocess:
    return ThermalPreprocess(ThermalConfig(agc=request.param))


@given(
    level=st.floats(0, 65_535),
    spread=st.floats(0, 5000),
    hottest=st.floats(0, 65_535),
    white_at=st.one_of(st.none(), st.floats(8, 40)),
)
def test_a_curve_rises_within_the_scale_and_never_too_steeply(level, spread, hottest, white_at) -> None:
    greys = fusion_curve(Ground(level, spread, hottest), white_at)
    assert greys.shape == (COUNTS,)
    assert greys.dtype == np.float32
    assert greys.min() >= 0
    assert greys.max() <= 255
    steps = np.diff(greys)
    assert steps.min() >= -1e-3
    assert steps.max() <= MAX_GAIN + 1e-2
    assert greys[round(level)] == pytest.approx(GROUND, abs=1)


@pytest.mark.parametrize("sky", [0, 30, 60, 75])
def test_a_cold_sky_takes_nothing_of_the_scale(sky: int) -> None:
    grey = as_infrared(street(sky))
    assert np.median(grey[80:]) == pytest.approx(GROUND, abs=10)
    assert grey[80, 75] > 190
    if sky:
        assert grey[:sky].max() < 10


@pytest.mark.parametrize("area", [(slice(0, 20), slice(0, 20)), (slice(0, 60), slice(100, 160))])
def test_a_hot_chimney_takes_nothing_from_a_person(area: tuple[slice, slice]) -> None:
    image = street()
    image[area] = 60_000
    grey = as_infrared(image)
    assert np.median(grey[100:]) == pytest.approx(GROUND, abs=12)
    assert grey[80, 75] > GROUND + 100
    assert grey[area].min() == 255


def bordered(image: np.ndarray) -> np.ndarray:
    image[:, :12] = image[-9:] = 0
    return image


def saturated(image: np.ndarray) -> np.ndarray:
    image[:12] = 65_535
    return image


def with_telemetry(image: np.ndarray) -> np.ndarray:
    image[-3:] = np.random.default_rng(1).choice([0, 3, 41_000, 65_535, 257], (3, 160))
    return image


def with_constant_rows(image: np.ndarray) -> np.ndarray:
    image[-2:] = 58_744
    return image


@pytest.mark.parametrize("spoil", [bordered, saturated, with_telemetry, with_constant_rows])
def test_what_is_no_measurement_does_not_count(spoil) -> None:
    clean, spoilt = as_infrared(street()), as_infrared(spoil(street()))
    inside = np.s_[12:-9, 12:]
    assert cv2.absdiff(clean[inside], spoilt[inside]).max() <= 4
    half = spoil(street())
    half[:, 80:] = 0
    assert cv2.absdiff(clean[inside], as_infrared(half)[inside])[:, :68].max() <= 8


def test_only_what_is_no_measurement() -> None:
    for value in (0, 65_535):
        assert len(np.unique(as_infrared(np.full((32, 32), value, np.uint16)))) == 1


@pytest.mark.parametrize("enters", [60_000, LEVEL + 4000, LEVEL - 4000])
def test_what_enters_leaves_the_ground_where_it_is(enters: int) -> None:
    """A van that fills a third of the picture, warm, hot or cold, for a minute."""
    front = ThermalPreprocess()
    before = [float(np.median(front(street(30, seed=n), n / 10)[100:, :60])) for n in range(20)]
    levels = []
    for n in range(20, 300):
        image = street(30, seed=n)
        image[50:, 80:] = enters
        levels.append(float(np.median(front(image, n / 10)[100:, :60])))
    assert np.abs(np.array(levels) - before[-1]).max() <= 4


def test_the_contrast_of_the_ground_outlasts_an_even_road() -> None:
    """A street of shade and sun, then sunlit asphalt nearly alone: its grain stays faint."""
    front = ThermalPreprocess()
    street = np.random.default_rng(0).normal(LEVEL, 40, (120, 160))
    street[:, :80] -= 1500
    for n in range(30):
        before = front(street.round().astype(np.uint16), n / FPS)[:, 90:]
    street[:, 8:80] += 1500
    for n in range(30, 120):
        after = front(street.round().astype(np.uint16), n / FPS)[:, 90:]
    assert after.std() < 1.1 * before.std()


def test_the_ground_is_found_anew_when_the_camera_turns() -> None:
    front = ThermalPreprocess()
    for n in range(10):
        front(street(seed=n), n / 10)
    for n in range(10, 150):
        grey = front((street(seed=n).astype(int) + 5000).astype(np.uint16), n / 10)
    assert np.median(grey) == pytest.approx(GROUND, abs=6)


def test_the_road_of_the_simulated_street_stays_visible() -> None:
    """Detail of the visible road that the fused picture keeps: the slope between their high-passes."""
    rig = Rig(RigConfig(ir_depth=16, size=(320, 240)))
    ir, vis = as_infrared(rig.frame("ir", 50)), rig.frame("vis", 50)
    grey = cv2.cvtColor(vis, cv2.COLOR_BGR2GRAY)
    fused = Fuser(threads=1).fuse_luma(ir, grey)
    assert _slope(fused[140:], grey[140:]) > 0.6
    persons = rig.frame("ir", 50) > np.percentile(rig.frame("ir", 50), 99.5)
    assert np.median(fused[persons]) > 180


def _slope(fused: np.ndarray, source: np.ndarray) -> float:
    a, b = (i - cv2.GaussianBlur(i, (0, 0), 3) for i in (fused.astype(float), source.astype(float)))
    return float(np.cov(a.ravel(), b.ravel())[0, 1] / b.var())


def test_the_linear_curve_spends_the_scale_on_the_scene() -> None:
    grey = as_infrared(scene(7000, 9000), ThermalConfig(agc="linear"))
    assert grey.dtype == np.uint8
    assert grey.shape == (120, 160)
    assert grey[0, 0] == 0
    assert grey[0, -1] == 255
    assert grey[0, 80] == pytest.approx(128, abs=2)


def test_a_flat_scene_is_not_stretched_into_noise(agc: ThermalPreprocess) -> None:
    image = scene(8000, 8000, noise=3)
    assert agc(image, 0.0).std() <= image.std() * MAX_GAIN + 0.5


@pytest.mark.parametrize("fps", [9.0, 30.0, 60.0])
def test_a_step_in_the_scene_moves_no_still_pixel_by_more_than_the_limit(
    agc: ThermalPreprocess, fps: float
) -> None:
    before = scene(7000, 8000, noise=4)
    after = before.copy()
    after[40:80, 60:100] = 30_000  # something very hot comes into the picture
    last = agc(before, 0.0)
    jumps = []
    for n in range(1, 200):
        grey = agc(after if n < 100 else before, n / fps)
        still = np.ones(grey.shape, bool)
        still[40:80, 60:100] = False
        jumps.append(int(cv2.absdiff(grey, last)[still].max()))
        last = grey
    assert max(jumps) <= MAX_STEP + 1  # rounding to whole grey levels
    assert max(jumps[50:99]) <= 1 or fps < 30  # and it settles


@pytest.mark.parametrize("noise", [1.0, 5.0, 20.0])
@pytest.mark.parametrize("span", [50, 1000, 20_000])
def test_noise_alone_never_moves_the_curve(agc: ThermalPreprocess, noise: float, span: int) -> None:
    agc(scene(8000, 8000 + span, noise), 0.0)
    table = agc.agc._table.copy()
    for n in range(1, 30):
        agc(scene(8000, 8000 + span, noise, seed=n), n / FPS)
        assert np.array_equal(agc.agc._table, table)


def test_the_curve_arrives_where_the_scene_has_gone(agc: ThermalPreprocess) -> None:
    agc(scene(2000, 3000, 3), 0.0)
    for n in range(1, 600):
        grey = agc(scene(12_000, 14_000, 3, seed=n), n / FPS)
    fresh = ThermalPreprocess(agc.agc.config)(scene(12_000, 14_000, 3, seed=n), 0.0)
    assert cv2.absdiff(grey, fresh).max() <= DEAD_BAND + 1


@given(st.lists(st.tuples(st.integers(0, 60_000), st.integers(1, 5000)), min_size=2, max_size=8))
@settings(max_examples=40)
def test_a_curve_in_motion_still_rises(scenes) -> None:
    front = ThermalPreprocess()
    for n, (low, span) in enumerate(scenes):
        front(scene(low, low + span, 2, seed=n), n / FPS)
        assert np.diff(front.agc._table.astype(int)).min() >= 0


def test_black_hot_is_inverted_before_the_ground_is_looked_for() -> None:
    image = street()
    white = as_infrared(image)
    black = as_infrared(65_535 - image, ThermalConfig(polarity="black"))
    assert cv2.absdiff(white, black).max() <= 1
    assert np.array_equal(as_infrared(white, ThermalConfig(polarity="black")), 255 - white)
    window = as_infrared(image, ThermalConfig(polarity="black", window=(LEVEL, LEVEL + 2000)))
    assert window[80, 75] < 50


def test_8_bits_stay_as_they_are_unless_asked() -> None:
    grey = np.random.default_rng(0).integers(90, 110, (48, 64), np.uint8)
    assert np.array_equal(as_infrared(grey), grey)
    assert np.median(as_infrared(grey, ThermalConfig(agc="fusion"))) == pytest.approx(GROUND, abs=2)


def test_a_window_is_the_same_for_ever() -> None:
    front = ThermalPreprocess(ThermalConfig(window=(1000, 3000)))
    for n in range(3):
        grey = front(scene(500, 500 + 2000 * (n + 1)), n / FPS)
        assert grey[0, 0] == 0
    assert front(np.full((16, 16), 2000, np.uint16), 1.0)[0, 0] in (127, 128)
    assert front(np.full((16, 16), 65_535, np.uint16), 1.1)[0, 0] == 255


CELSIUS = (street(30) - 27_315.0) / 100


@pytest.mark.parametrize(
    "image",
    [
        CELSIUS.astype(np.float32),
        (CELSIUS + 273.15).astype(np.float32),
        (CELSIUS + 40) / 100,
        (CELSIUS * 100).round().astype(np.int16),
        street(30).astype(np.float32),
    ],
)
def test_temperatures_look_like_the_counts_of_the_same_scene(image: np.ndarray) -> None:
    expected, got = as_infrared(street(30)), as_infrared(image)
    assert cv2.absdiff(expected, got).max() <= 6


@pytest.mark.parametrize(
    ("values", "counts"),
    [
        ([0.0, 0.5, 1.0], [1, 32_501, 65_001]),  # shares
        ([0.0, 20.0, 380.0], [27_315, 29_315, 65_315]),  # °C, in hundredths of a kelvin
        ([-273.15, 0.0, 20.0], [0, 27_315, 29_315]),
        ([149.9, 20.0, 381.0], [8461, 5863, 13_083]),  # °C that do not fit: twentieths
        ([20.0, 3000.0, 25.0], [5863, 65_463, 5963]),
        ([150.0, 300.0, 379.0], [15_000, 30_000, 37_900]),  # K
        ([150.0, 300.0, 3000.0], [3000, 6000, 60_000]),
        ([20.0, 3001.0, 25.0], [20, 3001, 25]),  # any other values
        ([-300.0, 0.0, 700.0], [1, 19_501, 65_001]),
        ([0.0, 32_768.0, 65_536.0], [1, 32_501, 65_001]),
        ([-2000.0, -3000.0, -1500.0], [43_334, 1, 65_001]),  # most are below -1000: they are measured
        ([-9999.0, 500.0, 600.0], [0, 10_000, 12_000]),
        ([-9999.0, -9999.0, 500.0, 600.0], [0, 0, 10_000, 12_000]),  # half of them are not most
        ([1e6, np.nan, 600.0], [0, 0, 12_000]),
    ],
)
def test_any_values_are_counts_of_equal_steps(values: list[float], counts: list[int]) -> None:
    image = np.array([values] * 4)
    for dtype in (np.float32, np.float64):
        found = counts_of(image.astype(dtype))
        assert found.dtype == np.uint16
        assert np.abs(found[3].astype(int) - counts).max() <= 1
    assert counts_of(np.array([[-32_768, 0, 32_767]], np.int16)).tolist() == [[0, 32_768, 65_535]]


def test_telemetry_is_told_by_how_rows_differ_not_columns() -> None:
    """Railings: each column far from the next, every row like the one above but the two of telemetry."""
    image = np.random.default_rng(0).normal(LEVEL, 5, (120, 160))
    image[:, ::2] += 1000
    image = image.round().astype(np.uint16)
    config = ThermalConfig(agc="linear")
    clean = as_infrared(image, config)
    image[-2:] = LEVEL + 3000
    assert cv2.absdiff(clean, as_infrared(image, config))[:-2].max() <= 1


def test_what_is_no_number_is_no_measurement() -> None:
    image = CELSIUS.astype(np.float32)
    image[:, :40] = np.nan
    image[:, 40:44] = np.inf
    assert (counts_of(image)[:, :44] == 0).all()
    grey = as_infrared(image)
    assert (grey[:, :44] == 0).all()
    assert cv2.absdiff(grey[:, 44:], as_infrared(street(30))[:, 44:]).max() <= 6
    assert (
        as_infrared(np.full((16, 16), np.nan, np.float32)) == as_infrared(np.zeros((16, 16), np.uint16))
    ).all()


def test_a_window_in_degrees() -> None:
    image = np.full((16, 16), 20.0, np.float32)
    config = ThermalConfig.from_options({"window": "-10-50"})
    assert as_infrared(image, config)[0, 0] in (127, 128)


def test_both_ways_to_look_counts_up_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    image = scene(0, 65_535, 300)
    fast = as_infrared(image)
    monkeypatch.setattr("edgefuse.thermal.WIDE_TABLES", False)
    assert np.array_equal(as_infrared(image), fast)


def looks(frames: Iterable[np.ndarray], fps: float = FPS) -> list[str]:
    """Return what a camera that sends these frames looks like after each."""
    front = ThermalPreprocess()
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
    front, frames = ThermalPreprocess(), moving(10)
    for n, image in enumerate(frames):
        front(image, n / FPS)
    shutter = scene(15_000, 17_000, 5)  # is warm; the curve sets out for it
    front(shutter, 10 / FPS)
    table = front.agc._table.copy()
    for n in range(11, 60):
        front(shutter, n / FPS)
    assert np.array_equal(front.agc._table, table)


@pytest.mark.parametrize("dtype", [np.uint16, np.uint8])
def test_a_picture_that_stays_is_frozen(dtype) -> None:
    frames = moving(90, dtype)
    seen = looks(frames + [frames[-1]] * 120)
    assert seen[90 + 80] == "calibrating"
    assert seen[90 + 100 :] == ["frozen"] * 20


@pytest.mark.parametrize(("moving", "trusted"), [(1.75, False), (2.25, True)])
def test_8_bits_are_trusted_after_two_seconds_without_a_repeat(moving: float, trusted: bool) -> None:
    """As a codec repeats a still scene, too."""
    count = round(moving * FPS)
    frames = [np.full((32, 32), n, np.uint8) for n in range(count)] + [
        np.full((32, 32), count, np.uint8)
    ] * 150
    assert ("frozen" in looks(frames)) is trusted


def test_warnings_name_the_folder_of_an_infrared_image(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Known palettes and unknown colours alike; each folder once."""
    ramp = np.tile(np.arange(256, dtype=np.uint8), (64, 1))
    for name, image in (
        ("known", cv2.applyColorMap(ramp, cv2.COLORMAP_JET)),
        ("odd", np.dstack([ramp, 255 - ramp, ramp // 2])),
    ):
        folder = tmp_path / name
        folder.mkdir()
        write_image(folder / "a.png", image)
        read_infrared(folder / "a.png")
    first, second = (record.getMessage() for record in caplog.records)
    assert first.startswith(f"{tmp_path / 'known'}: infrared is coloured: removing its palette 'jet'")
    assert second.startswith(f"{tmp_path / 'odd'}: infrared is coloured with an unknown palette")


def test_16_bits_are_frozen_from_the_first_frame_on() -> None:
    assert looks([scene(7000, 9000, 5)] * 120)[-1] == "frozen"


def test_a_coded_still_scene_is_not_frozen() -> None:
    """What a codec skips comes out equal; the next key frame, a second later, does not."""
    still = [image for image in moving(10, np.uint8) for _ in range(30)]
    assert set(looks(still)) == {"live"}
    assert set(looks([still[0]] * 200)) == {"live"}


def test_a_clock_that_jumps_freezes_nothing() -> None:
    front, (image,) = ThermalPreprocess(), moving(1)
    for stamp in (0.0, 0.03, 3600.0, 3600.03, -5.0):
        front(image, stamp)
        assert front.still.state != "frozen"


@pytest.mark.parametrize("dtype", [np.uint16, np.uint8])
def test_a_camera_that_repeats_each_frame_is_live(dtype) -> None:
    """Sensors of 9 Hz are often read out at 27 or 30."""
    frames = [image for image in moving(40, dtype) for _ in range(3)]
    assert set(looks(frames, 27)) == {"live"}


def test_another_size_goes_on_with_the_curve() -> None:
    front = ThermalPreprocess()
    front(scene(7000, 9000), 0.0)
    small = front(scene(7000, 9000)[::2, ::2], 0.1)
    assert small.shape == (60, 80)
    assert int(small[0, -1]) > 100


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"agc": "plateau"}, "unknown agc 'plateau'.*known are auto, fusion, linear"),
        ({"polarity": "hot"}, "unknown polarity 'hot': known are black, white"),
        ({"window": "hot"}, "window 'hot' is not LOW-HIGH"),
        ({"window": "9-7"}, "window 9-7 is not LOW-HIGH"),
        ({"window": "0-70000"}, "window 0-70000 is not"),
    ],
)
def test_options_that_cannot_be_used(options, sentence) -> None:
    with pytest.raises(InputError, match=sentence):
        ThermalConfig.from_options(options)


def test_options_are_read() -> None:
    config = ThermalConfig.from_options({"agc": "linear", "polarity": "black", "window": "7000-9000"})
    assert config == ThermalConfig("linear", "black", (7000, 9000))


def test_time_of_one_frame(benchmark) -> None:
    front = ThermalPreprocess()
    frames = [cv2.resize(scene(7000, 9000 + 1000 * (n % 2), 5, n), (640, 480)) for n in range(8)]
    numbers = iter(range(10**9))

    def step() -> None:
        n = next(numbers)
        front(frames[n % 8], n / FPS)

    benchmark(step)


def test_training_and_scoring_can_say_how_infrared_is_read(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from edgefuse.train.cache import cache_folders

    (tmp_path / "ir").mkdir()
    (tmp_path / "vis").mkdir()
    write_image(tmp_path / "ir/a.png", street())
    write_image(tmp_path / "vis/a.png", np.full((120, 160), 2048, np.uint16))
    config = ThermalConfig(polarity="black", window=(LEVEL, LEVEL + 2000))
    expected = read_infrared(tmp_path / "ir/a.png", config)
    assert np.array_equal(Settings(thermal=config).read_infrared(tmp_path / "ir/a.png"), expected)
    values: dict[str, Any] = {}
    for text in ("infrared.polarity=black", f"infrared.window={LEVEL},{LEVEL + 2000}", "bits=12"):
        assign(TrainConfig, values, text)
    settings = from_plain(TrainConfig, values)
    assert settings.infrared == config
    ir_cache, vis_cache = cache_folders(
        [tmp_path / "ir"], [tmp_path / "vis"], settings.infrared, settings.bits
    )
    assert np.array_equal(ir_cache[0], expected)
    assert vis_cache[0][0, 0] == 128
