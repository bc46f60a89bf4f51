"""Work on many files by processes, or by a Ray cluster (extra `ray`). Only names and results travel."""

import contextlib
import logging
import os
import pickle
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context
from typing import Any, TypeAlias, TypeVar

import cv2

from edgefuse.errors import BackendError, EdgefuseError, InputError, first_line, unknown_name
from edgefuse.packages import require

S = TypeVar("S")
T = TypeVar("T")
R = TypeVar("R")

Distribute: TypeAlias = Callable[..., Iterator[Any]]
"""`in_processes`, or what takes the same arguments and does the same elsewhere."""

_state: Any


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


def in_ray(address: str | None = None) -> Distribute:
    """Return what does the work of `in_processes` on Ray Data, with a state for each actor.

    Every machine of the cluster needs this version of edgefuse, and the files under the same paths.

    Args:
        address: of the cluster, as `ray start --head` prints it; None: one on this machine.

    Raises:
        BackendError: Ray is not installed.
    """
    require("ray", "ray", "pyarrow", "pandas")

    def run(
        tasks: Sequence[T],
        work: Callable[[S, T], R],
        start: Callable[..., S],
        arguments: tuple[Any, ...],
        jobs: int | None,
    ) -> Iterator[R]:
        import ray

        with _connected(address, jobs):
            count = jobs or max(1, int(ray.cluster_resources().get("CPU", 1)))
            rows = [{"task": pickle.dumps(task)} for task in tasks]
            done = ray.data.from_items(rows, override_num_blocks=min(len(rows), 4 * count)).map(
                _Actor,
                fn_constructor_args=(work, start, arguments),
                num_cpus=1,
                compute=ray.data.ActorPoolStrategy(min_size=1, max_size=min(count, len(rows))),
            )
            _quiet()
            for row in done.iter_rows():
                result, error = pickle.loads(row["result"])
                if error is not None:
                    raise error
                yield result

    return run


@contextlib.contextmanager
def _connected(address: str | None, jobs: int | None) -> Iterator[None]:
    """Connect to a cluster; one that was started here is ended."""
    # Ray reports to its makers unless it is told not to.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # By default its workers are so nice to others (15) that on a busy machine they hardly start.
    os.environ.setdefault("RAY_worker_niceness", "0")
    import ray

    own = not ray.is_initialized()
    if own:
        local: dict[str, Any] = {} if address else {"num_cpus": jobs, "include_dashboard": False}
        try:
            ray.init(address, logging_level=logging.ERROR, log_to_driver=False, **local)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise BackendError(
                f"no Ray cluster at {address}: {first_line(error)}; start one with `ray start --head`, "
                "and give the address that it prints"
            ) from None
    ray.data.DataContext.get_current().enable_progress_bars = False
    try:
        yield
    finally:
        if own:
            ray.shutdown()


def _quiet() -> None:
    """Keep what Ray Data says about its plans in its log files; its logger has handlers of others, too."""
    for handler in logging.getLogger("ray.data").handlers:
        own = type(handler).__module__.partition(".")[0] in ("ray", "logging")
        if (
            own
            and isinstance(handler, logging.StreamHandler)
            and not isinstance(handler, logging.FileHandler)
        ):
            handler.setLevel(logging.ERROR)


class _Actor:
    """What one worker of the cluster holds: the state, as long as it lives."""

    def __init__(self, work: Callable[[Any, Any], Any], start: Callable[..., Any], arguments: Any) -> None:
        self._work, self._state = work, as_worker(start, arguments)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Do one task. Its errors travel as results: Ray would wrap them, and try again."""
        result, failed = None, None
        try:
            result = self._work(self._state, pickle.loads(row["task"]))
        except EdgefuseError as error:
            failed = error
        return {"result": pickle.dumps((result, failed))}


CLUSTERS: dict[str, Callable[[str | None], Distribute]] = {"ray": in_ray}
"""Name, as `--engine-cluster` takes it → what distributes the work."""


def distribution(name: str | None, address: str | None) -> Distribute | None:
    """Return what the options of a command ask for; None: the processes of this machine.

    Raises:
        InputError: an unknown name, or an address without a cluster.
        BackendError: what it needs is not installed.
    """
    if name is None:
        if address is not None:
            raise InputError(f"--address {address} needs --engine-cluster ray")
        return None
    if name not in CLUSTERS:
        raise InputError(unknown_name("cluster", name, CLUSTERS))
    return CLUSTERS[name](address)
