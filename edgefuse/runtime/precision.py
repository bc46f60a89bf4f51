"""Whether a file computes in the precision that was asked for, by the number of its layers."""

from collections.abc import Mapping

from edgefuse.errors import GateError

__all__ = ["MIN_SHARE", "check_layers", "layer_share"]

MIN_SHARE = {"fp16": 0.5, "int8": 0.25}
"""Least share of computing layers in the precision that was asked for: sums and statistics stay in float,
and of an int8 file all but the convolutions."""


def layer_share(layers: Mapping[str, int], precision: str) -> float:
    """Return the share of layers in a precision among those of any known one, 0 to 1.

    Args:
        layers: number of layers by precision; `other` is unknown.
        precision: that of the file's spec.
    """
    known = {name: count for name, count in layers.items() if name != "other"}
    return known.get(precision, 0) / max(1, sum(known.values()))


def check_layers(engine: object, layers: Mapping[str, int], precision: str) -> None:
    """Raise `GateError` if an engine does not compute in the precision that its graph asks for.

    Args:
        engine: its file, for the sentence.
        layers: number of layers by precision.
        precision: that of the graph's spec; an fp32 graph may have any layers.
    """
    share = layer_share(layers, precision)
    limit = MIN_SHARE.get(precision, 0.0)
    if share < limit:
        counts = ", ".join(f"{count} {name}" for name, count in layers.items() if count) or "none"
        raise GateError(
            f"{precision} did not take in {engine}: {share:.0%} of its layers compute in it, at least "
            f"{limit:.0%} must (layers: {counts}); see whether the GPU supports {precision}"
        )
