import json
from typing import Any

import numpy as np
import pytest

from edgefuse.errors import InputError
from edgefuse.experiments import figures
from edgefuse.experiments.cells import Cell, pair_set
from edgefuse.experiments.grids import GRIDS, published
from edgefuse.experiments.run import Experiment, reproduce
from edgefuse.experiments.tables import improvement
from edgefuse.images import read_image, write_image
from edgefuse.metrics import CORE_METRICS
from edgefuse.train import record
from edgefuse.train.config import TrainConfig
from edgefuse.train.models import build_model
from edgefuse.train.record import sample_tiles, write_samples

pytestmark = pytest.mark.usefixtures("one_thread")


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
    numbers = json.loads((tmp_path / "table3.json").read_text())["trainings"]
    first = [run["scores"][sets[0].name]["VIF"] for run in numbers[:2]]
    assert f"{np.mean(first):.3f} ± {np.std(first, ddof=1):.3f}" in text

    seen.clear()
    assert reproduce(asked, tmp_path, lambda name, step: seen.append(name)).read_text() == text
    assert not seen


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
    assert len({cell.folder(seed) for cell in cells for seed in (0, 1)}) == 4
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
    figure, _ = figures._figure(2, 1, "total training loss, and SSIM of test pairs, in many more words")
    figure.canvas.draw()
    (text,) = figure.texts
    title, whole = text.get_window_extent(), figure.bbox
    assert title.x0 >= whole.x0
    assert title.x1 <= whole.x1
