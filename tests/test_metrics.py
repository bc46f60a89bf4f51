"""Golden values: made with the evaluator that the field's papers use, never by this code."""

import json
import math
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edgefuse.errors import InputError
from edgefuse.images import Image, read_image
from edgefuse.metrics import CORE_METRICS, METRICS, PROTOCOLS, FusionScorer, grey, score, ssim, vif

TOLERANCE = 1e-4
SYNTHETIC = json.loads((Path(__file__).parent / "golden" / "synthetic.json").read_text())
SHARED = Path(__file__).parents[1].parent / "shared" / "golden"


def arrays(seed: int, height: int, width: int, fused: str) -> tuple[Image, Image, Image]:
    y, x = np.mgrid[:height, :width]
    k = 37 * seed
    disc = (x - width // 2) ** 2 + (y - height // 3) ** 2 < (height // 5) ** 2
    ir = (x * (3 + seed) + 5 * y + k) % 256 // 2 + 60 * ((x // 8 + y // 8 + seed) % 2) + 60 * disc
    vis = (x * y + k) % 97 + 40 * ((x // 5 + seed) % 3) + 30 * (y // 11 % 2)
    ir, vis = np.clip(ir, 0, 255), np.clip(vis, 0, 255)
    result = {"maximum": np.maximum(ir, vis), "average": (ir + vis) // 2, "copy-vis": vis}[fused]
    return result.astype(np.uint8), ir.astype(np.uint8), vis.astype(np.uint8)


def same_as_golden(found: dict[str, float], entry: dict[str, Any]) -> None:
    for name in METRICS.keys() & entry.keys():
        if math.isnan(entry[name]):  # SCD of a copy: undefined there, 0 for that source here
            assert name == "SCD"
            assert math.isfinite(found[name])
        else:
            assert found[name] == pytest.approx(entry[name], abs=TOLERANCE), name


@pytest.mark.parametrize(
    "entry", SYNTHETIC, ids=lambda e: f"{e['seed']}-{e['width']}x{e['height']}-{e['fused']}"
)
def test_synthetic_golden_values(entry: dict[str, Any]) -> None:
    images = arrays(entry["seed"], entry["height"], entry["width"], entry["fused"])
    same_as_golden(score(*images), entry)


@pytest.mark.skipif(not (SHARED / "metrics.json").exists(), reason="no golden images beside the project")
def test_golden_values_of_real_images() -> None:
    for entry in json.loads((SHARED / "metrics.json").read_text()):
        fused, ir, vis = (read_image(SHARED / entry[k]) for k in ("fused", "ir", "vis"))
        same_as_golden(score(fused, ir, vis), entry)


PERCEPTUAL = json.loads((Path(__file__).parent / "golden" / "perceptual.json").read_text())


def as_perceptual_golden(images: tuple[Image, Image, Image], entry: dict[str, Any]) -> None:
    found = score(*images, metrics=["Qcb", "Qcv"])
    assert found["Qcb"] == pytest.approx(entry["Qcb"], abs=1e-9)
    assert found["Qcv"] == pytest.approx(entry["Qcv"], rel=1e-3)  # rounds ties of the stretch in another way


@pytest.mark.parametrize(
    "entry", PERCEPTUAL, ids=lambda e: f"{e['seed']}-{e['width']}x{e['height']}-{e['fused']}"
)
def test_synthetic_golden_values_of_perceptual_metrics(entry: dict[str, Any]) -> None:
    as_perceptual_golden(arrays(entry["seed"], entry["height"], entry["width"], entry["fused"]), entry)


@pytest.mark.skipif(not (SHARED / "perceptual.json").exists(), reason="no golden images beside the project")
def test_perceptual_golden_values_of_real_images() -> None:
    for entry in json.loads((SHARED / "perceptual.json").read_text())["real"]:
        fused, ir, vis = (grey(read_image(SHARED / entry[k])) for k in ("fused", "ir", "vis"))
        as_perceptual_golden((fused, ir, vis), entry)


def test_the_single_functions_give_the_score() -> None:
    fused, ir, vis = arrays(0, 96, 128, "average")
    found = score(fused, ir, vis)
    assert found["VIF"] == pytest.approx(vif(ir, fused) + vif(vis, fused))
    assert found["SSIM"] == pytest.approx(ssim(ir, fused) + ssim(vis, fused))


def test_registry_is_complete() -> None:
    assert set(CORE_METRICS) < set(METRICS)
    for name, metric in METRICS.items():
        assert metric.name == name
        assert metric.title
        assert metric.unit
        assert metric.reference
    for name, protocol in PROTOCOLS.items():
        assert protocol.name == name


def test_protocols_differ_where_they_say() -> None:
    fused, ir, vis = arrays(0, 96, 128, "average")
    fused = fused // 2 + 20
    field, paper, strict = (score(fused, ir, vis, name) for name in ("field", "paper", "strict"))
    assert {name for name in field if field[name] != pytest.approx(strict[name])} == {"SSIM"}
    assert paper["SD"] > 1.5 * field["SD"]
    low, high = int(fused.min()), int(fused.max())
    by_hand = np.rint((fused.astype(float) - low) * 255 / (high - low)).astype(np.uint8)
    assert paper == pytest.approx(score(by_hand, ir, vis) | {"Target": field["Target"]})


def test_what_is_stretched_before_it_is_rounded_has_more_levels() -> None:
    _, ir, vis = arrays(0, 96, 128, "average")
    exact = (ir.astype(np.float32) + vis) / np.float32(7)
    rounded = np.rint(exact).astype(np.uint8)
    assert score(exact, ir, vis) == pytest.approx(score(rounded, ir, vis), rel=1e-9)
    early, late = (score(fused, ir, vis, "paper") for fused in (exact, rounded))
    assert early["EN"] > late["EN"] + 0.5
    assert late["EN"] == score(rounded, ir, vis)["EN"]
    assert early["Target"] == late["Target"] == score(rounded, ir, vis)["Target"]


def test_scorer_scores_candidates_as_score_does() -> None:
    fused, ir, vis = arrays(1, 97, 131, "maximum")
    scorer = FusionScorer(ir, vis)
    for candidate in (fused, ir, vis):
        assert scorer.score(candidate) == pytest.approx(score(candidate, ir, vis))
    assert list(scorer.score(fused, ["vif", "EN", "VIF"])) == ["VIF", "EN"]


def test_parts_by_source() -> None:
    fused, ir, vis = arrays(1, 97, 131, "maximum")
    parts = FusionScorer(ir, vis).parts(fused)
    for name, metric in METRICS.items():
        assert (parts[name].worst_source is not None) == metric.by_source
        if metric.by_source:
            ir_part, vis_part = parts[name].ir, parts[name].vis
            assert ir_part is not None
            assert vis_part is not None
            assert parts[name].worst_source == (min if metric.higher_is_better else max)(ir_part, vis_part)
    for name in ("MI", "VIF", "SSIM", "SCD"):
        total, ir_part, vis_part, _ = parts[name]
        assert ir_part is not None
        assert vis_part is not None
        assert total == pytest.approx(ir_part + vis_part)


def test_grey_is_the_rounded_sum() -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)
    exact = image.astype(float) @ [0.114, 0.587, 0.299]
    assert np.abs(grey(image) - exact).max() <= 0.5 + 1e-3
    colour = cv2.cvtColor(image[:, :, 0], cv2.COLOR_GRAY2BGR)
    assert np.array_equal(grey(colour), image[:, :, 0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"protocol": "fields"}, "unknown protocol 'fields'.*did you mean 'field'"),
        ({"metrics": ["VIFF"]}, "unknown metric 'VIFF'.*did you mean 'VIF'"),
        ({"metrics": []}, "no metric is given"),
        ({"fused": np.zeros((48, 64), np.float64)}, "fused image has dtype float64"),
        ({"fused": np.full((48, 64), np.nan, np.float32)}, "not finite"),
        ({"fused": np.zeros((48, 63), np.float32)}, "fused image is 63x48"),
        ({"ir": np.zeros((48, 63), np.uint8)}, "infrared image is 63x48 and the visible image is 64x48"),
        ({"vis": np.zeros((15, 64), np.uint8)}, "at least 16x16"),
    ],
)
def test_wrong_arguments_are_named(change: dict[str, Any], message: str) -> None:
    image = np.zeros((48, 64), np.uint8)
    with pytest.raises(InputError, match=message):
        score(**({"fused": image, "ir": image, "vis": image} | change))


def test_scoring_full_hd_stays_on_the_calling_thread() -> None:
    """Helper threads would be no part of the caller's niceness, nor of a budget in its processor time."""
    fused, ir, vis = arrays(0, 1080, 1920, "average")
    excess = []
    for _ in range(3):
        everything, own = time.process_time(), time.thread_time()
        score(fused, ir, vis, metrics=["VIF", "SSIM"])
        everything, own = time.process_time() - everything, time.thread_time() - own
        excess.append(everything / own)
    assert min(excess) < 1.15
