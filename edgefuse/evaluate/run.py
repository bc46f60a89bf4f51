"""Scoring candidates over a set of pairs, in worker processes. Only names and scores travel between them."""

import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple, TypeAlias

import cv2

from edgefuse.errors import EdgefuseError, InputError
from edgefuse.evaluate.candidates import Candidate, unique
from edgefuse.evaluate.pair import PairScorer, PairScores, PairTask, Settings
from edgefuse.evaluate.video import frames_before, in_order
from edgefuse.pairs import FolderPairs, images_by_stem, pair_folders

__all__ = ["Evaluation", "Problem", "evaluate"]

VIDEO_CHUNK = 8
"""Frames that a worker takes at a time; it fuses the one before them once more, for flicker."""


class Problem(NamedTuple):
    """A pair that could not be scored, and why."""

    stem: str
    reason: str


@dataclass
class Evaluation:
    """Scores of all candidates over the same pairs: a pair that one of them lacks counts for none."""

    ir: Path
    vis: Path
    settings: Settings
    candidates: list[Candidate]
    pairs: list[PairScores] = field(default_factory=list)
    """Sorted by stem, numbers by their value; of a video clip by clip, in the order of time."""
    problems: list[Problem] = field(default_factory=list)
    """Sorted by stem."""
    passed_over: int = 0
    """Stems that lack a counterpart in some folder, and which a limit therefore leaves out unlisted."""


_Task: TypeAlias = tuple[PairTask, PairTask | None]
_Scored: TypeAlias = list[PairScores | Problem]


