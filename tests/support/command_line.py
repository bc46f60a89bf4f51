"""The command line in this process, which has loaded everything already."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edgefuse.cli import main


@contextmanager
def same_logger() -> Iterator[None]:
    """Undo what the command line does to the logger, which other tests listen to."""
    logger = logging.getLogger("edgefuse")
    level, handlers = logger.level, logger.handlers[:]
    yield
    logger.setLevel(level)
    logger.handlers = handlers


def run(folder: Path, *words: str) -> int:
    """Run the command line in a folder; return its exit status."""
    with same_logger(), pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["edgefuse", *words])
        with pytest.raises(SystemExit) as ended:
            main()
    return int(ended.value.code or 0)
