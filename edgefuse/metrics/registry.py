"""The metrics by name, with unit, direction and reference, and the protocols they are computed under."""

from collections.abc import Callable
from dataclasses import dataclass
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


@dataclass(frozen=True, kw_only=True)
class Measure:
    """What a reader of a column of numbers must know."""

    name: str
    title: str
    unit: str
    reference: str
    by_source: bool = True
    """Whether it compares the fused image with each source."""
    higher_is_better: bool = True


@dataclass(frozen=True, kw_only=True)
class Metric(Measure):
    """A measure of one fused image against its two sources."""

    measure: Callable[[Prepared, Prepared, Prepared, Protocol], Parts]
    """(fused, infrared, visible, protocol) → its parts."""


def _en(f: Prepared, _a: Prepared, _b: Prepared, _p: Protocol) -> Parts:
    return Parts(f.entropy)


def _mi(f: Prepared, a: Prepared, b: Prepared, _p: Protocol) -> Parts:
    ir, vis = mutual_information(f.image, a.image), mutual_information(f.image, b.image)
    return Parts(ir + vis, ir, vis)


def _vif(f: Prepared, a: Prepared, b: Prepared, _p: Protocol) -> Parts:
    ir, vis = explained(f.scales, [a.scales, b.scales])
    return Parts(ir + vis, ir, vis)


def _qabf(f: Prepared, a: Prepared, b: Prepared, _p: Protocol) -> Parts:
    sources = kept_edges(f.edges, [a.edges, b.edges])
    both = tuple(map(sum, zip(*sources, strict=True)))
    total, ir, vis = (kept / there if there else 1.0 for kept, there in (both, *sources))
    return Parts(total, ir, vis)


def _ssim(f: Prepared, a: Prepared, b: Prepared, p: Protocol) -> Parts:
    ir, vis = similarity(f.windows, [a.windows, b.windows], p.ssim_range)
    return Parts(ir + vis, ir, vis)


def _sd(f: Prepared, _a: Prepared, _b: Prepared, _p: Protocol) -> Parts:
    return Parts(standard_deviation(f.image))


def _sf(f: Prepared, _a: Prepared, _b: Prepared, _p: Protocol) -> Parts:
    return Parts(spatial_frequency(f.image))


def _ag(f: Prepared, _a: Prepared, _b: Prepared, _p: Protocol) -> Parts:
    return Parts(average_gradient(f.image))


def _scd(f: Prepared, a: Prepared, b: Prepared, _p: Protocol) -> Parts:
    ir = difference_correlation(a.image, f.image, b.image)
    vis = difference_correlation(b.image, f.image, a.image)
    return Parts(ir + vis, ir, vis)


def _cc(f: Prepared, a: Prepared, b: Prepared, _p: Protocol) -> Parts:
    ir, vis = correlation(f.image, a.image), correlation(f.image, b.image)
    return Parts((ir + vis) / 2, ir, vis)


def _psnr(f: Prepared, a: Prepared, b: Prepared, _p: Protocol) -> Parts:
    peak = float(f.image.max())
    ir, vis = mean_squared_error(f.image, a.image), mean_squared_error(f.image, b.image)
    return Parts(peak_ratio(peak, (ir + vis) / 2), peak_ratio(peak, ir), peak_ratio(peak, vis))


FIVE = ("EN", "MI", "VIF", "Qabf", "SSIM")
"""The five metrics that the field reports."""

METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric(
            name="EN",
            title="entropy",
            unit="bit",
            reference="Roberts et al., J. Appl. Remote Sens. 2, 2008",
            measure=_en,
            by_source=False,
        ),
        Metric(
            name="MI",
            title="mutual information",
            unit="nat",
            reference="Qu et al., Electronics Letters 38(7), 2002",
            measure=_mi,
        ),
        Metric(
            name="VIF",
            title="visual information fidelity",
            unit="1",
            reference="Sheikh and Bovik, IEEE TIP 15(2), 2006",
            measure=_vif,
        ),
        Metric(
            name="Qabf",
            title="edge transfer",
            unit="1",
            reference="Xydeas and Petrović, Electronics Letters 36(4), 2000",
            measure=_qabf,
        ),
        Metric(
            name="SSIM",
            title="structural similarity",
            unit="1",
            reference="Wang et al., IEEE TIP 13(4), 2004",
            measure=_ssim,
        ),
        Metric(
            name="SD",
            title="standard deviation",
            unit="grey level",
            reference="Rao, Meas. Sci. Technol. 8(4), 1997",
            measure=_sd,
            by_source=False,
        ),
        Metric(
            name="SF",
            title="spatial frequency",
            unit="grey level/pixel",
            reference="Eskicioglu and Fisher, IEEE Trans. Commun. 43(12), 1995",
            measure=_sf,
            by_source=False,
        ),
        Metric(
            name="AG",
            title="average gradient",
            unit="grey level/pixel",
            reference="Cui et al., Optics Communications 341, 2015",
            measure=_ag,
            by_source=False,
        ),
        Metric(
            name="SCD",
            title="sum of the correlations of differences",
            unit="1",
            reference="Aslantas and Bendes, AEU 69(12), 2015",
            measure=_scd,
        ),
        Metric(
            name="CC",
            title="correlation coefficient",
            unit="1",
            reference="Pearson, Proc. R. Soc. Lond. 58, 1895",
            measure=_cc,
        ),
        Metric(
            name="PSNR",
            title="peak signal-to-noise ratio",
            unit="dB",
            reference="Jagalingam and Hegde, Aquatic Procedia 4, 2015",
            measure=_psnr,
        ),
    )
}

TARGET = Measure(
    name="Target",
    title="contrast kept of thermal targets",
    unit="1",
    reference="edgefuse.metrics.targets",
    by_source=False,
)
FLICKER = Measure(
    name="Flicker",
    title="frame-to-frame change beyond the sources'",
    unit="grey level",
    reference="edgefuse.metrics.flicker",
    by_source=False,
    higher_is_better=False,
)
MEASURES: dict[str, Measure] = {**METRICS, TARGET.name: TARGET, FLICKER.name: FLICKER}
"""All that a table can have as a column."""

PROTOCOLS: dict[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        Protocol("field", "8-bit grey, the output as it is, SSIM with a data range of 2, as most papers do"),
        Protocol("paper", "as field, after stretching each fused image to 0..255", stretch=True),
        Protocol("strict", "as field, SSIM with the data range of the images, 255", ssim_range=255.0),
    )
}
