"""What docs/experiments.md is made of."""

import json

import numpy as np
import pytest

from bench import experiments
from edgefuse.metrics import CORE_METRICS


def run(paradigm, base, pairs, steps, seed, values, base_of="patches"):
    scores = dict.fromkeys(CORE_METRICS, values)
    curve = {"step": [steps], "train_loss": [0.1], "test_loss": [0.2], "train_VIF": [0.5], "test_VIF": [0.4]}
    facts = {"paradigm": paradigm, "base": base, "pairs": pairs, "steps": steps, "seed": seed}
    return facts | {
        "base_of": base_of,
        "distinct": pairs,
        "curve": curve,
        "scores": {"one field all": scores},
    }


def write(runs):
    facts = {"date": "2026-11-28", "commit": "abc1234", "runs": {str(k): each for k, each in enumerate(runs)}}
    experiments.OUT.write_text(json.dumps({"pairing": facts}))


@pytest.fixture
def results(tmp_path, monkeypatch):
    runs = [
        run("sptp", 15, 15, 188, 0, [0.4, 0.6]),
        run("aptp", 15, 225, 2813, 0, [0.5, 0.6]),
        run("sptp", 15, 15, 188, 1, [0.5, 0.5]),
        run("aptp", 15, 225, 2813, 1, [0.6, 0.6]),
        run("sptp", 30, 30, 1500, 0, [0.5, 0.5], "images"),
        run("aptp", 30, 900, 1500, 0, [0.4, 0.4], "images"),
        run("sptp", 60, 60, 1500, 0, [0.5, 0.5]),
    ]
    monkeypatch.setattr(experiments, "OUT", tmp_path / "experiments.json")
    write(runs)
    return runs


def test_runs_are_compared_seed_by_seed_where_both_are_there(results):
    known = experiments.pairings()
    assert list(known) == [("patches", "100 epochs", 15), ("images", "1,500 steps", 30)]
    # (0.55 / 0.5 - 1) and (0.6 / 0.5 - 1).
    assert known["patches", "100 epochs", 15].gains() == pytest.approx([10, 20])
    lines = experiments.gains().splitlines()
    assert lines[2] == "| the paper, 100 epochs of patches | +8.89 | +5.17 | +4.35 | +3.94 |"
    assert lines[3] == "| patches, 100 epochs | +15.0 ± 7.1 (2 seeds) | not run | not run | not run |"
    assert lines[4] == "| images, 1,500 steps | not run | -20.0 (1 seed) | not run | not run |"


def test_a_length_in_epochs_is_told_from_one_in_steps():
    assert experiments.length_of(run("aptp", 30, 900, 3000, 0, [])) == ["100 epochs"]
    assert experiments.length_of(run("sptp", 15, 15, 188, 0, [])) == ["100 epochs"]
    assert experiments.length_of(run("sptp", 150, 150, 1500, 0, [])) == ["1,500 steps"]
    assert experiments.length_of(run("sptp", 150, 150, 1875, 0, [])) == ["100 epochs"]
    assert experiments.length_of(run("sptp", 150, 150, 700, 0, [])) == []


def test_images_are_resampled_after_the_mean_over_the_seeds(results):
    old, new = experiments.pairings()["patches", "100 epochs", 15].scores("VIF")
    assert (new - old).mean(0) == pytest.approx([0.1, 0.05])
    low, high = experiments.interval(np.array([0.1, 0.05]))
    assert (low, high) == pytest.approx((0.05, 0.1))
    assert "| patches, 100 epochs, base 15 | 2 | **+0.075 (+0.050 … +0.100)** |" in experiments.tests()


