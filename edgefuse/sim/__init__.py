"""A simulated rig: a street at night, seen by an infrared and a visible camera with a known geometry."""

from edgefuse.sim.rig import Rig, RigConfig

__all__ = ["Rig", "RigConfig"]
