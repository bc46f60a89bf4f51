"""Measures of fusion quality on 8-bit grey images, in numpy and OpenCV.

>>> from edgefuse.metrics import score
>>> score(fused, ir, vis)["VIF"]

Each metric is a pure function; `METRICS` lists them with unit, direction and reference, `score` computes
them under a named protocol, and `FusionScorer` scores many candidates against one pair.
"""

from edgefuse.metrics.detail import DetailKept
from edgefuse.metrics.fidelity import vif
from edgefuse.metrics.flicker import SourceChange, flicker
from edgefuse.metrics.registry import (
    CHANGE,
    CORE_METRICS,
    FLICKER,
    METRICS,
    PROTOCOLS,
    TABLE_METRICS,
    Measure,
    Metric,
    Parts,
    Protocol,
    Triple,
    grey,
    measure_named,
)
from edgefuse.metrics.scorer import FusionScorer, score
from edgefuse.metrics.statistics import (
    average_gradient,
    correlation,
    entropy,
    mutual_information,
    spatial_frequency,
    standard_deviation,
)
from edgefuse.metrics.structure import ssim

__all__ = [
    "CHANGE",
    "CORE_METRICS",
    "FLICKER",
    "METRICS",
    "PROTOCOLS",
    "TABLE_METRICS",
    "DetailKept",
    "FusionScorer",
    "Measure",
    "Metric",
    "Parts",
    "Protocol",
    "SourceChange",
    "Triple",
    "average_gradient",
    "correlation",
    "entropy",
    "flicker",
    "grey",
    "measure_named",
    "mutual_information",
    "score",
    "spatial_frequency",
    "ssim",
    "standard_deviation",
    "vif",
]
