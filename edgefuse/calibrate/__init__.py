"""Aligning an infrared and a visible camera from what they see."""

from edgefuse.calibrate.registration import CalibrationError, Estimate, estimate, make_rig
from edgefuse.calibrate.scenes import Scenes, collect, load_pairs, save_pairs

__all__ = [
    "CalibrationError",
    "Estimate",
    "Scenes",
    "collect",
    "estimate",
    "load_pairs",
    "make_rig",
    "save_pairs",
]
