"""Scoring candidates over a set of pairs, in worker processes. Only names and scores travel between them."""

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, TypeAlias

import cv2

from edgefuse.degrade import DEGRADATIONS
from edgefuse.errors import EdgefuseError, InputError, counted
from edgefuse.evaluate.candidates import Candidate, FuseFunction, read_grey, read_grey_infrared, unique
from edgefuse.evaluate.journal import Journal, PairScores, Row
from edgefuse.evaluate.sequence import PairTask, frames_before, in_order
from edgefuse.images import Image, size_of
from edgefuse.metrics import CHANGE, FLICKER, PROTOCOLS, TABLE_METRICS, FusionScorer, Parts, SourceChange
from edgefuse.metrics.scorer import Fused, named_metrics, named_protocol
from edgefuse.metrics.statistics import rms_difference
from edgefuse.pairs import FolderPairs, images_by_stem, pair_folders
from edgefuse.rig import Overlap, Rig
from edgefuse.thermal_config import ThermalConfig
from edgefuse.workers import Distribute, in_processes

VIDEO_CHUNK = 8
"""Frames that a worker takes at a time; it fuses the one before them once more, for flicker."""


@dataclass(frozen=True)
class Settings:
    """What is measured.

    Raises:
        InputError: unknown protocol or metric, or flicker without a video.
    """

    protocol: str = "field"
    metrics: tuple[str, ...] = TABLE_METRICS
    """Target stands beside them in any case, and Flicker if it is a video."""
    video: bool = False
    """The pairs are consecutive frames: also measure flicker."""
    robust: bool = False
    """Also fuse degraded sources, and score that against the clean ones."""
    thermal: ThermalConfig = field(default_factory=ThermalConfig)
    """How infrared becomes 8 bits."""
    bits: int | None = None
    """Of visible 16-bit images; None: as the files say."""
    rig: Rig | None = None
    """Brings infrared onto the visible images; only where it covers them is scored."""

    def read_infrared(self, path: Path) -> Image:
        """Read an infrared image as it is scored, but for the rig."""
        return read_grey_infrared(path, self.video, self.thermal)

    def __post_init__(self) -> None:
        named_protocol(self.protocol)
        flicker = [name for name in self.metrics if name.lower() == FLICKER.name.lower()]
        if flicker and not self.video:
            raise InputError(f"{FLICKER.name} is measured between the frames of a video: add --video")
        metrics = [name for name in self.metrics if name not in flicker]
        named = [] if flicker and not metrics else named_metrics(metrics)
        parts = ("VIF_ir", "VIF_vis") if self.robust else ()
        object.__setattr__(self, "metrics", tuple(dict.fromkeys([*named, *parts, "Target"])))

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of what each pair is scored by."""
        return (*self.metrics, *((FLICKER.name,) if self.video else ()))


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
    kept: int = 0
    """How many of the pairs an earlier run had scored."""
    passed_over: int = 0
    """Stems that lack a counterpart in some folder, and which a limit therefore leaves out unlisted."""


class Reader:
    """Reads pairs, and what was fused from them elsewhere, as they are scored."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._overlap = Overlap(settings.rig) if settings.rig else None

    def read(self, pair: PairTask | PairScores) -> tuple[Image, Image]:
        """Return the infrared and the visible image, grey; with a rig what infrared covers.

        Raises:
            InputError: an image that cannot be used, or two that do not belong together.
        """
        ir, vis = self._settings.read_infrared(pair.ir), read_grey(pair.vis, self._settings.bits)
        if self._overlap:
            return self._overlap.infrared(ir, vis.shape), self._overlap.visible(vis)
        if ir.shape != vis.shape:
            raise InputError(
                f"the infrared image is {size_of(ir)} and the visible one {size_of(vis)}; "
                "scores need one size: align or resize the images first, or give --rig FILE"
            )
        return ir, vis

    def fit(self, fused: Fused, vis: Image) -> Fused:
        """Return a fused image on the pixels of the visible one that was read: a whole one is cut."""
        if self._overlap and fused.shape != vis.shape:
            return fused[self._overlap.area(fused.shape)]
        return fused


class _Frame(NamedTuple):
    ir: Image
    vis: Image
    fused: dict[str, Fused]


