"""Settings: which comes before which, old names, and what is said about wrong ones."""

import json
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pytest
from typer.testing import CliRunner

from edgefuse.cli import COMMANDS, app
from edgefuse.cli.options import KINDS, OLD
from edgefuse.cli.train import RECIPES
from edgefuse.errors import EdgefuseError, InputError
from edgefuse.export.config import ExportConfig
from edgefuse.images import write_image
from edgefuse.runtime.config import StreamConfig
from edgefuse.settings import assign, check, find_setting, from_plain, listing, read, setting, to_plain
from edgefuse.train.config import LossConfig, TrainConfig


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
    plain = ("--set", "precision=fp32", "--set", "threads=1")
    return CliRunner().invoke(app, ["train", *map(str, words), *plain])


def saved(run):
    return json.loads((run / "config.json").read_text())


def test_a_file_of_settings_reproduces_a_run_and_options_come_before_it(folder):
    images = ("--ir", folder / "ir", "--vis", folder / "vis")
    first = train(*images, "--steps", 2, "--patch", 32, "--set", "losses.gradient=0.5", "--out", folder / "a")
    assert first.exit_code == 0, first.output
    again = train("--config", folder / "a" / "config.json", "--out", folder / "b")
    assert again.exit_code == 0, again.output
    assert saved(folder / "b") == saved(folder / "a")
    assert (folder / "a" / "nano.safetensors").read_bytes() == (
        folder / "b" / "nano.safetensors"
    ).read_bytes()

    changed = ("--set", "losses.ssim=0.3", "--steps", 1, "--seed", 4)
    third = train("--config", folder / "a" / "config.json", *changed, "--out", folder / "c")
    assert third.exit_code == 0, third.output
    before, now = saved(folder / "a"), saved(folder / "c")
    assert (now["steps"], now["seed"]) == (1, 4)
    assert now["losses"] == before["losses"] | {"ssim": 0.3}
    rest = now.keys() - {"steps", "seed", "losses"}
    assert {name: now[name] for name in rest} == {name: before[name] for name in rest}


def test_shipped_recipes_are_settings(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)  # where the images are not
    names = sorted(path.stem for path in RECIPES.glob("*.json"))
    assert names == ["cnn", "gan", "nano", "transformer"]
    for name in names:
        config = from_plain(TrainConfig, read(RECIPES / f"{name}.json"))
        assert from_plain(TrainConfig, to_plain(config)) == config
        result = train("--config", name)
        assert "roadscene/train/ir" in str(result.exception)
    result = train("--config", "nanno")
    assert "unknown recipe 'nanno' (did you mean 'nano'?)" in str(result.exception)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "is not JSON"),
        ("[1]", "holds a list"),
        ('{"stepz": 1}', "unknown setting 'stepz' (did you mean 'steps'?): known are "),
        ('{"losses": {"speed": 1}}', "losses: unknown setting 'speed'"),
        ('{"losses": null}', "losses: None was found"),
        ('{"losses": {"ssim": "much"}}', "losses.ssim is 'much', it must be a number"),
        ('{"losses": {"ssim": -1}}', "ssim is -1"),
        ('{"steps": 2.5}', "steps is 2.5, it must be a whole number"),
        ('{"compile": "no"}', "compile is 'no', it must be true or false"),
        ('{"ir": "abc"}', "ir is 'abc', it must be a list of texts"),
        ('{"seed": true}', "seed is True"),
        ('{"steps": 0}', "steps is 0, it must be at least 1"),
        ('{"paradigm": "apt"}', "unknown paradigm 'apt' (did you mean 'aptp'?)"),
        (None, "no such file"),
    ],
)
def test_files_that_cannot_be_used_are_named(tmp_path, text, words):
    path = tmp_path / "config.json"
    if text is not None:
        path.write_text(text)
    result = train("--config", path, "--out", tmp_path / "run")
    assert isinstance(result.exception, EdgefuseError)
    assert words in str(result.exception)
    assert not (tmp_path / "run").exists()


