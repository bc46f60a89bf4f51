"""Stand-ins for NVIDIA's bindings that hold their user to the real ones.

They are autospecs of the real module, so that an attribute or enum member which it lacks is an error.
`create_autospec` sees no arguments behind pybind11 and Cython: here names, counts and types of arguments
are compared with the signatures that the docstrings give.
"""

import ast
import inspect
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any
from unittest.mock import MagicMock, create_autospec


@dataclass(frozen=True)
class Argument:
    name: str
    kind: str = ""
    optional: bool = False


@dataclass(frozen=True)
class Signature:
    arguments: tuple[Argument, ...]
    answer: str

    def complaint(self, module: ModuleType, given: tuple, named: dict) -> str | None:
        """What is wrong with a call, or None."""
        names = [a.name for a in self.arguments]
        if len(given) > len(names):
            return f"takes {len(names)} arguments ({', '.join(names)}), given {len(given)}"
        unknown = named.keys() - set(names[len(given) :])
        if unknown:
            return f"has no argument {', '.join(sorted(unknown))}"
        values = {**dict(zip(names, given, strict=False)), **named}
        for argument in self.arguments:
            if argument.name not in values:
                if not argument.optional:
                    return f"misses {argument.name}"
            elif not fits(module, argument.kind, values[argument.name]):
                return f"{argument.name} must be {argument.kind}, not {values[argument.name]!r}"
        return None


def fits(module: ModuleType, kind: str, value: object) -> bool:
    """Whether a value is of the type that a docstring names; unknown names fit everything."""
    short = kind.rpartition(".")[2]
    if short == "Dims":
        return isinstance(value, tuple | list) and all(isinstance(side, int) for side in value)
    if short == "Buffer":
        return isinstance(value, bytes | bytearray | memoryview)
    if short == "SupportsInt":
        return hasattr(value, "__int__")
    plain = {"bool": bool, "str": str, "tuple": tuple, "list": list, "size_t": int, "int": int}
    expected = plain.get(short) or getattr(module, short, None)
    return not isinstance(expected, type) or isinstance(value, expected)


def signatures(function: object, name: str) -> list[Signature]:
    """The overloads that a docstring states, `name(a: type, b: type = default) -> type`."""
    found = re.findall(rf"^(?:\d+\. )?{name}\((.*)\)(?: -> (.*))?$", function.__doc__ or "", re.M)
    return [Signature(tuple(_arguments(inside)), answer) for inside, answer in found if "*args" not in inside]


def _arguments(inside: str):
    for part in re.split(r", (?![^\[(<]*[\])>])", inside) if inside else ():
        declared, _, default = part.partition(" = ")
        name, _, kind = declared.partition(": ")
        if not kind and " " in name:  # Cython writes `size_t count`
            kind, _, name = name.rpartition(" ")
        if name != "self":
            yield Argument(name.strip(), kind.strip(), bool(default))


