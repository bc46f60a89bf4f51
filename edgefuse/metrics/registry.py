"""The metrics by name, with unit, direction and reference, and the protocols they are computed under."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from edgefuse.metrics.edges import kept_edges
from edgefuse.metrics.fidelity import explained
from edgefuse.metrics.information import mutual_information
from edgefuse.metrics.prepared import Prepared
from edgefuse.metrics.statistics import (
    average_gradient,
    correlation,
    difference_correlation,
    mean_squared_error,
    peak_ratio,
    spatial_frequency,
    standard_deviation,
)
from edgefuse.metrics.structure import similarity

__all__ = [
    "FIVE",
    "FLICKER",
    "MEASURES",
    "METRICS",
    "PROTOCOLS",
    "TARGET",
    "Measure",
    "Metric",
    "Parts",
    "Protocol",
]


@dataclass(frozen=True)
class Protocol:
    """How images become scores. Scores of different protocols cannot be compared."""

    name: str
    summary: str
    stretch: bool = False
    """Stretch each fused image linearly to 0..255 first."""
    ssim_range: float = 2.0
    """The data range in the constants of SSIM."""


class Parts(NamedTuple):
    """A score and what each source has in it."""

    total: float
    ir: float | None = None
    vis: float | None = None

    @property
    def weaker(self) -> float | None:
        """The score of the source that is served worse; None for a metric of the fused image alone."""
        return None if self.ir is None or self.vis is None else min(self.ir, self.vis)


@dataclass(frozen=True)
class Measure:
    """What a reader of a column of numbers must know."""

    name: str
    title: str
    unit: str
    reference: str
    by_source: bool = field(default=True, kw_only=True)
    """Whether it compares the fused image with each source."""
    higher_is_better: bool = field(default=True, kw_only=True)


@dataclass(frozen=True)
class Metric(Measure):
    """A measure of one fused image against its two sources."""

    measure: Callable[[Prepared, Prepared, Prepared, Protocol], Parts]
    """(fused, infrared, visible, protocol) → its parts."""


def _sum(parts: Iterable[float]) -> Parts:
    ir, vis = parts
    return Parts(ir + vis, ir, vis)


def _mean(parts: Iterable[float]) -> Parts:
    ir, vis = parts
    return Parts((ir + vis) / 2, ir, vis)


def _qabf(f: Prepared, a: Prepared, b: Prepared, _: Protocol) -> Parts:
    sources = kept_edges(f.edges, [a.edges, b.edges])
    both = tuple(map(sum, zip(*sources, strict=True)))
    return Parts(*(kept / there if there else 0.0 for kept, there in (both, *sources)))


def _psnr(f: Prepared, a: Prepared, b: Prepared, _: Protocol) -> Parts:
    ir, vis = mean_squared_error(f.image, a.image), mean_squared_error(f.image, b.image)
    return Parts(*(peak_ratio(float(f.image.max()), error) for error in ((ir + vis) / 2, ir, vis)))


FIVE = ("EN", "MI", "VIF", "Qabf", "SSIM")
"""The five metrics that the field reports."""

METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric(
            *("EN", "entropy", "bit"),
            "Roberts et al., J. Appl. Remote Sens. 2, 2008",
            lambda f, _a, _b, _p: Parts(f.entropy),
            by_source=False,
        ),
        Metric(
            *("MI", "mutual information", "nat"),
            "Qu et al., Electronics Letters 38(7), 2002",
            lambda f, a, b, _: _sum(mutual_information(f.image, s.image) for s in (a, b)),
        ),
        Metric(
            *("VIF", "visual information fidelity", "1"),
            "Sheikh and Bovik, IEEE TIP 15(2), 2006",
            lambda f, a, b, _: _sum(explained(f.scales, [a.scales, b.scales])),
        ),
        Metric(
            *("Qabf", "edge transfer", "1"),
            "Xydeas and Petrović, Electronics Letters 36(4), 2000",
            _qabf,
        ),
        Metric(
            *("SSIM", "structural similarity", "1"),
            "Wang et al., IEEE TIP 13(4), 2004",
            lambda f, a, b, p: _sum(similarity(f.windows, [a.windows, b.windows], p.ssim_range)),
        ),
        Metric(
            *("SD", "standard deviation", "grey level"),
            "Rao, Meas. Sci. Technol. 8(4), 1997",
            lambda f, _a, _b, _p: Parts(standard_deviation(f.image)),
            by_source=False,
        ),
        Metric(
            *("SF", "spatial frequency", "grey level/pixel"),
            "Eskicioglu and Fisher, IEEE Trans. Commun. 43(12), 1995",
            lambda f, _a, _b, _p: Parts(spatial_frequency(f.image)),
            by_source=False,
        ),
        Metric(
            *("AG", "average gradient", "grey level/pixel"),
            "Cui et al., Optics Communications 341, 2015",
            lambda f, _a, _b, _p: Parts(average_gradient(f.image)),
            by_source=False,
        ),
        Metric(
            *("SCD", "sum of the correlations of differences", "1"),
            "Aslantas and Bendes, AEU 69(12), 2015",
            lambda f, a, b, _: _sum(
                difference_correlation(s.image, f.image, other.image) for s, other in ((a, b), (b, a))
            ),
        ),
        Metric(
            *("CC", "correlation coefficient", "1"),
            "Pearson, Proc. R. Soc. Lond. 58, 1895",
            lambda f, a, b, _: _mean(correlation(f.image, s.image) for s in (a, b)),
        ),
        Metric(
            *("PSNR", "peak signal-to-noise ratio", "dB"),
            "Jagalingam and Hegde, Aquatic Procedia 4, 2015",
            _psnr,
        ),
    )
}

TARGET = Measure(
    *("Target", "contrast kept of thermal targets", "1"),
    "edgefuse.metrics.targets",
    by_source=False,
)
FLICKER = Measure(
    *("Flicker", "frame-to-frame change beyond the sources'", "grey level"),
    "edgefuse.metrics.flicker",
    by_source=False,
    higher_is_better=False,
)
MEASURES: dict[str, Measure] = {**METRICS, TARGET.name: TARGET, FLICKER.name: FLICKER}
"""All that a table can have as a column."""

PROTOCOLS: dict[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        Protocol("field", "8-bit grey, the output as it is, SSIM with a data range of 2, as most papers do"),
        Protocol(
            "paper",
            "as field, after stretching each fused image to 0..255 before it is rounded",
            stretch=True,
        ),
        Protocol("strict", "as field, SSIM with the data range of the images, 255", ssim_range=255.0),
    )
}
