import numpy as np
import pytest

from edgefuse.calibrate.drift import Drift
from edgefuse.rig import Rig as RigFile
from edgefuse.rig import RigAlign
from edgefuse.runtime.frames import FusedFrame
from edgefuse.sim import Rig, RigConfig

SIZE = (640, 480)


def rig_file(right=0.0, down=0.0):
    return RigFile(((1.0, 0.0, right), (0.0, 1.0, down), (0.0, 0.0, 1.0)), SIZE, SIZE)


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


def test_follows_slowly_and_stops():
    align = RigAlign(rig_file(right=-4.0))
    drift = Drift(align, refine=True)
    places = []
    for frame in frames(align, 12):
        drift._measure(frame)
        places.append(align.rig.matrix[0][2])
    steps = np.diff(places)
    assert places[-1] > -3.0
    assert steps.max() <= 0.0005 * SIZE[0] + 1e-6, "no jump"
    assert drift.snapshot().moved > 0


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
