"""All scores of one pair: every candidate on clean and on degraded sources, and against the frame before."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import cv2

from edgefuse.degrade import DEGRADATIONS
from edgefuse.errors import EdgefuseError, InputError
from edgefuse.evaluate.candidates import Candidate, FuseFunction, read_grey
from edgefuse.images import Image, size_of
from edgefuse.metrics import CHANGE, CORE_METRICS, FLICKER, PROTOCOLS, FusionScorer, Parts, SourceChange
from edgefuse.metrics.scorer import Fused, named_metrics, named_protocol
from edgefuse.metrics.statistics import rms_difference

__all__ = ["PairScorer", "PairScores", "PairTask", "Settings"]


class PairTask(NamedTuple):
    """A pair by its file names."""

    stem: str
    ir: Path
    vis: Path


@dataclass(frozen=True)
class Settings:
    """What is measured.

    Raises:
        InputError: unknown protocol or metric, or flicker without a video.
    """

    protocol: str = "field"
    metrics: tuple[str, ...] = CORE_METRICS
    """Target stands beside them in any case, and Flicker if it is a video."""
    video: bool = False
    """The pairs are consecutive frames: also measure flicker."""
    robust: bool = False
    """Also fuse degraded sources, and score that against the clean ones."""

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


@dataclass(frozen=True)
class PairScores:
    """The scores of one pair. A column is absent where it is undefined: no target, no frame before, a cut."""

    stem: str
    ir: Path
    vis: Path
    scores: dict[str, dict[str, Parts]]
    """By candidate, then column."""
    degraded: dict[str, dict[str, dict[str, Parts]]] = field(default_factory=dict)
    """By degradation, then candidate, then column: what was fused from degraded sources."""
    before: str | None = None
    """Stem of the frame before, in a video."""


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

    def _degraded(
        self, stem: str, frame: _Frame, scorer: FusionScorer
    ) -> dict[str, dict[str, dict[str, Parts]]]:
        seed = zlib.crc32(stem.encode())  # another noise for each pair, the same in every run
        scores: dict[str, dict[str, dict[str, Parts]]] = {}
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
        ir, vis = read_grey(task.ir, infrared=True, video=self.settings.video), read_grey(task.vis)
        if ir.shape != vis.shape:
            raise InputError(
                f"the infrared image is {size_of(ir)} and the visible one {size_of(vis)}; "
                "scores need one size, so bring them to one frame first"
            )
        fused = {name: fuse(task.stem, ir, vis) for name, fuse in self._fuse.items()}
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
