"""A simulated rig: a street at night, seen by an infrared and a visible camera with a known geometry."""

from edgefuse.sim.config import RigConfig
from edgefuse.sim.rig import Rig

__all__ = ["Rig", "RigConfig"]
