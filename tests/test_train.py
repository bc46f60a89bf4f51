import csv
import errno
import io
import json
import os
import shutil
import threading
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from edgefuse.errors import InputError, ModelError
from edgefuse.images import read_image, write_image
from edgefuse.settings import from_plain
from edgefuse.train.cache import ImageCache
from edgefuse.train.checkpoint import (
    Checkpoint,
    import_released,
    load_checkpoint,
    restore_model,
    save_weights,
)
from edgefuse.train.config import LossConfig, TrainConfig
from edgefuse.train.data import PairSampler, TrainingSet, training_set
from edgefuse.train.loop import check_run_folder, train
from edgefuse.train.losses import LOSSES, Loss
from edgefuse.train.machine import DistributedContext, resolve_precision
from edgefuse.train.models import build_model
from edgefuse.train.trainer import Adversary, Trainer, learning_rate_factor


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("pairs")
    rng = np.random.default_rng(0)
    for side in ("ir", "vis"):
        (root / side).mkdir()
        for k in range(4):
            image = np.kron(rng.integers(0, 256, (6, 7), dtype=np.uint8), np.ones((11, 10), np.uint8))
            write_image(root / side / f"{k}.png", image)
    return root


def configured(folders, **changes):
    values: dict[str, Any] = {
        "steps": 45,
        "batch": 2,
        "patch": 32,
        "seed": 5,
        "pairs": 10,
        "precision": "fp32",
    } | changes
    return TrainConfig(ir=(str(folders / "ir"),), vis=(str(folders / "vis"),), **values)


