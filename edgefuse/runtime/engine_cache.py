"""Finding a TensorRT engine that may run here, and building one into a cache where there is none.

A cached engine's name holds everything that it depends on, so that engines of several machines, versions
and options lie side by side and none is ever mistaken for another.
"""

import contextlib
import hashlib
import json
import logging
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

from edgefuse.errors import InputError, ModelError
from edgefuse.runtime.sidecar import BuildOptions, Machine, Sidecar, file_hash, mismatches, read_sidecar

__all__ = ["Build", "cache_folder", "cached_engine", "usable_engine", "writable_folder"]

logger = logging.getLogger(__name__)

Build = Callable[[Path, Path, BuildOptions], Sidecar]
"""Builds an ONNX file (first) into an engine file (second) and writes its sidecar."""


def usable_engine(
    path: Path,
    machine: Machine,
    build: Build,
    options: BuildOptions | None = None,
    *,
    rebuild: bool = True,
    cache: Path | None = None,
) -> tuple[Path, Sidecar]:
    """Return an engine file that may run here, and its sidecar; build it into the cache if there is none.

    Args:
        path: an engine with its sidecar, or an ONNX file.
        machine: this one.
        build: makes an engine.
        options: for an ONNX file; None: the defaults. An engine is built again with its own.
        rebuild: False: raise rather than build.
        cache: folder for built engines; None: `cache_folder()`.

    Raises:
        ModelError: a damaged sidecar, or a mismatch that `rebuild` forbids to mend or without the ONNX file.
        InputError: a file that cannot be read, or a cache that cannot be written.
    """
    sidecar = None
    if path.suffix == ".onnx":
        onnx, options, reason = path, options or BuildOptions(), "there is no engine for this machine yet"
    else:
        sidecar = read_sidecar(path)
        onnx, options = path.parent / sidecar.onnx, sidecar.options
        found = mismatches(path, sidecar, machine)
        if onnx.exists() and file_hash(onnx) != sidecar.onnx_sha256:
            found.append(f"an older {onnx.name}")
        if not found:
            return path, sidecar
        reason = f"it was built with {'; '.join(found)}"
    # Without its graph, an engine that was built from it earlier still serves.
    graph = sidecar.onnx_sha256 if sidecar is not None and not onnx.exists() else file_hash(onnx)
    target = cached_engine(cache or cache_folder(), graph, machine, options)
    kept = _valid(target, machine)
    if kept is not None:
        return target, kept
    if not rebuild:
        raise ModelError(f"{path} cannot run here ({reason}) and --no-rebuild forbids to build it")
    if not onnx.exists():
        raise ModelError(
            f"{path} cannot run here ({reason}) and {onnx} is not there to build it from: copy it there"
        )
    writable_folder(target.parent)
    with _locked(target):
        kept = _valid(target, machine)  # built by another process meanwhile
        if kept is not None:
            return target, kept
        logger.warning("building a TensorRT engine for %s (%s) in %s", path, reason, target.parent)
        return target, build(onnx, target, options)


@contextlib.contextmanager
def _locked(engine: Path) -> Iterator[None]:
    """Let one process or thread at a time build an engine: two builds would measure each other."""
    if sys.platform == "win32":  # which has no such locks
        yield
        return
    import fcntl

    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(engine.with_name(f".{engine.stem}.lock").open("w"))
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                logger.warning("another process builds %s: waiting for it", engine)
                fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:  # such as a network folder without locks: both build then, each whole
            logger.warning("%s cannot be locked: %s", engine, error.strerror or error)
        yield


def _valid(engine: Path, machine: Machine) -> Sidecar | None:
    """The sidecar of an engine in the cache, or None if there is nothing usable there."""
    if not engine.exists():
        return None
    try:
        sidecar = read_sidecar(engine)
    except ModelError:
        return None
    return None if mismatches(engine, sidecar, machine) else sidecar


def cached_engine(cache: Path, onnx_sha256: str, machine: Machine, options: BuildOptions) -> Path:
    """Return the cache's file for a graph, machine and options; any difference gives another name."""
    key = json.dumps([onnx_sha256, asdict(machine), asdict(options)], sort_keys=True)
    return cache / "tensorrt" / machine.slug / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.engine"


def cache_folder() -> Path:
    """Return the folder for what can be made again: `EDGEFUSE_CACHE`, or the user's cache folder."""
    if os.environ.get("EDGEFUSE_CACHE"):
        return Path(os.environ["EDGEFUSE_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgefuse"


def writable_folder(folder: Path) -> Path:
    """Create a folder if need be and see that files can be written in it, before minutes are spent.

    Raises:
        InputError: it cannot be made or written.
    """
    probe = folder / f".probe.{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink(missing_ok=True)  # by another thread of ours
    except OSError as error:
        raise InputError(
            f"cannot write the cache {folder} ({error.strerror or error}): "
            "set EDGEFUSE_CACHE to a folder that can be written"
        ) from None
    return folder
