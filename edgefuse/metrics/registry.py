"""The metrics by name, with unit, direction and reference, and the protocols they are computed under."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import cv2
import numpy as np

from edgefuse.errors import InputError
from edgefuse.images import Image, check_image, size_of
from edgefuse.metrics.detail import (
    DetailKept,
    Layers,
    Target,
    detail_kept,
    find_targets,
    kept_contrast,
    layers,
)
from edgefuse.metrics.edges import Edges, edges_of, kept_edges
from edgefuse.metrics.fidelity import Moments, explained, scales_of
from edgefuse.metrics.perceptual import Perceived, qcb, qcv
from edgefuse.metrics.statistics import (
    average_gradient,
    correlation,
    difference_correlation,
    entropy,
    mean_squared_error,
    mutual_information,
    peak_ratio,
    spatial_frequency,
    standard_deviation,
)
from edgefuse.metrics.structure import WindowSums, similarity, window_sums
from edgefuse.metrics.windows import Banded
from edgefuse.packages import Registry


def grey(image: Image) -> Image:
    """Return the grey image that metrics are computed on: 0.299 R + 0.587 G + 0.114 B, rounded.

    OpenCV's conversion of 8-bit pixels rounds its weights first and differs by one level where the sum
    ends in .5, which moves SCD by 4e-4; so the sum is done in float32 here, as the reference does.
    """
    if image.ndim == 2:
        return image
    return np.rint(cv2.cvtColor(image.astype(np.float32), cv2.COLOR_BGR2GRAY)).astype(np.uint8)


def check_sizes(**images: Image) -> None:
    """Raise `InputError` unless all, given by what they are, are images of one size."""
    for what, image in images.items():
        check_image(what, image)
    if len({image.shape[:2] for image in images.values()}) > 1:
        sizes = " and ".join(f"the {what} image is {size_of(image)}" for what, image in images.items())
        raise InputError(f"{sizes}; metrics need one size, and resizing either would change the scores")


class Prepared:
    """A grey image `[H, W]` uint8 with the intermediate results that several metrics or pairs share.

    Args:
        image: uint8 `[H, W]` or `[H, W, 3]` BGR.
        keep: keep those results for the next pair.
    """

    def __init__(self, image: Image, keep: bool = False) -> None:
        self.image = np.ascontiguousarray(grey(image))
        self._keep = keep

    @cached_property
    def edges(self) -> Banded[Edges]:
        """Gradient for Qabf."""
        return edges_of(self.image, self._keep)

    @cached_property
    def windows(self) -> Banded[WindowSums]:
        """Window sums for SSIM."""
        return window_sums(self.image, self._keep)

    @cached_property
    def scales(self) -> list[Banded[Moments]]:
        """Local moments for VIF."""
        return scales_of(self.image, self._keep)

    @cached_property
    def perceived(self) -> Perceived:
        """Spectrum, contrast and saliency for Qcb and Qcv."""
        return Perceived(self.image)

    @cached_property
    def layers(self) -> Layers:
        """Detail and brightness, for the detail kept."""
        return layers(self.image)

    @cached_property
    def targets(self) -> list[Target]:
        """Thermal targets, of an infrared image."""
        return find_targets(self.image)


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
    worst_source: float | None = None
    """The score of the source that is served worse; None for a metric without a score for each source."""


@dataclass(frozen=True)
class Measure:
    """What a reader of a column of numbers must know."""

    name: str
    title: str
    unit: str
    reference: str
    by_source: bool = field(default=True, kw_only=True)
    """Whether it has a score for each source."""
    compares: bool = field(default=True, kw_only=True)
    """Whether it compares with the sources. One that doesn't, such as entropy, rewards noise."""
    higher_is_better: bool = field(default=True, kw_only=True)


