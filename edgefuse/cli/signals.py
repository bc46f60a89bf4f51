"""Ending a command on Ctrl-C, SIGTERM or SIGHUP: at once while it starts, in good order while it runs."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

__all__ = ["ending_on_signals", "stopping_on_signals"]

NUMBERS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
"""SIGHUP: the terminal was closed, or the connection to it lost."""


@contextmanager
def ending_on_signals() -> Iterator[None]:
    """Let Ctrl-C, SIGTERM and SIGHUP end the program at once, and without a word.

    For the time in which nothing has begun that would have to be completed: a handler in Python would have
    to wait for the library that loads a model or opens a file, for minutes if it must be.
    """
    with _handling(signal.SIG_DFL):
        yield


@contextmanager
def stopping_on_signals(stop: Callable[[str], object]) -> Iterator[None]:
    """Call `stop` with a reason on the first Ctrl-C, SIGTERM or SIGHUP; a second one ends it at once."""

    def handle(number: int, _: FrameType | None) -> None:
        for each in NUMBERS:
            if signal.getsignal(each) is not signal.SIG_IGN:
                signal.signal(each, signal.SIG_DFL)
        stop("Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name)

    with _handling(handle):
        yield


@contextmanager
def _handling(handler: Any) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():  # which alone may set handlers
        yield
        return
    # What is ignored from the start stays so, as nohup wants it.
    heeded = [number for number in NUMBERS if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, handler) for number in heeded}
    try:
        yield
    finally:
        for number, former in before.items():
            signal.signal(number, former)
