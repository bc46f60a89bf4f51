"""From settings to options: every command whose settings are a dataclass gets its options from there.

`edgefuse settings` lists them.
"""

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, TypeAlias, get_args, get_origin

import typer
from rich.markup import escape
from rich.table import Table
from typer.core import TyperCommand

from edgefuse.cli.console import ExitCode, stderr, stdout
from edgefuse.errors import InputError
from edgefuse.runtime.config import StreamConfig
from edgefuse.settings import Setting, assign, find_setting, from_plain, listing, read

CAMERAS, OUTPUTS = "Cameras", "Outputs"
HIDDEN = ""
"""The panel of options that the help does not list: settings of one subject, which its page explains."""
ORDER = {"Arguments": 0, "Options": 2}  # of the groups in the help; 1: all others
METAVARS: dict[Any, str] = {int: "N", float: "X", str: "NAME"}

OLD: dict[str, dict[str, str]] = {
    "train": {
        "--aligned": "aligned=",
        "--alpha": "losses.gradient=",
        "--base": "base=",
        "--beta": "losses.ssim=",
        "--checkpoint-minutes": "checkpoint_minutes=",
        "--compile": "compile=true",
        "--ema": "ema=",
        "--fallback": "losses.fallback=",
        "--gradient-scale": "losses.gradient_scale=",
        "--gradient-target": "losses.gradient_target=",
        "--hold-out": "hold_out=",
        "--init": "init=",
        "--intensity-power": "losses.intensity_power=",
        "--lambda": "losses.adversarial=",
        "--lr": "learning_rate=",
        "--pairs": "pairs=",
        "--precision": "precision=",
        "--sample-every": "sample_every=",
        "--spoil": "corrupt=",
        "--ssim-weights": "losses.ssim_weights=",
        "--teacher": "teacher=",
        "--threads": "threads=",
    },
    "reproduce": {
        "--batch": "batch=",
        "--gradient-scale": "losses.gradient_scale=",
        "--lr": "learning_rate=",
        "--patch": "patch=",
        "--precision": "precision=",
        "--threads": "threads=",
    },
    "export": {
        "--calib-method": "-=",
        "--dynamic": "-",
        "--max-difference": "max_difference=",
        "--max-levels": "max_levels=",
        "--max-worse": "max_worse=",
        "--min-extreme-psnr": "min_extreme_psnr=",
        "--min-psnr": "min_psnr=",
        "--opset": "-=",
        "--tensorrt-batch": "tensorrt_batch=",
        "--tensorrt-sizes": "tensorrt_sizes=",
        "--workspace": "workspace=",
    },
    "evaluate": {"--no-trivial": "--no-baselines"},
    "stream": {
        "--codec": "codec=",
        "--contrast": "contrast=",
        "--max-skew": "max_skew=",
        "--no-rebuild": "rebuild=false",
        "--provider": "--engine",
        "--quality": "quality=",
        "--rate": "rate=",
    },
}
"""Options of the last version, by command: what to write now. `key=` takes the old value, `key=value`
replaces a flag, `--name` is another option, and `-` or `-=` (with a value) has no use any more."""


ALONE = {"--serve": "8080"}
"""Options that may stand without a value, and the value that they then have."""
WRITTEN = frozenset({"--out", "--json", "--csv", "--html", "--table", "--keep"})
"""Options that name what to write. Only `stream` asks its outputs whether they take a URL."""


