"""A simulated rig: a street, by night or day, seen by an infrared and a visible camera of known geometry."""

from edgefuse.sim.rig import Rig, RigConfig

__all__ = ["Rig", "RigConfig"]
