"""Scoring a fused image against its two sources under a named protocol."""

from collections.abc import Iterable
from typing import TypeAlias, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from edgefuse.errors import InputError, unknown_name
from edgefuse.images import Image
from edgefuse.metrics.registry import METRICS, PROTOCOLS, Parts, Prepared, Protocol, Triple, check_sizes, grey
from edgefuse.metrics.windows import keep_freed_memory

Fused: TypeAlias = Image | NDArray[np.float32]


def score(
    fused: Fused, ir: Image, vis: Image, protocol: str = "field", metrics: Iterable[str] | None = None
) -> dict[str, float]:
    """Return the metrics of a fused image.

    Args:
        fused: uint8 `[H, W]` or `[H, W, 3]` BGR, at least 16×16; or float32 `[H, W]` of 0..255, not yet
            rounded, which a protocol that stretches then does first.
        ir: uint8, of the same height and width.
        vis: uint8, of the same height and width.
        protocol: a name in `PROTOCOLS`.
        metrics: names in `METRICS`; all by default.

    Returns:
        Score by metric name, never NaN. What is undefined is left out: detail of a source that has none, or
        the contrast of targets where there are none.

    Raises:
        InputError: not images, different sizes, or an unknown name.
    """
    return FusionScorer(ir, vis, protocol, keep=False).score(fused, metrics)


class FusionScorer:
    """Scores many fused images of one pair.

    What depends on the sources only is computed once, when first needed.

    >>> scorer = FusionScorer(ir, vis)
    >>> [scorer.score(candidate)["VIF"] for candidate in candidates]

    Args:
        ir: uint8 `[H, W]` or `[H, W, 3]` BGR, at least 16×16.
        vis: uint8, of the same height and width.
        protocol: a name in `PROTOCOLS`.
        keep: False computes it again for each image and keeps nothing, which is faster for a single one.

    Raises:
        InputError: not images, different sizes, or an unknown name.
    """

    def __init__(self, ir: Image, vis: Image, protocol: str = "field", *, keep: bool = True) -> None:
        self.protocol: Protocol = named_protocol(protocol)
        check_sizes(infrared=ir, visible=vis)
        keep_freed_memory()
        self.ir, self.vis = Prepared(ir, keep), Prepared(vis, keep)

    def score(self, fused: Fused, metrics: Iterable[str] | None = None) -> dict[str, float]:
        """Return the score of a fused image by metric name; arguments and errors as in `score`."""
        return {name: parts.total for name, parts in self.parts(fused, metrics).items()}

    def parts(self, fused: Fused, metrics: Iterable[str] | None = None) -> dict[str, Parts]:
        """Return the score with its parts by source, by metric name; arguments and errors as in `score`."""
        checked = self._checked(fused)
        unstretched = _rounded(checked)
        judged = stretch(checked) if self.protocol.stretch else unstretched
        triple = Triple(Prepared(judged), unstretched, self.ir, self.vis, self.protocol)
        found = {name: METRICS[name].measure(triple) for name in named_metrics(metrics)}
        return {
            name: value if isinstance(value, Parts) else Parts(value)
            for name, value in found.items()
            if value is not None
        }

    def judged(self, fused: Fused) -> Image:
        """Return the grey image uint8 `[H, W]` that is judged: stretched, if the protocol says so."""
        fused = self._checked(fused)
        return stretch(fused) if self.protocol.stretch else _rounded(fused)

    def rounded(self, fused: Fused) -> Image:
        """Return the grey image uint8 `[H, W]` as it is, without a protocol's stretch."""
        return _rounded(self._checked(fused))

    def _checked(self, fused: Fused) -> Fused:
        """Return the fused image as grey, still unrounded if it is."""
        if isinstance(fused, np.ndarray) and fused.dtype == np.float32 and fused.ndim == 2:
            if not np.isfinite(fused).all():
                raise InputError("the fused image has values that are not finite")
            check_sizes(fused=_rounded(fused), visible=self.vis.image)
            return fused
        image = cast(Image, fused)
        check_sizes(fused=image, visible=self.vis.image)
        return grey(image)


def stretch(image: Fused) -> Image:
    """Stretch a grey image `[H, W]` linearly so that it spans 0..255, then round; a constant one stays."""
    low, high = cv2.minMaxLoc(image)[:2]
    if high <= low:
        return _rounded(image)
    return _rounded((image.astype(np.float32) - np.float32(low)) * np.float32(255 / (high - low)))


def _rounded(image: Fused) -> Image:
    if image.dtype == np.uint8:
        return cast(Image, image)
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def named_protocol(name: str) -> Protocol:
    """Return the protocol of that name, or raise `InputError` with the known ones."""
    if name not in PROTOCOLS:
        raise InputError(unknown_name("protocol", name, PROTOCOLS))
    return PROTOCOLS[name]


def named_metrics(names: Iterable[str] | None) -> list[str]:
    """Return the metric names in the order given, all of them for None; upper and lower case are equal.

    Raises:
        InputError: an unknown name, or no name.
    """
    chosen = [METRICS.named(name).name for name in (METRICS if names is None else names)]
    if not chosen:
        raise InputError(f"no metric is given: choose from {', '.join(METRICS)}")
    return list(dict.fromkeys(chosen))