class Command(TyperCommand):
    """A command that understands the options of the last version, with a hint."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse, after old options are replaced.

        Raises:
            InputError: an empty word, which as a path would be the present folder, or a URL to write to,
                which would become folders.
        """
        for before, word in zip(["", *args], args, strict=False):
            name, equals, value = word.partition("=")
            if not word or (equals and not value and name.startswith("--")):
                what = name if equals else before if before.startswith("-") else "an argument"
                raise InputError(f"{what} is empty: is a variable of the shell not set?")
            given, target = (name, value) if equals else (before, word)
            if given in WRITTEN and "://" in target and self.name != "stream":
                from edgefuse.runtime.sources.base import safe_name

                raise InputError(
                    f"{given} {safe_name(target)} is a URL, and `edgefuse {self.name}` writes only files "
                    "and folders; for a network stream, pipe `edgefuse stream --out -` into a program that "
                    "serves it"
                )
        return super().parse_args(ctx, _with_values(_today(args, OLD.get(self.name or "", {}))))

    def invoke(self, ctx: Any) -> Any:
        """Run the command; Ctrl-C, where it is not handled, ends it with the shell's exit code."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            stderr().say("stopped by Ctrl-C")
            raise typer.Exit(ExitCode.INTERRUPTED) from None

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the options in groups: the panels that they name."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            if (record := parameter.get_help_record(ctx)) is not None:
                kind = "Arguments" if parameter.param_type_name == "argument" else "Options"
                panel = getattr(parameter, "rich_help_panel", None) or kind
                groups.setdefault(panel, []).append(record)
        for panel, records in sorted(groups.items(), key=lambda group: ORDER.get(group[0], 1)):
            with formatter.section(panel):
                formatter.write_dl(records)


def _with_values(args: Sequence[str]) -> list[str]:
    """Give their value to the options that stand without one: before another option, or at the end."""
    result: list[str] = []
    for word, behind in zip(args, [*args[1:], "--"], strict=False):
        result.append(word)
        if word in ALONE and behind.startswith("-"):
            result.append(ALONE[word])
    return result


def _today(args: Sequence[str], old: Mapping[str, str]) -> list[str]:
    result: list[str] = []
    rest = iter(args)
    for word in rest:
        name, equals, value = word.partition("=")
        if name not in old:
            result.append(word)
            continue
        new = old[name]
        if new.endswith("=") and not equals:
            value = next(rest, "")
        if new.startswith("--"):
            now = [new, value] if equals else [new]
        elif new.startswith("-"):
            now = []
        else:
            now = ["--set", new + value if new.endswith("=") else new]
        said = f"is now {' '.join(now)}" if now else "no longer has any effect"
        stderr().say(f"hint: {name} {said}; the next version removes the old option")
        result += now
    return result


def with_settings(
    kind: type,
    panels: Mapping[str, str],
    *,
    name: str = "config",
    files: Callable[[Path], Path] = lambda path: path,
    implied: Callable[[Mapping[str, Any]], Path | None] = lambda _: None,
    prepare: Callable[[dict[str, Any]], None] = lambda _: None,
    defaults: Mapping[str, Any] | None = None,
) -> Callable[[Callable[..., Any]], Callable[..., None]]:
    """Give a command settings of a dataclass: some as options, all by `--config FILE` and `--set key=value`.

    An option comes before `--set`, that before the file, that before the defaults.

    Args:
        kind: the dataclass, which the command takes as its parameter `name`.
        panels: the names of the settings that are options, by the panel of the help that shows them.
        name: of the command's parameter.
        files: finds the file that `--config` means, such as that of a shipped recipe.
        implied: finds a file without `--config`, by the other options.
        prepare: changes the values before they become the dataclass.
        defaults: those of this command, where they are other than the dataclass's.
    """
    known = {each.name: each for each in listing(kind)}
    shown = {setting: panel for panel, names in panels.items() for setting in names.split()}

    def decorate(command: Callable[..., Any]) -> Callable[..., None]:
        def call(config_file: Path | None, assignments: list[str], **given: Any) -> Any:
            values = dict(defaults or {})
            config_file = implied(given) if config_file is None else files(config_file)
            if config_file is not None:
                values |= read(config_file)
            for text in assignments:
                assign(kind, values, text)
            for key in shown:
                if (value := given.pop(key)) is not None and value is not False and value != []:
                    values[key] = value
            prepare(values)
            what = "the options" if config_file is None else str(config_file)
            return command(**{name: from_plain(kind, values, what)}, **given)

        given = inspect.signature(command).parameters.values()
        own = [p.replace(kind=p.KEYWORD_ONLY) for p in given if p.name != name]
        made = [_option(known[key], panel, (defaults or {}).get(key)) for key, panel in shown.items()]
        parameters = [*made, *own, _CONFIG, _SET]
        call.__name__, call.__doc__ = command.__name__, command.__doc__
        call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        call.__annotations__ = {p.name: p.annotation for p in parameters}
        return call

    return decorate


def required(config: Any, name: str) -> str:
    """Return a setting that must be given, by its option or in the file of settings."""
    value: str | None = getattr(config, name)
    if value is None:
        raise InputError(f"--{name.replace('_', '-')} is missing: give it, or {name} in a file for --config")
    return value


def _parameter(name: str, annotation: Any, option: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=option, annotation=annotation)


def _option(each: Setting, panel: str, default: Any) -> inspect.Parameter:
    """Return the option of a setting; unset, it is None, and the dataclass's default holds."""
    kind = next(iter(get_args(each.type))) if NoneType in get_args(each.type) else each.type
    several = get_origin(kind) is tuple
    choices = get_args(kind) if get_origin(kind) is Literal else ()
    if choices:  # checked with all other settings, for the same sentence about a wrong one
        kind = str
    unset = each.shown if default is None else str(default)
    given = unset not in ("none", "false")
    option = typer.Option(
        [] if several else None,
        "--" + each.name.replace("_", "-"),
        help=each.metadata["help"] + f" [{unset}]" * given,
        metavar=each.metadata["metavar"] or "|".join(choices) or METAVARS.get(kind),
        autocompletion=(lambda: list(choices)) if choices else None,
        rich_help_panel=panel,
        hidden=panel == HIDDEN,
    )
    return _parameter(each.name, list[str] if several else kind | None, option)


