"""Settings: a frozen dataclass is the one place of their names, types, defaults and meanings.

A field is declared by `setting(default, "What it means.")`. From that follow the options of the command line,
`--config FILE`, `--set key=value`, `edgefuse settings`, and the strict reading and writing as plain values.
"""

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, Field, field, fields, is_dataclass
from functools import cache
from operator import ge, gt, le, lt
from pathlib import Path
from types import NoneType
from typing import Any, Literal, NamedTuple, TypeVar, get_args, get_origin, get_type_hints

import msgspec

from edgefuse.errors import InputError, unknown_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

T = TypeVar("T")
HOLDS: dict[str, Callable[[Any, float], bool]] = {"at least": ge, "above": gt, "at most": le, "below": lt}


def setting(
    default: Any,
    help: str,
    *,
    unset: str = "",
    metavar: str = "",
    formerly: str = "",
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    below: float | None = None,
) -> Any:
    """Declare a field of a settings dataclass.

    Args:
        default: its value; a dataclass or a dict stands for a new one each time.
        help: what it means, as the command line shows it.
        unset: what the default comes to where it is None or empty, such as `all cores`.
        metavar: what stands for its value in the help.
        formerly: its name in older files, which are still read.
        least: lower bound of a number, itself allowed; `above`: itself not allowed.
        most: upper bound of a number, itself allowed; `below`: itself not allowed.
        above: see `least`.
        below: see `most`.
    """
    bounds = zip(HOLDS, (least, above, most, below), strict=True)
    metadata = {
        "help": help,
        "unset": unset,
        "metavar": metavar,
        "formerly": formerly,
        "bounds": {words: limit for words, limit in bounds if limit is not None},
    }
    if isinstance(default, type) or default == {}:
        return field(default_factory=default if isinstance(default, type) else dict, metadata=metadata)
    return field(default=default, metadata=metadata)


class Setting(NamedTuple):
    """One setting, as it is listed."""

    name: str
    """Dotted where dataclasses are nested: `losses.ssim`."""
    type: Any
    default: Any
    metadata: Mapping[str, Any]

    @property
    def type_name(self) -> str:
        """What a value must be, in words."""
        return _words(self.type)

    @property
    def shown(self) -> str:
        """The default, as people write it."""
        if self.default in (None, (), {}):
            return self.metadata.get("unset", "") or "none"
        if isinstance(self.default, bool):
            return str(self.default).lower()
        return f"{self.default:g}" if isinstance(self.default, float) else str(self.default)


@cache
def listing(kind: Any) -> tuple[Setting, ...]:
    """Return the settings of a dataclass and of those nested in it, in order."""
    return tuple(_settings(kind, ""))


def _settings(kind: type, prefix: str) -> Iterator[Setting]:
    hints = get_type_hints(kind)
    for each in fields(kind):
        if is_dataclass(nested := hints[each.name]):
            yield from _settings(nested, f"{prefix}{each.name}.")  # type: ignore[arg-type]
        else:
            yield Setting(prefix + each.name, hints[each.name], _default(each), each.metadata)


def _default(each: "Field[Any]") -> Any:
    return each.default if each.default_factory is MISSING else each.default_factory()


def check(settings: Any) -> None:
    """See that the values lie in their fields' bounds and choices; for `__post_init__`.

    Raises:
        InputError: one that does not, with its name, value and bounds.
    """
    kind: Any = type(settings)
    for each in listing(kind):
        if "." in each.name or (value := getattr(settings, each.name)) is None:
            continue
        if (choices := _choices(each.type)) and value not in choices:
            raise InputError(unknown_name(each.name.replace("_", " "), str(value), choices))
        bounds: dict[str, float] = each.metadata.get("bounds", {})
        if not all(HOLDS[words](value, limit) for words, limit in bounds.items()):
            wanted = " and ".join(f"{words} {limit:g}" for words, limit in bounds.items())
            raise InputError(f"{each.name} is {value}, it must be {wanted}")


def from_plain(kind: type[T], values: object, what: str = "the settings") -> T:
    """Make a settings dataclass of plain values, as `to_plain` returns or a file holds them.

    Args:
        kind: the dataclass.
        values: by name; those that are not given keep their defaults.
        what: what the values are, for errors.

    Raises:
        InputError: an unknown name, with the nearest known one; a value of another type or out of its bounds.
    """
    current = _renamed(kind, values, what)
    try:
        return msgspec.convert(current, kind)
    except msgspec.ValidationError as error:
        path = str(error).rpartition("`$.")[2].rstrip("`").partition("[")[0]
        value: Any = current
        for part in path.split("."):
            value = value[part]
        each = find_setting(kind, path)
        if choices := _choices(each.type):
            raise InputError(unknown_name(path.replace("_", " "), str(value), choices)) from None
        raise InputError(f"{path} is {value!r}, it must be {each.type_name}") from None


