"""How infrared is read: what `edgefuse.thermal` does it by. Loads nothing heavy, for the command line."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from edgefuse.errors import InputError
from edgefuse.settings import check, setting

Agc: TypeAlias = Literal["auto", "fusion", "linear"]
Polarity: TypeAlias = Literal["white", "black"]


@dataclass(frozen=True)
class ThermalConfig:
    """How infrared becomes 8 bits.

    Raises:
        InputError: a value that is unknown or out of range.
    """

    agc: Agc = setting(
        "auto",
        "16-bit infrared to 8 bits: fusion (the ground dark grey), linear (the whole scale for the scene, "
        "for looking at infrared alone), or auto: fusion, but 8-bit infrared as it is.",
        metavar="NAME",
    )
    polarity: Polarity = setting(
        "white", "What is hot in the infrared that is read; black is inverted.", metavar="COLOUR"
    )
    window: tuple[float, float] | None = setting(
        None,
        "Infrared values, as stored, that become 0 and 255, in place of any AGC.",
        unset="found by the AGC",
        metavar="LOW,HIGH",
    )

    def __post_init__(self) -> None:
        check(self)
        if self.window is not None and not -65536 < self.window[0] < self.window[1] < 65536:
            raise InputError(
                f"window {self.window[0]:g}-{self.window[1]:g} is not LOW-HIGH with LOW < HIGH <= 65535"
            )

    @classmethod
    def from_options(cls, options: Mapping[str, str]) -> "ThermalConfig":
        """Read `agc`, `polarity` and `window` (`LOW-HIGH`) from texts.

        Raises:
            InputError: a text that cannot be read, or a value out of range.
        """
        values: dict[str, Any] = dict(options)
        if "window" in values:
            numbers = re.fullmatch(r"(-?\d+\.?\d*)-(-?\d+\.?\d*)", values["window"].strip())
            if not numbers:
                raise InputError(f"window {values['window']!r} is not LOW-HIGH, such as 7000-9000")
            values["window"] = (float(numbers[1]), float(numbers[2]))
        return cls(**values)