class Triple:
    """A fused image and its two sources; what several metrics need of the three is computed once.

    Args:
        fused: the fused image as the protocol wants it.
        unstretched: the same without the protocol's stretch, uint8 `[H, W]`.
        ir: the infrared image.
        vis: the visible image.
        protocol: whose constants count.
    """

    def __init__(
        self, fused: Prepared, unstretched: Image, ir: Prepared, vis: Prepared, protocol: Protocol
    ) -> None:
        self.fused, self.unstretched, self.protocol = fused, unstretched, protocol
        self.ir, self.vis = ir, vis
        self.sources = ir, vis

    @cached_property
    def vif(self) -> list[float]:
        """VIF of the infrared and of the visible source."""
        return explained(self.fused.scales, [s.scales for s in self.sources])

    @cached_property
    def detail(self) -> tuple[DetailKept, DetailKept]:
        """Detail kept of the infrared and of the visible source."""
        f, (a, b) = self.fused.layers, (s.layers for s in self.sources)
        return detail_kept(f, a, b), detail_kept(f, b, a)


@dataclass(frozen=True)
class Metric(Measure):
    """A measure of one fused image against its two sources."""

    measure: Callable[[Triple], Parts | float | None]
    """Its value, with its parts by source where there are any; None where it is undefined."""


def _parts(total: float, ir: float, vis: float, worst: Callable[[float, float], float] = min) -> Parts:
    return Parts(total, ir, vis, worst(ir, vis))


def _sum(parts: Iterable[float]) -> Parts:
    ir, vis = parts
    return _parts(ir + vis, ir, vis)


def _mean(parts: Iterable[float]) -> Parts:
    ir, vis = parts
    return _parts((ir + vis) / 2, ir, vis)


def _qabf(t: Triple) -> Parts:
    """Weighted by the sources' gradients; undefined, and 0, where they have none."""
    sources = kept_edges(t.fused.edges, [s.edges for s in t.sources])
    both = tuple(map(sum, zip(*sources, strict=True)))
    total, ir, vis = (kept / there if there else 0.0 for kept, there in (both, *sources))
    return _parts(total, ir, vis)


def _ssim(t: Triple) -> Parts:
    return _sum(similarity(t.fused.windows, [s.windows for s in t.sources], t.protocol.ssim_range))


def _psnr(t: Triple) -> Parts:
    """Against the mean error over both sources; the peak is the brightest pixel, as in others' evaluators."""
    ir, vis = (mean_squared_error(t.fused.image, s.image) for s in t.sources)
    peak = float(t.fused.image.max())
    return _parts(peak_ratio(peak, (ir + vis) / 2), peak_ratio(peak, ir), peak_ratio(peak, vis))


def _mi(t: Triple) -> Parts:
    return _sum(mutual_information(t.fused.image, s.image) for s in t.sources)


def _scd(t: Triple) -> Parts:
    (ir, vis), fused = (s.image for s in t.sources), t.fused.image
    return _sum((difference_correlation(ir, fused, vis), difference_correlation(vis, fused, ir)))


def _cc(t: Triple) -> Parts:
    return _mean(correlation(t.fused.image, s.image) for s in t.sources)


def _target(t: Triple) -> float | None:
    return kept_contrast(t.ir.targets, t.unstretched)


CORE_METRICS = ("EN", "MI", "VIF", "Qabf", "SSIM")
"""The five metrics that the field reports."""

TABLE_METRICS = (
    *("EN", "MI", "VIF", "VIF_ir", "VIF_vis", "Qabf", "SSIM", "Qcb", "Qcv"),
    *("Detail_ir", "Detail_vis", "Target"),
)
"""What a table of fusions shows unless told otherwise."""

ALONE = {"by_source": False, "compares": False}
"""Of a metric that looks at the fused image alone."""
SINGLE = {"by_source": False}
"""Of one that compares with the sources and is still a single number."""


def _detail(name: str, title: str, value: Callable[[Triple], float | None], **more: bool) -> Metric:
    return Metric(name, title, "1", "edgefuse.metrics.detail", value, by_source=False, **more)


def _vif(name: str, title: str, value: Callable[[Triple], Parts | float], **more: bool) -> Metric:
    title = f"visual information fidelity{title}"
    return Metric(name, title, "1", "Sheikh and Bovik, IEEE TIP 15(2), 2006", value, **more)


