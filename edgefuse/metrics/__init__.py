"""Measures of fusion quality on 8-bit grey images, in numpy and OpenCV.

>>> from edgefuse.metrics import score
>>> score(fused, ir, vis)["VIF"]

Each metric is a pure function; `METRICS` lists them with unit, direction and reference, `score` computes
them under a named protocol, and `FusionScorer` scores many candidates against one pair.
"""

from edgefuse.metrics.edges import qabf
from edgefuse.metrics.fidelity import vif
from edgefuse.metrics.information import entropy, mutual_information
from edgefuse.metrics.prepared import grey
from edgefuse.metrics.registry import FIVE, METRICS, PROTOCOLS, Metric, Parts, Protocol
from edgefuse.metrics.scorer import FusionScorer, score
from edgefuse.metrics.statistics import (
    average_gradient,
    correlation,
    psnr,
    scd,
    spatial_frequency,
    standard_deviation,
)
from edgefuse.metrics.structure import ssim

__all__ = [
    "FIVE",
    "METRICS",
    "PROTOCOLS",
    "FusionScorer",
    "Metric",
    "Parts",
    "Protocol",
    "average_gradient",
    "correlation",
    "entropy",
    "grey",
    "mutual_information",
    "psnr",
    "qabf",
    "scd",
    "score",
    "spatial_frequency",
    "ssim",
    "standard_deviation",
    "vif",
]
