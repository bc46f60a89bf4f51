"""Options and files of settings: which comes before which."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from edgefuse.cli import app
from edgefuse.cli.settings import RECIPES
from edgefuse.errors import InputError, ModelError
from edgefuse.images import write_image
from edgefuse.train.config import TrainConfig


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("settings")
    rng = np.random.default_rng(0)
    for side in ("ir", "vis"):
        (root / side).mkdir()
        for k in range(2):
            write_image(root / side / f"{k}.png", rng.integers(0, 256, (40, 40), dtype=np.uint8))
    return root


def train(*words):
    return CliRunner().invoke(app, ["train", *map(str, words), "--precision", "fp32", "--threads", "1"])


def settings(run):
    return json.loads((run / "config.json").read_text())


def test_a_file_of_settings_reproduces_a_run_and_options_come_before_it(folder):
    images = ("--ir", folder / "ir", "--vis", folder / "vis")
    first = train(*images, "--steps", 2, "--patch", 32, "--alpha", 0.5, "--out", folder / "a")
    assert first.exit_code == 0, first.output
    again = train("--config", folder / "a" / "config.json", "--out", folder / "b")
    assert again.exit_code == 0, again.output
    assert settings(folder / "b") == settings(folder / "a")
    assert (folder / "a" / "nano.safetensors").read_bytes() == (
        folder / "b" / "nano.safetensors"
    ).read_bytes()

    changed = ("--beta", 0.3, "--steps", 1, "--seed", 4)
    third = train("--config", folder / "a" / "config.json", *changed, "--out", folder / "c")
    assert third.exit_code == 0, third.output
    before, now = settings(folder / "a"), settings(folder / "c")
    assert (now["steps"], now["seed"]) == (1, 4)
    assert now["losses"] == before["losses"] | {"ssim": 0.3}
    rest = now.keys() - {"steps", "seed", "losses"}
    assert {name: now[name] for name in rest} == {name: before[name] for name in rest}


def test_shipped_recipes_are_settings(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)  # where the images are not
    names = sorted(path.stem for path in RECIPES.glob("*.json"))
    assert names == ["nano", "nano-l"]
    for name in names:
        config = TrainConfig.from_dict(json.loads((RECIPES / f"{name}.json").read_text()))
        assert config.to_dict() == TrainConfig.from_dict(config.to_dict()).to_dict()
        result = train("--config", name)
        assert "roadscene/train/ir" in str(result.exception)
    result = train("--config", "nanno")
    assert "unknown recipe 'nanno' (did you mean 'nano'?)" in str(result.exception)


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("{", InputError, "not JSON"),
        ("[1]", InputError, "holds a list"),
        ('{"speed": 1}', ModelError, "speed"),
        ('{"losses": {"speed": 1}}', ModelError, "speed"),
        ('{"losses": null}', InputError, "losses"),
        ('{"losses": {"ssim": "much"}}', InputError, "ssim is 'much'"),
        ('{"steps": 2.5}', InputError, "steps is 2.5"),
        ('{"compile": "no"}', InputError, "compile is 'no'"),
        ('{"ir": "abc"}', InputError, "ir is 'abc'"),
        ('{"seed": true}', InputError, "seed is True"),
        ('{"steps": 0}', InputError, "steps is 0"),
        (None, InputError, "no such file"),
    ],
)
def test_files_that_cannot_be_used_are_named(tmp_path, text, error, words):
    path = tmp_path / "config.json"
    if text is not None:
        path.write_text(text)
    result = train("--config", path, "--out", tmp_path / "run")
    assert isinstance(result.exception, error)
    assert words in str(result.exception)
    assert not (tmp_path / "run").exists()
