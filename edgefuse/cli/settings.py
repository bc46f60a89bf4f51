"""A training configuration out of command line options and a file of settings."""

import json
import os
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from edgefuse.errors import InputError, unknown_name

if TYPE_CHECKING:
    from edgefuse.train.config import TrainConfig

__all__ = ["RECIPES", "configured"]

RECIPES = Path(__file__).parents[1] / "train" / "recipes"
"""Settings that shipped weights were trained with, by name."""

# Options that have another name than the setting.
SETTINGS = {"lr": "learning_rate", "compile_": "compile"}
LOSSES = {
    "alpha": "gradient",
    "beta": "ssim",
    "lambda_": "adversarial",
    "gradient_scale": "gradient_scale",
    "gradient_target": "gradient_target",
    "intensity_power": "intensity_power",
    "ssim_weights": "ssim_weights",
    "fallback": "fallback",
}


def configured(context: typer.Context, file: Path | None) -> "TrainConfig":
    """Return what the options say; where a file is given, it says all but what was typed as an option.

    Args:
        context: of the command, whose options have the names of settings.
        file: JSON as in the `config.json` of a run folder, or the name of a shipped recipe.

    Raises:
        InputError: the file cannot be read, or a value is out of its range.
        ModelError: the file has settings that this version does not know.
    """
    from edgefuse.train.config import TrainConfig
    from edgefuse.train.precision import resolve_precision

    settings = {field.name for field in fields(TrainConfig)}
    values: dict[str, Any] = {}
    losses: dict[str, Any] = {}
    for name, value in context.params.items():
        # An enumeration of click, which typer brings along; by its name it needs no import.
        source = context.get_parameter_source(name)
        if file is not None and (source is None or source.name != "COMMANDLINE"):
            continue
        plain = tuple(map(str, value)) if isinstance(value, list | tuple) else value
        if name in LOSSES:
            losses[LOSSES[name]] = plain
        elif SETTINGS.get(name, name) in settings:
            values[SETTINGS.get(name, name)] = plain
    before = _read(file) if file is not None else {}
    values = {**before, **values, "processes": int(os.environ.get("WORLD_SIZE", 1))}
    of_file = before.get("losses", {})
    if not isinstance(of_file, dict):
        raise InputError(f"losses in {file} is {of_file!r}, settings by name are needed")
    values["losses"] = {**of_file, **losses}
    values["precision"] = resolve_precision(str(values.get("precision", "auto")))
    return TrainConfig.from_dict(values)


def _read(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        shipped = {file.stem: file for file in RECIPES.glob("*.json")}
        if str(path) not in shipped:
            raise InputError(
                f"no such file of settings: {path}; {unknown_name('recipe', str(path), shipped)}"
            )
        path = shipped[str(path)]
    try:
        values = json.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise InputError(f"{path} is not JSON as in a run's config.json: {error}") from None
    if not isinstance(values, dict):
        raise InputError(f"{path} holds a {type(values).__name__}, settings by name are needed")
    return values
