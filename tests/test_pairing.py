import sys
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefuse.errors import InputError
from edgefuse.images import write_image
from edgefuse.train.cache import cache_folders
from edgefuse.train.data import PairSampler, limit_base

KEYS = st.lists(st.integers(0, 12), min_size=1, max_size=9, unique=True)


@given(KEYS, KEYS, st.integers(0, 99))
def test_each_paradigm_draws_exactly_its_set(ir, vis, seed):
    everything = {(i, j) for i, j in product(range(len(ir)), range(len(vis)))}
    matched = {(i, j) for i, j in everything if ir[i] == vis[j]}
    expected = {"aptp": everything, "uptp": everything - matched}
    if set(ir) == set(vis):
        expected["sptp"] = matched
    for paradigm, pairs in expected.items():
        if not pairs:
            with pytest.raises(InputError):
                PairSampler(paradigm, ir, vis)
            continue
        pairing = PairSampler(paradigm, ir, vis)
        drawn = pairing.sample(len(pairs), seed)
        assert len(pairing) == len(pairs)
        assert len(drawn) == len(set(drawn))
        assert set(drawn) == pairs
    assert set(PairSampler("aptp", ir, vis).aligned()) == matched


@given(KEYS, st.integers(1, 60), st.integers(0, 9))
def test_no_pair_comes_again_before_all_have_come(keys, count, seed):
    drawn = PairSampler("sptp", keys, keys).sample(count, seed)
    counts = [drawn.count((i, i)) for i in range(len(keys))]
    assert len(drawn) == count
    assert max(counts) - min(counts) <= 1


@given(st.integers(1, 60), st.integers(0, 9), st.sampled_from([0.25, 0.5, 1.0]))
def test_a_share_of_the_pairs_can_be_aligned(count, seed, aligned):
    pairing = PairSampler("aptp", list(range(30)), list(range(25, 40)))
    drawn = pairing.sample(count, seed, aligned)
    assert len(drawn) == count
    assert sum(pairing.is_aligned(*pair) for pair in drawn) >= round(aligned * count)
    assert drawn == pairing.sample(count, seed, aligned)
    strangers = PairSampler("aptp", [0, 1], [2, 3])
    assert strangers.sample(4, seed, aligned) == strangers.sample(4, seed)


def test_aligned_pairs_are_shuffled_among_the_others():
    sampler = PairSampler("aptp", list(range(30)), list(range(30)))
    kinds = [sampler.is_aligned(*pair) for pair in sampler.sample(40, 3, 0.5)]
    assert 5 < sum(kinds[:20]) < 15


def test_draws_are_a_function_of_the_seed():
    pairing = PairSampler("aptp", range(150), range(150))
    assert pairing.sample(100, (0, 1)) == pairing.sample(100, (0, 1))
    assert pairing.sample(100, (0, 1)) != pairing.sample(100, (0, 2))


def test_a_million_by_a_million_images_cost_no_memory():
    pairing = PairSampler("aptp", range(10**6), range(10**6, 2 * 10**6))
    drawn = pairing.sample(22_500, 0)
    assert len(pairing) == 10**12
    assert len(set(drawn)) == 22_500
    assert sys.getsizeof(pairing._matched) < 1000
    assert max(max(pair) for pair in drawn) > 9 * 10**5


def test_without_common_stems_uptp_is_aptp():
    ir, vis = ["a", "b"], ["c", "d", "e"]
    uptp, aptp = PairSampler("uptp", ir, vis), PairSampler("aptp", ir, vis)
    assert len(uptp) == len(aptp) == 6
    assert uptp.sample(6, 3) == aptp.sample(6, 3)


@pytest.mark.parametrize(
    ("paradigm", "ir", "vis", "words"),
    [
        ("sptp", ["a", "b"], ["a", "c"], "without a partner: b, c"),
        ("sptp", [(0, "x")], [(0, "y")], "without a partner: x, y"),
        ("uptp", ["a"], ["a"], "there are none"),
        ("apt", ["a"], ["a"], "unknown paradigm 'apt'.*did you mean 'aptp'"),
        ("aptp", [], ["a"], "0 infrared and 1 visible"),
    ],
)
def test_impossible_pairings_are_named(paradigm, ir, vis, words):
    with pytest.raises(InputError, match=words):
        PairSampler(paradigm, ir, vis)


def test_no_pairs_cannot_be_drawn():
    with pytest.raises(InputError, match="0"):
        PairSampler("aptp", ["a"], ["b"]).sample(0, 0)


def test_the_base_set_prefers_aligned_images():
    ir, vis = list("abcdefx"), list("yabcdefz")
    ir_places, vis_places = limit_base(ir, vis, 4, seed=1)
    assert [ir[i] for i in ir_places] == [vis[j] for j in vis_places]
    assert limit_base(ir, vis, 4, seed=1) == (ir_places, vis_places)
    ir_places, vis_places = limit_base(ir, vis, 7, seed=1)
    assert (len(set(ir_places)), len(set(vis_places))) == (7, 7)
    for base in (0, 8):
        with pytest.raises(InputError, match="base is"):
            limit_base(ir, vis, base, seed=1)


def test_one_folder_for_both_cameras_is_paired_by_endings(tmp_path):
    for number in (1, 2):
        for ending, level in (("ir", 200), ("vis", 20)):
            write_image(tmp_path / f"{number}_{ending}.png", np.full((16, 16), level, np.uint8))
    ir, vis = cache_folders([tmp_path], [tmp_path])
    assert ir.keys == vis.keys == [(0, "1"), (0, "2")]
    assert (ir[0].mean(), vis[0].mean()) == (200, 20)


def test_the_same_images_or_video_for_both_cameras_are_refused(tmp_path):
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        write_image(tmp_path / folder / "1.png", np.zeros((16, 16), np.uint8))
    x, y, video = tmp_path / "x", tmp_path / "y", tmp_path / "a.mp4"
    video.touch()
    for ir, vis in (([x], [x]), ([x, y], [y, x]), ([video], [x / ".." / "a.mp4"])):
        with pytest.raises(InputError, match="given for both cameras"):
            cache_folders(ir, vis)