def rows_of(run, name="log.csv"):
    with (run / name).open() as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def finished(folders, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "whole"
    config = configured(folders, sample_every=20)
    return config, out, train(config, training_set(config), out)


def test_a_run_leaves_everything_to_look_at(finished):
    config, out, weights = finished
    assert weights == out / "nano.safetensors"
    assert from_plain(TrainConfig, json.loads((out / "config.json").read_text())) == config
    assert sorted(p.name for p in (out / "samples").iterdir()) == [
        "step_000020.png",
        "step_000040.png",
        "step_000045.png",
    ]
    assert read_image(out / "samples" / "step_000045.png").shape == (3 * (22 + 70), 3 * 74)
    assert read_image(out / "loss.png").shape[1] == 1000
    assert [row["step"] for row in rows_of(out)] == [20, 40, 45]
    assert not list(out.rglob("*.part"))


def test_a_teacher_is_learned_from(folders, finished, tmp_path):
    """Beginning with the teacher's own weights there is nothing to learn, but where it is spoilt."""
    config = configured(
        folders, teacher=str(finished[2]), init=str(finished[2]), steps=40, aligned=1.0, learning_rate=1e-7
    )
    train(config, training_set(config), tmp_path / "same")
    assert rows_of(tmp_path / "same")[0]["total"] < 2e-3  # the teacher's picture is clamped
    assert "fallback" not in rows_of(tmp_path / "same")[0]
    config = replace(config, corrupt=1.0, losses=LossConfig(fallback=0.5))
    train(config, training_set(config), tmp_path / "spoilt")
    first, _ = rows_of(tmp_path / "spoilt")
    assert first["total"] == pytest.approx(
        first["intensity"] + first["gradient"] + 0.2 * first["ssim"] + 0.5 * first["fallback"], rel=1e-5
    )
    assert min(first["fallback"], first["intensity"]) > 0.01


def test_aligned_pairs_need_equal_stems(folders, tmp_path):
    (tmp_path / "vis").mkdir()
    for k in range(2):
        write_image(tmp_path / "vis" / f"other{k}.png", np.zeros((66, 70), np.uint8))
    with pytest.raises(InputError, match=r"aligned is 0\.5"):
        training_set(replace(configured(folders), vis=(str(tmp_path / "vis"),), aligned=0.5))
    for k in range(2):  # of one stem, but of another size
        write_image(tmp_path / "vis" / f"{k}.png", np.zeros((70, 66), np.uint8))
    with pytest.raises(InputError, match=r"aligned is 0\.5"):
        training_set(replace(configured(folders), vis=(str(tmp_path / "vis"),), aligned=0.5))


def test_a_run_does_not_go_on_with_another_teacher(folders, finished, tmp_path):
    teacher = tmp_path / "teacher.safetensors"
    teacher.write_bytes(finished[2].read_bytes())
    config = configured(folders, teacher=str(teacher), steps=4)
    train(config, training_set(config), tmp_path / "run")
    torch.manual_seed(0)
    save_weights(teacher, Checkpoint("nano", build_model("nano").state_dict(), 1, {}))
    with pytest.raises(InputError, match="with another teacher"):
        train(config, training_set(config), tmp_path / "run", resume=True)


def test_training_lowers_the_loss(finished):
    rows = rows_of(finished[1])
    assert rows[-1]["total"] < 0.95 * rows[0]["total"]
    assert rows[0]["total"] == pytest.approx(
        rows[0]["intensity"] + rows[0]["gradient"] + 0.2 * rows[0]["ssim"], rel=1e-5
    )


def test_a_stopped_and_resumed_run_ends_with_the_same_weights(folders, finished, tmp_path):
    config, _, weights = finished
    stop = threading.Event()
    seen = []

    def at_row(progress):
        seen.append(progress.step)
        stop.set()

    data = training_set(config)
    checkpoint = train(config, data, tmp_path / "run", on_progress=at_row, stop=stop)
    assert checkpoint.name == "checkpoint.pt"
    assert load_checkpoint(checkpoint).step == 21
    resumed = train(config, data, tmp_path / "run", resume=True)
    expected, answer = load_checkpoint(weights).weights, load_checkpoint(resumed).weights
    assert all(torch.equal(expected[name], answer[name]) for name in expected)
    assert [row["step"] for row in rows_of(tmp_path / "run")] == [20, 40, 45]


def test_another_seed_gives_other_weights(folders, finished, tmp_path):
    config = replace(finished[0], seed=6, steps=1)
    other = train(config, training_set(config), tmp_path / "run")
    mine, theirs = load_checkpoint(finished[2]).weights, load_checkpoint(other).weights
    assert any(not torch.equal(mine[name], theirs[name]) for name in mine)


def test_a_folder_with_a_run_is_not_overwritten(finished):
    config, out, _ = finished
    with pytest.raises(InputError, match="already holds a run"):
        train(config, training_set(config), out)


def test_a_run_that_was_killed_before_its_first_checkpoint_is_begun_anew(finished, tmp_path):
    config, _, _ = finished
    (tmp_path / "log.csv").write_text("step,total\n20,0.1\n40,")
    weights = train(replace(config, steps=2), training_set(config), tmp_path)
    assert weights.exists()
    assert [row["step"] for row in rows_of(tmp_path)] == [2]


def test_training_can_begin_with_given_weights(finished, tmp_path):
    config, _, weights = finished
    tuned = replace(config, init=str(weights), steps=1, learning_rate=1e-9)
    after = load_checkpoint(train(tuned, training_set(tuned), tmp_path / "tuned")).weights
    before = load_checkpoint(weights).weights
    assert all(torch.allclose(before[name], after[name], atol=1e-6) for name in before)
    with pytest.raises(ModelError, match="do not fit 'cnn'"):
        train(replace(tuned, model="cnn"), training_set(tuned), tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_a_loss_that_is_no_number_is_never_saved(finished, tmp_path, monkeypatch):
    config, _, _ = finished
    stop = threading.Event()
    stop.set()
    told = {"total": torch.tensor(float("nan"))}, True
    monkeypatch.setattr("edgefuse.train.trainer.Trainer.step", lambda *_: told)
    with pytest.raises(InputError, match="nan at step 1"):
        train(config, training_set(config), tmp_path, stop=stop)
    assert not (tmp_path / "checkpoint.pt").exists()


def test_resuming_wants_the_same_run(finished, tmp_path):
    config, out, _ = finished
    data = training_set(config)
    with pytest.raises(ModelError, match=r"batch = 2, this run has 4"):
        train(replace(config, batch=4), data, out, resume=True)
    other = replace(
        data, ir=data.ir.subset([0, 1, 2]), pairing=PairSampler("aptp", data.ir.keys[:3], data.vis.keys)
    )
    with pytest.raises(InputError, match="trained on other images"):
        train(config, other, out, resume=True)


def test_a_run_resumes_from_other_folders_with_the_same_images(folders, tmp_path):
    config = configured(folders, steps=4, pairs=10)
    stop = threading.Event()
    stop.set()
    train(config, training_set(config), tmp_path / "run", stop=stop)
    shutil.copytree(folders, tmp_path / "moved")
    moved = configured(tmp_path / "moved", steps=4, pairs=10)
    resumed = train(moved, training_set(moved), tmp_path / "run", resume=True)
    whole = train(config, training_set(config), tmp_path / "whole")
    expected, answer = load_checkpoint(whole).weights, load_checkpoint(resumed).weights
    assert all(torch.equal(expected[name], answer[name]) for name in expected)


def test_a_finished_run_can_be_extended(folders, tmp_path):
    config = configured(folders, steps=3)
    train(config, training_set(config), tmp_path)
    longer = replace(config, steps=5)
    weights = train(longer, training_set(longer), tmp_path, resume=True)
    assert load_checkpoint(weights).step == 5
    assert json.loads((tmp_path / "config.json").read_text())["steps"] == 5
    assert [row["step"] for row in rows_of(tmp_path)] == [3, 5]
    with pytest.raises(InputError, match=r"steps is 4, and .* is at step 5 already"):
        train(replace(config, steps=4), training_set(config), tmp_path, resume=True)


def test_a_run_is_resumed_without_saying_again_how_it_goes(folders, tmp_path, run):
    config = configured(folders, steps=2)
    train(config, training_set(config), tmp_path / "run")
    before = json.loads((tmp_path / "run/config.json").read_text())
    status, _, err = run("train", "--out", "run", "--resume", "--steps", "3")
    assert status == 0, err
    assert json.loads((tmp_path / "run/config.json").read_text()) == before | {"steps": 3}


def test_a_full_temporary_folder_is_named(monkeypatch):
    class Full(io.BytesIO):
        def write(self, content):
            if self.tell() > 100:
                raise OSError(errno.ENOSPC, "No space left on device")
            return super().write(content)

    monkeypatch.setattr("tempfile.TemporaryFile", Full)
    with pytest.raises(InputError, match=r"temporary folder .* is full after 2 images.*set TMPDIR"):
        ImageCache((k, np.zeros((10, 10), np.uint8)) for k in range(5))


def test_a_run_folder_that_cannot_be_written_is_told_before_the_images_are_read(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"cannot make the run folder .*: .*file is a file"):
        check_run_folder(tmp_path / "file" / "run", resume=False)
    check_run_folder(tmp_path / "new" / "run", resume=False)
    assert not (tmp_path / "new").exists()


def test_resuming_begins_where_there_is_nothing_to_resume(finished, tmp_path):
    config, _, weights = finished
    begun = train(config, training_set(config), tmp_path, resume=True)
    assert begun.read_bytes() == weights.read_bytes()


@pytest.mark.parametrize("minutes", [-1, float("nan")])
def test_impossible_times_between_checkpoints_are_refused(finished, minutes):
    with pytest.raises(InputError, match="checkpoint_minutes"):
        replace(finished[0], checkpoint_minutes=minutes)


def test_an_infinite_gradient_spoils_no_checkpoint(folders, tmp_path, monkeypatch):
    config = configured(folders, steps=3, checkpoint_minutes=0)

    def root_of_nothing(batch, _):
        # Finite, with a slope that is not.
        return torch.sqrt((batch.fused - batch.fused.detach()).pow(2).sum())

    monkeypatch.setitem(LOSSES, "intensity", Loss(root_of_nothing))
    with pytest.raises(InputError, match="gradient became infinite in step 1"):
        train(config, training_set(config), tmp_path)
    assert not (tmp_path / "checkpoint.pt").exists()


def test_what_killed_runs_left_half_written_is_removed(folders, tmp_path):
    (tmp_path / ".checkpoint.pt.4711.part").write_bytes(b"half")
    config = configured(folders, steps=1)
    train(config, training_set(config), tmp_path)
    assert not list(tmp_path.glob(".*"))


def test_partners_of_another_size_are_said_to_be_cropped_apart(tmp_path):
    for side, size in (("ir", 40), ("vis", 48)):
        (tmp_path / side).mkdir()
        for k, extra in enumerate((0, 8 * (side == "ir"))):
            write_image(tmp_path / side / f"{k}.png", np.zeros((size + extra, size + extra), np.uint8))
    told = training_set(configured(tmp_path)).describe()
    assert "1 of them aligned pairs" in told
    assert "1 more have partners of another size" in told


def test_unpaired_folders_without_equal_stems_say_that_it_is_the_same_as_arbitrary(folders, tmp_path):
    (tmp_path / "vis").mkdir()
    write_image(tmp_path / "vis" / "other.png", np.zeros((66, 70), np.uint8))
    config = replace(configured(folders, paradigm="uptp"), vis=(str(tmp_path / "vis"),))
    assert "uptp is the same as aptp" in training_set(config).describe()


def test_a_base_does_not_hide_that_folders_are_not_strictly_paired(folders, tmp_path):
    (tmp_path / "vis").mkdir()
    for stem in ("0", "1", "stranger"):
        write_image(tmp_path / "vis" / f"{stem}.png", np.zeros((66, 70), np.uint8))
    config = replace(configured(folders, paradigm="sptp", base=2), vis=(str(tmp_path / "vis"),))
    with pytest.raises(InputError, match=r"2|stranger"):
        training_set(config)


def banks(sizes):
    images = [(k, np.full(size, 10 * k + 1, np.uint8)) for k, size in enumerate(sizes)]
    return ImageCache(images), ImageCache((k, image + 100) for k, image in images)


def test_a_bank_gives_back_its_images():
    ir, _ = banks([(20, 30), (17, 16), (40, 21)])
    assert [image.shape for image in ir] == [(20, 30), (17, 16), (40, 21)]
    assert [int(image.min()) for image in ir] == [int(image.max()) for image in ir] == [1, 11, 21]
    part = ir.subset([2, 0])
    assert part.keys == [2, 0]
    assert part[0].shape == (40, 21)


def test_aligned_pairs_are_cropped_at_one_place_and_others_apart():
    y, x = np.mgrid[0:100, 0:120]
    image = (y + x).astype(np.uint8)
    ir, vis = ImageCache([("a", image), ("b", image)]), ImageCache([("a", image), ("b", image)])
    data = TrainingSet(ir, vis, PairSampler("aptp", ir.keys, vis.keys), 4, 4, 32, seed=0)
    together = data.patches([(0, 0), (1, 1)] * 8, step=3).numpy()
    assert (together[:, 0] == together[:, 1]).all()
    apart = data.patches([(0, 1), (1, 0)] * 8, step=3).numpy()
    assert (apart[:, 0] != apart[:, 1]).any((1, 2)).mean() > 0.8
    np.testing.assert_array_equal(data.patches([(0, 0), (1, 1)] * 8, step=3), together)


def test_a_patch_lies_where_the_chances_say():
    """Of each pair: row and column of infrared, then of a visible image that is not its own."""
    y, x = np.mgrid[0:100, 0:200]
    rows, columns = (ImageCache([(k, image.astype(np.uint8)) for k in "ab"]) for image in (y, x))
    for ir, vis in ((rows, columns), (columns, rows)):
        data = TrainingSet(ir, vis, PairSampler("aptp", ir.keys, vis.keys), 4, 4, 32, seed=7, mirror=False)
        pairs = [(0, 0), (0, 1), (1, 0), (1, 1)] * 4
        chances = np.random.default_rng((7, 3)).random((16, 5))
        of_ir = chances[:, :2]
        of_vis = np.where([[i == j] for i, j in pairs], of_ir, chances[:, 2:4])
        for axis, place, count in ((0, of_ir, 0), (1, of_vis, 1)):
            along = 0 if (ir is rows) == (axis == 0) else 1
            corners = data.patches(pairs, step=3).numpy()[:, count, 0, 0]
            assert corners.tolist() == [int(share) for share in place[:, along] * (69, 169)[along]]
    data = TrainingSet(columns, columns, PairSampler("sptp", "ab", "ab"), 4, 4, 32, seed=7)
    mirrored = data.patches(pairs, step=3).numpy()[:, :, 0]
    assert (mirrored[:, :, 0] > mirrored[:, :, -1]).all(1).tolist() == (chances[:, 4] < 0.5).tolist()


def test_samples_are_aligned_pairs_or_any_cut_to_one_size():
    def of(*images):
        return ImageCache([(key, np.full(shape, grey, np.uint8)) for key, shape, grey in images])

    ir = of(("a", (40, 50), 1), ("b", (40, 50), 2), ("c", (40, 50), 3), ("d", (40, 50), 4))
    vis = of(("a", (40, 50), 11), ("b", (36, 60), 12), ("c", (40, 50), 13), ("d", (40, 50), 14))
    data = TrainingSet(ir, vis, PairSampler("aptp", ir.keys, vis.keys), 4, 4, 32, seed=0)
    assert [(int(i[0, 0]), int(v[0, 0])) for i, v in data.samples(2)] == [(1, 11), (3, 13)]
    assert [(int(i[0, 0]), int(v[0, 0])) for i, v in data.samples(9)] == [(1, 11), (3, 13), (4, 14)]
    vis = of(("x", (36, 60), 21), ("y", (60, 36), 22))
    data = TrainingSet(ir, vis, PairSampler("aptp", ir.keys, vis.keys), 4, 4, 32, seed=0)
    loose = data.samples(8)
    assert len({(int(i[0, 0]), int(v[0, 0])) for i, v in loose}) == 8, "every pair once"
    assert {i.shape for i, v in loose} == {(36, 50), (40, 36)}
    assert all(i.shape == v.shape for i, v in loose)


@pytest.mark.parametrize(("spare", "moved"), [(0, True), (-1, False)])
def test_images_go_to_a_gpu_if_they_fill_half_of_it_at_most(spare, moved, monkeypatch):
    """On torch's device without memory, as no GPU is needed to decide that."""
    ir, vis = banks([(32, 32)] * 5)
    data = TrainingSet(ir, vis, PairSampler("aptp", ir.keys, vis.keys), pairs=7, batch=3, patch=32, seed=0)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2 * 2 * 5 * 32 * 32 + spare, 10**9))
    data.move_to(torch.device("meta"))
    assert {cache.tensor(0).device.type for cache in (data.ir, data.vis)} == {"meta" if moved else "cpu"}


