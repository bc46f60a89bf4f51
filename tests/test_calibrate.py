import io
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from edgefuse.calibrate import CalibrationError, Estimate, Scenes, collect, estimate, expected_error, make_rig
from edgefuse.calibrate.features import Picture, edge_field, valid_area
from edgefuse.calibrate.nudge import before_and_after
from edgefuse.calibrate.scenes import EXPECTED_PX
from edgefuse.cli import app
from edgefuse.cli.calibrate import _progress, progress_of
from edgefuse.cli.console import Output
from edgefuse.errors import InputError, counted
from edgefuse.images import luma, write_image
from edgefuse.runtime.record import LosslessVideo
from edgefuse.sim import Rig, RigConfig
from edgefuse.thermal import as_infrared

ROOT = Path(__file__).parent.parent


def shot(seed=0, **config):
    """Return a pair and the true map."""
    rig = Rig(RigConfig(seed=seed, **config))
    return (rig.frame("ir", 40), rig.frame("vis", 40)), rig.homography


def corner_error(matrix, truth, size):
    width, height = size
    corners = np.array([[0, 0], [width - 1, 0], [0, height - 1], [width - 1, height - 1]], float)[None]
    return np.linalg.norm(
        cv2.perspectiveTransform(corners, matrix) - cv2.perspectiveTransform(corners, truth), axis=2
    ).mean()


@pytest.mark.parametrize(
    ("config", "most"),
    [
        ({"scale": 0.8, "rotation": 4.0, "shift": (40, -25)}, 0.6),
        ({"size": (1280, 1024), "ir_size": (640, 512), "scale": 1.3, "shift": (-60, 40)}, 1.5),
        ({"size": (960, 540), "ir_size": (320, 256), "rotation": -3.0}, 1.5),
    ],
    ids=["similar", "sizes differ", "pixels not square"],
)
def test_finds_the_map_of_one_pair(config, most):
    pair, truth = shot(3, **config)
    found = estimate([pair])
    assert corner_error(found.matrix, truth, pair[0].shape[::-1]) < most
    assert found.z > 10
    assert found.confidence > 0.8
    assert found.scenes == 1
    assert found.residual_px < 3


def dark(ir, vis):
    noise = np.random.default_rng(0).normal(0, 1.5, vis.shape)
    return ir, np.clip(vis * 0.06 + noise, 0, 255).astype(np.uint8)


def dead_pixels(ir, vis):
    rng = np.random.default_rng(0)
    ir[rng.integers(0, 240, 60), rng.integers(0, 320, 60)] = rng.choice([0, 65535], 60)
    return as_infrared(ir), vis


def upright(ir, vis):
    return np.ascontiguousarray(np.rot90(ir)), np.ascontiguousarray(np.rot90(vis))


@pytest.mark.parametrize(
    ("config", "change", "most"),
    [
        ({"ir_size": (160, 120), "size": (640, 480)}, lambda *pair: pair, 2.0),
        ({"ir_depth": 16}, dead_pixels, 0.8),
        ({}, dark, 0.8),
        ({}, upright, 0.8),
        ({"scale": 0.42}, lambda *pair: pair, 1.0),
        ({"rotation": -10.0}, lambda *pair: pair, 0.8),
        ({"shift": (-144.0, 0.0)}, lambda *pair: pair, 1.0),
    ],
    ids=["tiny", "16 bits and dead pixels", "dark", "upright", "narrow", "turned", "half aside"],
)
def test_finds_the_map_of_odd_cameras(config, change, most):
    pair, truth = shot(3, **({"size": (320, 240)} | config))
    pair = change(*pair)
    if change is upright:  # left and right become bottom and top
        turn = np.array([[0, 1, 0], [-1, 0, 319], [0, 0, 1.0]])
        truth = turn @ truth @ np.linalg.inv(turn)
    assert corner_error(estimate([pair]).matrix, truth, pair[0].shape[::-1]) < most


def test_several_scenes_show_the_distortion_of_a_lens():
    config = {"size": (320, 240), "scale": 0.9}
    for k in (0.0, 0.1):
        pairs = []
        for code in (None, 1, 0, -1):  # turned over, one street is four scenes with the same map
            pair, truth = shot(4, ir_distortion=k, **config)
            pairs.append(pair if code is None else tuple(cv2.flip(image, code) for image in pair))
        found = estimate(pairs)
        assert found.ir_distortion == pytest.approx(k, abs=0.012)
        assert corner_error(found.matrix, truth, (320, 240)) < 0.8
    known = estimate(pairs[:1], distortion=(0.1, 0.0))
    assert known.ir_distortion == 0.1
    assert corner_error(known.matrix, truth, (320, 240)) < 0.8


