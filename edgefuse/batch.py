"""Fusing files: one pair of images, two folders paired by stem, or two videos or recordings."""

import hashlib
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from numpy.typing import NDArray

from edgefuse.align import Align, Aligned, Resize
from edgefuse.errors import InputError
from edgefuse.files import read_bytes, replace_file
from edgefuse.images import IMAGE_SUFFIXES, luma, read_image, read_visible, write_image
from edgefuse.pairs import pair_folders
from edgefuse.rig import as_align
from edgefuse.runtime.engines import model_digest
from edgefuse.runtime.engines.fuser import Fuser
from edgefuse.runtime.frames import FusedFrame, Role
from edgefuse.runtime.live import live
from edgefuse.runtime.sinks import OutputOptions, open_output
from edgefuse.runtime.sinks.video import VideoOut
from edgefuse.runtime.sources.folder import recorded_parts
from edgefuse.runtime.sources.opencv import DeviceCamera
from edgefuse.spec import Aspect
from edgefuse.thermal import read_infrared
from edgefuse.thermal_config import ThermalConfig
from edgefuse.weights import DEFAULT_MODEL
from edgefuse.workers import Distribute, in_processes

CHUNK = 8
"""Pairs that a worker process takes at a time."""
READ_AHEAD = 2
"""Pairs that are read while one is fused."""

RECORD = ".edgefuse-fuse.json"
"""In the folder of the fused images, how they are made: a run is resumed in the same way only."""


class Fused(NamedTuple):
    """What became of a pair."""

    path: Path
    error: InputError | None = None
    """Why it was not written."""
    skipped: bool = False
    """It was there already, whole and of the right size."""


@dataclass(frozen=True)
class Jobs:
    """What is going to be fused."""

    files: list[tuple[Path, Path, Path]]
    """(infrared, visible, fused) files."""
    only_ir: list[str]
    only_vis: list[str]


def plan(ir: Path, vis: Path, out: Path) -> Jobs:
    """Decide which files are fused into which.

    Two folders are paired by stem and fused into a folder, which is made, under the visible image's name.

    Raises:
        InputError: something is missing or given for both, a file is given with a folder, or an input would
            be overwritten.
    """
    _check_exist(ir, vis)
    if ir.is_dir() != vis.is_dir():
        raise InputError(f"{ir} and {vis}: give two images or two folders, not one of each")
    if not ir.is_dir():
        if out.suffix.lower() not in IMAGE_SUFFIXES:
            known = ", ".join(sorted(IMAGE_SUFFIXES))
            raise InputError(f"--out {out}: an image is written, so the suffix must be one of {known}")
        if ir.samefile(vis):
            raise InputError(f"{ir} is given for both cameras")
        jobs = Jobs([(ir, vis, out)], [], [])
    else:
        if out.is_file():
            raise InputError(f"--out {out} is a file; two folders are fused into a folder")
        if (out.suffix.lower() in IMAGE_SUFFIXES and not out.is_dir()) or VideoOut.accepts(str(out)):
            raise InputError(
                f"--out {out}: two folders are fused into a folder, such as {out.stem}; `edgefuse stream` "
                "makes a video of them"
            )
        found = pair_folders(ir, vis)
        files = [(a, b, (out / stem).with_name(b.name)) for stem, a, b in found.pairs]
        jobs = Jobs(files, found.only_ir, found.only_vis)
    for a, b, fused in jobs.files:
        if fused.resolve() in (a.resolve(), b.resolve()):
            raise InputError(f"--out would overwrite the input {fused}")
    return jobs


def _check_exist(*paths: Path) -> None:
    for path in paths:
        if not path.exists():
            is_live = DeviceCamera.accepts(str(path)) or ":/" in str(path) or str(path) == "sim"
            hint = "; cameras and streams are for `edgefuse stream`" if is_live else ""
            raise InputError(f"no such file or folder: {path}{hint}")


@dataclass(frozen=True)
class FuseConfig:
    """How files are fused, in a form that travels to worker processes."""

    model: str = DEFAULT_MODEL
    threads: int | None = None
    engine: str | None = None
    rebuild: bool = True
    rig: Path | None = None
    aspect: Aspect = "stretch"
    thermal: ThermalConfig = field(default_factory=ThermalConfig)
    """How infrared becomes 8 bits."""
    bits: int | None = None
    """Of visible 16-bit images; None: as the files say."""
    resume: bool = False
    """Fused images that are there are kept, if they are whole."""

    def align(self) -> Align:
        """Return what brings infrared onto the visible image."""
        return as_align(self.rig) or Resize(self.aspect)

    def fuser(self) -> Fuser:
        """Open the model."""
        return Fuser(self.model, self.threads, self.engine, rebuild=self.rebuild, align=self.align())