def test_bits_are_those_of_the_configuration(tmp_path):
    """A visible image of 12 bits in 16 is white where its 12 are, for training and for validation."""
    for side in ("ir", "vis"):
        (tmp_path / side).mkdir()
        for k in range(2):
            image = np.full((32, 32), 4095, np.uint16)
            image[:16] = 1000 * k
            write_image(
                tmp_path / side / f"{k}.png", image if side == "vis" else (image >> 4).astype(np.uint8)
            )
    own = {"val_ir": (str(tmp_path / "ir"),), "val_vis": (str(tmp_path / "vis"),)}
    data = training_set(configured(tmp_path, bits=12, **own))
    assert data.vis[0].max() == data.vis[1].max() == data.validation[0][1].max() == 255
    assert data.vis[1][0, 0] == round(1000 / 4095 * 255)


def pairs_of(batches):
    return [[(b[0, 0, 0] // 10, (b[1, 0, 0] - 100) // 10) for b in patches.numpy()] for patches in batches]


def test_epochs_follow_one_another_and_each_is_drawn_afresh():
    ir, vis = banks([(32, 32)] * 5)
    data = TrainingSet(ir, vis, PairSampler("aptp", ir.keys, vis.keys), pairs=7, batch=3, patch=32, seed=0)
    seen = [pair for batch in pairs_of(data.batches(0, 7)) for pair in batch]
    epochs = [seen[:7], seen[7:14], seen[14:]]
    assert all(len(set(epoch)) == 7 for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    assert pairs_of(data.batches(4, 6)) == [seen[12:15], seen[15:18]]


def test_processes_share_the_patches_of_a_step():
    y, x = np.mgrid[0:90, 0:80]
    images = [(k, (y * k + x).astype(np.uint8)) for k in range(4)]
    ir, vis = ImageCache(images), ImageCache(images)
    pairing = PairSampler("aptp", ir.keys, vis.keys)
    whole = TrainingSet(ir, vis, pairing, pairs=11, batch=6, patch=32, seed=0).batches(0, 5)
    data = TrainingSet(ir, vis, pairing, pairs=11, batch=2, patch=32, seed=0)
    parts = [replace(data).batches(0, 5, DistributedContext(rank, 3)) for rank in range(3)]
    for expected, *shares in zip(whole, *parts, strict=True):
        assert torch.equal(torch.cat(shares), expected)


def test_pairs_of_unequal_sizes_are_not_taken_for_aligned():
    ir = ImageCache([("a", np.zeros((40, 50), np.uint8))])
    vis = ImageCache([("a", np.zeros((80, 100), np.uint8))])
    with pytest.raises(InputError, match="a is 50x40 in infrared and 100x80 in visible"):
        TrainingSet(ir, vis, PairSampler("sptp", ir.keys, vis.keys), 1, 1, 32, seed=0)
    data = TrainingSet(ir, vis, PairSampler("aptp", ir.keys, vis.keys), 1, 1, 32, seed=0)
    assert data.patches([(0, 0)], 0).shape == (1, 2, 32, 32)


def test_images_smaller_than_a_patch_are_named():
    ir, vis = banks([(64, 64), (64, 40)])
    with pytest.raises(InputError, match=r"infrared image 1 .*40 pixels.*patch of 48"):
        TrainingSet(ir, vis, PairSampler("aptp", ir.keys, vis.keys), 1, 1, 48, seed=0)


def test_two_folders_of_one_list_do_not_mix_their_stems(folders):
    one, both = (str(folders / "vis"),), (str(folders / "ir"), str(folders / "ir"))
    config = TrainConfig(ir=both, vis=(str(folders / "vis"),) * 2, patch=32)
    assert len(training_set(config).pairing.aligned()) == 8
    crossed = TrainConfig(ir=both, vis=one, patch=32, paradigm="uptp")
    assert len(training_set(crossed).pairing) == 8 * 4 - 4
    assert len(training_set(replace(config, base=3)).pairing) == 9


def test_the_simulated_rig_trains_without_folders(monkeypatch):
    monkeypatch.setattr("edgefuse.train.cache.SIMULATED_FRAMES", 8)
    data = training_set(TrainConfig(base=2))
    assert data.patches([(0, 0)], 0).shape == (1, 2, 128, 128)


@pytest.mark.parametrize(
    "changes",
    [
        {"steps": 0},
        {"batch": 0},
        {"patch": 100},
        {"pairs": 0},
        {"learning_rate": 0},
        {"learning_rate": float("nan")},
        {"clip": 0},
        {"ema": 1.0},
        {"corrupt": 1.5},
        {"aligned": -0.1},
        {"aligned": 0.5, "paradigm": "uptp"},
        {"teacher": "cnn", "model": "gan"},
        {"hold_out": -1},
        {"processes": 0},
        {"precision": "int4"},
        {"paradigm": "x"},
        {"seed": -1},
        {"seed": 2**63},
        {"vis": ()},
    ],
)
def test_impossible_settings_are_named(folders, changes):
    name = next(iter(changes))
    with pytest.raises(InputError, match=f"{name}|{name.replace('_', ' ')}"):
        replace(configured(folders), **changes)


def test_a_fallback_needs_a_teacher_and_spoilt_patches(folders):
    for changes in ({"corrupt": 0.5}, {"teacher": "nano"}):
        with pytest.raises(InputError, match="set teacher and corrupt"):
            configured(folders, losses=LossConfig(fallback=0.1), **changes)


def test_unknown_settings_are_named():
    with pytest.raises(InputError, match=r"'stepz' \(did you mean 'steps'\?\)"):
        from_plain(TrainConfig, {"stepz": 1})


def test_the_learning_rate_warms_up_and_falls():
    rates = [learning_rate_factor(step, 1000) for step in range(1000)]
    assert rates[0] == pytest.approx(0.05)
    assert max(rates) == rates[20] == 1
    assert rates[-1] == pytest.approx(0.01, abs=1e-4)
    assert all(a >= b for a, b in pairwise(rates[20:]))


def test_damaged_checkpoints_are_named(finished, tmp_path):
    _, out, weights = finished
    whole = (out / "checkpoint.pt").read_bytes()
    (tmp_path / "cut.pt").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "cut.safetensors").write_bytes(weights.read_bytes()[:1000])
    torch.save({"weights": {}}, tmp_path / "foreign.pt")
    whole_values = torch.load(out / "checkpoint.pt")
    torch.save({k: v for k, v in whole_values.items() if k != "step"}, tmp_path / "less.pt")
    torch.save(whole_values | {"weights": [1]}, tmp_path / "list.pt")
    save_file({"a": torch.ones(1)}, tmp_path / "plain.safetensors")
    save_file({"a": torch.ones(1)}, tmp_path / "json.safetensors", metadata={"edgefuse": "{"})
    save_file({"a": torch.ones(1)}, tmp_path / "keys.safetensors", metadata={"edgefuse": '{"x": 1}'})
    for name, words in {
        "absent.pt": "no such checkpoint",
        "cut.pt": "not a readable",
        "cut.safetensors": "not a readable",
        "foreign.pt": "not a checkpoint written by",
        "less.pt": "lacks parts",
        "list.pt": "weights is a list",
        "plain.safetensors": "no edgefuse metadata",
        "json.safetensors": "damaged edgefuse metadata",
        "keys.safetensors": "lacks parts",
    }.items():
        with pytest.raises(ModelError, match=words):
            load_checkpoint(tmp_path / name)


def test_weights_of_another_network_are_refused(finished, tmp_path):
    checkpoint = load_checkpoint(finished[2])
    save_weights(tmp_path / "x.safetensors", replace(checkpoint, model="cnn"))
    with pytest.raises(ModelError, match="do not fit 'cnn'"):
        restore_model(load_checkpoint(tmp_path / "x.safetensors"))


@pytest.mark.parametrize("first", [0, 3])
def test_infrared_and_visible_images_are_real_by_turns_through_all_steps(first):
    adversary = Adversary(32)
    asked = []
    adversary.discriminator.register_forward_pre_hook(lambda _, given: asked.append(given[0]))
    ir, vis, fused = (torch.full((3, 1, 32, 32), level) for level in (0.2, 0.6, 0.9))
    adversary.loss(fused, ir, vis, first)
    levels = asked[0][:, 0, 0, 0].tolist()
    real = [0.2, 0.6, 0.2] if first % 2 == 0 else [0.6, 0.2, 0.6]
    assert levels == pytest.approx([*real, 0.9, 0.9, 0.9])


def test_the_discriminator_learns(folders):
    config = configured(folders, model="gan", steps=1)
    trainer = Trainer(config, DistributedContext())
    assert trainer.adversary is not None
    before = [p.clone() for p in trainer.adversary.parameters()]
    trainer.step(next(training_set(config).batches(0, 1)), 0)
    after = trainer.adversary.parameters()
    moved = sum(not torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert moved > 0.9 * len(before)


def test_a_gan_trains_both_players_and_resumes(folders, tmp_path, monkeypatch):
    monkeypatch.setattr("edgefuse.train.record.LOG_EVERY", 2)
    config = configured(folders, model="gan", steps=4)
    whole = train(config, training_set(config), tmp_path / "whole")
    stop = threading.Event()
    data = training_set(config)
    parts = tmp_path / "parts"
    stopped = train(config, data, parts, on_progress=lambda _: stop.set(), stop=stop)
    assert load_checkpoint(stopped).step == 3
    resumed = train(config, data, parts, resume=True)
    expected, answer = load_checkpoint(whole).weights, load_checkpoint(resumed).weights
    assert all(torch.equal(expected[name], answer[name]) for name in expected)
    last = rows_of(parts)[-1]
    assert last["total"] == pytest.approx(
        last["intensity"] + last["gradient"] + 0.2 * last["ssim"] + 0.01 * last["adversarial"], rel=1e-4
    )
    assert read_image(tmp_path / "whole" / "loss.png").shape[1] == 1500


def test_held_out_pairs_are_validated_on_and_never_trained_on(folders, tmp_path):
    config = configured(folders, hold_out=2, steps=4, sample_every=2)
    data = training_set(config)
    assert len(data.validation) == 2
    assert len(data.ir) == len(data.vis) == 2
    for ir, vis in data.validation:
        assert not any(np.array_equal(ir, data.ir[k]) for k in range(2))
        assert not any(np.array_equal(vis, data.vis[k]) for k in range(2))
    assert "validated on 2 aligned pairs" in data.describe()
    train(config, data, tmp_path / "run")
    rows = rows_of(tmp_path / "run", "validation.csv")
    assert [row["step"] for row in rows] == [2, 4]
    assert all(0 < row["SSIM"] <= 1 and row["EN"] > 0 for row in rows)
    assert (tmp_path / "run" / "validation.png").exists()
    with pytest.raises(InputError, match="hold out 4 of 4"):
        training_set(configured(folders, hold_out=4))


def test_validation_may_have_folders_of_its_own(folders):
    own = {"val_ir": (str(folders / "ir"),), "val_vis": (str(folders / "vis"),)}
    data = training_set(configured(folders, **own))
    assert len(data.validation) == len(data.ir) == 4
    with pytest.raises(InputError, match="hold_out"):
        configured(folders, hold_out=1, **own)


def test_the_average_of_the_weights_lags_behind_them(folders, tmp_path):
    def weights(ema):
        config = configured(folders, steps=5, ema=ema)
        train(config, training_set(config), tmp_path / str(ema))
        return load_checkpoint(tmp_path / str(ema) / "checkpoint.pt")

    averaged, last = weights(0.9), weights(0.0)
    network = averaged.training["network"]
    assert all(torch.equal(last.weights[name], network[name]) for name in network)
    assert any(not torch.equal(averaged.weights[name], network[name]) for name in network)


def test_the_average_follows_fast_at_first(folders):
    """With a decay of 0.999 from the start, five steps would leave it at the random weights."""
    trainer = Trainer(configured(folders, steps=5, learning_rate=0.01), DistributedContext())
    (start,) = (p.clone() for p in list(trainer.averaged.parameters())[:1])
    for step, patches in enumerate(training_set(configured(folders)).batches(0, 5)):
        trainer.step(patches, step)
    moved = (next(trainer.network.parameters()) - start).abs().mean()
    followed = (next(trainer.averaged.parameters()) - start).abs().mean()
    assert followed > 0.4 * moved


def test_a_trainer_leaves_the_callers_random_numbers_alone(folders):
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    Trainer(configured(folders, model="gan"), DistributedContext())
    assert torch.equal(torch.rand(3), expected)


class Malicious:
    """Runs a command when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def test_nothing_in_a_checkpoint_is_executed(tmp_path):
    values = {"format": 2, "model": "nano", "weights": {}, "step": 1, "config": {}, "training": None}
    torch.save(values | {"training": Malicious(tmp_path / "executed")}, tmp_path / "bad.pt")
    for read in (load_checkpoint, lambda path: import_released(path, "cnn")):
        with pytest.raises(ModelError, match="not a readable checkpoint"):
            read(tmp_path / "bad.pt")
    assert not (tmp_path / "executed").exists()
    torch.load(tmp_path / "bad.pt", weights_only=False)  # the attack works where it is let
    assert (tmp_path / "executed").exists()


def test_a_loss_is_one_function_and_one_entry(folders, tmp_path, monkeypatch):
    def roughness(batch, _):
        return batch.fused.diff(dim=3).abs().mean()

    monkeypatch.setitem(LOSSES, "roughness", Loss(roughness))
    config = configured(folders, steps=2, losses=LossConfig(ssim=0, others={"roughness": 2.0}))
    train(config, training_set(config), tmp_path)
    (row,) = rows_of(tmp_path)
    assert row["total"] == pytest.approx(row["intensity"] + row["gradient"] + 2 * row["roughness"], rel=1e-5)
    assert row["roughness"] > 0
    assert "ssim" not in row
    with pytest.raises(InputError, match=r"unknown loss 'roughnes' .did you mean 'roughness'"):
        Trainer(replace(config, losses=LossConfig(others={"roughnes": 1.0})), DistributedContext())
    nothing = LossConfig(intensity=0, gradient=0, ssim=0)
    with pytest.raises(InputError, match="nothing to learn from"):
        Trainer(replace(config, losses=nothing), DistributedContext())


@pytest.mark.parametrize("model", ["nano", "cnn"])
def test_bf16_keeps_the_weights_in_fp32(folders, tmp_path, model):
    config = configured(folders, precision="bf16", steps=3, model=model)
    weights = load_checkpoint(train(config, training_set(config), tmp_path / "run")).weights
    assert {value.dtype for value in weights.values()} <= {torch.float32, torch.int64}
    exact = replace(config, precision="fp32")
    other = load_checkpoint(train(exact, training_set(exact), tmp_path / "exact")).weights
    name = next(iter(weights))
    assert not torch.equal(weights[name], other[name])
    torch.testing.assert_close(weights[name], other[name], atol=5e-3, rtol=0)


def test_precisions_that_the_machine_lacks_are_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_precision("bf16") == "bf16"
    with pytest.raises(InputError, match="needs a GPU"):
        resolve_precision("fp16")
    for has, expected in ((True, "bf16"), (False, "fp32")):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda has=has: {"amx_bf16": has}, raising=False)
        assert resolve_precision("auto") == expected
