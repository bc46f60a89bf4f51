"""What networks are fed with in benchmarks."""

from typing import Any

import numpy as np

from edgefuse.runtime.engines import Engine
from edgefuse.spec import LEVELS


def feeds(network: Engine, **images: Any) -> dict[str, Any]:
    """Return the inputs of a network: the images, and their levels where it takes them."""
    takes_levels = any(each.name == "levels" for each in network.spec.inputs())
    return images | ({"levels": np.full((1, len(LEVELS)), 0.3, np.float32)} if takes_levels else {})