def fuse_files(
    jobs: Jobs,
    config: FuseConfig | None = None,
    processes: int | None = 1,
    distribute: Distribute | None = None,
) -> Iterator[Fused]:
    """Fuse and write many pairs; yield what becomes of each as it is done, in any order.

    The files of the next pairs are read while one is fused.

    Args:
        jobs: what is fused.
        config: how.
        processes: that fuse at the same time, each with one thread unless the settings say otherwise; None,
            with `distribute` only: as many as there are cores.
        distribute: what runs them elsewhere, such as `edgefuse.workers.in_ray()`; None: processes here.

    Raises:
        EdgefuseError: the model cannot be used, or a file cannot be written; what was written before stays.
    """
    config = config or FuseConfig()
    worker = _Worker(config)  # here and first, so that a model that cannot be used is an error at once
    if distribute is None and ((processes or 1) < 2 or len(jobs.files) <= CHUNK):
        return _fused(worker, jobs.files)
    if config.threads is None:
        config = replace(config, threads=1)
    chunks = [jobs.files[start : start + CHUNK] for start in range(0, len(jobs.files), CHUNK)]
    worker.fuse.close()
    count = processes and min(processes, len(chunks))
    spread: Distribute = distribute or in_processes
    done = spread(chunks, _fuse_chunk, _Worker, (config,), count)
    return chain.from_iterable(done)


def check_resumed(out: Path, config: FuseConfig) -> None:
    """See that what is in a folder was made in the same way, and note there how it is made.

    Raises:
        InputError: it was made in another way, or nobody knows how.
    """
    now = {
        "model": model_digest(config.model, config.engine),
        "rig": hashlib.sha256(config.rig.read_bytes()).hexdigest() if config.rig else None,
        "settings": {k: repr(getattr(config, k)) for k in ("engine", "aspect", "thermal", "bits")},
    }
    record = out / RECORD
    if record.exists():
        try:
            before = msgspec.json.decode(read_bytes(record))
        except msgspec.MsgspecError:
            before = None
        if before != now:
            raise InputError(
                f"{out} was fused with another model or other settings: give another --out, or no --resume"
            )
    elif out.is_dir() and any(path.suffix.lower() in IMAGE_SUFFIXES for path in out.iterdir()):
        raise InputError(
            f"{out} holds images of a run without --resume: give another --out, or leave --resume out"
        )
    out.mkdir(parents=True, exist_ok=True)
    replace_file(record, lambda partial: partial.write_bytes(msgspec.json.encode(now)))


class _Worker:
    """What one process fuses with."""

    def __init__(self, config: FuseConfig) -> None:
        self.config, self.fuse = config, config.fuser()

    def read(self, pair: tuple[Path, Path, Path]) -> tuple[NDArray[Any], NDArray[Any]] | None:
        """Read the two images of a pair; None: the fused one is there, and nothing is to be done."""
        vis = read_visible(pair[1], self.config.bits)
        if self.config.resume and _is_finished(pair[2], vis.shape):
            return None
        return read_infrared(pair[0], self.config.thermal), vis


def _is_finished(path: Path, shape: tuple[int, ...]) -> bool:
    """Return whether a fused image is there, can be decoded to its end and has its size."""
    try:
        return path.exists() and read_image(path).shape == shape
    except InputError:
        return False


def _fuse_chunk(worker: _Worker, files: list[tuple[Path, Path, Path]]) -> list[Fused]:
    return list(_fused(worker, files))


def _fused(worker: _Worker, files: list[tuple[Path, Path, Path]]) -> Iterator[Fused]:
    with ThreadPoolExecutor(1) as reader:
        ahead = deque(reader.submit(worker.read, pair) for pair in files[:READ_AHEAD])
        for number, (_, _, out) in enumerate(files):
            images = ahead.popleft()
            if number + READ_AHEAD < len(files):
                ahead.append(reader.submit(worker.read, files[number + READ_AHEAD]))
            try:
                read = images.result()
                if read is None:
                    yield Fused(out, skipped=True)
                    continue
                fused = worker.fuse(*read)
            except InputError as error:
                yield Fused(out, error)
                continue
            try:
                out.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise InputError(f"cannot make folder {out.parent}: {error.strerror}") from None
            write_image(out, fused)
            yield Fused(out)


