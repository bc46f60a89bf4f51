"""The scores of pairs as they are done, in a file that a run which was broken off goes on from.

A line of JSON for each pair, in any order, after one that says what is scored and how.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, NamedTuple, TypeAlias

import msgspec
import numpy as np

import edgefuse
from edgefuse.errors import InputError
from edgefuse.evaluate.candidates import Candidate, split_options
from edgefuse.evaluate.sequence import PairTask
from edgefuse.files import read_bytes
from edgefuse.metrics import Parts
from edgefuse.pairs import images_by_stem
from edgefuse.runtime.engines import model_digest

Row: TypeAlias = dict[str, Parts]
"""Score by column. A column is absent where it is undefined: no target, no frame before, a cut."""


@dataclass(frozen=True)
class PairScores:
    """The scores of one pair. A column is absent where it is undefined: no target, no frame before, a cut."""

    stem: str
    ir: Path
    vis: Path
    scores: dict[str, Row]
    """By candidate, then column."""
    degraded: dict[str, dict[str, Row]] = field(default_factory=dict)
    """By degradation, then candidate, then column: what was fused from degraded sources."""
    before: str | None = None
    """Stem of the frame before, in a video."""


class _Line(NamedTuple):
    of: str
    """Which state of the pair's files was scored."""
    pair: PairScores


class Journal:
    """The pairs that are scored already, of one evaluation.

    Args:
        path: of the file, which is made if there is none; None: nothing is kept.
        candidates: what is scored.
        settings: how, as a text.

    Raises:
        InputError: the file is of another evaluation or something else, or cannot be written.
    """

    def __init__(self, path: Path | None, candidates: Sequence[Candidate], settings: str) -> None:
        self._path = path
        self._lines: dict[str, _Line] = {}
        self._files: dict[str, str] = {}
        self._out: IO[bytes] | None = None
        if path is None:
            return
        self._fused = [images_by_stem(c.source, {}) for c in candidates if c.kind == "folder"]
        head = msgspec.json.encode([edgefuse.__version__, settings, [_named(c) for c in candidates]])
        whole = self._read(path, head) if path.exists() else 0
        try:
            self._out = path.open("ab")
            self._out.truncate(whole)  # what a run that was killed had begun to write
            if not whole:
                self._write([head])
        except OSError as error:
            raise InputError(f"cannot write {path}: {error.strerror or error}") from None

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *_: object) -> None:
        if self._out is not None:
            self._out.close()

    def kept(self, task: PairTask, before: PairTask | None) -> PairScores | None:
        """Return the scores of a pair from an earlier run; None: there are none, or a file has changed."""
        if self._path is None:
            return None
        line = self._lines.get(task.stem)
        state = self._files[task.stem] = self._state(task, before)
        return line.pair if line is not None and line.of == state else None

    def add(self, pairs: Iterable[PairScores]) -> None:
        """Keep the scores of pairs that `kept` was asked for.

        Raises:
            InputError: the disk is full.
        """
        if self._out is not None:
            lines = [_Line(self._files[pair.stem], pair) for pair in pairs]
            self._write([msgspec.json.encode(line, enc_hook=_plain) for line in lines])

    def _write(self, lines: list[bytes]) -> None:
        assert self._out is not None
        try:
            self._out.write(b"".join(line + b"\n" for line in lines))
            self._out.flush()
        except OSError as error:
            raise InputError(f"cannot write {self._path}: {error.strerror or error}") from None

    def _read(self, path: Path, head: bytes) -> int:
        """Take over what a file has, and return the length of its whole lines."""
        content = read_bytes(path)
        whole = content[: content.rfind(b"\n") + 1]
        first, *rest = whole.splitlines() or [b""]
        if content and first != head:
            raise InputError(
                f"{path} is not of an evaluation of the same models in the same way by this version: "
                "give --resume another file"
            )
        for text in rest:
            try:
                line = msgspec.json.decode(text, type=_Line, dec_hook=lambda kind, value: kind(value))
            except msgspec.MsgspecError:
                continue  # scored again
            self._lines[line.pair.stem] = line
        return len(whole)

    def _state(self, task: PairTask, before: PairTask | None) -> str:
        """Return a text that changes when a file of the pair does."""
        files = [task.ir, task.vis, *((before.ir, before.vis) if before else ())]
        stems = [task.stem, *([before.stem] if before else [])]
        files += [folder[stem] for folder in self._fused for stem in stems if stem in folder]
        text = hashlib.blake2b(digest_size=12)
        for path in files:
            try:
                facts = path.stat()
            except OSError:
                continue
            text.update(f"{path}|{facts.st_size}|{facts.st_mtime_ns}|".encode("utf-8", "surrogateescape"))
        return text.hexdigest()


def _named(candidate: Candidate) -> list[str | None]:
    """Return what a candidate is, with what a model's file holds."""
    digest = None
    if candidate.kind == "model":
        digest = model_digest(str(split_options(candidate.source)[0]), candidate.engine)
    return [candidate.name, candidate.kind, candidate.source, candidate.engine, digest]


def _plain(value: Any) -> Any:
    return float(value) if isinstance(value, np.floating) else str(value)
