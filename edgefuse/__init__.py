"""Real-time fusion of an infrared and a visible camera on edge devices.

>>> from edgefuse import Fuser
>>> fused = Fuser()(ir, vis)  # uint8 arrays: ir [H, W], vis [H, W, 3] BGR
>>> from edgefuse import live
>>> for pair in live("cam0", "cam1"):
...     print(pair.timestamp, pair.fused.shape)

Importing this package loads nothing heavy: numpy, OpenCV and the inference engine are
loaded on first use, torch only by `edgefuse.train` and `edgefuse.export`.
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["EdgefuseError", "Fuser", "PushSource", "__version__", "live"]

if TYPE_CHECKING:
    from edgefuse.errors import EdgefuseError
    from edgefuse.runtime.engines.fuser import Fuser
    from edgefuse.runtime.live import live
    from edgefuse.runtime.sources.wrappers import PushSource

_LAZY = {
    "Fuser": "edgefuse.runtime.engines.fuser",
    "EdgefuseError": "edgefuse.errors",
    "PushSource": "edgefuse.runtime.sources.wrappers",
    "live": "edgefuse.runtime.live",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}")
    from importlib import import_module

    return getattr(import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
