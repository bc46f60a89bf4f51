"""A training step of the paper's networks, ours against a plain loop over a plain transcription.

Both see the same patches and begin with the same weights; their losses must agree. They take turns, each in
a process of its own. What counts is the ratio in the table's `extra_info`, which is also printed.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from edgefuse.train.machine import resolve_precision

ROUNDS, STEPS, THREADS = 3, 4, 2
AIMS = {("cnn", "fp32"): 2, ("cnn", "bf16"): 3, ("transformer", "fp32"): 8}


def run(kind, model, precision="fp32"):
    words = [sys.executable, "-m", "bench.train_steps", kind, model, precision, str(STEPS), str(THREADS)]
    done = subprocess.run(words, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1])
    return json.loads(done.stdout)


@pytest.mark.parametrize(("model", "precision"), AIMS)
def test_training_step(benchmark, capsys, model, precision):
    if precision == "bf16" and resolve_precision("auto") != "bf16":
        pytest.skip("this processor has no bf16 arithmetic")
    theirs, ours = [], []

    def turn():
        theirs.append(run("plain", model))
        ours.append(run("ours", model, precision))

    benchmark.pedantic(turn, rounds=ROUNDS, iterations=1)
    if precision == "fp32":
        assert ours[0]["losses"] == pytest.approx(theirs[0]["losses"], abs=1e-5)
    plain, fast = (min(result["seconds"] for result in results) for results in (theirs, ours))
    memory = [max(result["peak_mb"] for result in results) for results in (theirs, ours)]
    benchmark.extra_info.update(
        ratio=plain / fast, plain_seconds=plain, seconds=fast, plain_peak_mb=memory[0], peak_mb=memory[1]
    )
    aim = AIMS[model, precision]
    with capsys.disabled():
        print(
            f"\n{model} {precision}: {fast:.3f} s a step against {plain:.3f} s plainly, "
            f"{plain / fast:.2f} times as fast (aim {aim}: {'met' if plain / fast >= aim else 'missed'}); "
            f"peak memory {memory[1]} MB against {memory[0]} MB"
        )
