"""Training in processes of its own: killed and resumed, and shared by two."""

import csv
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from edgefuse.images import write_image
from edgefuse.train.checkpoint import load_checkpoint
from edgefuse.train.config import TrainConfig
from edgefuse.train.data import training_set
from edgefuse.train.loop import train

STEPS = 12


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("pairs")
    rng = np.random.default_rng(0)
    for side in ("ir", "vis"):
        (root / side).mkdir()
        for k in range(5):
            # Without flat ground: there the losses have kinks, where rounding decides about a gradient.
            image = rng.integers(0, 256, (66, 70), dtype=np.uint8)
            write_image(root / side / f"{k}.png", image)
    return root


def command(folders, out, model="nano", batch=8, launcher=()):
    images = ("--ir", folders / "ir", "--vis", folders / "vis", "--out", out)
    settings: tuple[object, ...] = (
        "--model",
        model,
        "--batch",
        batch,
        "--steps",
        STEPS,
        "--patch",
        32,
        "--sample-every",
        STEPS,
    )
    settings += ("--lr", 1e-4)  # as in the paper
    machine = ("--threads", 1, "--precision", "fp32", "--checkpoint-minutes", 0)
    words = (sys.executable, *launcher, "-m", "edgefuse", "train", *images, *settings, *machine)
    return [str(word) for word in words]


def finish(words):
    done = subprocess.run(words, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def weights(run, model="nano"):
    return load_checkpoint(run / f"{model}.safetensors").weights


def alone(folders, out, model="nano"):
    """Train in this process."""
    torch.set_num_threads(1)
    config = TrainConfig(
        model=model,
        ir=(str(folders / "ir"),),
        vis=(str(folders / "vis"),),
        steps=STEPS,
        patch=32,
        learning_rate=1e-4,
        pairs=25,
    )
    train(config, training_set(config), out)
    return out


def test_a_run_killed_at_any_moment_resumes_to_the_same_weights(folders, tmp_path):
    out = tmp_path / "run"
    words = command(folders, out)
    for wanted in (2, 7):  # a step is checkpointed after each; the kill falls anywhere in a later one
        resume = ["--resume"] if (out / "checkpoint.pt").exists() else []
        process = subprocess.Popen([*words, *resume], stdout=subprocess.DEVNULL)
        while not (out / "checkpoint.pt").exists() or load_checkpoint(out / "checkpoint.pt").step < wanted:
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not (out / "nano.safetensors").exists()
    finish([*words, "--resume"])
    expected, answer = weights(alone(folders, tmp_path / "whole")), weights(out)
    assert all(torch.equal(expected[name], answer[name]) for name in expected)


@pytest.mark.parametrize("model", ["nano", "transformer"])
def test_two_processes_train_as_one_with_both_their_batches(folders, tmp_path, model):
    by_itself = alone(folders, tmp_path / "one", model)
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    told = finish(command(folders, tmp_path / "both", model, batch=4, launcher=launcher))
    assert told.count("Weights in") == 1
    assert "2 processes" in told
    expected, answer = weights(by_itself, model), weights(tmp_path / "both", model)
    for name in expected:
        torch.testing.assert_close(answer[name], expected[name], atol=1e-5, rtol=0)
    one, two = (
        list(csv.DictReader((run / "log.csv").read_text().splitlines()))
        for run in (by_itself, tmp_path / "both")
    )
    assert len(one) == len(two) == 1
    assert float(two[0]["total"]) == pytest.approx(float(one[0]["total"]), abs=1e-5)


def test_ctrl_c_under_torchrun_leaves_a_checkpoint(folders, tmp_path):
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    words = command(folders, tmp_path / "run", "cnn", batch=2, launcher=launcher)
    words[words.index("--steps") + 1] = "100000"
    # In a group of its own, which a terminal would send the signal to.
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, start_new_session=True)
    while not (tmp_path / "run" / "checkpoint.pt").exists():
        assert process.poll() is None
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    told, _ = process.communicate(timeout=60)
    assert "Stopped; checkpoint in" in " ".join(told.split())
    assert "each process norms by its own patches" in " ".join(told.split())
    assert load_checkpoint(tmp_path / "run" / "checkpoint.pt").step < 100_000
