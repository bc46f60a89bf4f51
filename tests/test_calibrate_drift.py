from dataclasses import replace

import cv2
import numpy as np
import pytest

from edgefuse.calibrate.drift import Drift, FollowDistance
from edgefuse.errors import InputError
from edgefuse.rig import Rig as RigFile
from edgefuse.rig import RigAlign, rows
from edgefuse.runtime.frames import FusedFrame
from edgefuse.sim import Rig, RigConfig

SIZE = (640, 480)


def rig_file(right=0.0, down=0.0, scale=1.0, turn=0.0):
    """Return a rig that puts infrared off by so much, larger and turned (degrees) about the middle."""
    matrix = np.vstack([cv2.getRotationMatrix2D((319.5, 239.5), -turn, scale), [0, 0, 1]])
    matrix[:2, 2] += (right, down)
    return RigFile(rows(matrix), SIZE, SIZE)


def frames(align, count):
    """Yield frames of a simulated rig whose cameras see exactly the same, aligned by `align`."""
    rig = Rig(RigConfig(size=SIZE, seed=2))
    for index in range(count):
        ir, vis = rig.frame("ir", 10 * index), rig.frame("vis", 10 * index)
        aligned = align(ir, vis.shape[:2])
        yield FusedFrame(aligned.image, vis, vis, index, 0.0, valid=aligned.valid)


def test_says_how_far_the_alignment_is_off(caplog):
    align = RigAlign(rig_file(right=5.0, down=-1.0))
    drift = Drift(align)
    assert drift.snapshot().sentence().startswith("alignment not known yet")
    for frame in frames(align, 6):
        drift._measure(frame)
    report = drift.snapshot()
    assert report.off_px == pytest.approx(5.1, abs=0.6)
    assert report.direction == "right"
    assert "alignment off by" in report.sentence()
    assert "off by" in caplog.text
    assert align.rig == rig_file(right=5.0, down=-1.0), "only reported"


@pytest.mark.parametrize(
    ("off", "words"),
    [({"right": -4.0}, "left"), ({"scale": 1.012}, "too large"), ({"turn": -0.9}, "turned left")],
    ids=["shift", "zoom", "turn"],
)
def test_follows_slowly(off, words):
    align = RigAlign(rig_file(**off))
    drift = Drift(align, refine=True)
    corners = np.array([[0, 0, 1], [639, 0, 1], [0, 479, 1], [639, 479, 1.0]]).T
    places = []
    for index, frame in enumerate(frames(align, 12)):
        drift._measure(frame)
        places.append((np.array(align.rig.matrix) @ corners)[:2])
        if index == 4:
            assert words in drift.snapshot().direction
    errors = [np.linalg.norm(place - corners[:2], axis=0).mean() for place in places]
    assert errors[-1] < errors[0] - 6 * 0.25
    steps = np.linalg.norm(np.diff(places, axis=0), axis=1)
    assert steps.max() <= 0.0005 * SIZE[0] + 0.01, "no jump"
    assert drift.snapshot().moved >= 7


def test_moves_only_where_a_calibration_would_come_to_too(monkeypatch):
    align = RigAlign(rig_file(right=-4.0))
    drift = Drift(align, refine=True)
    monkeypatch.setattr("edgefuse.calibrate.drift.confirms", lambda *_: False)
    for frame in frames(align, 7):
        drift._measure(frame)
    assert align.rig == rig_file(right=-4.0)
    assert drift.snapshot().moved == 0


def test_measures_again_after_somebody_moved_it():
    align = RigAlign(rig_file(right=-4.0))
    drift = Drift(align)
    shots = frames(align, 10)
    for _ in range(5):
        drift._measure(next(shots))
    assert drift.snapshot().off_px == pytest.approx(4, abs=0.6)
    align.update(lambda rig: rig.moved(np.array([[1, 0, 4.0], [0, 1, 0], [0, 0, 1]])))
    next(shots)
    drift._measure(next(shots))
    assert not drift.snapshot().known
    for _ in range(3):
        drift._measure(next(shots))
    assert not drift.snapshot().known


def test_stops_when_it_is_there_and_begins_only_when_it_is_clearly_off():
    for right, moves in ((-1.5, False), (-2.9, True)):
        align = RigAlign(rig_file(right=right))
        drift = Drift(align, refine=True)
        for frame in frames(align, 16):
            drift._measure(frame)
        assert (drift.snapshot().moved > 0) == moves
    moved = drift.snapshot().moved
    assert moved <= 10, "it trembles not"
    assert abs(align.rig.matrix[0][2]) < 1.0


def test_leaves_alone_what_is_right_or_unclear():
    align = RigAlign(rig_file())
    drift = Drift(align, refine=True)
    for frame in frames(align, 6):
        drift._measure(frame)
    blank = np.full((480, 640), 90, np.uint8)
    drift._measure(FusedFrame(blank, np.dstack([blank] * 3), blank, 0, 0.0))
    report = drift.snapshot()
    assert report.off_px < 1
    assert (report.measured, report.unclear, report.moved) == (6, 1, 0)
    assert align.rig == rig_file()


def test_follows_the_distance_along_the_parallax():
    # What is seen is far away, but the map is for 6 m: 5 pixels off along the baseline.
    rig = replace(rig_file(), distance=None, parallax=(30.0, 3.0, 0.0))
    align = RigAlign(rig.at(6.0))
    follow = FollowDistance(align)
    distances = []
    for frame in frames(align, 14):
        follow._measure(frame)
        distances.append(align.rig.distance or 0.0)
    assert distances[3] == 6.0, "not on a few measurements"
    assert distances[-1] > 20
    assert abs(align.rig.matrix[0][2]) < 1.5
    steps = np.abs(np.diff([1 / distance for distance in distances])) * np.hypot(30, 3)
    assert steps.max() <= 0.002 * SIZE[0] + 0.01
    with pytest.raises(InputError, match="no parallax"):
        FollowDistance(RigAlign(rig_file()))
