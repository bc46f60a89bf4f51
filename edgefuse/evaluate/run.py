"""Scoring candidates over a set of pairs, in worker processes. Only names and scores travel between them."""

import re
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple, TypeAlias

import cv2
import numpy as np

from edgefuse.errors import EdgefuseError, InputError
from edgefuse.evaluate.candidates import Candidate, unique
from edgefuse.evaluate.pair import PairScorer, PairScores, PairTask, Settings
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
    """Sorted by stem."""
    problems: list[Problem] = field(default_factory=list)
    """Sorted by stem."""


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
            video the first ones; what has no partner is then no problem.
        jobs: worker processes; with more than one, a script needs the `__main__` guard of multiprocessing.
        progress: called with (pairs done, pairs in all).

    Returns:
        The scores, with what could not be scored among its `problems`.

    Raises:
        InputError: a folder cannot be used, nothing to score, or no pair at all could be scored; a video of
            which no two frames have consecutive numbers.
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
    scorer = PairScorer(
        candidates, settings
    )  # here first, so that a bad one is an error and not a dead worker
    result = Evaluation(Path(ir), Path(vis), settings, candidates)
    pairs = found.pairs
    if limit is None:
        result.problems += [Problem(*problem) for problem in doubled.items()]
        result.problems += _unpaired(found, candidates, doubled)
    else:
        pairs = _limited(_complete(pairs, candidates), limit, settings.video)
    tasks = [PairTask(*pair) for pair in pairs]
    before = _frames_before(tasks, found) if settings.video else [None] * len(tasks)
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
    result.pairs.sort(key=lambda pair: pair.stem)
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


_Pairs: TypeAlias = list[tuple[str, Path, Path]]


def _complete(pairs: _Pairs, candidates: list[Candidate]) -> _Pairs:
    """Return the pairs that every folder of fused images has too; all if there is none."""
    folders = [images_by_stem(c.source, {}) for c in candidates if c.kind == "folder"]
    return [pair for pair in pairs if all(pair[0] in folder for folder in folders)] or pairs


def _limited(pairs: _Pairs, limit: int, video: bool) -> _Pairs:
    if limit >= len(pairs):
        return pairs
    return pairs[:limit] if video else [pairs[i * len(pairs) // limit] for i in range(limit)]


def _frames_before(tasks: list[PairTask], found: FolderPairs) -> list[PairTask | None]:
    """Return the pair of the frame before each, None after a gap or at the beginning of another clip.

    Frames follow each other if the last numbers in their names do and the rest of the names is equal. A clip
    whose numbers go up by more than 1, as when every fifth frame was kept, has that step.
    """
    numbers: dict[tuple[str, str], list[int]] = {}
    for stem in (*(pair[0] for pair in found.pairs), *found.only_ir, *found.only_vis):
        if name := _numbered(stem):
            numbers.setdefault(name[0], []).append(name[1])
    steps = {clip: min(np.diff(sorted(n)), default=1) for clip, n in numbers.items()}
    by_name = {_numbered(task.stem): task for task in tasks}
    before = []
    for task in tasks:
        name = _numbered(task.stem)
        before.append(by_name.get((name[0], name[1] - steps[name[0]])) if name else None)
    if not any(before):
        raise InputError(
            f"none of the {len(tasks)} pairs follows another by the last number in its name, such as "
            "0001 and 0002: without consecutive frames there is no flicker to measure"
        )
    return before


def _numbered(stem: str) -> tuple[tuple[str, str], int] | None:
    match = re.fullmatch(r"(.*?)(\d+)(\D*)", stem)
    return ((match[1], match[3]), int(match[2])) if match else None


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


# --- worker processes

_worker: PairScorer


def _in_processes(
    chunks: list[list[_Task]], candidates: list[Candidate], settings: Settings, jobs: int
) -> Iterator[_Scored]:
    # Spawned and not forked: a fork would copy the locks of the inference engine's threads.
    pool = ProcessPoolExecutor(jobs, get_context("spawn"), _start_worker, (candidates, settings))
    try:
        futures: list[Future[_Scored]] = [pool.submit(_work, chunk) for chunk in chunks]
        for future in as_completed(futures):
            yield future.result()
    except BrokenProcessPool:
        raise EdgefuseError(
            "a worker process of the evaluation was killed, perhaps for lack of memory: try --jobs 1"
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _start_worker(candidates: list[Candidate], settings: Settings) -> None:
    global _worker
    cv2.setNumThreads(1)  # the processes already fill the cores
    _worker = PairScorer(candidates, settings)


def _work(chunk: list[_Task]) -> _Scored:
    return [_score(_worker, task, before) for task, before in chunk]
