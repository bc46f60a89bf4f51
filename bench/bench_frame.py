"""One frame in memory: what is around the network, the network alone, and both together."""

import os
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any, TypeAlias

import cv2
import numpy as np
import pytest

from edgefuse import Fuser
from edgefuse.align import Resize
from edgefuse.benchmark.measure import PARTS, cases
from edgefuse.errors import LostError
from edgefuse.images import Image, luma, replace_luma
from edgefuse.rig import Rig
from edgefuse.runtime.cameras.camera import Camera
from edgefuse.runtime.compose import side_by_side
from edgefuse.runtime.engines.fuser import network_input
from edgefuse.runtime.frames import FusedFrame
from edgefuse.runtime.live import Session
from edgefuse.runtime.record import LosslessVideo
from edgefuse.runtime.sinks import CODECS, VideoOut
from edgefuse.runtime.timing import DELAYS, STAGES, WINDOW
from edgefuse.thermal import as_infrared
from edgefuse.weights import shipped

Measure: TypeAlias = Callable[[Callable[[], Any]], None]
MODELS = list(shipped())
THREADS = sorted({1, os.cpu_count() or 1})


def test_pre_processing(measure: Measure, pair: tuple[Image, Image]) -> None:
    """Luma of the visible frame, and both scaled into the network's input."""
    ir, vis = pair
    buffer = network_input(ir, luma(vis), 4)
    measure(lambda: network_input(ir, luma(vis), 4, buffer))


def test_pre_processing_16_bit(measure: Measure, pair: tuple[Image, Image]) -> None:
    """16-bit infrared to 8 bit."""
    ir16 = pair[0].astype(np.uint16) * 20 + 28_000
    measure(lambda: as_infrared(ir16))


def test_pre_processing_resize(measure: Measure, pair: tuple[Image, Image]) -> None:
    """A 320x256 infrared frame brought to the visible one's size."""
    small, vis = cv2.resize(pair[0], (320, 256)).astype(np.uint8), pair[1]
    align = Resize()
    measure(lambda: align(small, vis.shape[:2]))


@pytest.mark.parametrize("bent", [False, True], ids=["straight", "lenses"])
def test_align_rig(measure: Measure, pair: tuple[Image, Image], bent: bool) -> None:
    """A 640x480 frame warped by a rig file on one core, without and with the distortion of both lenses."""
    matrix = ((0.9, -0.05, 40.0), (0.05, 0.9, 10.0), (0.0, 0.0, 1.0))
    k = (0.1, -0.05) if bent else (0.0, 0.0)
    ir = cv2.resize(pair[0], (640, 480))
    align = Rig(matrix, (640, 480), (640, 480), ir_distortion=k[0], vis_distortion=k[1]).align()
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    measure(lambda: align(ir, (480, 640)))
    cv2.setNumThreads(threads)


def test_post_processing(measure: Measure, pair: tuple[Image, Image]) -> None:
    """The network's answer to 8 bit, and the visible frame's colours given to it."""
    ir, vis = pair
    grey, answer = luma(vis), ir.astype(np.float32) / 255
    measure(lambda: replace_luma(vis, grey, cv2.convertScaleAbs(answer, alpha=255.0)))


def test_side_by_side(measure: Measure, pair: tuple[Image, Image]) -> None:
    ir, vis = pair
    measure(lambda: side_by_side(ir, vis, vis))


@pytest.mark.parametrize("kind", ["16-bit", "colour"])
def test_record(measure: Measure, pair: tuple[Image, Image], tmp_path: Path, kind: str) -> None:
    """What `edgefuse record` writes for one frame of one camera."""
    image = pair[1] if kind == "colour" else pair[0].astype(np.uint16) * 20 + 28_000
    video, numbers = LosslessVideo(tmp_path / "a.mkv", image, 25.0, {}), count()

    def write() -> None:
        n = next(numbers)
        video.write(image, n / 25, n)

    measure(write)
    video.close()


@pytest.mark.parametrize("codec", sorted(CODECS))
def test_encode(measure: Measure, pair: tuple[Image, Image], tmp_path: Path, codec: str) -> None:
    """One colour frame into a video file."""
    frame = FusedFrame(pair[0], pair[1], pair[1], 0, 0.0)
    with VideoOut(tmp_path / "a.mkv", 25.0, codec=codec) as sink:
        measure(lambda: sink.write(frame))


@pytest.mark.parametrize("threads", THREADS)
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("part", PARTS)
def test_model(measure: Measure, pair: tuple[Image, Image], part: str, model: str, threads: int) -> None:
    """What `edgefuse bench` times apart from the stages, at 640x480 in colour."""
    with Fuser(model, threads) as fuser:
        measure(cases(fuser, *pair)[part])


def test_snapshot(measure: Measure) -> None:
    """A report of a running session, with full windows."""
    camera = Camera("none", lambda: (_ for _ in ()).throw(LostError("none")))
    session = Session(camera, camera, lambda _, vis: vis)
    for name in (*STAGES, *DELAYS):
        for seconds in np.random.default_rng(0).exponential(0.02, WINDOW):
            session.times.record(name, float(seconds))
    measure(session.snapshot)


def test_align_identity(measure: Measure, pair: tuple[Image, Image]) -> None:
    """The align stage where both cameras have one size: no copy is made."""
    align = Resize()
    measure(lambda: align(pair[0], pair[1].shape[:2]))
