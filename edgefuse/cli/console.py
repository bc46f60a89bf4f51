"""What the command line says and how it ends: both streams, logging, progress, exit codes, signals."""

import codecs
import json
import logging
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from enum import IntEnum
from types import FrameType
from typing import Any

import msgspec
from rich.console import Console, ConsoleOptions, RenderableType
from rich.logging import RichHandler
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.segment import Segment
from rich.table import Table

from edgefuse.errors import EdgefuseError, first_line
from edgefuse.packages import LIBRARIES, NOT_INSTALLED

PROGRESS_SECONDS = 30.0
"""Between two lines of progress where there is no terminal."""

PLAIN = {"→": "->", "…": "...", "×": "x", "±": "+-", "–": "-", "−": "-", "·": "*", "°": " deg", "²": "^2"}


OBEYED = (*range(32), *range(127, 160), *range(0x202A, 0x202F), *range(0x2066, 0x206A))
"""Characters that a terminal obeys and does not show, or that turn the order of the others round."""
SHOWN = {code: "\N{REPLACEMENT CHARACTER}" for code in OBEYED if chr(code) not in "\n\t"}


class ExitCode(IntEnum):
    """How a command ended; docs/exit-codes.md explains them."""

    OK = 0
    ERROR = 1
    USAGE = 2
    PARTIAL = 3
    BUG = 70
    INTERRUPTED = 130


class Output(Console):
    """One of the two streams. Tables are printed, sentences are said.

    Text may be of files and libraries, and hold whatever their makers wrote: terminals get to see it only.
    """

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        """Render as rich does, without characters that a terminal would obey."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=segment.text.translate(SHOWN))

    def say(self, text: str, style: str | None = None) -> None:
        """Write one line as it is: nothing in it is markup, and nothing is cut or wrapped."""
        self.print(text, style=style, markup=False, emoji=False, highlight=False, soft_wrap=True)

    def say_json(self, values: object) -> None:
        """Write dataclasses and plain values as JSON in ASCII, in which no character does anything."""
        self.say(json.dumps(msgspec.json.decode(msgspec.json.encode(values)), indent=2))


def stdout(*, quiet: bool = False) -> Output:
    """Return standard output."""
    return Output(quiet=quiet)


def stderr() -> Output:
    """Return standard error."""
    return Output(stderr=True)


def table(title: str, texts: Sequence[str], numbers: Sequence[str]) -> Table:
    """Return a table without rows: columns of texts, which are wrapped, then of numbers."""
    made = Table(title=title, title_justify="left")
    for name in texts:
        made.add_column(name, overflow="fold")
    for name in numbers:
        made.add_column(name, justify="right")
    return made


@contextmanager
def progress(output: Output, what: str, total: int | None = None) -> Iterator[Callable[..., None]]:
    """Show how far a piece of work is: a bar in a terminal, else a line now and then.

    Args:
        output: where.
        what: names the work.
        total: its size, if known by now.

    Yields:
        A function of what is done, the total, and a word on the last step.
    """
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
    last = time.monotonic()
    with Progress(
        *columns, TimeRemainingColumn(), console=output, transient=True, disable=not output.is_terminal
    ) as bar:
        task = bar.add_task("", total=total)

        def show(done: int, total: int | None = total, text: str = "") -> None:
            nonlocal last
            bar.update(task, completed=done, total=total, description=text)
            if not output.is_terminal and time.monotonic() - last >= PROGRESS_SECONDS:
                last = time.monotonic()
                output.say(f"{what}: {done}{'' if total is None else f' of {total}'}{text and f', {text}'}")

        yield show


@contextmanager
def phases(output: Output, what: str) -> Iterator[Callable[[str], None]]:
    """Show the phases of a piece of work: beside a spinner in a terminal, else a line each."""
    if not output.is_terminal:
        yield lambda text: output.say(f"{what}: {text}")
        return
    with output.status(f"{what} …") as status:
        yield lambda text: status.update(f"{what}: {text} …")


def guarded(run: Callable[[], object], *, debug: bool) -> None:
    """Run a command; an error becomes one sentence on standard error, and an exit code.

    With `debug`, it is raised as it is instead.
    """
    codecs.register_error("edgefuse", _plain)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="edgefuse")
    errors = stderr()
    logger = logging.getLogger("edgefuse")
    logger.handlers = [_log_handler(errors)]
    logger.setLevel(logging.DEBUG if debug else logging.INFO)
    try:
        run()
    except BrokenPipeError:  # as of `edgefuse … | head`: nobody reads on
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(ExitCode.ERROR)
    except Exception as error:
        if debug:
            raise
        code, sentence = explained(error)
        if any(isinstance(handler.formatter, _JsonLines) for handler in logger.handlers):
            logger.error(sentence)
        else:
            errors.print("error: ", style="bold red", end="")
            errors.say(sentence)
        sys.exit(code)


def _plain(error: UnicodeError) -> tuple[str | bytes, int]:
    """Write a character that the stream's encoding lacks: a name's odd byte as it is, others in ASCII."""
    assert isinstance(error, UnicodeEncodeError)
    character = error.object[error.start]
    if "\udc80" <= character <= "\udcff":
        return bytes([ord(character) - 0xDC00]), error.start + 1
    return PLAIN.get(character, "?"), error.start + 1


def _log_handler(errors: Output) -> logging.Handler:
    if errors.is_terminal:
        return RichHandler(console=errors, show_time=False, show_path=False, markup=False)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Lines("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%S%z"))
    return handler


class _Lines(logging.Formatter):
    """One line each, without what a terminal that shows them later would obey."""

    def format(self, record: logging.LogRecord) -> str:
        return super().format(record).translate(SHOWN)


class _JsonLines(logging.Formatter):
    """One JSON object a line: time (UTC), level, logger, message, and a traceback where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line)  # in ASCII, so that any encoding will do, and a file name's odd bytes too


