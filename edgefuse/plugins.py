"""Registries: named things of one kind, to which other packages add through entry points.

A package that brings a metric has in its pyproject.toml

    [project.entry-points."edgefuse.metrics"]
    Sharpness = "my_package:SHARPNESS"

and `METRICS["Sharpness"]` is there wherever edgefuse looks for metrics by name. Entry points are read when a
registry is first listed, or asked for a name that it does not have itself; so importing edgefuse runs nobody
else's code.
"""

import logging
from collections.abc import Iterator, Mapping, MutableMapping
from importlib.metadata import entry_points
from typing import TypeVar

from edgefuse.errors import EdgefuseError, InputError, unknown_name

__all__ = ["Registry"]

logger = logging.getLogger(__name__)
T = TypeVar("T")


class Registry(MutableMapping[str, T]):
    """A mapping from name to thing that reads the entry points of its group when first needed.

    Args:
        kind: what its things are called in errors, such as `metric`.
        group: entry-point group, such as `edgefuse.metrics`.
        own: what edgefuse itself has; an entry point of the same name is ignored with a warning.
        error: what `named` raises.
    """

    def __init__(
        self, kind: str, group: str, own: Mapping[str, T], error: type[EdgefuseError] = InputError
    ) -> None:
        self.kind = kind
        self.group = group
        self._error = error
        self._items = dict(own)
        self._loaded = False

    def named(self, name: str) -> T:
        """Return what has that name, in upper or lower case; else raise an error that lists the names."""
        if name in self:
            return self[name]
        for known in self:
            if known.lower() == name.lower():
                return self[known]
        raise self._error(unknown_name(self.kind, name, self))

    def __getitem__(self, name: str) -> T:
        if name not in self._items:
            self._load()
        return self._items[name]

    def __setitem__(self, name: str, value: T) -> None:
        self._items[name] = value

    def __delitem__(self, name: str) -> None:
        del self._items[name]

    def __iter__(self) -> Iterator[str]:
        self._load()
        return iter(self._items)

    def __len__(self) -> int:
        self._load()
        return len(self._items)

    def _load(self) -> None:
        if self._loaded:
            return
        self._loaded = True
        for point in entry_points(group=self.group):
            if point.name in self._items:
                logger.warning(
                    "the %s %s of %s is ignored: the name is taken", self.kind, point.name, point.value
                )
                continue
            try:
                self._items[point.name] = point.load()
            except Exception as error:  # any package's fault must not take edgefuse down
                logger.warning(
                    "the %s %s cannot be loaded from %s: %s", self.kind, point.name, point.value, error
                )