def test_the_brighter_side_of_an_edge_does_not_matter():
    grey = shot(1)[0][0]
    plain, inverted = edge_field(Picture.of(grey)), edge_field(Picture.of(255 - grey))
    np.testing.assert_allclose(plain, inverted, atol=1e-3)


def test_finds_infrared_that_is_mirrored():
    (ir, vis), truth = shot(2, scale=0.9)
    found = estimate([(np.ascontiguousarray(ir[:, ::-1]), vis)])
    assert found.flip == "mirrored"
    assert found.moves((640, 480), (640, 480)) == pytest.approx((0.9, 0.0, 0.0, 0.0), abs=0.5)
    mirror = np.array([[-1, 0, ir.shape[1] - 1], [0, 1, 0], [0, 0, 1.0]])
    assert corner_error(found.matrix, truth @ mirror, ir.shape[::-1]) < 1


def test_black_borders_of_a_warped_picture_are_no_edges():
    (ir, vis), _ = shot(5)
    turn = cv2.getRotationMatrix2D((320, 240), 5, 0.75)
    warped = cv2.warpAffine(ir, turn, (640, 480))
    inside = cv2.warpAffine(np.full_like(ir, 255), turn, (640, 480))
    assert np.mean((valid_area(warped) == 255) == (inside == 255)) > 0.97
    truth = np.linalg.inv(np.vstack([turn, [0, 0, 1]]))
    assert corner_error(estimate([(warped, vis)]).matrix, truth, (640, 480)) < 2


def test_a_dark_sky_is_no_border():
    grey = np.random.default_rng(0).integers(60, 200, (240, 320)).astype(np.uint8)
    skyline = np.cumsum(np.random.default_rng(1).integers(-6, 7, 320)) + 110
    sky = np.arange(240)[:, None] < skyline
    grey[sky] = 0
    assert np.mean(valid_area(grey)[cv2.dilate(sky.astype(np.uint8), np.ones((9, 9))) > sky]) > 245


def textured(seed, shape=(120, 160)):
    """Return blobs of several sizes, different ones for each seed."""
    rng = np.random.default_rng(seed)
    blobs = [cv2.GaussianBlur(rng.normal(size=shape), (0, 0), sigma) * sigma for sigma in (1.5, 4.0, 10.0)]
    return np.clip(128 + 40 * sum(blobs), 0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    ("ir", "vis", "why"),
    [
        (textured(1), textured(2), "no better than by chance"),
        (np.full((120, 160), 90, np.uint8), textured(2), "infrared pictures are uniform"),
        (textured(1), np.zeros((120, 160, 3), np.uint8), "visible pictures are uniform"),
        (textured(1), textured(1), "name one camera"),
        (
            cv2.applyColorMap(textured(1), cv2.COLORMAP_JET),
            cv2.cvtColor(textured(2), cv2.COLOR_GRAY2BGR),
            "swapped",
        ),
        (textured(1), cv2.blur(textured(2), (31, 1)), "blurred"),
        (np.tile(np.arange(160, dtype=np.uint8), (120, 1)), textured(3), "no better than by chance"),
    ],
    ids=["unrelated", "covered", "wall", "identical", "swapped", "motion blur", "ramp"],
)
def test_refuses_what_determines_no_map(ir, vis, why):
    with pytest.raises(CalibrationError, match=why):
        estimate([(ir, vis)])


def test_refuses_a_lattice_that_agrees_in_many_places():
    y, x = np.mgrid[:240, :320]
    rng = np.random.default_rng(1)
    ir, vis = (
        np.where(((x + y * slope) % 24 < 5) | ((y - x * slope) % 24 < 5), 180, 60) for slope in (0.0, 0.05)
    )
    noisy = [np.clip(image + rng.normal(0, 6, x.shape), 0, 255).astype(np.uint8) for image in (ir, 255 - vis)]
    with pytest.raises(CalibrationError, match="two different maps agree nearly as well"):
        estimate([(noisy[0], noisy[1])])


