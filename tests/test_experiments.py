import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.lib.stride_tricks import sliding_window_view

from edgefuse.errors import InputError
from edgefuse.experiments.cells import Cell, pair_set, run_name
from edgefuse.experiments.grids import GRIDS, improvement, published
from edgefuse.experiments.run import Experiment, reproduce
from edgefuse.images import read_image, write_image
from edgefuse.metrics import CORE_METRICS
from edgefuse.train import record
from edgefuse.train.config import TrainConfig
from edgefuse.train.data import training_set
from edgefuse.train.models import build_model
from edgefuse.train.record import new_figure, sample_tiles, write_samples


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    root = tmp_path_factory.mktemp("sets")
    rng = np.random.default_rng(2)
    for name in ("one", "two"):
        for side in ("ir", "vis"):
            (root / name / side).mkdir(parents=True)
            for k in range(3):
                image = np.kron(rng.integers(0, 256, (6, 7), dtype=np.uint8), np.ones((8, 9), np.uint8))
                write_image(root / name / side / f"{k}.png", image)
    return [pair_set(root / name) for name in ("one", "two")]


def experiment(sets, name, **changes: Any):
    budget = TrainConfig(steps=4, batch=2, patch=32)
    values: dict[str, Any] = {"models": ("nano",), "bases": (2, 3), "seeds": 2, "budget": budget} | changes
    return Experiment(name, tuple(sets), (sets[0],), **values)


def test_the_papers_figures_are_all_there():
    assert [len(published(f"table{k}")) for k in (1, 2, 3, 4)] == [54, 9, 8, 52]
    few, many = published("table3")[:2]
    assert (few.mode, many.mode, few.base, many.pairs) == ("sptp", "aptp", 15, 225)
    # What the paper's table prints in its last column.
    assert improvement(few.scores, many.scores) == pytest.approx(8.89, abs=0.01)
    # The printed figure of base 150 is not what its rounded scores come to.
    assert [row.gain for row in published("table3")[1::2]] == [8.89, 5.17, 4.35, 3.94]
    first = published("table1")[0]
    assert (first.test, first.model, first.scores["VIF"]) == ("MSRS", "cnn", 0.88)


def test_grids_hold_the_papers_rows(sets):
    of_table1 = GRIDS["table1"](sets, ["cnn"], [15, 150])
    assert [(r.cell.paradigm, r.cell.base, r.cell.pairs) for r in of_table1] == [
        ("sptp", 150, 150),
        ("uptp", 150, 150),
        ("uptp", 150, 7500),
        ("uptp", 150, 15000),
        ("aptp", 150, 15000),
    ]
    assert [row.paper and row.paper["VIF"] for row in of_table1] == [0.88, 0.90, 0.92, 0.93, 0.93]
    of_table3 = GRIDS["table3"](sets, ["cnn"], [15, 150])
    assert [(r.cell.paradigm, r.cell.pairs, r.paper and r.paper["VIF"]) for r in of_table3] == [
        ("sptp", 15, 0.74),
        ("aptp", 225, 0.80),
        ("sptp", 150, 0.91),
        ("aptp", 22500, 0.95),
    ]
    assert [row.gain for row in of_table3] == [None, 8.89, None, 3.94]
    crossed = [
        (r.cell.paradigm, r.cell.ir.name, r.cell.vis.name) for r in GRIDS["table2"](sets, ["cnn"], [9])
    ]
    assert [mode for mode, _, _ in crossed] == ["sptp", "sptp", "uptp", "uptp"]
    assert all(ir != vis for mode, ir, vis in crossed if mode == "uptp")
    with pytest.raises(InputError, match="at least twice"):
        GRIDS["table2"](sets[:1], ["cnn"], [9])


def test_table3_trains_scores_and_goes_on(sets, tmp_path):
    asked = experiment(sets, "table3", bases=(2,))
    seen = []
    report = reproduce(asked, tmp_path, lambda name, step: seen.append(name))
    assert len(set(seen)) == len(list((tmp_path / "runs").iterdir())) == 2 * 2
    text = report.read_text()
    assert text.count("| nano | aptp |") == 1
    assert "base 2: aptp of 4 pairs over sptp" in text
    assert read_image(tmp_path / f"table3-nano-{sets[0].name.replace('/', '.')}.png").ndim == 3
    runs = json.loads((tmp_path / "results.json").read_text())
    first = [
        np.mean(run["scores"][f"{sets[0].name} field all"]["VIF"])
        for run in runs.values()
        if run["paradigm"] == "sptp"
    ]
    assert f"{np.mean(first):.3f} ± {np.std(first, ddof=1):.3f}" in text

    seen.clear()
    assert reproduce(asked, tmp_path, lambda name, step: seen.append(name)).read_text() == text
    assert not seen


