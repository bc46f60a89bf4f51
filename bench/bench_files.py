"""`fuse` and `stream` end to end on files of 640x480, reading and writing included."""

import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import pytest

from edgefuse import Fuser
from edgefuse.batch import fuse_files, plan
from edgefuse.images import write_image
from edgefuse.runtime import live
from edgefuse.runtime.sinks import VideoOut
from edgefuse.runtime.sources import open_source
from edgefuse.sim import Rig

IMAGES, FRAMES, ROUNDS = 20, 100, 3


@pytest.fixture(scope="module")
def recordings(rig: Rig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The simulated rig as folders `ir`, `vis` of PNG and as videos `ir.avi`, `vis.avi`."""
    root = tmp_path_factory.mktemp("recordings")
    for camera in ("ir", "vis"):
        (root / camera).mkdir()
        writer = cv2.VideoWriter(str(root / f"{camera}.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 25, (640, 480))
        assert writer.isOpened()
        for n in range(FRAMES):
            image = rig.frame(camera, n)
            if n < IMAGES:
                write_image(root / camera / f"{n:04d}.png", image)
            writer.write(image if image.ndim == 3 else image[:, :, None].repeat(3, axis=2))
        writer.release()
    return root


def test_fuse(benchmark: Any, recordings: Path, tmp_path: Path) -> None:
    """`edgefuse fuse` on folders of PNG, into PNG."""
    jobs = plan(recordings / "ir", recordings / "vis", tmp_path / "fused")
    benchmark.extra_info["frames"] = IMAGES
    benchmark.pedantic(lambda: list(fuse_files(jobs)), rounds=ROUNDS, warmup_rounds=1)


@pytest.mark.parametrize("output", ["none", "video"])
@pytest.mark.parametrize("inputs", ["video", "images"])
def test_stream(benchmark: Any, recordings: Path, tmp_path: Path, inputs: str, output: str) -> None:
    """`edgefuse stream` on two recordings, as fast as possible; frames per second over the whole run."""
    suffix = ".avi" if inputs == "video" else ""
    fuser = Fuser()
    reports: list[live.Report] = []

    def stream() -> None:
        with (
            open_source(f"{recordings}/ir{suffix}", "ir") as ir,
            open_source(f"{recordings}/vis{suffix}", "vis") as vis,
        ):
            sinks = [VideoOut(tmp_path / "out.mp4", fps=vis.fps)] if output == "video" else []
            reports.append(live.run(ir, vis, fuser, sinks))

    benchmark.pedantic(stream, rounds=ROUNDS, warmup_rounds=1)
    shutil.rmtree(tmp_path)
    measured = reports[-ROUNDS:]
    assert all(report.error is None for report in measured)
    median = sorted(measured, key=lambda report: report.fps)[ROUNDS // 2]
    benchmark.extra_info["frames"] = median.frames
    benchmark.extra_info["stages"] = {name: asdict(stats) for name, stats in median.stages.items()}