@pytest.mark.parametrize(
    ("z", "rival", "refused"), [(13.3, 6.8, False), (8.0, 5.4, False), (8.0, 5.6, True), (30.0, 20.0, True)]
)
def test_a_rival_counts_by_its_part_of_the_best_map(monkeypatch, z, rival, refused):
    made = Estimate(np.eye(3), "similarity", z, 0.3, 0.5, 1, 1, rival)
    monkeypatch.setattr("edgefuse.calibrate.registration._estimate", lambda *_: made)
    pair = textured(1, (240, 320)), textured(2, (240, 320))
    if refused:
        with pytest.raises(CalibrationError, match="two different maps"):
            estimate([pair])
    else:
        assert estimate([pair]).z == z


def test_pictures_of_several_sizes_are_refused():
    with pytest.raises(InputError, match=r"160x120.*then.*80x60"):
        estimate([(textured(1), textured(2)), (textured(1, (60, 80)), textured(2))])
    with pytest.raises(InputError, match="no pairs"):
        estimate([])


def test_keeps_scenes_that_differ():
    scenes = Scenes(most=6)
    for seed in (0, 0, 0, 1, 1, 2):
        for shake in range(4):
            scenes.offer(textured(seed, (240, 320)), np.roll(textured(seed, (240, 320)), shake, axis=1))
    assert scenes.count == 3
    assert len(scenes.pairs) <= 6
    firsts = [pair[0] for pair in scenes.pairs[:3]]
    for seed, ir in enumerate(firsts):
        np.testing.assert_array_equal(ir, textured(seed, (240, 320)))


def folders(tmp_path, pairs):
    for index, (ir, vis) in enumerate(pairs):
        for role, image in (("ir", ir), ("vis", vis)):
            (tmp_path / role).mkdir(exist_ok=True)
            write_image(tmp_path / role / f"{index}.png", image)
    return str(tmp_path / "ir"), str(tmp_path / "vis")


