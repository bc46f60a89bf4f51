import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from edgefuse.calibrate.nudge import HELP, Nudge, by_frame
from edgefuse.cli import app
from edgefuse.errors import InputError
from edgefuse.images import write_image
from edgefuse.rig import Rig, rows
from edgefuse.runtime.alignment import Alignment
from edgefuse.runtime.frames import FusedFrame
from edgefuse.runtime.sinks import Window

SIZE = (64, 48)
EYE = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def hand(tmp_path):
    path = tmp_path / "rig.json"
    Rig(EYE, SIZE, SIZE, distance=10.0, parallax=(20.0, 0.0, 0.0)).save(path)
    align = Rig.load(path).align()
    clock = Clock()
    return Nudge(Alignment(path, align), clock), align, path, clock


def press(nudge, keys):
    return [nudge.press(ord(key)) for key in keys]


def frame():
    ir = np.zeros((48, 64), np.uint8)
    ir[:, 32:] = 200
    return FusedFrame(ir, np.dstack([ir] * 3), np.full((48, 64, 3), 50, np.uint8), 0, 0.0)


def test_keys_move_zoom_and_turn(hand):
    nudge, align, path, _ = hand
    assert all(press(nudge, "dDsW"))
    assert np.array(align.rig.matrix)[:2, 2] == pytest.approx([11, -9])
    press(nudge, "uU")
    assert align.rig == Rig.load(path)
    press(nudge, "+++]")
    middle = np.array([31.5, 23.5, 1])
    matrix = np.array(align.rig.matrix)
    np.testing.assert_allclose(matrix @ middle, middle, atol=1e-9)
    assert np.sqrt(np.linalg.det(matrix[:2, :2])) == pytest.approx(1.002**3)
    assert np.degrees(np.arctan2(matrix[1, 0], matrix[0, 0])) == pytest.approx(0.1)
    press(nudge, "---[")
    np.testing.assert_allclose(align.rig.matrix, EYE, atol=1e-9)


def test_keys_change_the_distance_and_keep(hand):
    nudge, align, path, _ = hand
    press(nudge, "<,")
    assert align.rig.distance == pytest.approx(10 / 1.05**2)
    assert align.rig.matrix[0][2] == pytest.approx(20 * (1.05**2 / 10 - 1 / 10))
    assert "K keeps" in nudge.message
    assert Rig.load(path).distance == 10, "not kept yet"
    press(nudge, "k")
    assert Rig.load(path) == align.rig
    press(nudge, ">>d")
    press(nudge, "u")
    assert Rig.load(path) == align.rig


def test_what_cannot_be_is_said(hand):
    nudge, align, _, _ = hand
    for _ in range(9):
        press(nudge, "D")
    assert "outside the visible" in nudge.message
    assert align.rig.matrix[0][2] == pytest.approx(60)
    assert press(nudge, "xyz9") == [False] * 4
    assert not nudge.press(255)
    assert press(nudge, "h") == [True]
    assert nudge.message == HELP


def test_draws_edges_and_the_last_message_for_a_while(hand):
    nudge, _, _, clock = hand
    shot = frame()
    assert (nudge.draw(shot, shot.fused) != shot.fused).any(), "the help at the beginning"
    clock.now = 20.0
    assert nudge.draw(shot, shot.fused) is shot.fused
    press(nudge, "e")
    clock.now = 40.0
    edges = nudge.draw(shot, shot.fused)
    assert edges[:, 31:33].max() > 200, "where both have it"
    assert edges[:, :20].max() < 40
    press(nudge, "e")
    clock.now = 60.0
    assert nudge.draw(shot, shot.fused) is shot.fused


def open_no_window(monkeypatch, pressed):
    """Answer with these keys, one a picture, and return what is shown."""
    shown, keys = [], iter(pressed)
    monkeypatch.setattr("edgefuse.runtime.sinks.pictures.check_display", lambda: None)
    monkeypatch.setattr(cv2, "imshow", lambda _, image: shown.append(image))
    monkeypatch.setattr(cv2, "waitKey", lambda _: next(keys))
    monkeypatch.setattr(cv2, "getWindowProperty", lambda *_: 1.0)
    for name in ("namedWindow", "resizeWindow", "destroyAllWindows"):
        monkeypatch.setattr(cv2, name, lambda *_: None)
    return shown


