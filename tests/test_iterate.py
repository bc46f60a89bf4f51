"""Iterators that are left behind give everything back."""

import gc
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from edgefuse import live
from edgefuse.images import Image
from edgefuse.runtime.cameras.camera import Camera
from edgefuse.runtime.frames import Frame
from edgefuse.runtime.live import Live
from edgefuse.runtime.record import LosslessVideo
from edgefuse.runtime.sources import Source


def pick_visible(ir: Image, vis: Image) -> Image:
    return vis.copy()


class OpenCamera(Source):
    """A camera that holds a file open."""

    name, live, fps, length = "camera", True, 100.0, None

    def __init__(self, before_read: Callable[[], object] = lambda: None) -> None:
        self._file = os.open(os.devnull, os.O_RDONLY)
        self._next, self._before_read = 0, before_read

    def read(self) -> Frame:
        time.sleep(1 / self.fps)
        self._before_read()
        self._next += 1
        now = time.monotonic()
        return Frame(np.zeros((16, 24), np.uint8), self._next - 1, now, now)

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    folder = tmp_path_factory.mktemp("recording")
    image = np.zeros((48, 64), np.uint8)
    for role in ("ir", "vis"):
        video = LosslessVideo(folder / f"{role}.mkv", image, 25.0, {})
        for n in range(12):
            video.write(image, n / 25, n)
        video.close()
    return str(folder / "ir.mkv"), str(folder / "vis.mkv")


def state() -> tuple[list[str], int]:
    """Return the names of the running threads and the number of open files."""
    return sorted(thread.name for thread in threading.enumerate()), len(os.listdir("/proc/self/fd"))


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts open files in /proc")
@pytest.mark.parametrize("how", ["break", "exception", "never begun", "in a cycle"])
@pytest.mark.parametrize("kind", ["live", "recorded"])
def test_what_is_left_behind_gives_its_threads_and_files_back(
    how: str, kind: str, videos: tuple[str, str]
) -> None:
    def leave() -> None:
        ir, vis = videos if kind == "recorded" else [Camera("camera", OpenCamera)] * 2
        pairs = live(ir, vis, pick_visible)
        if how == "break":
            for _ in pairs:
                break
        elif how == "in a cycle":
            cycle: list[object] = [pairs]
            cycle.append(cycle)
            next(pairs)
        elif how == "exception":
            with pytest.raises(ZeroDivisionError):  # noqa: PT012
                for _ in pairs:
                    raise ZeroDivisionError

    leave()  # libraries open what they keep
    gc.collect()
    before = state()
    for _ in range(3):
        leave()
    gc.collect()
    assert state() == before


@pytest.mark.parametrize("fails", [False, True])
def test_a_run_that_has_ended_is_closed_while_it_is_still_referred_to(
    fails: bool, videos: tuple[str, str]
) -> None:
    def fuse(ir: Image, vis: Image) -> Image:
        if fails:
            raise ZeroDivisionError
        return vis.copy()

    before = state()
    pairs = live(*videos, fuse)
    with suppress(ZeroDivisionError):
        list(pairs)
    assert state() == before
    assert (pairs.report().ended == "closed") == fails


def test_a_run_that_is_collected_in_its_own_thread_ends_too() -> None:
    """The garbage collector runs in any thread, and none can wait for its own end."""
    before = state()
    dropped = threading.Event()
    held: list[Live] = []

    def drop() -> None:
        if dropped.is_set():
            held.clear()

    camera = OpenCamera(drop)
    held.append(live(Camera("camera", OpenCamera), camera, pick_visible))
    next(held[0])
    dropped.set()
    deadline = time.monotonic() + 10
    while state() != before:
        assert time.monotonic() < deadline
        time.sleep(0.01)