class Contract:
    """Makes stand-ins for one module, and notes what was called.

    Args:
        real: the module.
        answers: by `Class.method`, `Class.property` or `function`: a value, or a function of the call.
        kept: names of classes that are used as they are, because they are subclassed.
    """

    def __init__(self, real: ModuleType, answers: dict[str, Any], kept: tuple[str, ...] = ()) -> None:
        self.real, self.answers, self.kept = real, answers, kept
        self.called: set[str] = set()
        self.objects: list[tuple[type, Any]] = []

    def module(self) -> Any:
        """The stand-in for the whole module."""
        module = create_autospec(self.real)
        for name, value in inspect.getmembers(self.real):
            if not isinstance(value, type):
                if callable(value) and signatures(value, name) and name not in self.kept:
                    getattr(module, name).side_effect = self._checked(value, name, name)
                elif not name.startswith("__") or name == "__version__":
                    setattr(module, name, value)
            elif name in self.kept or hasattr(value, "__members__"):
                setattr(module, name, value)
            else:
                getattr(module, name).side_effect = self._constructor(value)
        return module

    def instance(self, cls: type) -> Any:
        """The stand-in for an object of one of the module's classes."""
        stand_in = create_autospec(cls, instance=True, spec_set=True)
        for name, member in inspect.getmembers(cls):
            key = f"{cls.__name__}.{name}"
            if name.startswith("_"):
                continue
            if isinstance(member, property):
                if key in self.answers:
                    setattr(stand_in, name, self.answers[key])
            elif callable(member):
                getattr(stand_in, name).side_effect = self._checked(member, name, key)
        self.objects.append((cls, stand_in))
        return stand_in

    def complaints(self) -> list[str]:
        """Properties that were set although they are read-only, or to another type than they take."""
        found = []
        for cls, stand_in in self.objects:
            for name, member in inspect.getmembers(cls, lambda m: isinstance(m, property)):
                value, key = getattr(stand_in, name), f"{cls.__name__}.{name}"
                if isinstance(value, MagicMock) or value is self.answers.get(key):
                    continue
                if member.fset is None:
                    found.append(f"{key} is read-only")
                    continue
                stated = re.search(r"\(self: [\w.]+, \w+: ([\w.]+)\)", member.fset.__doc__ or "")
                if stated and not fits(self.real, stated[1], value):
                    found.append(f"{key} takes {stated[1]}, not {value!r}")
        return found

    def _constructor(self, cls: type) -> Any:
        check = self._checked(cls.__init__, "__init__", cls.__name__)  # type: ignore[misc]

        def construct(*given, **named):
            check(*given, **named)
            return self.instance(cls)

        return construct

    def _checked(self, function: object, name: str, key: str) -> Any:
        overloads = signatures(function, name)

        def call(*given, **named):
            self.called.add(key)
            complaints = [s.complaint(self.real, given, named) for s in overloads]
            if overloads and None not in complaints:
                raise TypeError(f"{key} {'; '.join(str(c) for c in complaints)}")
            if key in self.answers:
                answer = self.answers[key]
                return answer(*given, **named) if inspect.isroutine(answer) else answer
            return self._default(overloads[complaints.index(None)].answer if overloads else "")

        return call

    def _default(self, kind: str) -> Any:
        short = kind.rpartition(".")[2]
        plain = {"bool": True, "int": 0, "str": ""}
        if short in plain:
            return plain[short]
        cls = getattr(self.real, short, None)
        return self.instance(cls) if isinstance(cls, type) else None


def check_overrides(base: type, subclass: type) -> None:
    """Compare the methods of a class that C++ calls back with those that it overrides."""
    for name, method in vars(subclass).items():
        stated = signatures(getattr(base, name, None), name)
        if name.startswith("_") or not stated:
            continue
        mine = [p for p in inspect.signature(method).parameters if p != "self"]
        theirs = [a.name for a in stated[0].arguments]
        if mine != theirs:
            raise TypeError(f"{base.__name__}.{name} is called with {theirs}, not {mine}")


def member_names(module: ModuleType) -> set[str]:
    """Every public name of a module and of its classes."""
    found = {name for name in dir(module) if not name.startswith("_")}
    for name in tuple(found):
        if isinstance(value := getattr(module, name), type):
            found |= {member for member in dir(value) if not member.startswith("_")}
    return found


def uses(path: Path, names: set[str]) -> set[tuple[str, int, str]]:
    """Where a file uses one of the names, as an attribute or in quotes: file, line, name."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        word = getattr(node, "attr", None) or getattr(node, "value", None)
        if isinstance(node, ast.Attribute | ast.Constant) and isinstance(word, str) and word in names:
            found.add((path.name, node.end_lineno or 0, word))
    return found


@contextmanager
def executed_lines(paths: list[Path]) -> Iterator[set[tuple[str, int]]]:
    """Collect the lines of some files that run meanwhile: file's name, line."""
    wanted = {str(path): path.name for path in paths}
    found: set[tuple[str, int]] = set()

    def trace(frame: FrameType, event: str, argument: object):
        if (name := wanted.get(frame.f_code.co_filename)) is None:
            return None
        found.add((name, frame.f_lineno))
        return trace

    sys.settrace(trace)
    try:
        yield found
    finally:
        sys.settrace(None)
