"""Aligning an infrared and a visible camera from what they see."""

from edgefuse.calibrate.manual import Board, Boards
from edgefuse.calibrate.registration import Estimate, estimate, make_rig, refine_from, residual_at
from edgefuse.calibrate.scenes import (
    CalibrationError,
    Scenes,
    both_grey,
    collect,
    expected_error,
    load_pairs,
    save_pairs,
)

__all__ = [
    "Board",
    "Boards",
    "CalibrationError",
    "Estimate",
    "Scenes",
    "both_grey",
    "collect",
    "estimate",
    "expected_error",
    "load_pairs",
    "make_rig",
    "refine_from",
    "residual_at",
    "save_pairs",
]
