"""What shipped models make of two simulated pairs that lie in `tests/golden`, as every clone has them."""

import json
from typing import Any

import numpy as np
import pytest

from edgefuse.images import luma, read_image
from edgefuse.metrics import score
from edgefuse.weights import shipped
from tests.support.golden import FOLDER, PAIRS, fused, sources, weights_hash

KNOWN: dict[str, dict[str, Any]] = json.loads((FOLDER / "shipped.json").read_text())
LEVELS = 2
"""By so much other builds of the engine may differ at a pixel."""


def test_every_shipped_model_is_known() -> None:
    renew = "the weights are others: `python -m tests.support.golden`, and commit what it writes"
    assert {name: weights_hash(name) for name in shipped()} == {
        name: facts["weights"] for name, facts in KNOWN.items()
    }, renew


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("model", KNOWN)
def test_shipped_models_answer_as_they_did(model: str, pair: str) -> None:
    ir, vis = sources(pair)
    answer, before = fused(model, ir, vis), read_image(FOLDER / f"{pair}_{model}.png")
    difference = np.abs(answer.astype(int) - before)
    assert difference.max() <= LEVELS
    assert difference.mean() < 0.02
    stated = KNOWN[model]["scores"][pair]
    assert score(answer, ir, luma(vis), metrics=stated) == pytest.approx(stated, abs=0.005)