def test_more_pairs_mean_more_steps_at_equal_epochs(sets, tmp_path):
    asked = experiment(
        sets, "table3", seeds=1, bases=(3,), epochs=2, budget=TrainConfig(steps=7, batch=2, patch=32)
    )
    text = reproduce(asked, tmp_path).read_text()
    assert "2 epochs, at most 7 steps" in text
    runs = json.loads((tmp_path / "results.json").read_text()).values()
    # Two epochs of 3 pairs are 6 patches; two of 9 would be 18, more than 7 steps of 2 are.
    assert [(run["pairs"], run["steps"], run["distinct"]) for run in runs] == [(3, 3, 3), (9, 7, 9)]
    assert "| 3 | 3 | 3 | 3 |" in text
    assert "| 3 | 9 | 9 | 7 |" in text
    with pytest.raises(InputError, match="--epochs is 0"):
        experiment(sets, "table3", epochs=0)


def test_a_run_is_looked_at_on_patches_that_it_trains_on_and_on_others(sets, tmp_path):
    asked = experiment(sets[1:], "table3", seeds=1, bases=(2,))
    asked = replace(asked, tests=(sets[0],), limit=2)
    reproduce(asked, tmp_path)
    for run in json.loads((tmp_path / "results.json").read_text()).values():
        assert [row["step"] for row in run["curve"]] == [1, 2, 3, 4]
        assert all(row["train_loss"] != row["test_loss"] > 0 for row in run["curve"])
        assert all(row["train_VIF"] != row["test_VIF"] > 0 for row in run["curve"])
        ((key, scores),) = run["scores"].items()
        assert key == f"{sets[0].name} field 2"
        assert {name: len(values) for name, values in scores.items()} == dict.fromkeys(CORE_METRICS, 2)


def test_results_of_other_settings_are_not_taken_for_these(sets, tmp_path):
    asked = experiment(sets, "table3", seeds=1, bases=(2,))
    reproduce(asked, tmp_path)
    other = replace(asked, budget=replace(asked.budget, learning_rate=0.01))
    with pytest.raises(InputError, match="other settings of the training"):
        reproduce(other, tmp_path)


def test_a_base_of_patches_never_changes(sets):
    one = sets[0]
    config = TrainConfig(
        ir=(str(one.ir),), vis=(str(one.vis),), patch=32, base=2, base_of="patches", paradigm="sptp"
    )
    data, again = training_set(config), training_set(config)
    pairs = data.pairing.aligned()
    assert len(data.ir) == len(data.vis) == len(pairs) == 2
    first = data.patches(pairs, 0)
    assert all(torch.equal(first, data.patches(pairs, step)) for step in range(1, 9))
    assert torch.equal(first, again.patches(pairs, 0))
    whole = training_set(replace(config, base_of="images"))
    assert len({whole.patches(pairs, step).numpy().tobytes() for step in range(9)}) > 5
    # Both patches of an aligned pair are of one place.
    for patch, (i, j) in zip(first.numpy(), pairs, strict=True):
        of_ir, of_vis = (
            np.argwhere((sliding_window_view(image, (32, 32)) == side).all((2, 3)))
            for image, side in zip((whole.ir[i], whole.vis[j]), patch, strict=True)
        )
        assert of_ir.tolist() == of_vis.tolist() != []
    other = training_set(replace(config, seed=1, base=3)).patches([(0, 0), (1, 1), (2, 2)], 0)
    assert not torch.equal(other[:2], first)


