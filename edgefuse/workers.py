"""Worker processes for work on many files. Only names and results travel between them."""

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context
from typing import Any, TypeAlias, TypeVar

import cv2

from edgefuse.errors import EdgefuseError

S = TypeVar("S")
T = TypeVar("T")
R = TypeVar("R")

Distribute: TypeAlias = Callable[..., Iterator[Any]]
"""`in_processes`, or what takes the same arguments and does the same elsewhere."""

_state: Any


def usable_cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on Windows or macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def in_processes(
    tasks: Sequence[T],
    work: Callable[[S, T], R],
    start: Callable[..., S],
    arguments: tuple[Any, ...],
    jobs: int,
) -> Iterator[R]:
    """Yield what the work on each task gives, in the order in which they are done.

    A script that calls this needs the `__main__` guard of multiprocessing.

    Args:
        tasks: arguments of the work.
        work: (state of the process, task) → result; a function of a module, as the next one.
        start: makes the state of a process; there OpenCV uses one thread.
        arguments: of `start`.
        jobs: processes.

    Raises:
        EdgefuseError: a process was killed; or what `start` or `work` raise.
    """
    # Spawned and not forked: a fork would copy the locks of the inference engine's threads.
    pool = ProcessPoolExecutor(jobs, get_context("spawn"), _start, (start, arguments))
    try:
        with _interrupts_held():
            futures: list[Future[R]] = [pool.submit(_work, work, task) for task in tasks]
        for future in as_completed(futures):
            yield future.result()
    except BrokenProcessPool:
        raise EdgefuseError("a worker process was killed, perhaps for lack of memory: try --jobs 1") from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Hold Ctrl-C back. Processes started meanwhile never get it: the parent ends them."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def as_worker(start: Callable[..., S], arguments: tuple[Any, ...]) -> S:
    """Return the state of a process that is one of many."""
    cv2.setNumThreads(1)  # the processes already fill the cores
    return start(*arguments)


def _start(start: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    global _state
    _state = as_worker(start, arguments)


def _work(work: Callable[[Any, T], R], task: T) -> R:
    return work(_state, task)
