"""The project's own measures: thermal targets and flicker."""

import cv2
import numpy as np
import pytest

from edgefuse.images import Image
from edgefuse.metrics import FusionScorer, flicker, target_contrast
from edgefuse.metrics.flicker import static_regions
from edgefuse.metrics.targets import RING, find_targets


def scene() -> tuple[Image, Image]:
    """Two warm bodies, one hot speck, and a visible image that has none of them."""
    rng = np.random.default_rng(0)
    ir = rng.integers(30, 40, (240, 320)).astype(np.uint8)
    ir[100:140, 60:90] = 200
    cv2.circle(ir, (250, 60), 16, 180, -1)
    ir[200:204, 300:304] = 220  # 16 pixels are no target
    return ir, rng.integers(80, 120, ir.shape).astype(np.uint8)


def test_targets_are_the_large_warm_components() -> None:
    ir, _ = scene()
    targets = sorted(find_targets(ir), key=lambda t: t.contrast)
    assert [int((t.inside > 0).sum()) for t in targets] == [int((ir == 180).sum()), 1200]
    assert targets[1].contrast == pytest.approx(200 - 34.5, abs=0.5)
    window = targets[1].window
    assert window == (slice(100 - RING, 140 + RING), slice(60 - RING, 90 + RING))
    for target in targets:
        assert not np.any(target.inside & target.ring)
        reach = cv2.distanceTransform(255 - target.inside, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        assert reach[target.ring > 0].max() <= RING


def test_contrast_that_survives() -> None:
    ir, vis = scene()
    assert target_contrast(ir, ir) == 1
    assert target_contrast(vis, ir) == pytest.approx(0, abs=0.02)
    assert target_contrast(255 - ir, ir) == 0
    assert target_contrast(cv2.addWeighted(ir, 0.5, vis, 0.5, 0), ir) == pytest.approx(0.5, abs=0.02)
    gone = ir.copy()
    gone[ir == 180] = 35
    assert target_contrast(gone, ir) == pytest.approx(0.5, abs=0.01)  # one of two
    assert target_contrast(np.clip(ir.astype(int) * 2, 0, 255).astype(np.uint8), ir) == 1  # more is no better


def test_no_target_is_said_and_not_scored() -> None:
    flat = np.full((64, 64), 90, np.uint8)
    assert find_targets(flat) == []
    assert target_contrast(flat, flat) is None
    assert FusionScorer(flat, flat).target(flat) is None


def test_scorer_measures_targets_under_its_protocol() -> None:
    ir, vis = scene()
    half = cv2.addWeighted(ir, 0.5, vis, 0.5, 0)
    assert FusionScorer(ir, vis).target(half) == target_contrast(half, ir)
    stretched = FusionScorer(ir, vis, "paper").target(half)
    assert stretched is not None
    assert stretched > 0.55


def test_neighbouring_targets_are_not_each_others_surroundings() -> None:
    ir = np.full((200, 200), 20, np.uint8)
    ir[50:70, 50:75] = 200
    ir[75:95, 50:75] = 240  # 5 pixels below
    assert [round(t.contrast) for t in find_targets(ir)] == [180, 220]


def frames(seed: int = 0) -> tuple[tuple[Image, Image], tuple[Image, Image]]:
    """Two frames of both cameras: noise, and a square that moves."""
    rng = np.random.default_rng(seed)
    ground = rng.integers(60, 120, (120, 160))

    def frame(step: int, sigma: float) -> Image:
        image = ground + rng.normal(0, sigma, ground.shape)
        image[40:70, 30 + step : 60 + step] = 200
        return np.clip(image, 0, 255).astype(np.uint8)

    return (frame(0, 3), frame(9, 3)), (frame(0, 1), frame(9, 1))


def test_fusions_that_follow_their_sources_do_not_flicker() -> None:
    ir, vis = frames()
    for fuse in (cv2.max, cv2.min, lambda a, b: a, lambda a, b: b):
        assert flicker((fuse(ir[0], vis[0]), fuse(ir[1], vis[1])), ir, vis) == 0
    means = tuple(((a.astype(int) + b) // 2).astype(np.uint8) for a, b in zip(ir, vis, strict=True))
    assert flicker((means[0], means[1]), ir, vis) < 0.05


def test_a_gain_that_changes_flickers() -> None:
    ir, vis = frames()
    steady = cv2.max(ir[0], vis[0]), cv2.max(ir[1], vis[1])
    small = flicker((steady[0], cv2.add(steady[1], 6)), ir, vis)
    large = flicker((steady[0], cv2.add(steady[1], 20)), ir, vis)
    assert 1 < small < large < 20


def test_static_regions_leave_out_what_moves() -> None:
    ir, vis = frames()
    static = static_regions(cv2.absdiff(*ir), cv2.absdiff(*vis)) > 0
    assert not static[45:65, 33:36].any()
    assert not static[45:65, 63:66].any()
    assert static[90:, :].mean() > 0.95


def test_regions_are_static_however_noisy() -> None:
    change = np.random.default_rng(0).integers(0, 80, (60, 80)).astype(np.uint8)
    assert (static_regions(change, change) > 0).mean() > 0.95
    everywhere = np.full((60, 80), 255, np.uint8)
    assert static_regions(everywhere, everywhere).all()