def test_the_window_hands_its_keys_on(monkeypatch, hand):
    nudge, align, _, _ = hand
    shown = open_no_window(monkeypatch, [-1, ord("d"), ord("d"), ord("q")])
    closed = []
    with Window(lambda: closed.append(1), keys=nudge) as window:
        for _ in range(4):
            window.write(frame())
    assert align.rig.matrix[0][2] == pytest.approx(2)
    assert closed == [1]
    assert len(shown) == 4


def textured(seed, size=(240, 320)):
    rng = np.random.default_rng(seed)
    blobs = [cv2.GaussianBlur(rng.normal(size=size), (0, 0), sigma) * sigma for sigma in (1.5, 4.0, 10.0)]
    return np.clip(128 + 40 * sum(blobs), 0, 255).astype(np.uint8)


def moved_by(right, down):
    return rows(np.array([[1, 0, right], [0, 1, down], [0, 0, 1.0]]))


def test_r_refines_by_the_picture_and_k_keeps_its_residual(tmp_path):
    path, size = tmp_path / "rig.json", (320, 240)
    Rig(moved_by(5, -3), size, size, residual_px=9.0).save(path)
    align = Rig.load(path).align()
    nudge = Nudge(Alignment(path, align, by_frame))
    vis = textured(1)
    ir = 255 - vis

    def show():
        aligned = align(ir, vis.shape)
        shot = FusedFrame(aligned.image, vis, vis, 0, 0.0, valid=aligned.valid)
        nudge.draw(shot, shot.fused)

    show()
    press(nudge, "r")
    for _ in range(3):
        show()
        assert align.rig.matrix[0][2] == 5, "not by a picture that may be older than the last key"
    show()
    assert np.array(align.rig.matrix)[:2, 2] == pytest.approx([0, 0], abs=0.4)
    assert "refined, residual" in nudge.message
    show()
    press(nudge, "k")
    assert Rig.load(path).residual_px < 0.5
    press(nudge, "ddd")
    show()
    press(nudge, "k")
    assert Rig.load(path).residual_px == pytest.approx(3, abs=0.6), "what it is off by after moving"
    assert nudge.kept
    for _ in range(4):  # unrelated pictures say nothing
        press(nudge, "r")
    vis = textured(2)
    for _ in range(4):
        show()
    assert "too far off to be refined" in nudge.message


@pytest.fixture
def folders(tmp_path):
    vis = textured(1)
    ir = 255 - cv2.warpAffine(vis, np.array([[1, 0, -6.0], [0, 1, 4]]), (320, 240))
    for role, image in (("ir", ir), ("vis", cv2.merge([vis, vis // 2, vis // 3]))):
        (tmp_path / role).mkdir()
        write_image(tmp_path / role / "0.png", image)
    out = tmp_path / "rig.json"
    return ["calibrate", "--ir", str(tmp_path / "ir"), "--vis", str(tmp_path / "vis"), "--out", str(out)], out


def test_calibrate_is_ended_by_the_keys(monkeypatch, folders):
    command, out = folders
    by_hand = ["--points", "0,0:0,0 300,200:300,200", "--nudge"]
    shown = open_no_window(monkeypatch, [ord(key) for key in "ddddssnk"])
    result = CliRunner().invoke(app, [*command, *by_hand])
    assert result.exit_code == 0, result.output
    rig = Rig.load(out)
    assert np.array(rig.matrix)[:2, 2] == pytest.approx([4, 2])
    assert rig.model == "nudged"
    assert len(shown) == 8
    open_no_window(monkeypatch, [ord(key) for key in "r----k"])
    assert CliRunner().invoke(app, [*command, *by_hand]).exit_code == 0
    place = np.array(Rig.load(out).matrix) @ (159.5, 119.5, 1)
    assert place == pytest.approx([165.5, 115.5, 1], abs=0.5), "R came before the last zooms"


def test_a_window_that_is_closed_writes_no_rig_file(monkeypatch, folders):
    command, out = folders
    open_no_window(monkeypatch, [ord("d"), ord("q")])
    result = CliRunner().invoke(app, [*command, "--nudge"])
    assert isinstance(result.exception, InputError)
    assert "was closed before K kept" in str(result.exception)
    assert not out.exists()


def test_where_no_map_is_found_the_window_begins_with_both_laid_on_each_other(monkeypatch, folders, tmp_path):
    command, out = folders
    write_image(tmp_path / "ir" / "0.png", textured(7))
    open_no_window(monkeypatch, [ord("d"), ord("k")])
    result = CliRunner().invoke(app, [*command, "--nudge"])
    assert result.exit_code == 0, result.output
    assert "No map was found" in result.stderr
    assert np.array(Rig.load(out).matrix) == pytest.approx(np.array(moved_by(1, 0)))