_CONFIG = _parameter(
    "config_file",
    Path | None,
    typer.Option(None, "--config", metavar="FILE", help="Settings in TOML or JSON."),
)
_SET = _parameter(
    "assignments",
    list[str],
    typer.Option(
        [],
        "--set",
        metavar="KEY=VALUE",
        help="Any setting; repeatable. `edgefuse settings` lists all.",
    ),
)


def _shared(name: str, panel: str | None = None) -> Any:
    """Return an option of `stream` for another command, with the same meaning."""
    each = find_setting(StreamConfig, name)
    flag = "--" + name.replace("_", "-")
    return typer.Option(
        flag, metavar=each.metadata["metavar"], rich_help_panel=panel, help=each.metadata["help"]
    )


InfraredSource: TypeAlias = Annotated[str, _shared("ir", CAMERAS)]
VisibleSource: TypeAlias = Annotated[str, _shared("vis", CAMERAS)]
Duration: TypeAlias = Annotated[float | None, _shared("duration")]
Segment: TypeAlias = Annotated[float | None, _shared("segment", OUTPUTS)]
MaxSize: TypeAlias = Annotated[float | None, _shared("max_size", OUTPUTS)]


def bytes_of(megabytes: float | None) -> int | None:
    """Return what a size in MB comes to.

    Raises:
        InputError: no finite number of bytes.
    """
    if megabytes is None:
        return None
    if not math.isfinite(size := megabytes * 1e6):
        raise InputError(f"the largest size is {megabytes:g} MB, it must be a number of at least 1")
    return round(size)


# Command → where the dataclass of its settings is.
KINDS = {
    "train": ("edgefuse.train.config", "TrainConfig"),
    "stream": ("edgefuse.runtime.config", "StreamConfig"),
    "export": ("edgefuse.export.config", "ExportConfig"),
}


def settings(
    command: Literal["train", "stream", "export"] = typer.Argument(help="Command: train, stream or export."),
) -> None:
    """List the settings of a command.

    For --config FILE and --set KEY=VALUE: name, type, default, meaning.
    """
    module, kind = KINDS[command]
    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("setting", "type", "default", "meaning"):
        table.add_column(column, overflow="fold")
    for each in listing(getattr(import_module(module), kind)):
        table.add_row(each.name, each.type_name, escape(each.shown), escape(each.metadata.get("help", "")))
    stdout().print(table)