def log_as_json() -> None:
    """Write what is logged from here on as one JSON object a line, on standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonLines())
    logging.getLogger("edgefuse").handlers = [handler]


def explained(error: Exception) -> tuple[ExitCode, str]:
    """Return the exit code and the sentence for an error."""
    if isinstance(error, EdgefuseError):
        return ExitCode.ERROR, str(error)
    if package := _package_that_failed(error):
        name, hint = LIBRARIES[package]
        if isinstance(error, ModuleNotFoundError) and error.name == package:
            command = NOT_INSTALLED.get(package, f"pip install {package}")
            return ExitCode.ERROR, f"{name} is not installed: {command}"
        return ExitCode.ERROR, f"{name} cannot be loaded ({first_line(error)}): {hint}"
    if isinstance(error, OSError):
        text = error.strerror or str(error)
        return ExitCode.ERROR, f"{error.filename}: {text}" if error.filename else text
    if isinstance(error, MemoryError):
        return ExitCode.ERROR, "there is not enough memory: use smaller images or batches, or fewer processes"
    text = first_line(error)
    if type(error).__module__.partition(".")[0] in LIBRARIES or "CUDA" in text:
        if "out of memory" in text.lower():
            return ExitCode.ERROR, f"the GPU has not enough memory ({text}): use smaller batches or images"
        if "CUDA" in text:
            return ExitCode.ERROR, f"the GPU failed ({text}): check it with nvidia-smi, or use --engine cpu"
    fault = f"{type(error).__name__}: {text}"
    return ExitCode.BUG, f"this is a bug in edgefuse ({fault}); please report it with what --debug shows"


def _package_that_failed(error: Exception) -> str | None:
    """Return which known package failed while it was imported, the innermost one; None: another error."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    if not isinstance(error, ImportError):  # torch raises OSError, packages that do not fit together others
        frames = [frame for frame in frames if frame.f_code.co_name == "<module>"]
    names = [str(frame.f_globals.get("__name__", "")) for frame in frames]
    if isinstance(error, ImportError):
        names.append(error.name or "")
    packages = [name.partition(".")[0] for name in names]
    return next((package for package in reversed(packages) if package in LIBRARIES), None)


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
