"""The simulated rig: a pure function of its configuration, with a known geometry and two different views."""

import hashlib
import subprocess
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from edgefuse.errors import InputError
from edgefuse.sim import Rig, RigConfig
from edgefuse.sim.rig import CameraName
from edgefuse.sim.scene import Scene
from edgefuse.sim.surfaces import projection

SMALL = (160, 120)
CAMERAS: list[CameraName] = ["ir", "vis"]


@cache
def rig(**options: Any) -> Rig:
    return Rig(RigConfig(**{"size": SMALL, **options}))


def digest(a_rig: Rig, numbers: tuple[int, ...] = (0, 7)) -> str:
    text = hashlib.sha256()
    for camera in CAMERAS:
        for n in numbers:
            text.update(a_rig.frame(camera, n).tobytes())
    return text.hexdigest()


def test_frames_are_images_of_the_asked_size() -> None:
    for size, ir_size in [((64, 48), None), ((101, 75), (80, 60)), ((90, 160), None), ((48, 64), (33, 17))]:
        both = rig(size=size, ir_size=ir_size)
        vis, ir = both.frame("vis", 3), both.frame("ir", 3)
        assert vis.dtype == ir.dtype == np.uint8
        assert vis.shape == (size[1], size[0], 3)
        assert ir.shape == (ir_size or size)[::-1]
        assert vis.std() > 10
        assert ir.std() > 10


def test_same_bytes_in_any_order_and_any_process() -> None:
    first = digest(Rig(RigConfig(size=SMALL, seed=5)))
    other = Rig(RigConfig(size=SMALL, seed=5))
    for n in (300, 7, 2, 0):
        other.frame("vis", n)
        other.frame("ir", n)
    assert digest(other) == first
    code = "from test_sim import *; print(digest(Rig(RigConfig(size=SMALL, seed=5))))"
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parent, capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == first


def test_frames_belong_to_the_caller() -> None:
    both = rig()
    before = digest(both)
    both.frame("ir", 0)[:] = 0
    both.frame("vis", 0)[:] = 0
    assert digest(both) == before


def test_seeds_differ() -> None:
    assert digest(rig(seed=1)) != digest(rig(seed=2))


@pytest.mark.parametrize(
    "options",
    [
        {"shift": (9, -5)},
        {"rotation": 4.0},
        {"scale": 1.1, "shift": (3, 2)},
        {"misalignment": ((1.02, 0.01, -4), (-0.015, 0.99, 3), (1e-4, -5e-5, 1))},
    ],
)
@pytest.mark.parametrize("n", [60, 250])
def test_homography_is_the_truth(options: dict[str, Any], n: int) -> None:
    aligned = rig(noise=0, size=(320, 240)).frame("ir", n)
    moved_rig = rig(noise=0, size=(320, 240), **options)
    moved = moved_rig.frame("ir", n)
    back = cv2.warpPerspective(moved, moved_rig.homography, (320, 240))
    seen = cv2.warpPerspective(np.full_like(moved, 255), moved_rig.homography, (320, 240)) == 255
    seen = cv2.erode(seen.astype(np.uint8), np.ones((5, 5))).astype(bool)
    error = np.abs(back.astype(float) - aligned)[seen].mean()
    assert seen.mean() > 0.7
    assert error < 1.5
    assert np.abs(moved.astype(float) - aligned)[seen].mean() > 3 * error
    # An error of the matrix by one pixel is worse than the right one.
    wrong = np.array([[1, 0, 1], [0, 1, 0], [0, 0, 1]]) @ moved_rig.homography
    off = cv2.warpPerspective(moved, wrong, (320, 240))
    assert np.abs(off.astype(float) - aligned)[seen].mean() > 1.5 * error


