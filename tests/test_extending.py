"""One class and one entry: what people add themselves is found and used."""

import json

import numpy as np
import pytest

from edgefuse import Fuser
from edgefuse.cli import app
from edgefuse.cli.console import stdout
from edgefuse.cli.options import Command
from edgefuse.errors import InputError
from edgefuse.images import write_image
from edgefuse.packages import load_file
from edgefuse.train.losses import LOSSES, add_loss
from edgefuse.train.models import MODELS, add_model

MINE = """
from torch import nn
from edgefuse.train.models import FusionNetwork

class Net(FusionNetwork):
    def __init__(self):
        super().__init__()
        self.mix = nn.Conv2d(2, 1, 1)

    def forward(self, x):
        return self.mix(x)

class Odd(nn.Module):
    pass

def smooth(batch, config):
    return batch.fused.diff(dim=3).abs().mean()
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    (tmp_path / "my.py").write_text(MINE)
    (tmp_path / "broken.py").write_text("import nothing_like_it")
    rng = np.random.default_rng(0)
    for side in ("ir", "vis"):
        (tmp_path / side).mkdir()
        for k in range(2):
            write_image(tmp_path / side / f"{k}.png", rng.integers(0, 256, (40, 48), dtype=np.uint8))
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for registry, names in ((MODELS, ("Net",)), (LOSSES, ("smooth",))):
        for name in names:
            if name in registry:
                del registry[name]


def test_a_network_and_a_loss_of_ones_own_from_training_to_fusing(run, mine):
    images = ("--ir", "ir", "--vis", "vis", "--steps", 2, "--patch", 32, "--set", "precision=fp32")
    own = ("--model", "my.py:Net", "--loss", "my.py:smooth=0.5", "--loss", "ssim=0.3")
    status, _, err = run("train", *images, *own, "--out", "r")
    assert status == 0, err
    head = (mine / "r" / "log.csv").read_text().splitlines()[0]
    assert head == "step,total,intensity,gradient,ssim,smooth,pairs_per_second"
    saved = json.loads((mine / "r" / "config.json").read_text())
    assert (saved["model"], saved["losses"]["ssim"], saved["losses"]["others"]) == (
        "Net",
        0.3,
        {"smooth": 0.5},
    )
    status, _, err = run("export", "r/Net.safetensors", "--model", "my.py:Net", "--size", "48x40")
    assert status == 0, err
    fused = Fuser("Net.onnx")(np.zeros((40, 48), np.uint8), np.zeros((40, 48, 3), np.uint8))
    assert fused.shape == (40, 48, 3)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("absent.py:Net", "no such file: absent.py"),
        ("broken.py:Net", "broken.py cannot be used: ModuleNotFoundError"),
        ("my.py:Nett", "unknown name 'Nett' .did you mean 'Net'"),
        ("my.py:Odd", "derive it from edgefuse.train.models.FusionNetwork"),
        ("my.py:smooth", "is not a network"),
    ],
)
def test_what_is_no_network_is_named(mine, text, words):
    with pytest.raises(InputError, match=words):
        add_model(text)


def test_losses_by_name_and_weight(mine):
    assert add_loss("ssim") == ("ssim", 1.0)
    assert add_loss("my.py:smooth=0.25") == ("smooth", 0.25)
    for text, words in (
        ("ssim=much", "the weight in --loss ssim=much is 'much'"),
        ("simm=1", "unknown loss 'simm'"),
        ("my.py:MINE", "unknown name"),
    ):
        with pytest.raises(InputError, match=words):
            add_loss(text)
    assert load_file("nano") is None


def test_a_checkpoint_runs_no_file(mine, tmp_path):
    from edgefuse.errors import ModelError
    from edgefuse.train.checkpoint import Checkpoint, restore_model

    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'executed')!r}, 'w')\nNet = 1")
    with pytest.raises(ModelError, match="unknown model"):
        restore_model(Checkpoint("evil.py:Net", {}, 0, {"model": "evil.py:Net"}))
    assert not (tmp_path / "executed").exists()


def test_a_command_is_one_function(run):
    def toy(word: str) -> None:
        """Say a word."""
        stdout().say(word)

    app.command("toy", cls=Command)(toy)
    try:
        assert run("toy", "[hello]") == (0, "[hello]\n", "")
    finally:
        app.registered_commands.pop()
