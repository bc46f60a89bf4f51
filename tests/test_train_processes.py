"""Training in processes of its own: killed and resumed, and shared by two.

Importing torch takes a process longer than a short training, so most are forked from one that has done so.
"""

import csv
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress

import numpy as np
import pytest
import torch

from edgefuse.cli import main
from edgefuse.images import write_image
from edgefuse.train.checkpoint import load_checkpoint
from edgefuse.train.config import TrainConfig
from edgefuse.train.data import training_set
from edgefuse.train.loop import train

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["edgefuse.cli.train", "edgefuse.train.loop", "torch._dynamo"])


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


def options(folders, out, model="nano", batch=8, steps=12):
    images = ("--ir", folders / "ir", "--vis", folders / "vis", "--out", out)
    settings = ("--model", model, "--batch", batch, "--steps", steps, "--patch", 32)
    rest = {"sample_every": steps, "threads": 1, "precision": "fp32", "checkpoint_minutes": 0}
    rest["learning_rate"] = 1e-4  # as in the paper
    more = [f"--set={name}={value}" for name, value in rest.items()]
    return [str(word) for word in (*images, *settings, *more)]


def be_edgefuse(words, environment, output):
    """Become the command line, in a process that was forked for it."""
    os.environ.update(environment)
    for stream in (1, 2):
        os.dup2(os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)
    sys.argv = ["edgefuse", *words]
    main()


def start(words, output, **environment):
    process = FORKS.Process(target=be_edgefuse, args=(["train", *words], environment, output), daemon=True)
    process.start()
    return process


def finish(process, output):
    process.join(240)
    assert process.exitcode == 0, output.read_text()


def until(reached, alive, output=None):
    deadline = time.monotonic() + 240
    while not reached():
        assert alive(), output and output.read_text()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def weights(run, model="nano"):
    return load_checkpoint(run / f"{model}.safetensors").weights


def alone(folders, out, model="nano", steps=12):
    """Train in this process."""
    torch.set_num_threads(1)
    config = TrainConfig(
        model=model,
        ir=(str(folders / "ir"),),
        vis=(str(folders / "vis"),),
        steps=steps,
        patch=32,
        precision="fp32",
        learning_rate=1e-4,
        pairs=25,
    )
    train(config, training_set(config), out)
    return out


def test_a_run_killed_at_any_moment_resumes_to_the_same_weights(folders, tmp_path):
    out, output = tmp_path / "run", tmp_path / "output.txt"
    words = [*options(folders, out, steps=60), "--resume"]

    def reached(step):
        if step == 0:
            return (out / "config.json").exists()
        return (out / "checkpoint.pt").exists() and load_checkpoint(out / "checkpoint.pt").step >= step

    for step in (0, 2, 7):  # there is a checkpoint after each; the kill falls anywhere in a later one
        process = start(words, output)
        until(lambda step=step: reached(step), process.is_alive, output)
        process.kill()
        process.join()
        assert not (out / "nano.safetensors").exists()
    finish(start(words, output), output)
    expected, answer = weights(alone(folders, tmp_path / "whole", steps=60)), weights(out)
    assert all(torch.equal(expected[name], answer[name]) for name in expected)


@pytest.mark.parametrize("model", ["nano", "transformer"])
def test_two_processes_train_as_one_with_both_their_batches(folders, tmp_path, model):
    steps = 4  # into the second epoch
    by_itself = alone(folders, tmp_path / "one", model, steps)
    output = tmp_path / "output.txt"
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    team = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    words = options(folders, tmp_path / "both", model, 4, steps)
    for process in [start(words, output, RANK=rank, LOCAL_RANK=rank, **team) for rank in "01"]:
        finish(process, output)
    told = output.read_text()
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
    launcher = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    training = options(folders, tmp_path / "run", "cnn", batch=2, steps=100_000)
    words = [*launcher, "-m", "edgefuse", "train", *training]
    # In a group of its own, which a terminal would send the signal to.
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        until((tmp_path / "run" / "checkpoint.pt").exists, lambda: process.poll() is None)
        os.killpg(process.pid, signal.SIGINT)
        told, _ = process.communicate(timeout=240)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert "Stopped; checkpoint in" in " ".join(told.split())
    assert "each process norms by its own patches" in " ".join(told.split())
    assert load_checkpoint(tmp_path / "run" / "checkpoint.pt").step < 100_000
