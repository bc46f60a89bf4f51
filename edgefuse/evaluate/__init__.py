"""Scoring models, folders of fused images and trivial fusions over pairs of images.

>>> from edgefuse.evaluate import evaluate, named, summarise
>>> result = evaluate("ir/", "vis/", [named("nano"), named("maximum")])
>>> summarise(result)["nano"]["VIF"].total
"""

from edgefuse.evaluate.candidates import Candidate, folder, model, named, trivial
from edgefuse.evaluate.pair import PairScores, Settings
from edgefuse.evaluate.run import Evaluation, Problem, evaluate
from edgefuse.evaluate.summary import Mean, best, summarise
from edgefuse.evaluate.trivial import TRIVIAL

__all__ = [
    "TRIVIAL",
    "Candidate",
    "Evaluation",
    "Mean",
    "PairScores",
    "Problem",
    "Settings",
    "best",
    "evaluate",
    "folder",
    "model",
    "named",
    "summarise",
    "trivial",
]