@pytest.mark.parametrize("vis", [0.0, -0.15])
@pytest.mark.parametrize("ir", [0.0, 0.2])
def test_lenses_bend_as_the_calibration_says(ir: float, vis: float) -> None:
    """Infrared warped by the true rig file is what an infrared camera in the visible one's place sees."""
    bent = rig(noise=0, size=(320, 240), scale=0.9, shift=(6, 3), ir_distortion=ir, vis_distortion=vis)
    ideal = rig(noise=0, size=(320, 240), ir_distortion=vis)  # a thermal picture through the visible lens
    aligned = bent.calibration().align()(bent.frame("ir", 60), (240, 320))
    error = np.abs(aligned.image.astype(float) - ideal.frame("ir", 60))
    inside = np.ones((240, 320), bool) if aligned.valid is None else aligned.valid == 255
    assert inside.mean() > 0.6
    assert error[inside].mean() < 2.0
    if ir or vis:
        plain = replace(bent.calibration(), ir_distortion=0.0, vis_distortion=0.0).align()
        wrong = np.abs(plain(bent.frame("ir", 60), (240, 320)).image.astype(float) - ideal.frame("ir", 60))
        assert wrong[inside].mean() > 2 * error[inside].mean()


def test_a_baseline_moves_what_is_near() -> None:
    """The true rig file's map for a distance is right for what is there, and not for what is elsewhere."""
    made = rig(size=(640, 480), baseline=(0.5, 0.1))
    focal = 0.7 * 800
    np.testing.assert_allclose(made.parallax[:2], (0.5 * focal, 0.1 * focal), rtol=0.02, atol=2.0)
    for point in ((-4.0, 1.0, 9.0), (2.0, 0.2, 25.0), (1.0, 4.0, 60.0)):
        pixels = [view @ (*point, 1.0) for view in (made._scene._ir_view, made._scene._vis_view)]
        (ir, _), (vis, depth) = ((p / p[2], p[2]) for p in pixels)
        there = np.array(made.calibration(depth).matrix) @ ir
        np.testing.assert_allclose(there / there[2], vis, atol=0.05)
        far = made.homography @ ir
        assert np.hypot(*(far / far[2] - vis)[:2]) == pytest.approx(0.51 * focal / depth, rel=0.02)


def test_a_smaller_infrared_camera_sees_the_same_view() -> None:
    small = rig(noise=0, size=(320, 240), ir_size=(160, 120))
    full = rig(noise=0, size=(320, 240)).frame("ir", 60)
    resized = cv2.resize(small.frame("ir", 60), (320, 240))
    assert np.abs(resized.astype(float) - full).mean() < 4
    np.testing.assert_allclose(small.homography @ (0, 0, 1), (0.5, 0.5, 1))


def test_the_visible_picture_does_not_depend_on_the_misalignment() -> None:
    moved = rig(shift=(9.0, -5.0))
    np.testing.assert_array_equal(moved.frame("vis", 4), rig().frame("vis", 4))


def box(both: Rig, points: list[tuple[float, float, float]]) -> tuple[slice, slice]:
    """The pixels that world points (x, y, z) span in the visible picture."""
    width, height = both.config.size
    place = projection((width, height)) @ np.column_stack([points, np.ones(len(points))]).T
    x, y = place[0] / place[2], place[1] / place[2]
    return np.s_[int(y.min()) : int(y.max()) + 1, int(x.min()) : int(x.max()) + 1]


def contrast(image: NDArray[Any], place: tuple[slice, slice]) -> float:
    grey = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    values = grey[place].astype(float)
    return float(np.percentile(values, 97) - np.percentile(values, 10))


@pytest.mark.parametrize("seed", [0, 4])
def test_each_camera_sees_what_the_other_does_not(seed: int) -> None:
    both = rig(size=(320, 240), noise=0, seed=seed)
    ir, vis = both.frame("ir", 390), both.frame("vis", 390)  # nobody is on the road
    hedge = box(both, [(-7.6, 0.3, 20.4), (-7.1, 1.8, 20.4)])  # somebody stands behind it
    assert contrast(ir, hedge) > 60
    assert contrast(vis, hedge) < 40
    stripes = box(both, [(-2.9, 0, 14.6), (2.5, 0, 17.0)])  # of the crossing: paint only
    assert contrast(vis, stripes) > 60
    assert contrast(ir, stripes) < 25
    letters = box(both, [(0.6, 0, 9.2), (2.7, 0, 12.0)])
    assert contrast(vis, letters) > 50
    assert contrast(ir, letters) < 25