def test_command_writes_a_rig_file_and_a_picture(tmp_path):
    pair, truth = shot(3, scale=0.8, shift=(40, -25))
    ir, vis = folders(tmp_path, [pair])
    out = tmp_path / "rig.json"
    result = CliRunner().invoke(app, ["calibrate", "--ir", ir, "--vis", vis, "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert "residual" in result.output
    written = json.loads(out.read_text())
    assert corner_error(np.array(written["matrix"]), truth, (640, 480)) < 0.6
    assert written["ir_size"] == [640, 480]
    assert (tmp_path / "rig.png").stat().st_size > 10_000


def colours(grey):
    return cv2.merge([grey, 255 - grey, grey // 2])


BAD = {
    "identical streams": (textured(1), textured(1), "both sources give the same pictures"),
    "covered lens": (np.zeros((120, 160), np.uint8), colours(textured(2)), "infrared pictures are uniform"),
    "uniform wall": (textured(1), np.full((120, 160, 3), 90, np.uint8), "visible pictures are uniform"),
    "swapped cameras": (colours(textured(1)), textured(1), "the cameras look swapped"),
    "pure motion blur": (
        textured(1),
        colours(cv2.blur(textured(1), (61, 1))),
        "the visible pictures are blurred; focus, and hold the rig still",
    ),
    "turned camera": (
        np.ascontiguousarray(textured(1).T),
        colours(textured(2)),
        "one camera stands upright and the other lies; turn one with rotate=90 or 270",
    ),
    "unrelated scenes": (textured(1), colours(textured(2)), "agree no better than by chance"),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_input_gets_one_sentence_and_no_rig_file(tmp_path, what):
    first, second, why = BAD[what]
    ir, vis = folders(tmp_path, [(first, second)])
    out = tmp_path / "rig.json"
    result = CliRunner().invoke(app, ["calibrate", "--ir", ir, "--vis", vis, "--out", str(out)])
    assert result.exit_code != 0
    assert isinstance(result.exception, CalibrationError)
    assert why in str(result.exception)
    assert "\n" not in str(result.exception)
    assert not out.exists()


@pytest.mark.parametrize("options", ["", "?realtime=1"], ids=["recording", "live"])
def test_swapped_cameras_are_said_so_in_recordings_too(tmp_path, options):
    for role, image in zip(("ir", "vis"), shot(3, size=(320, 240))[0], strict=True):
        video = LosslessVideo(tmp_path / f"{role}.mkv", image, 25.0, {})
        for n in range(4):
            video.write(image, n / 25, n)
        video.close()
    ir, vis = f"{tmp_path / 'vis.mkv'}{options}", f"{tmp_path / 'ir.mkv'}{options}"
    command = ["calibrate", "--ir", ir, "--vis", vis, "--out", str(tmp_path / "rig.json")]
    result = CliRunner().invoke(app, command)
    assert isinstance(result.exception, CalibrationError), result.output
    assert "the cameras look swapped" in str(result.exception)
    assert not (tmp_path / "rig.json").exists()


def test_mirrored_infrared_is_said_so(tmp_path):
    (infrared, visible), _ = shot(2, size=(320, 240))
    ir, vis = folders(tmp_path, [(np.ascontiguousarray(infrared[:, ::-1]), visible)])
    out = tmp_path / "rig.json"
    command = ["calibrate", "--ir", ir, "--vis", vis, "--out", str(out), "--no-pictures"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    assert "infrared is mirrored" in result.output
    assert json.loads(out.read_text())["matrix"][0][0] < 0


def test_grey_cameras_that_may_be_exchanged_are_hinted_at(tmp_path):
    (infrared, visible), _ = shot(3, size=(320, 240))
    for picture, hinted in ((visible, False), (cv2.cvtColor(visible, cv2.COLOR_BGR2GRAY), True)):
        ir, vis = folders(tmp_path, [(infrared, picture)])
        command = ["calibrate", "--ir", ir, "--vis", vis, "--out", str(tmp_path / "rig.json")]
        result = CliRunner().invoke(app, command)
        assert result.exit_code == 0, result.output
        assert ("whether --ir and --vis are exchanged" in result.output) == hinted


def test_the_expected_error_is_what_was_measured(tmp_path):
    rows = json.loads((ROOT / "docs" / "registration.json").read_text("utf-8"))["rows"]
    measured = {row["name"]: row for row in rows}
    for count, pixels in EXPECTED_PX.items():
        row = measured[f"{counted(count, 'scene')} of all sets"]
        assert pixels == pytest.approx(row["p68"], abs=0.13), count
    assert expected_error(9, (640, 480), (640, 480)) == EXPECTED_PX[9]
    assert expected_error(30, (640, 512), (1280, 1024)) == 2 * EXPECTED_PX[9]
    assert expected_error(1, (160, 120), (640, 480)) == 4 * EXPECTED_PX[1]
    pair = textured(1, (480, 640)), textured(2, (480, 640))
    assert progress_of([], 0, 9) == "0 of 9 scenes"
    assert progress_of([pair], 3, 9) == f"3 of 9 scenes, ± {EXPECTED_PX[3]:.1f} px"
    ir, vis = folders(tmp_path, [shot(3, size=(320, 240))[0]])
    command = ["calibrate", "--ir", ir, "--vis", vis, "--out", str(tmp_path / "rig.json"), "--no-pictures"]
    result = CliRunner().invoke(app, command)
    assert f"1 of 9 scenes, ± {EXPECTED_PX[1]:.1f} px" in result.output
    assert f"expected error ± {EXPECTED_PX[1]:.1f} px" in result.output


def test_a_moving_rig_shows_no_scenes(monkeypatch):
    def film(order):
        for seed in order:
            yield textured(seed, (240, 320)), textured(seed, (240, 320)), "live"

    held, turning = [1, 1, 1, 2, 2, 2], [1, 1, 1, 7, 8, 9, 2, 2, 2]
    for order in (held, turning):
        monkeypatch.setattr("edgefuse.calibrate.scenes._pairs_of", lambda *_, o=order: film(o))
        scenes = Scenes()
        collect("a", "b", scenes)
        assert scenes.count == 2
    monkeypatch.setattr("edgefuse.calibrate.scenes._pairs_of", lambda *_: film([3, 4, 5]))
    scenes, told = Scenes(), []
    collect("a", "b", scenes, progress=lambda count, _: told.append(count))
    assert scenes.count == 3, "nothing else was seen"
    assert told == [3]


def test_a_camera_that_is_shifted_is_aligned_from_there(tmp_path):
    (infrared, visible), truth = shot(3, size=(320, 240))
    ir, vis = folders(tmp_path, [(infrared, visible)])
    out = tmp_path / "rig.json"
    command = ["calibrate", "--ir", f"{ir}?shift=40,20", "--vis", vis, "--out", str(out), "--no-pictures"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    found = np.array(json.loads(out.read_text())["matrix"])
    moved = truth @ np.array([[1, 0, -40], [0, 1, -20], [0, 0, 1.0]])
    assert corner_error(found, moved, (320, 240)) < 1


def test_recordings_are_collected_and_can_be_kept(tmp_path):
    arguments = ["calibrate", "--keep", str(tmp_path / "kept"), "--out", str(tmp_path / "rig.json")]
    ir, vis = "sim?frames=8&seed=4&scale=0.9", "sim?frames=8&seed=4&scale=0.9"
    result = CliRunner().invoke(app, [*arguments, "--ir", ir, "--vis", vis, "--no-pictures"])
    assert result.exit_code == 0, result.output
    assert len(list((tmp_path / "kept" / "ir").iterdir())) >= 1
    assert not (tmp_path / "rig.png").exists()


def test_an_earlier_run_is_resumed(tmp_path):
    kept, by_hand = ["--keep", str(tmp_path / "kept")], ["--points", "0,0:0,0 100,90:100,90"]
    for run in (1, 2):
        here = tmp_path / str(run)
        here.mkdir()
        ir, vis = folders(here, [(textured(run), textured(run + 2))])
        command = [
            "calibrate",
            "--ir",
            ir,
            "--vis",
            vis,
            "--out",
            str(tmp_path / "rig.json"),
            "--no-pictures",
        ]
        result = CliRunner().invoke(app, [*command, *kept, *by_hand])
        assert result.exit_code == 0, result.output
        assert f"{run} of 9 scenes, ±" in result.output
    assert len(list((tmp_path / "kept" / "vis").iterdir())) == 2


def test_picture_shows_before_and_after():
    pair, _ = shot(3, size=(320, 240), shift=(20, 10))
    picture = before_and_after(make_rig(estimate([pair]), pair, "a", "b"), *pair)
    assert picture.shape == (480, 640, 3)
    assert np.abs(picture[:240].astype(int) - picture[240:]).mean() > 1


def test_points_and_baseline_set_the_map_by_hand(tmp_path):
    ir, vis = folders(tmp_path, [(textured(1), textured(2))])
    out = tmp_path / "rig.json"
    arguments = ["calibrate", "--ir", ir, "--vis", vis, "--out", str(out), "--no-pictures"]
    by_hand = ["--points", "10,10:25,5 100,10:115,5", "--baseline", "0.1", "--focal", "686"]
    result = CliRunner().invoke(app, [*arguments, *by_hand])
    assert result.exit_code == 0, result.output
    assert "10 m: 6.9 px" in result.output
    written = json.loads(out.read_text())
    np.testing.assert_allclose(written["matrix"], [[1, 0, 15], [0, 1, -5], [0, 0, 1]], atol=1e-9)
    assert written["parallax"] == pytest.approx([68.6, 0, 0])
    assert written["residual_px"] > 1, "two points say nothing of themselves, the edges of noise disagree"
    assert "takes what the pictures show for far away" in result.output
    assert "far away" not in CliRunner().invoke(app, [*arguments, *by_hand, "--distance", "9"]).output
    for wrong in (
        ["--points", "1,2"],
        ["--points", "1,1:2,2 1,1:2,2"],
        ["--baseline", "0.1"],
        ["--points", "1..,2:3,4"],
    ):
        assert isinstance(CliRunner().invoke(app, [*arguments, *wrong]).exception, InputError)


@pytest.mark.parametrize("way", ["moved", "inverted"])
def test_one_camera_given_twice_is_refused_however_it_looks(way):
    vis = Rig(RigConfig(size=(320, 240))).frame("vis", 0)
    other = np.roll(vis, 8, axis=1) if way == "moved" else 255 - luma(np.roll(vis, 8, axis=1))
    with pytest.raises(
        CalibrationError, match=r"\d+% of all edges agree, as only those of two pictures of one"
    ):
        estimate([(other, vis)])


def test_who_waits_without_a_terminal_hears_what_for(monkeypatch):
    now, scenes = [0.0], Scenes()
    scenes.offer(textured(1), textured(2))
    monkeypatch.setattr("edgefuse.cli.calibrate.time.monotonic", lambda: now[0])
    with _progress(Output(file=(said := io.StringIO()), width=200), scenes, 9) as show:
        for seconds, count in ((1, 1), (10, 1), (17, 1), (20, 1), (33, 2), (40, 2)):
            now[0] = float(seconds)
            show(count, 1)
    first, reminder, second = said.getvalue().splitlines()
    assert first.startswith("1 of 9 scenes, ±")
    assert reminder == f"{first}; now show another one, Ctrl-C takes what is there"
    assert second.startswith("2 of 9 scenes, ±")
