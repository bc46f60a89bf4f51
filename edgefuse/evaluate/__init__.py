"""Scoring models, folders of fused images and trivial fusions over pairs of images.

>>> from edgefuse.evaluate import evaluate, named, summarise
>>> result = evaluate("ir/", "vis/", [named("nano"), named("maximum")])
>>> summarise(result)["nano"]["VIF"].total
"""

from edgefuse.evaluate.baselines import BASELINES
from edgefuse.evaluate.candidates import Candidate, folder, model, named, trivial
from edgefuse.evaluate.compare import Comparison, Difference, compare
from edgefuse.evaluate.files import as_dict, write_csv, write_json
from edgefuse.evaluate.pair import PairScores, Settings
from edgefuse.evaluate.report import write_html
from edgefuse.evaluate.run import Evaluation, Problem, evaluate
from edgefuse.evaluate.summary import Mean, best, summarise, summarise_degraded

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
    "best",
    "compare",
    "evaluate",
    "folder",
    "model",
    "named",
    "summarise",
    "summarise_degraded",
    "trivial",
    "write_csv",
    "write_html",
    "write_json",
]
