"""Scoring models, folders of fused images and baselines over pairs of images.

>>> from edgefuse.evaluate import evaluate, named, summarise
>>> result = evaluate("ir/", "vis/", [named("nano"), named("maximum")])
>>> summarise(result)["nano"]["VIF"].total
"""

from edgefuse.evaluate.baselines import BASELINES
from edgefuse.evaluate.candidates import Candidate, baseline, folder, model, named
from edgefuse.evaluate.journal import PairScores
from edgefuse.evaluate.report import write_html
from edgefuse.evaluate.run import Evaluation, Problem, Settings, evaluate
from edgefuse.evaluate.summary import (
    Comparison,
    Difference,
    Mean,
    best,
    compare,
    level_changes,
    summarise,
    summarise_degraded,
)
from edgefuse.evaluate.tables import as_dict, write_csv, write_json, write_table

__all__ = [
    "BASELINES",
    "Candidate",
    "Comparison",
    "Difference",
    "Evaluation",
    "Mean",
    "PairScores",
    "Problem",
    "Settings",
    "as_dict",
    "baseline",
    "best",
    "compare",
    "evaluate",
    "folder",
    "level_changes",
    "model",
    "named",
    "summarise",
    "summarise_degraded",
    "write_csv",
    "write_html",
    "write_json",
    "write_table",
]
