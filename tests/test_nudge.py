import cv2
import numpy as np
import pytest

from edgefuse.calibrate.manual import HELP, Nudge
from edgefuse.rig import Rig
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


def test_the_window_hands_its_keys_on(monkeypatch, hand):
    nudge, align, _, _ = hand
    shown, keys = [], iter([-1, ord("d"), ord("d"), ord("q")])
    monkeypatch.setattr("edgefuse.runtime.sinks.window.check_display", lambda: None)
    monkeypatch.setattr(cv2, "imshow", lambda _, image: shown.append(image))
    monkeypatch.setattr(cv2, "waitKey", lambda _: next(keys))
    monkeypatch.setattr(cv2, "getWindowProperty", lambda *_: 1.0)
    for name in ("namedWindow", "resizeWindow", "destroyAllWindows"):
        monkeypatch.setattr(cv2, name, lambda *_: None)
    closed = []
    with Window(lambda: closed.append(1), keys=nudge) as window:
        for _ in range(4):
            window.write(frame())
    assert align.rig.matrix[0][2] == pytest.approx(2)
    assert closed == [1]
    assert len(shown) == 4