class PairScorer:
    """Scores pairs one after another; opens each candidate once.

    Raises:
        EdgefuseError: a candidate cannot be opened.
    """

    def __init__(self, candidates: Sequence[Candidate], settings: Settings) -> None:
        self.settings = settings
        self._reader = Reader(settings)
        unrounded = PROTOCOLS[settings.protocol].stretch
        self._fusing = [c.name for c in candidates if c.fuses]
        self._fuse: dict[str, FuseFunction] = {c.name: c.open(unrounded) for c in candidates}
        self._last: tuple[PairTask, _Frame] | None = None

    def score(self, task: PairTask, before: PairTask | None = None) -> PairScores:
        """Score one pair.

        Args:
            task: the pair.
            before: the pair of the frame before, for flicker.

        Raises:
            InputError: an image is missing, unreadable or of another size.
        """
        earlier = self._earlier(before) if before is not None and self.settings.video else None
        frame = self._frame(task)
        scorer = FusionScorer(frame.ir, frame.vis, self.settings.protocol)
        scores = {name: scorer.parts(fused, self.settings.metrics) for name, fused in frame.fused.items()}
        if earlier is not None and earlier.vis.shape == frame.vis.shape:
            change = SourceChange((earlier.ir, frame.ir), (earlier.vis, frame.vis))
            for name, fused in frame.fused.items():
                value = change.flicker((scorer.judged(earlier.fused[name]), scorer.judged(fused)))
                if value is not None:
                    scores[name][FLICKER.name] = Parts(value)
        if self.settings.video:
            self._last = (task, frame)
        degraded = self._degraded(task.stem, frame, scorer) if self.settings.robust else {}
        return PairScores(
            task.stem, task.ir, task.vis, scores, degraded, before.stem if before is not None else None
        )

    def _degraded(self, stem: str, frame: _Frame, scorer: FusionScorer) -> dict[str, dict[str, Row]]:
        seed = zlib.crc32(stem.encode())  # another noise for each pair, the same in every run
        scores: dict[str, dict[str, Row]] = {}
        for degradation in DEGRADATIONS.values():
            ir, vis = degradation.apply(frame.ir, frame.vis, seed)
            scores[degradation.name] = {}
            for name in self._fusing:
                fused = self._fuse[name](stem, ir, vis)
                change = rms_difference(scorer.rounded(fused), scorer.rounded(frame.fused[name]))
                row = scorer.parts(fused, self.settings.metrics)
                scores[degradation.name][name] = {**row, CHANGE.name: Parts(change)}
        return scores

    def _frame(self, task: PairTask) -> _Frame:
        ir, vis = self._reader.read(task)
        fused = {name: self._reader.fit(fuse(task.stem, ir, vis), vis) for name, fuse in self._fuse.items()}
        for name, image in fused.items():
            if image.shape != vis.shape:
                raise InputError(
                    f"the fused image of {name} is {size_of(image)} and its sources are {size_of(vis)}"
                )
        return _Frame(ir, vis, fused)

    def _earlier(self, task: PairTask) -> _Frame | None:
        if self._last is not None and self._last[0] == task:
            return self._last[1]
        try:
            return self._frame(task)
        except (EdgefuseError, MemoryError, cv2.error):  # listed when it was that pair's own turn
            return None


_Task: TypeAlias = tuple[PairTask, PairTask | None]
_Scored: TypeAlias = list[PairScores | Problem]


