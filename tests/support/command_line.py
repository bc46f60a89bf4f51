"""The command line in this process, which has loaded everything already."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

import pytest

from edgefuse.cli import main
from edgefuse.packages import is_installed


@contextmanager
def same_logger() -> Iterator[None]:
    """Undo what the command line does to the logger, which other tests listen to."""
    logger = logging.getLogger("edgefuse")
    level, handlers = logger.level, logger.handlers[:]
    yield
    logger.setLevel(level)
    logger.handlers = handlers


@contextmanager
def same_registries() -> Iterator[None]:
    """Take networks and losses of one's own, which commands enter, out again."""
    if not is_installed("torch"):
        yield
        return
    known = [
        (registry, dict(registry))
        for module, name in (("edgefuse.train.models", "MODELS"), ("edgefuse.train.losses", "LOSSES"))
        for registry in (getattr(import_module(module), name),)
    ]
    yield
    for registry, before in known:
        for name in registry.keys() - before.keys():
            del registry[name]


def run(folder: Path, *words: str) -> int:
    """Run the command line in a folder; return its exit status."""
    with same_logger(), same_registries(), pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["edgefuse", *words])
        with pytest.raises(SystemExit) as ended:
            main()
    return int(ended.value.code or 0)
