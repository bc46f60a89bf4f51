"""How a run of the live loop goes, and how it is asked to end."""

from dataclasses import dataclass

from edgefuse.errors import InputError
from edgefuse.runtime.fallback import OnLoss, check_on_loss
from edgefuse.runtime.sources.base import Role

__all__ = ["LiveConfig", "Stop"]


class Stop:
    """A request to end the loop, from a signal handler, a window or a thread. The first reason stays."""

    def __init__(self) -> None:
        self.reason: str | None = None
        self.hurry = False
        """Somebody waits: outputs that do not finish at once are left behind."""

    def __call__(self, reason: str, hurry: bool = False) -> None:
        """Ask for the end."""
        self.reason = self.reason or reason
        self.hurry = self.hurry or hurry


@dataclass(frozen=True)
class LiveConfig:
    """How a run goes.

    Raises:
        InputError: a value out of range.
    """

    duration: float | None = None
    """Seconds from the start of capture on, whether there are pictures or not; None: no limit."""
    rate: Role | None = None
    """The camera that sets the pace. None: the visible one of two cameras, the slower of two recordings."""
    max_skew: float | None = None
    """Seconds that the frames of a pair may be apart. None: for cameras, until the other counts as lost;
    two recordings of the same rate, without times on a common clock, are paired by number."""
    on_loss: OnLoss = "passthrough"
    """What is shown while a camera is lost: the other one, the last pair, nothing; or the run ends."""
    quality: int | None = None
    """Score every so many frames in the background; None: none."""

    def __post_init__(self) -> None:
        for name in ("duration", "max_skew"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise InputError(f"{name.replace('_', '-')} is {value:g} s, it must be over 0")
        if self.rate not in (None, "ir", "vis"):
            raise InputError(f"rate is {self.rate!r}, it must be vis or ir")
        check_on_loss(self.on_loss)