def evaluate(
    ir: str | Path,
    vis: str | Path,
    candidates: list[Candidate],
    settings: Settings | None = None,
    *,
    limit: int | None = None,
    jobs: int | None = 1,
    progress: Callable[[int, int], object] = lambda _done, _total: None,
    distribute: Distribute | None = None,
    resume: Path | None = None,
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
            None, with `distribute` only: as many as there are cores.
        progress: called with (pairs done, pairs in all).
        distribute: what runs them elsewhere, such as `edgefuse.workers.in_ray()`; None: processes here.
        resume: file that keeps the scores of each pair as they are done. What an earlier run has left there
            is taken over, unless a file of the pair has changed since.

    Returns:
        The scores, with what could not be scored among its `problems`.

    Raises:
        InputError: a folder cannot be used, nothing to score, or no pair at all could be scored; a video of
            which no two frames have consecutive numbers, or two the same.
        InputError: the file to resume from is of another evaluation, or cannot be written.
        EdgefuseError: a candidate cannot be opened.
    """
    settings = settings or Settings()
    candidates = unique(candidates)
    _check(candidates, limit, jobs)
    # Here first, so that a bad one is an error and not a dead worker.
    scorer = PairScorer(candidates, settings)
    result = Evaluation(Path(ir), Path(vis), settings, candidates)
    tasks = _choose_tasks(result, limit)
    with Journal(resume, candidates, repr(settings)) as journal:
        todo = _take_over(result, journal, tasks)
        done = len(tasks) - len(todo)
        progress(done, len(tasks))
        for scored in _score_all(todo, scorer, candidates, jobs, distribute):
            pairs = [pair for pair in scored if isinstance(pair, PairScores)]
            journal.add(pairs)
            result.pairs += pairs
            result.problems += [problem for problem in scored if isinstance(problem, Problem)]
            done += len(scored)
            progress(done, len(tasks))
    _sort(result, tasks)
    return result


def _sort(result: Evaluation, tasks: list[_Task]) -> None:
    """Put what came in any order into that of the tasks; `InputError` if nothing could be scored."""
    place = {task.stem: place for place, (task, _) in enumerate(tasks)}
    result.pairs.sort(key=lambda pair: place[pair.stem])
    result.problems.sort()
    if not result.pairs:
        reason = next(problem for problem in result.problems if problem.stem in place)
        raise InputError(
            f"none of {counted(len(tasks), 'pair')} could be scored; {reason.stem}: {reason.reason}"
        )


def _take_over(result: Evaluation, journal: Journal, tasks: list[_Task]) -> list[_Task]:
    """Take the pairs that an earlier run has scored from there, and return the others."""
    kept = {task.stem: pair for task, before in tasks if (pair := journal.kept(task, before))}
    result.pairs += kept.values()
    result.kept = len(kept)
    return [each for each in tasks if each[0].stem not in kept]


def _score_all(
    tasks: list[_Task],
    scorer: PairScorer,
    candidates: list[Candidate],
    jobs: int | None,
    distribute: Distribute | None,
) -> Iterator[_Scored]:
    if not tasks:
        return iter(())
    size = VIDEO_CHUNK if scorer.settings.video else 1
    chunks = [tasks[start : start + size] for start in range(0, len(tasks), size)]
    jobs = jobs and min(jobs, len(chunks))
    if distribute is None and (jobs or 1) == 1:
        return (_score_chunk(scorer, [task]) for task in tasks)
    spread: Distribute = distribute or in_processes
    return spread(chunks, _score_chunk, PairScorer, (candidates, scorer.settings), jobs)


def _check(candidates: list[Candidate], limit: int | None, jobs: int | None) -> None:
    if not candidates:
        raise InputError("nothing to score: give a model, a folder of fused images or a baseline")
    for what, number in (("limit", limit), ("jobs", jobs)):
        if number is not None and number < 1:
            raise InputError(f"{what} is {number}, it must be at least 1")


def _choose_tasks(result: Evaluation, limit: int | None) -> list[_Task]:
    """Return the pairs to score, each with the frame before it in a video; note in the result what is not."""
    doubled: dict[str, str] = {}
    found = pair_folders(result.ir, result.vis, doubled)
    candidates, video = result.candidates, result.settings.video
    tasks = [PairTask(*pair) for pair in found.pairs]
    if video:
        tasks = in_order(tasks)
    unpaired = [Problem(*problem) for problem in doubled.items()] + _unpaired(found, candidates, doubled)
    if limit is None:
        result.problems += unpaired
    else:
        complete = _complete(tasks, candidates)
        result.passed_over = len({p.stem for p in unpaired}) + len(tasks) - len(complete)
        tasks = _limited(complete, limit, video)
    before: Sequence[PairTask | None] = [None] * len(tasks)
    if video:
        stems = (*(pair[0] for pair in found.pairs), *found.only_ir, *found.only_vis)
        before = frames_before(tasks, stems)
    return list(zip(tasks, before, strict=True))


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


def _score_chunk(scorer: PairScorer, chunk: list[_Task]) -> _Scored:
    return [_score(scorer, task, before) for task, before in chunk]


def _score(scorer: PairScorer, task: PairTask, before: PairTask | None) -> PairScores | Problem:
    try:
        return scorer.score(task, before)
    except EdgefuseError as error:
        return Problem(task.stem, str(error))
    except MemoryError:
        return Problem(task.stem, "there is not enough memory to score images of this size")
    except cv2.error as error:
        return Problem(task.stem, f"OpenCV fails on it: {error.err or error}")