def test_files_may_be_toml(tmp_path):
    (tmp_path / "a.toml").write_text('steps = 7\nir = ["a"]\nvis = ["b"]\n[losses]\nssim = 1\n')
    config = from_plain(TrainConfig, read(tmp_path / "a.toml"))
    assert (config.steps, config.ir, config.losses.ssim) == (7, ("a",), 1.0)
    (tmp_path / "b.toml").write_text("steps: 7")
    with pytest.raises(InputError, match="is not TOML"):
        read(tmp_path / "b.toml")


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("steps=7", {"steps": 7}),
        ("learning_rate=1e-3", {"learning_rate": 0.001}),
        ("ir=a, b", {"ir": ("a", "b")}),
        ("base=none", {"base": None}),
        ("teacher=nano=l", {"teacher": "nano=l"}),
        ("compile=true", {"compile": True}),
        ("losses.ssim=0.4", {"losses": {"ssim": 0.4}}),
        ("losses.others.tv=0.1", {"losses": {"others": {"tv": 0.1}}}),
        ("spoil=0.5", {"corrupt": 0.5}),
        ("stepz=1", "did you mean 'steps'"),
        ("losses.sim=1", "did you mean 'losses.ssim'"),
        ("steps", "write it as --set steps=VALUE"),
        ("steps=x", "steps is 'x', it must be a whole number"),
        ("paradigm=apt", "unknown paradigm 'apt'"),
    ],
)
def test_assignments(text, values):
    made: dict[str, Any] = {}
    if isinstance(values, str):
        with pytest.raises(InputError) as caught:
            assign(TrainConfig, made, text)
        assert values in str(caught.value)
    else:
        assign(TrainConfig, made, text)
        assert made == values
        from_plain(TrainConfig, {**made, "vis": made.get("ir", ())})


@dataclass(frozen=True)
class Toy:
    """Settings of a test."""

    size: int = setting(3, "A size.", least=1, most=5, formerly="big")
    share: float = setting(0.5, "A share.", above=0, below=1)
    kind: Literal["a", "b"] = setting("a", "A kind.")
    names: tuple[str, ...] = setting((), "Names.")

    def __post_init__(self) -> None:
        check(self)


def test_bounds_choices_and_old_names():
    assert from_plain(Toy, {"big": 5}) == Toy(size=5)
    assert from_plain(Toy, to_plain(Toy(names=("x", "y")))) == Toy(names=("x", "y"))
    for size in (1, 5):
        assert Toy(size).size == size
    for values, words in (
        ({"size": 0}, "size is 0, it must be at least 1 and at most 5"),
        ({"size": 6}, "size is 6, it must be"),
        ({"share": 0}, "share is 0, it must be above 0 and below 1"),
        ({"share": 1}, "share is 1"),
        ({"share": float("nan")}, "share is nan"),
        ({"kind": "c"}, "unknown kind 'c': known are a, b"),
    ):
        with pytest.raises(InputError, match=words):
            Toy(**values)


@pytest.mark.parametrize("command", KINDS)
def test_settings_are_listed(run, command):
    status, out, _ = run("settings", command)
    kind = {"train": TrainConfig, "stream": StreamConfig, "export": ExportConfig}[command]
    assert status == 0
    for each in listing(kind):
        assert f"{each.name} " in out
        assert each.metadata["help"], each.name


def test_every_old_option_has_a_setting_or_an_option_today():
    kinds = {"train": TrainConfig, "reproduce": TrainConfig, "stream": StreamConfig, "export": ExportConfig}
    for command, table in OLD.items():
        for new in table.values():
            if not new.startswith("-"):
                key, _, value = new.partition("=")
                assign(kinds[command], {}, new) if value else find_setting(kinds[command], key)


def test_old_options_work_with_a_hint(folder):
    images = ("--ir", folder / "ir", "--vis", folder / "vis", "--steps", 1, "--patch", 32)
    old = ("--lr", "0.01", "--alpha=2", "--out", folder / "old")
    result = train(*images, *old)
    assert result.exit_code == 0, result.output
    assert "hint: --lr is now --set learning_rate=0.01" in result.stderr
    assert saved(folder / "old")["learning_rate"] == 0.01
    assert saved(folder / "old")["losses"]["gradient"] == 2


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_fits_a_screen(run, monkeypatch, command):
    monkeypatch.setenv("COLUMNS", "100")
    _, out, _ = run(command, "--help")
    assert len(out.rstrip().splitlines()) <= 40, out


def test_weights_of_other_losses():
    config = from_plain(LossConfig, {"others": {"tv": 0.5}})
    assert (config.weight("tv"), config.weight("ssim"), config.weight("none such")) == (0.5, 0.2, 0.0)
    with pytest.raises(InputError, match=r"losses\.others\.tv is -1"):
        LossConfig(others={"tv": -1})