def test_a_page_is_made_of_any_results(results, tmp_path):
    assert (
        "| patches, 100 epochs, base 15, aptp | 2,813 | 225 of 225 | 2 | 0.575 ± 0.035 |"
        in experiments.cells()
    )
    experiments.draw(tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 1000


def test_the_answer_follows_from_the_numbers(results):
    first, third, last = experiments.answer().split("\n\n")
    assert (
        "APTP against SPTP +15.0 % at base 15 (2 seeds); at base 15 it takes 2,813 steps where SPTP takes 188"
        in first
    )
    assert third.startswith(
        "**Fresh crops of whole images** in place of fixed patches, 1,500 steps: APTP against"
    )
    assert "-20.0 % at base 30 (1 seed)" in third
    assert last.startswith("Of the 320 trainings of the whole grid, 6 have been run")


@pytest.mark.parametrize(
    ("values", "gains", "order"),
    [
        (
            [0.6, 0.55, 0.54, 0.53],
            "+20.0 %, +10.0 %, +8.0 %, +6.0 %",
            ", the less the larger the base, as in the paper",
        ),
        ([0.6, 0.53, 0.54, 0.55], "+20.0 %, +6.0 %, +8.0 %, +10.0 %", ", not less and less as in the paper"),
        ([0.502, 0.499, 0.5, 0.5], "+0.4 %, -0.2 %, +0.0 %, +0.0 %", ", less than 1 % either way"),
    ],
)
def test_the_order_of_the_gains_is_told(results, values, gains, order):
    bases = experiments.BASES
    runs = [run("sptp", base, base, 1500, 0, [0.5]) for base in bases]
    runs += [run("aptp", base, base**2, 1500, 0, [new]) for base, new in zip(bases, values, strict=True)]
    write(runs)
    sentence = experiments._sentence(experiments.pairings(), "patches", "1,500 steps")
    assert sentence == f"against SPTP {gains} at base 15, 30, 60, 150 (1 seed){order}"


def test_every_training_of_a_table_is_compared_with_its_first(results):
    runs = [run("sptp", 32, 32, 3000, seed, [value]) for seed, value in enumerate((0.5, 0.4))]
    runs += [run("uptp", 32, 1600, 3000, seed, [value]) for seed, value in enumerate((0.6, 0.4))]
    places = [("a", "a")] * 2 + [("a", "b")] * 2
    runs = [each | {"ir": ir, "vis": vis} for each, (ir, vis) in zip(runs, places, strict=True)]
    facts = {"date": "2026-11-28", "commit": "abc1234", "runs": {str(k): each for k, each in enumerate(runs)}}
    experiments.OUT.write_text(json.dumps({"table2": facts}))
    lines = experiments.rows("table2", "one").splitlines()
    core = " | ".join(["0.450 ± 0.071"] * 5)
    assert lines[2] == f"| sptp, a | 32 | 32 | 32 | 3,000 | 2 | {core} |  |"
    core = " | ".join(["**0.500 ± 0.141**"] * 5)
    assert lines[3] == f"| uptp, a × b | 32 | 1,600 | 1,600 | 3,000 | 2 | {core} | +10.0 ± 14.1 |"


def test_results_are_taken_over_part_by_part(tmp_path, monkeypatch):
    monkeypatch.setattr(experiments, "OUT", tmp_path / "docs.json")
    monkeypatch.setattr(experiments, "draw", lambda out: None)
    known = {"table2": {"date": "2026-11-01", "commit": "abc1234", "runs": {"x": {"seed": 0}}}}
    experiments.OUT.write_text(json.dumps(known))
    runs = {f"run {seed}": run("sptp", 15, 15, 188, seed, [0.1234567]) for seed in (1, 2)}
    curve = [{"step": 94.0, "test_VIF": 0.3}, {"step": 188.0, "test_VIF": 0.4}]
    runs = {name: each | {"ir": "a", "vis": "a", "cpu_s": 4.9, "curve": curve} for name, each in runs.items()}
    (tmp_path / "pairing").mkdir()
    (tmp_path / "pairing" / "results.json").write_text(json.dumps(runs))
    experiments.main(tmp_path, "def5678")
    entered = json.loads(experiments.OUT.read_text())
    assert entered["table2"] == known["table2"]
    assert entered["pairing"]["commit"] == "def5678"
    assert [each["seed"] for each in entered["pairing"]["runs"].values()] == [1, 2]
    first = entered["pairing"]["runs"]["run 1"]
    assert first["scores"]["one field all"]["VIF"] == [0.12346]
    assert first["curve"] == {"step": [94.0, 188.0], "test_VIF": [0.3, 0.4]}
    assert "cpu_s" not in first
