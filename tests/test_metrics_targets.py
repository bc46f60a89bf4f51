"""The project's own measures: thermal targets and flicker."""

from typing import TypeAlias

import cv2
import numpy as np
import pytest

from edgefuse.images import Image
from edgefuse.metrics import PROTOCOLS, SourceChange, flicker, score
from edgefuse.metrics.detail import RING, find_targets, kept_contrast


def target_contrast(fused: Image, ir: Image) -> float | None:
    return kept_contrast(find_targets(ir), fused)


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
    assert "Target" not in score(flat, flat, flat)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_no_stretch_gives_targets_contrast(protocol: str) -> None:
    ir, vis = scene()
    half = cv2.addWeighted(ir, 0.5, vis, 0.5, 0)
    assert score(half, ir, vis, protocol)["Target"] == target_contrast(half, ir)


def test_detail_is_measured_where_the_other_source_is_brighter() -> None:
    rng = np.random.default_rng(0)
    ramp = np.linspace(0, 160, 320).astype(np.uint8)
    ir, vis = (rng.integers(0, 40, (120, 320), dtype=np.uint8) for _ in range(2))
    ir, vis = ir + ramp, vis + ramp[::-1]
    half = (ir // 2 + vis // 2).astype(np.uint8)
    kept = {
        name: score(fused, ir, vis) for name, fused in {"maximum": cv2.max(ir, vis), "half": half}.items()
    }
    assert kept["maximum"]["Detail_vis"] == pytest.approx(0, abs=0.05)
    assert kept["maximum"]["Detail_vis_rest"] == pytest.approx(0.95, abs=0.05)
    assert kept["maximum"]["Detail_ir"] == pytest.approx(0, abs=0.05)
    assert kept["maximum"]["Detail_ir_rest"] == pytest.approx(0.95, abs=0.05)
    assert kept["half"]["Detail_vis"] == pytest.approx(0.5, abs=0.05)
    assert kept["half"]["Detail_ir"] == pytest.approx(0.5, abs=0.05)
    assert kept["half"]["Area_ir"] == pytest.approx(0.5, abs=0.05)
    assert kept["half"]["Area_vis"] == pytest.approx(0.5, abs=0.05)
    assert score(255 - vis, ir, vis)["Detail_vis"] == pytest.approx(-1, abs=0.05)


def test_detail_of_a_flat_source_is_undefined() -> None:
    flat, vis = np.full((64, 64), 10, np.uint8), np.full((64, 64), 200, np.uint8)
    vis[::2] = 220
    found = score(vis, flat, vis)
    assert found["Area_ir"] == 1
    assert found["Detail_vis_rest"] == pytest.approx(1)
    assert not found.keys() & {"Detail_ir", "Detail_ir_rest", "Detail_vis"}


@pytest.mark.parametrize(("amplitude", "defined"), [(1, False), (2, True)])
def test_detail_of_what_rounding_leaves_is_undefined(amplitude: int, defined: bool) -> None:
    """Every fourth row brighter: their RMS is 0.43 of the amplitude."""
    ir, vis = np.full((64, 64), 10, np.uint8), np.full((64, 64), 200, np.uint8)
    vis[::4] += amplitude
    assert ("Detail_vis_rest" in score(vis, ir, vis)) == defined


def test_a_target_may_be_hardly_warmer_than_its_surroundings() -> None:
    ir = np.full((200, 200), 20, np.uint8)
    ir[50:70, 50:100] = 21
    assert [target.contrast for target in find_targets(ir)] == pytest.approx([1])


def test_neighbouring_targets_are_not_each_others_surroundings() -> None:
    ir = np.full((200, 200), 20, np.uint8)
    ir[50:70, 50:75] = 200
    ir[75:95, 50:75] = 240  # 5 pixels below
    assert [round(t.contrast) for t in find_targets(ir)] == [180, 220]


Frames: TypeAlias = tuple[Image, Image]


def value(fused: Frames, ir: Frames, vis: Frames) -> float:
    found = flicker(fused, ir, vis)
    assert found is not None
    return found


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
        assert value((fuse(ir[0], vis[0]), fuse(ir[1], vis[1])), ir, vis) == 0
    means = tuple(((a.astype(int) + b) // 2).astype(np.uint8) for a, b in zip(ir, vis, strict=True))
    assert value((means[0], means[1]), ir, vis) < 0.05


def test_a_gain_that_changes_flickers() -> None:
    ir, vis = frames()
    steady = cv2.max(ir[0], vis[0]), cv2.max(ir[1], vis[1])
    small = value((steady[0], cv2.add(steady[1], 6)), ir, vis)
    large = value((steady[0], cv2.add(steady[1], 20)), ir, vis)
    assert 1 < small < large < 20


def test_what_moves_is_not_at_rest() -> None:
    ir, vis = frames()
    still = SourceChange(ir, vis).still > 0
    assert not still[45:65, 33:36].any()
    assert not still[45:65, 63:66].any()
    assert still[90:, :].mean() > 0.95


def test_noise_is_rest() -> None:
    rng = np.random.default_rng(0)
    ground = cv2.GaussianBlur(rng.integers(0, 256, (120, 160)).astype(np.uint8), (0, 0), 4)

    def noisy() -> Image:
        return np.clip(ground + rng.normal(0, 12, ground.shape), 0, 255).astype(np.uint8)

    assert (SourceChange((noisy(), noisy()), (noisy(), noisy())).still > 0).mean() > 0.95


def panned(pixels: int, seed: int = 0) -> tuple[Frames, Frames]:
    """Two frames of both cameras, which both turn by so many pixels, with noise."""
    rng = np.random.default_rng(seed)
    sources = []
    for sigma in (6, 3):
        wide = cv2.GaussianBlur(rng.integers(0, 256, (160, 240)).astype(np.uint8), (0, 0), sigma)
        wide = cv2.normalize(wide, None, 30, 200, cv2.NORM_MINMAX)
        views = wide[:, :200], wide[:, pixels : 200 + pixels]
        before, after = (
            np.clip(view + rng.normal(0, 1, view.shape), 0, 255).astype(np.uint8) for view in views
        )
        sources.append((before, after))
    return sources[0], sources[1]


def test_motion_of_the_camera_is_compensated() -> None:
    ir, vis = panned(7)
    change = SourceChange(ir, vis)
    assert (change.still > 0).mean() > 0.8
    steady = cv2.max(ir[0], vis[0]), cv2.max(ir[1], vis[1])
    rest = value(steady, ir, vis)
    assert rest < 0.2
    assert 4 < value((steady[0], cv2.add(steady[1], 10)), ir, vis) < 11
    assert change.flicker(steady) == rest


def test_flicker_is_undefined_across_a_cut() -> None:
    one, other = panned(0, seed=0), panned(0, seed=1)
    ir, vis = ((one[k][0], other[k][0]) for k in (0, 1))
    assert flicker(ir, ir, vis) is None
    assert SourceChange(ir, vis).flicker(vis) is None


@pytest.mark.parametrize("shape", [(16, 16), (16, 200), (33, 17), (63, 65), (64, 64), (64, 300)])
def test_flicker_of_frames_of_any_size(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 256, shape, dtype=np.uint8) for _ in range(2)]
    smooth = [cv2.GaussianBlur(frame, (0, 0), 3) * 3 for frame in frames]
    assert flicker((frames[0], frames[1]), (smooth[0], smooth[1]), (smooth[1], smooth[0])) is None
    assert flicker((frames[0], frames[0]), (frames[0], frames[0]), (frames[1], frames[1])) == 0