def _renamed(kind: Any, values: object, what: str) -> dict[str, Any]:
    """Return the values under today's names, all of which are known."""
    if not isinstance(values, Mapping):
        raise InputError(f"{what}: {values!r} was found where settings by name are needed")
    hints = get_type_hints(kind)
    today = {each.metadata.get("formerly"): each.name for each in fields(kind)} | {"": None}
    named = {str(today.get(name) or name): value for name, value in values.items()}
    for name, value in named.items():
        if name not in hints:
            raise InputError(f"{what}: {unknown_name('setting', str(name), hints)}")
        if is_dataclass(hints[name]):
            named[name] = _renamed(hints[name], value, f"{what}, {name}")
    return named


def to_plain(settings: Any) -> dict[str, Any]:
    """Return a settings dataclass as plain values by name, for JSON and checkpoints."""
    return msgspec.to_builtins(settings)


def read(path: Path) -> dict[str, Any]:
    """Read the settings by name in a `.toml` file, or in any other as JSON.

    Raises:
        InputError: no such file, or it is not in that form.
    """
    try:
        text = path.read_text("utf-8")
        values = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    except OSError as error:
        raise InputError(f"cannot read the settings in {path}: {error.strerror}") from None
    except ValueError as error:
        kind = "TOML" if path.suffix == ".toml" else "JSON"
        raise InputError(f"{path} is not {kind}: {error}") from None
    if not isinstance(values, dict):
        raise InputError(f"{path} holds a {type(values).__name__}, settings by name are needed")
    return values


def assign(kind: type, values: dict[str, Any], text: str) -> None:
    """Put a setting written as `key=value` into plain values.

    Lists are written with commas, `none` stands for nothing.

    Raises:
        InputError: no `=`, an unknown key, or a value that cannot be one of its type.
    """
    name, equals, written = text.partition("=")
    if not equals:
        raise InputError(f"--set {text} has no value: write it as --set {text}=VALUE")
    each = find_setting(kind, name)
    *outer, last = each.name.split(".")
    for part in outer:
        values = values.setdefault(part, {})
        if not isinstance(values, dict):
            raise InputError(f"{part} is {values!r}, settings by name are needed")
    values[last] = _parsed(each, written)


def find_setting(kind: type, name: str) -> Setting:
    """Return the setting of a dotted name. Below a dict, as in `losses.others.NAME`, any name will do.

    Raises:
        InputError: there is none, with the nearest name.
    """
    known = {each.name: each for each in listing(kind)}
    before = {each.metadata.get("formerly"): each for each in known.values()}
    if found := known.get(name) or before.get(name):
        return found
    outer = name.rpartition(".")[0]
    if outer in known and get_origin(known[outer].type) is dict:
        inner = get_args(known[outer].type)[1]
        return Setting(name, inner, None, known[outer].metadata)
    raise InputError(unknown_name("setting", name, known))


def _parsed(each: Setting, written: str) -> Any:
    kinds = get_args(each.type) if NoneType in get_args(each.type) else (each.type,)
    if NoneType in kinds and written.lower() == "none":
        return None
    listed = next((kind for kind in kinds if get_origin(kind) in (tuple, list)), None)
    value: Any = [part.strip() for part in written.split(",") if part.strip()] if listed else written
    try:
        return msgspec.to_builtins(msgspec.convert(value, each.type, strict=False))
    except msgspec.ValidationError:
        if choices := _choices(each.type):
            raise InputError(unknown_name(each.name.replace("_", " "), written, choices)) from None
        raise InputError(f"{each.name} is {written!r}, it must be {each.type_name}") from None


def _choices(kind: Any) -> tuple[str, ...]:
    parts = get_args(kind) if NoneType in get_args(kind) else (kind,)
    return next((get_args(part) for part in parts if get_origin(part) is Literal), ())


def _words(kind: Any) -> str:
    plain = {int: "a whole number", float: "a number", bool: "true or false", str: "text", NoneType: "none"}
    if kind in plain:
        return plain[kind]
    if get_origin(kind) is Literal:
        return " | ".join(map(str, get_args(kind)))
    if get_origin(kind) in (tuple, list):
        inner = get_args(kind)
        if len(inner) == 2 and inner[1] is not ...:
            return "two values"
        return f"a list of {'texts' if inner[0] is str else 'numbers'}"
    if get_origin(kind) is dict:
        return "numbers by name"
    return " or ".join(_words(part) for part in get_args(kind))