def are_recordings(ir: Path, vis: Path) -> bool:
    """Return whether both are videos, or folders that `edgefuse record` wrote.

    Raises:
        InputError: one of them is and the other is not, or does not exist.
    """
    found = [_is_recording(ir, "ir"), _is_recording(vis, "vis")]
    if any(found) and not all(found):
        _check_exist(ir, vis)
        raise InputError(f"{ir} and {vis}: give two videos or recordings, or images for both")
    return all(found)


def recorded_pairs(
    ir: Path,
    vis: Path,
    fuser: Fuser | None = None,
    options: Mapping[str, str] | None = None,
    align: Align | None = None,
    bits: int | None = None,
) -> Iterator[FusedFrame]:
    """Pair the frames of two videos or recordings in time and fuse them; none is dropped.

    Args:
        ir: infrared: a video, or a folder of a recording.
        vis: visible, likewise; the same folder if it holds both.
        fuser: by what; None: not fused, `fused` is the visible frame.
        options: `agc`, `polarity` and `window`, how infrared becomes 8 bits.
        align: brings infrared onto the visible frames; None: it is resized.
        bits: of visible frames of 16 bits; None: as the files say.

    Raises:
        InputError: one file for both.
        EdgefuseError: one of them cannot be read.
    """
    if ir.is_file() and ir.samefile(vis):
        raise InputError(f"{ir} is given for both cameras")
    sources = (
        _with_options(_half(ir, "ir"), options or {}),
        _with_options(_half(vis, "vis"), {"bits": str(bits)} if bits else {}),
    )
    with live(*sources, model=fuser or (lambda _ir, vis: vis), align=align) as pairs:
        yield from pairs


def _with_options(path: Path, options: Mapping[str, str]) -> str:
    query = "&".join(f"{name}={value}" for name, value in options.items())
    return f"{path}?{query}" if query else str(path)


def fuse_recordings(
    ir: Path,
    vis: Path,
    out: Path,
    config: FuseConfig,
    options: Mapping[str, str] | None = None,
) -> Iterator[int]:
    """Fuse two videos or recordings into a video or a folder of images; yield how many frames are written.

    Raises:
        EdgefuseError: as `recorded_pairs`, or the output cannot be written.
    """
    if out.exists() and any(out.samefile(source) for source in (ir, vis)):
        raise InputError(f"--out would overwrite the input {out}")
    fuser = replace(config, rig=None).fuser()  # gets pictures that are aligned already
    pairs = recorded_pairs(ir, vis, fuser, options, config.align(), config.bits)
    with open_output(str(out), OutputOptions()) as sink:
        for count, pair in enumerate(pairs, start=1):
            sink.write(pair)
            yield count


def save_pairs(
    ir: Path,
    vis: Path,
    folder: Path,
    limit: int | None = None,
    options: Mapping[str, str] | None = None,
    bits: int | None = None,
) -> tuple[Path, Path]:
    """Write the pairs of two videos or recordings as numbered grey images, for what works on images.

    Each camera's keep their own size: who reads them aligns them.

    Args:
        ir: as for `recorded_pairs`.
        vis: likewise.
        folder: where `ir/` and `vis/` are made.
        limit: how many pairs, the first ones; None: all.
        options: as for `recorded_pairs`.
        bits: likewise.

    Returns:
        The folders of the infrared and of the visible images.

    Raises:
        EdgefuseError: as `recorded_pairs`, or the disk is full.
    """
    folders = folder / "ir", folder / "vis"
    for each in folders:
        each.mkdir(parents=True)
    pairs = recorded_pairs(ir, vis, options=options, align=lambda image, _: Aligned(image), bits=bits)
    for number, pair in enumerate(pairs):
        if number == limit:
            break
        for image, inside in zip((pair.ir, pair.vis), folders, strict=True):
            if image is not None:
                write_image(inside / f"{number:06d}.png", luma(image))
    return folders


def _is_recording(path: Path, role: Role) -> bool:
    if path.is_file():
        return path.suffix.lower() not in IMAGE_SUFFIXES
    return bool(recorded_parts(_half(path, role)))


def _half(path: Path, role: Role) -> Path:
    """Return the folder of one camera inside that of a recording of both."""
    return path / role if recorded_parts(path / role) else path
