import numpy as np
import pytest
import torch

from edgefuse.images import levels_of_counts, measure_levels
from edgefuse.train.augment import (
    AUGMENTATIONS,
    Patch,
    corrupt,
    focus,
    misalignment,
    noise,
)


def scene(count=400, side=24):
    y, x = np.mgrid[0:side, 0:side]
    ir = (60 + 5 * (x + y % 7)).astype(np.uint8)
    vis = (200 - 3 * y + 20 * ((x // 4) % 2)).astype(np.uint8)
    return torch.from_numpy(np.stack((ir, vis))).repeat(count, 1, 1, 1)


def test_shares_add_up():
    assert sum(share for share, _ in AUGMENTATIONS) == pytest.approx(1)


def test_the_share_is_kept_and_clean_patches_are_what_they_were():
    patches = scene()
    before = patches.clone()
    seen, *_, noisy = corrupt(patches, None, 0.6, (0, 1))
    assert torch.equal(patches, before)
    changed = (seen != patches).flatten(1).any(1).float().mean()
    assert 0.5 < changed < 0.65  # some shifts and gains change nothing
    share = next(share for share, way in AUGMENTATIONS if way is noise)
    assert 0.8 * 0.6 * share < noisy.float().mean() < 1.2 * 0.6 * share
    # Noise leaves hardly two neighbours alike, and nothing else does that to a ramp's rows.
    steps = seen[noisy, 0].float().diff(dim=2).diff(dim=2).abs().mean((1, 2))
    assert steps.median() > 5 * (
        seen[~noisy, 0].float().diff(dim=2).diff(dim=2).abs().mean((1, 2)).median() + 1
    )
    none, *_, noisy = corrupt(patches, None, 0.0, (0, 1))
    assert torch.equal(none, patches)
    assert not noisy.any()


def test_only_a_dead_camera_changes_what_is_wanted():
    patches = scene()
    seen, wanted, *_ = corrupt(patches, None, 1.0, (3,))
    other = (wanted != patches).flatten(1).any(1)
    assert 0.005 < other.float().mean() < 0.05
    for given, target, clean in zip(seen[other], wanted[other], patches[other], strict=True):
        dead = 0 if given[0].unique().numel() == 1 else 1
        assert given[dead].unique().numel() == 1
        assert torch.equal(target[dead], clean[1 - dead])
        assert torch.equal(target[1 - dead], clean[1 - dead])
        assert torch.equal(given[1 - dead], clean[1 - dead])


def counted(images):
    return np.stack([np.bincount(image.ravel(), minlength=256) for image in images]).astype(float)


def test_every_way_befalls_its_share_and_counts_what_it_does():
    generator = np.random.default_rng(0)
    clean = scene(1, side=200)[0].numpy()
    for _, way in AUGMENTATIONS:
        changed = 0
        for _ in range(20):
            seen, wanted = (Patch(clean.copy(), counted(clean)) for _ in range(2))
            way(seen, wanted, generator)
            changed += not np.array_equal(seen.images, clean)
            if way not in (focus, misalignment):  # which hardly change the levels of real pictures
                expected = levels_of_counts(counted(seen.images))
                assert levels_of_counts(seen.counts) == pytest.approx(expected, abs=3.5 / 255), way.__name__
        assert changed > 12, way.__name__


def test_levels_are_those_of_the_picture_and_not_of_the_patch():
    picture = np.zeros((1, 2, 256))
    picture[0, 0, [10, 30]] = 60, 40
    picture[0, 1, [100, 101]] = 2, 8
    levels = corrupt(scene(1), picture, 0.0, (0,)).seen_levels[0]
    assert 255 * levels.numpy() == pytest.approx(
        [10 + 1 / 3, 8 + 1 / 15, 100.875, 0.275, 7 + 13 / 15], rel=1e-5
    )
    assert levels_of_counts(counted(scene(1)[0])) == pytest.approx(
        measure_levels(*scene(1)[0].numpy()), abs=1e-6
    )


def test_another_level_of_infrared_changes_nothing_that_is_wanted():
    patches = scene(200)
    seen, wanted, seen_levels, wanted_levels, _ = corrupt(patches, None, 0.0, (1,), relevel=True)
    ir = (seen[:, 0] != wanted[:, 0]).flatten(1).any(1)
    assert 0.4 < ir.float().mean() < 0.7
    assert torch.equal(wanted[:, 0], patches[:, 0])
    assert torch.equal(seen[:, 1], wanted[:, 1])  # another exposure is part of the scene
    assert torch.equal(seen_levels[:, 2:4], wanted_levels[:, 2:4])
    assert (seen_levels[ir, :2] != wanted_levels[ir, :2]).any(1).float().mean() > 0.95


def test_what_is_spoilt_does_not_depend_on_where_a_patch_was_cut_out():
    # As `TrainingSet.patches` draws the places of a step's patches.
    heights = [np.random.default_rng((0, step)).random() for step in range(300)]
    spoilt = [not torch.equal(*(corrupt(scene(1), None, 0.5, (0, step))[0], scene(1))) for step in range(300)]
    assert abs(np.corrcoef(heights, spoilt)[0, 1]) < 0.2


def test_what_is_random_follows_from_the_seed_and_the_place():
    patches = scene(12)
    whole = corrupt(patches, None, 0.8, (5, 7))
    again = corrupt(patches, None, 0.8, (5, 7))
    assert all(torch.equal(a, b) for a, b in zip(whole, again, strict=True))
    assert not torch.equal(whole[0], corrupt(patches, None, 0.8, (5, 8))[0])
    part = corrupt(patches[8:], None, 0.8, (5, 7), first=8)
    assert all(torch.equal(a[8:], b) for a, b in zip(whole, part, strict=True))
