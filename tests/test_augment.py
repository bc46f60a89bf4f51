import numpy as np
import pytest
import torch

from edgefuse.train.augment import AUGMENTATIONS, corrupt, noise


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
    seen, _, noisy = corrupt(patches, 0.6, (0, 1))
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
    none, _, noisy = corrupt(patches, 0.0, (0, 1))
    assert torch.equal(none, patches)
    assert not noisy.any()


def test_only_a_dead_camera_changes_what_is_wanted():
    patches = scene()
    seen, wanted, _ = corrupt(patches, 1.0, (3,))
    other = (wanted != patches).flatten(1).any(1)
    assert 0.01 < other.float().mean() < 0.06
    for given, target, clean in zip(seen[other], wanted[other], patches[other], strict=True):
        dead = 0 if given[0].unique().numel() == 1 else 1
        assert given[dead].unique().numel() == 1
        assert torch.equal(target[dead], clean[1 - dead])
        assert torch.equal(target[1 - dead], clean[1 - dead])
        assert torch.equal(given[1 - dead], clean[1 - dead])


def test_every_way_befalls_its_share():
    generator = np.random.default_rng(0)
    clean = scene(1)[0].numpy()
    for _, way in AUGMENTATIONS:
        changed = 0
        for _ in range(20):
            seen, wanted = clean.copy(), clean.copy()
            way(seen, wanted, generator)
            changed += not np.array_equal(seen, clean)
        assert changed > 12, way.__name__


def test_what_is_spoilt_does_not_depend_on_where_a_patch_was_cut_out():
    # As `TrainingSet.patches` draws the places of a step's patches.
    heights = [np.random.default_rng((0, step)).random() for step in range(300)]
    spoilt = [not torch.equal(*(corrupt(scene(1), 0.5, (0, step))[0], scene(1))) for step in range(300)]
    assert abs(np.corrcoef(heights, spoilt)[0, 1]) < 0.2


def test_what_is_random_follows_from_the_seed_and_the_place():
    patches = scene(12)
    whole = corrupt(patches, 0.8, (5, 7))
    again = corrupt(patches, 0.8, (5, 7))
    assert all(torch.equal(a, b) for a, b in zip(whole, again, strict=True))
    assert not torch.equal(whole[0], corrupt(patches, 0.8, (5, 8))[0])
    part = corrupt(patches[8:], 0.8, (5, 7), first=8)
    assert all(torch.equal(a[8:], b) for a, b in zip(whole, part, strict=True))