def _property(name: str, title: str, unit: str, reference: str, value: Callable[[Image], float]) -> Metric:
    return Metric(name, title, unit, reference, lambda t: value(t.fused.image), **ALONE)


_OWN = (
    _property("EN", "entropy", "bit", "Roberts et al., J. Appl. Remote Sens. 2, 2008", entropy),
    Metric("MI", "mutual information", "nat", "Qu et al., Electronics Letters 38(7), 2002", _mi),
    _vif("VIF", "", lambda t: _sum(t.vif)),
    _vif("VIF_ir", ", infrared source", lambda t: t.vif[0], **SINGLE),
    _vif("VIF_vis", ", visible source", lambda t: t.vif[1], **SINGLE),
    Metric("Qabf", "edge transfer", "1", "Xydeas and Petrović, Electronics Letters 36(4), 2000", _qabf),
    Metric("SSIM", "structural similarity", "1", "Wang et al., IEEE TIP 13(4), 2004", _ssim),
    Metric(
        *("Qcb", "perceived contrast kept", "1"),
        "Chen and Blum, Image and Vision Computing 27(10), 2009",
        lambda t: _parts(*qcb(t.fused.perceived, *(s.perceived for s in t.sources))),
    ),
    Metric(
        *("Qcv", "perceived difference", "grey level²", "Chen and Varshney, Information Fusion 8(2), 2007"),
        lambda t: _parts(*qcv(t.fused.perceived, *(s.perceived for s in t.sources)), worst=max),
        higher_is_better=False,
    ),
    _detail(
        "Detail_ir", "infrared detail kept where the visible image is brighter", lambda t: t.detail[0].dimmed
    ),
    _detail(
        "Detail_vis", "visible detail kept where the infrared image is brighter", lambda t: t.detail[1].dimmed
    ),
    _detail("Detail_ir_rest", "infrared detail kept elsewhere", lambda t: t.detail[0].elsewhere),
    _detail("Detail_vis_rest", "visible detail kept elsewhere", lambda t: t.detail[1].elsewhere),
    _detail(
        *("Area_ir", "share of the picture where the visible image is brighter"),
        lambda t: t.detail[0].area,
        compares=False,
    ),
    _detail(
        *("Area_vis", "share of the picture where the infrared image is brighter"),
        lambda t: t.detail[1].area,
        compares=False,
    ),
    _detail("Target", "contrast kept of thermal targets", _target),
    _property(
        "SD", "standard deviation", "grey level", "Rao, Meas. Sci. Technol. 8(4), 1997", standard_deviation
    ),
    _property(
        *("SF", "spatial frequency", "grey level/pixel"),
        "Eskicioglu and Fisher, IEEE Trans. Commun. 43(12), 1995",
        spatial_frequency,
    ),
    _property(
        *("AG", "average gradient", "grey level/pixel", "Cui et al., Optics Communications 341, 2015"),
        average_gradient,
    ),
    Metric(
        "SCD", "sum of the correlations of differences", "1", "Aslantas and Bendes, AEU 69(12), 2015", _scd
    ),
    Metric("CC", "correlation coefficient", "1", "Pearson, Proc. R. Soc. Lond. 58, 1895", _cc),
    Metric(
        "PSNR", "peak signal-to-noise ratio", "dB", "Jagalingam and Hegde, Aquatic Procedia 4, 2015", _psnr
    ),
)

METRICS: Registry[Metric] = Registry("metric", "edgefuse.metrics", {metric.name: metric for metric in _OWN})
"""All metrics by name, those of other packages too."""

FLICKER = Measure(
    *("Flicker", "frame-to-frame change beyond the sources'", "grey level"),
    "edgefuse.metrics.flicker",
    by_source=False,
    compares=False,
    higher_is_better=False,
)
CHANGE = Measure(
    *("Change", "RMS change of the output when only the sources' quality changes", "grey level"),
    "edgefuse.evaluate",
    by_source=False,
    higher_is_better=False,
)


def measure_named(name: str) -> Measure:
    """Return what a column of a table is: a metric, or what is measured between frames or fusions."""
    return {FLICKER.name: FLICKER, CHANGE.name: CHANGE}.get(name) or METRICS[name]


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