def evaluate(
    ir: str | Path,
    vis: str | Path,
    candidates: list[Candidate],
    settings: Settings | None = None,
    *,
    limit: int | None = None,
    jobs: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Score candidates over the pairs of two folders, paired by stem.

    Args:
        ir: folder of infrared images.
        vis: folder of visible images.
        candidates: what to score.
        settings: protocol, metrics and extra measures.
        limit: score only so many of the pairs that each folder has, evenly spread over the sorted stems, of a
            video the first ones; what has no partner is then no problem, but counted in `passed_over`.
        jobs: worker processes; with more than one, a script needs the `__main__` guard of multiprocessing.
        progress: called with (pairs done, pairs in all).

    Returns:
        The scores, with what could not be scored among its `problems`.

    Raises:
        InputError: a folder cannot be used, nothing to score, or no pair at all could be scored; a video of
            which no two frames have consecutive numbers, or two the same.
        EdgefuseError: a candidate cannot be opened.
    """
    settings = settings or Settings()
    candidates = unique(candidates)
    if not candidates:
        raise InputError("nothing to score: give a model, a folder of fused images or a trivial fusion")
    for what, number in (("limit", limit), ("jobs", jobs)):
        if number is not None and number < 1:
            raise InputError(f"{what} is {number}, it must be at least 1")
    doubled: dict[str, str] = {}
    found = pair_folders(ir, vis, doubled)
    # Here first, so that a bad one is an error and not a dead worker.
    scorer = PairScorer(candidates, settings)
    result = Evaluation(Path(ir), Path(vis), settings, candidates)
    tasks = [PairTask(*pair) for pair in found.pairs]
    if settings.video:
        tasks = in_order(tasks)
    unpaired = [Problem(*problem) for problem in doubled.items()] + _unpaired(found, candidates, doubled)
    if limit is None:
        result.problems += unpaired
    else:
        complete = _complete(tasks, candidates)
        result.passed_over = len({p.stem for p in unpaired}) + len(tasks) - len(complete)
        tasks = _limited(complete, limit, settings.video)
    before: Sequence[PairTask | None] = [None] * len(tasks)
    if settings.video:
        stems = (*(pair[0] for pair in found.pairs), *found.only_ir, *found.only_vis)
        before = frames_before(tasks, stems)
    chunks = _chunks(list(zip(tasks, before, strict=True)), VIDEO_CHUNK if settings.video else 1)
    if progress:
        progress(0, len(tasks))
    done = 0
    jobs = min(jobs, len(chunks))
    results = _in_processes(chunks, candidates, settings, jobs) if jobs > 1 else _here(chunks, scorer)
    for scored in results:
        result.pairs += [pair for pair in scored if isinstance(pair, PairScores)]
        result.problems += [problem for problem in scored if isinstance(problem, Problem)]
        done += len(scored)
        if progress:
            progress(done, len(tasks))
    place = {task.stem: place for place, task in enumerate(tasks)}
    result.pairs.sort(key=lambda pair: place[pair.stem])
    result.problems.sort()
    if not result.pairs:
        reason = next(p for p in result.problems if p.stem in {task.stem for task in tasks})
        raise InputError(f"none of the {len(tasks)} pairs could be scored; {reason.stem}: {reason.reason}")
    return result


def _unpaired(found: FolderPairs, candidates: list[Candidate], doubled: Mapping[str, str]) -> list[Problem]:
    """Return what has no counterpart: sources without the other, fused images without sources."""
    problems = [Problem(stem, "no visible image") for stem in found.only_ir]
    problems += [Problem(stem, "no infrared image") for stem in found.only_vis]
    known = {stem for stem, _, _ in found.pairs} | doubled.keys()
    for candidate in candidates:
        if candidate.kind == "folder":
            more = images_by_stem(candidate.source, {}).keys() - known
            problems += [Problem(stem, f"in {candidate.source}, but no such pair") for stem in more]
    return problems


def _complete(tasks: list[PairTask], candidates: list[Candidate]) -> list[PairTask]:
    """Return the pairs that every folder of fused images has too; all if there is none."""
    folders = [images_by_stem(c.source, {}) for c in candidates if c.kind == "folder"]
    return [task for task in tasks if all(task.stem in folder for folder in folders)] or tasks


def _limited(tasks: list[PairTask], limit: int, video: bool) -> list[PairTask]:
    if limit >= len(tasks):
        return tasks
    return tasks[:limit] if video else [tasks[i * len(tasks) // limit] for i in range(limit)]


def _chunks(tasks: list[_Task], size: int) -> list[list[_Task]]:
    return [tasks[start : start + size] for start in range(0, len(tasks), size)]


def _here(chunks: list[list[_Task]], scorer: PairScorer) -> Iterator[_Scored]:
    for chunk in chunks:
        for task, before in chunk:
            yield [_score(scorer, task, before)]


def _score(scorer: PairScorer, task: PairTask, before: PairTask | None) -> PairScores | Problem:
    try:
        return scorer.score(task, before)
    except EdgefuseError as error:
        return Problem(task.stem, str(error))
    except MemoryError:
        return Problem(task.stem, "there is not enough memory to score images of this size")
    except cv2.error as error:
        return Problem(task.stem, f"OpenCV fails on it: {error.err or error}")


# --- worker processes

_worker: PairScorer


def _in_processes(
    chunks: list[list[_Task]], candidates: list[Candidate], settings: Settings, jobs: int
) -> Iterator[_Scored]:
    # Spawned and not forked: a fork would copy the locks of the inference engine's threads.
    pool = ProcessPoolExecutor(jobs, get_context("spawn"), _start_worker, (candidates, settings))
    try:
        with _interrupts_held():
            futures: list[Future[_Scored]] = [pool.submit(_work, chunk) for chunk in chunks]
        for future in as_completed(futures):
            yield future.result()
    except BrokenProcessPool:
        raise EdgefuseError(
            "a worker process of the evaluation was killed, perhaps for lack of memory: try --jobs 1"
        ) from None
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


def _start_worker(candidates: list[Candidate], settings: Settings) -> None:
    global _worker
    cv2.setNumThreads(1)  # the processes already fill the cores
    _worker = PairScorer(candidates, settings)


def _work(chunk: list[_Task]) -> _Scored:
    return [_score(_worker, task, before) for task, before in chunk]