def test_people_are_the_warm_part_of_the_picture() -> None:
    ir = rig(size=(320, 240), noise=0).frame("ir", 100)
    warm = ir > 150
    assert 0.002 < warm.mean() < 0.08
    assert np.median(ir) < 110


def test_by_day_the_sun_lights_and_warms_the_same_street() -> None:
    night, day = rig(size=(320, 240), noise=0), rig(size=(320, 240), noise=0, time="day")
    ir, vis = day.frame("ir", 390), cv2.cvtColor(day.frame("vis", 390), cv2.COLOR_BGR2GRAY)
    sky = np.s_[:30, 130:200]
    assert vis[sky].mean() > 150
    assert ir[sky].max() < 30, "a clear sky is cold"
    assert night.frame("vis", 390)[sky].mean() < 60
    sun = box(day, [(1.2, 0, 18.0), (2.2, 0, 19.0)])
    shade = box(day, [(-3.0, 0, 18.0), (-2.2, 0, 19.0)])  # of the houses on the left
    assert ir[sun].mean() > ir[shade].mean() + 20
    stripes = box(day, [(-2.9, 0, 14.6), (2.5, 0, 17.0)])  # white paint stays cooler than asphalt in the sun
    assert contrast(vis, stripes) > 60
    assert 20 < contrast(ir, stripes) < 80
    hedge = box(day, [(-7.6, 0.3, 20.4), (-7.1, 1.8, 20.4)])
    assert contrast(ir, hedge) > 60, "somebody stands behind it"
    people = day.frame("ir", 100) > 185
    assert 0.002 < people.mean() < 0.08


def test_bodies_throw_a_shadow_by_day(monkeypatch: pytest.MonkeyPatch) -> None:
    day = rig(size=(320, 240), noise=0, time="day")
    shaded = {n: day.frame("vis", n).astype(int) for n in (100, 200)}
    monkeypatch.setattr(Scene, "_add_shadow", lambda *_: None)
    for n, picture in shaded.items():
        darker = day.frame("vis", n) - picture
        assert darker.min() >= 0
        assert (darker > 20).any()


def test_something_moves_and_comes_back_when_time_does() -> None:
    both = rig(noise=0)
    for camera in CAMERAS:
        changed = both.frame(camera, 50).astype(int) - both.frame(camera, 62).astype(int)
        assert (np.abs(changed) > 20).mean() > 0.003
        still = np.abs(changed) <= 2
        assert still.mean() > 0.5


def test_noise_scales_and_differs_between_frames() -> None:
    for camera in CAMERAS:
        clean = rig(noise=0).frame(camera, 10).astype(float)
        middle = (clean > 40) & (clean < 200)
        one, three = (
            (rig(noise=k).frame(camera, 10).astype(float) - clean)[middle].std() for k in (1.0, 3.0)
        )
        assert 0.8 < one < 8
        assert 2.3 < three / one < 3.5
        assert (rig().frame(camera, 10) != rig().frame(camera, 11)).mean() > 0.3


def test_columns_of_the_infrared_sensor_keep_their_offsets() -> None:
    clean, noisy = rig(noise=0), rig(noise=2.0)
    profiles = []
    for n in (3, 90):
        residue = noisy.frame("ir", n).astype(float) - clean.frame("ir", n)
        profiles.append(residue[60:110].mean(axis=0))
    assert np.corrcoef(*profiles)[0, 1] > 0.7


def test_sixteen_bits_are_centikelvin() -> None:
    eight, sixteen = rig(noise=0).frame("ir", 20), rig(noise=0, ir_depth=16).frame("ir", 20)
    assert sixteen.dtype == np.uint16
    celsius = sixteen / 100 - 273.15
    assert 28 < celsius.max() < 50
    assert 5 < np.median(celsius) < 15
    order = np.argsort(sixteen, axis=None)
    assert (np.diff(eight.ravel()[order].astype(int)) >= -1).all()  # equal counts round either way