def test_table4_puts_other_methods_beside(sets, tmp_path):
    for k in range(3):
        (tmp_path / "theirs").mkdir(exist_ok=True)
        write_image(tmp_path / "theirs" / f"{k}.png", read_image(sets[0].ir / f"{k}.png"))
    asked = experiment(sets, "table4", seeds=1, others=(tmp_path / "theirs",), limit=2)
    text = reproduce(asked, tmp_path / "out").read_text()
    assert "Seed by seed" not in text  # there is no strictly paired row to compare with
    lines = text.splitlines()
    scores = {line.split(" | ")[0].strip("| "): line.split(" | ")[1:] for line in lines if "|" in line}
    assert scores["theirs"] == scores["copy-ir"]
    assert scores["maximum"] != scores["average"]


def test_what_cannot_be_scored_is_told_before_anything_is_trained(sets, tmp_path):
    asked = experiment(sets, "table4", others=(tmp_path / "nowhere",))
    with pytest.raises(InputError, match="nowhere"):
        reproduce(asked, tmp_path / "out")
    (tmp_path / "part").mkdir()
    write_image(tmp_path / "part" / "0.png", read_image(sets[0].ir / "0.png"))
    with pytest.raises(InputError, match="part has no image for '1'"):
        reproduce(experiment(sets, "table4", others=(tmp_path / "part",)), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_two_sets_of_one_name_are_refused(sets, tmp_path):
    twin = tmp_path / sets[0].name
    for side in ("ir", "vis"):
        (twin / side).mkdir(parents=True)
    with pytest.raises(InputError, match="two sets are called"):
        Experiment("fig2", (sets[0],), (pair_set(twin),), ("nano",), (2,), 1, TrainConfig())


def test_figures_are_drawn(sets, tmp_path):
    reproduce(experiment(sets, "fig2", seeds=1, bases=(2,)), tmp_path)
    assert read_image(tmp_path / "fig2.png").ndim == 3
    reproduce(experiment(sets, "fig3", seeds=1, bases=(2,)), tmp_path)
    evolution = read_image(tmp_path / "fig3.png")
    # Two rows (SPTP, UPTP) of infrared, visible and four steps.
    assert evolution.shape == (2 * (22 + 48 + 4), 6 * (63 + 4))


def test_what_cannot_be_run_is_named(sets, tmp_path):
    with pytest.raises(InputError, match="no folder 'ir'"):
        pair_set(tmp_path)
    for name, changes, words in (
        ("table9", {}, "known are"),
        ("table1", {"models": ("resnet",)}, "resnet"),
        ("table2", {"protocol": "mine"}, "mine"),
        ("table3", {"limit": 0}, "--limit is 0"),
        ("table4", {"seeds": 0}, "at least 1"),
    ):
        with pytest.raises(InputError, match=words):
            experiment(sets, name, **changes)


def test_cells_keep_their_runs_apart(sets):
    cells = [Cell("nano", "sptp", sets[0], sets[0], 2, 2), Cell("nano", "uptp", sets[0], sets[1], 2, 2)]
    budget = TrainConfig(steps=4)
    configs = [(cell, cell.config(budget, seed)) for cell in cells for seed in (0, 1)]
    assert len({run_name(cell, config) for cell, config in configs}) == 4
    others = replace(budget, steps=5), replace(budget, base_of="patches")
    assert len({run_name(cells[0], cells[0].config(one, 0)) for one in (budget, *others)}) == 3
    assert set(CORE_METRICS) == set(published("table2")[0].scores)


def test_samples_of_a_training_say_what_they_are(tmp_path, monkeypatch, pair):
    ir, vis = pair[0], np.ascontiguousarray(pair[1][..., 1])
    monkeypatch.setattr(record, "Fuser", lambda _: np.maximum)
    write_samples(tmp_path / "a.png", build_model("nano"), [(ir, vis), (ir[:40], vis[:40])])
    picture = read_image(tmp_path / "a.png")
    for tile, source in zip(sample_tiles(picture, ir.shape), (ir, vis, np.maximum(ir, vis)), strict=True):
        assert np.array_equal(tile, source)
    for k in range(3):
        assert (picture[:22, k * 105 :][:, :101] < 128).sum() > 30


def test_titles_are_not_cut_off():
    figure, _ = new_figure((2, 1), "total training loss, and SSIM of test pairs, in many more words")
    figure.canvas.draw()
    (text,) = figure.texts
    title, whole = text.get_window_extent(), figure.bbox
    assert title.x0 >= whole.x0
    assert title.x1 <= whole.x1