def test_times_and_clocks() -> None:
    both = rig(ir_fps=9.0, vis_fps=30.0, ir_clock_offset=0.25, ir_clock_drift=100.0)
    assert both.capture_time("ir", 18) == pytest.approx(2.0)
    assert both.capture_time("vis", 60) == pytest.approx(2.0)
    assert both.timestamp("vis", 60) == pytest.approx(2.0)
    assert both.timestamp("ir", 18) == pytest.approx(2.25 + 2e-4)


def test_equal_times_show_the_same_scene_at_any_rate() -> None:
    slow, fast = rig(noise=0, ir_fps=5.0), rig(noise=0, ir_fps=25.0)
    np.testing.assert_array_equal(slow.frame("ir", 3), fast.frame("ir", 15))


def test_options_of_a_source() -> None:
    config = RigConfig.from_options(
        {"size": "320x240", "seed": "3", "fps": "30", "ir_fps": "9", "shift": "4,-2", "noise": "0.5"}
    )
    assert config == RigConfig(size=(320, 240), seed=3, vis_fps=30, ir_fps=9, shift=(4, -2), noise=0.5)
    nine = RigConfig.from_options({"misalignment": "1,0,4,0,1,-2,0,0,1", "ir_size": "160x120"})
    np.testing.assert_allclose(nine.homography, np.array([[4, 0, 5.5], [0, 4, -0.5], [0, 0, 1]]))
    identity: Any = np.eye(3)
    assert RigConfig(misalignment=identity) == RigConfig()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"sede": "3"}, "unknown sim option 'sede'.*did you mean 'seed'"),
        ({"colour": "red"}, "unknown sim option 'colour'.*known are .*fps"),
        ({"seed": "three"}, "seed='three' is not a whole number"),
        ({"seed": "-1"}, "seed -1 is not"),
        ({"size": "640"}, "size '640' is not WIDTHxHEIGHT"),
        ({"size": "8x8"}, "outside 16x16"),
        ({"fps": "fast"}, "fps='fast' is not a number"),
        ({"ir_fps": "0"}, "ir_fps 0.0 is not a number from 0.1"),
        ({"shift": "4"}, "shift .* is not two numbers"),
        ({"shift": "a,b"}, "shift='a' is not a number"),
        ({"scale": "9"}, "scale 9.0 is not a number from 0.2 to 5"),
        ({"noise": "nan"}, "noise nan is not a number"),
        ({"misalignment": "1,2,3"}, "has 3 numbers, nine are needed"),
        ({"misalignment": "0,0,0,0,0,0,0,0,0"}, "cannot be inverted"),
        ({"time": "nigth"}, "unknown time of the sim 'nigth'.*did you mean 'night'"),
        ({"ir_depth": "12"}, "ir_depth 12 is not 8 or 16"),
        ({"ir_depth": "8.5"}, "ir_depth='8.5' is not a whole number"),
    ],
)
def test_bad_options_are_named(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence) as caught:
        RigConfig.from_options(options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "options",
    [
        {"size": 640},
        {"size": (640.0, 480)},
        {"size": (99999, 480)},
        {"ir_size": (4, 4)},
        {"seed": 1.5},
        {"vis_fps": "25"},
        {"shift": 3},
        {"misalignment": "identity"},
        {"misalignment": np.eye(2)},
        {"noise": -1},
    ],
)
def test_bad_values_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(options))):
        RigConfig(**options)


def test_bad_frames_are_refused() -> None:
    for n in (-1, 1.5):
        bad: Any = n
        with pytest.raises(InputError, match=r"frame number .* is not a whole number"):
            rig().frame("ir", bad)
    for name in ("infrared", ""):
        camera: Any = name
        with pytest.raises(InputError, match="known are ir, vis"):
            rig().frame(camera, 0)
