"""Thousands of frames through the whole pipeline, with cameras that fail at random: does anything leak?

    python bench/soak.py                     # 100,000 visible frames of 320x240, about half an hour
    python bench/soak.py --frames 2000       # a minute or less

Two recordings of the simulated rig, 16-bit FFV1 and H.264, are decoded as if they were cameras, at a rate
that the machine can just keep up with. At random, but the same for a seed, they are unplugged, are absent
for a while, hang in a read, send pictures that are none, come back in another size, set their clock, stutter
and skip numbers; each reopening opens the decoder anew. Then pairing, the real model, quality in the
background, a video in parts under a size cap, and raw frames for a reader that pauses now and then.

At the end: growth of the resident memory after 10,000 frames, threads and file descriptors against those at
the start, and the account of every frame and picture, which must come out even. Exit status 1 if not.
"""

import argparse
import gc
import os
import random
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import cv2
import numpy as np

from edgefuse import Fuser
from edgefuse.errors import LostError
from edgefuse.machine import share_arenas
from edgefuse.runtime.cameras.camera import Camera
from edgefuse.runtime.frames import Frame, FusedFrame, Role
from edgefuse.runtime.live import LiveConfig, Report, Session, StopRequest
from edgefuse.runtime.record import LosslessVideo
from edgefuse.runtime.sinks import Callback, RawOut, VideoOut
from edgefuse.runtime.sources import Source, open_source
from edgefuse.runtime.sources.base import SILENCE
from edgefuse.sim import Rig, RigConfig

SIZE = (320, 240)
LENGTH = 100  # frames of a recording, which is looped
MOST_GROWTH = 10 * 2**20
WARM_UP = 10_000  # frames after which the memory is looked at; half of a shorter run
HANG_SECONDS = 1.5

FAULTS = ("unplugged", "absent", "hangs", "no picture", "another size", "clock set", "stutters", "skips")
MEAN_FRAMES = 400  # between two faults


def make_recordings(folder: Path) -> None:
    """Write `ir.mkv` and `vis.mp4`, and the same of half the size as `ir-small.mkv` and `vis-small.mp4`."""
    rig = Rig(RigConfig(size=SIZE))
    for name, scale in (("", 1.0), ("-small", 0.5)):
        ir = None
        with VideoOut(folder / f"vis{name}.mp4", fps=25) as vis:
            for n in range(LENGTH):
                grey, colour = (cv2.resize(rig.frame(c, n), None, fx=scale, fy=scale) for c in ("ir", "vis"))
                counts = grey.astype(np.uint16) * 20 + 28_000
                ir = ir or LosslessVideo(folder / f"ir{name}.mkv", counts, 25, {})
                ir.write(counts, n / 25, n)
                vis.write(FusedFrame(grey, colour, colour, n, n / 25))
        if ir is not None:
            ir.close()


@dataclass
class Plan:
    """The faults of one camera, drawn as it goes along, and what it has given."""

    role: Role
    fps: float
    seed: int
    videos: list[Path]
    """The usual one, and the one of another size."""
    made: int = 0
    """Frames that were handed over, and numbers that were skipped."""
    done: bool = False
    """It gives no more, so that nothing is on its way at the end."""
    faults: dict[str, int] = field(default_factory=lambda: dict.fromkeys(FAULTS, 0))
    absent_until: float = 0.0

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)

    def open(self) -> Source:
        if self.done or time.monotonic() < self.absent_until:
            raise LostError(f"soak-{self.role} is not there")
        return SoakCamera(self)


class SoakCamera(Source):
    """A looped recording as a camera, with the faults of its plan."""

    live, length, limit = True, None, 0.0

    def __init__(self, plan: Plan) -> None:
        self.name, self.fps, self._plan = f"soak-{plan.role}", plan.fps, plan
        self._next = 0
        self._due = time.monotonic()
        self._clock = 0.0
        self._use = 0  # of the plan's videos
        self._video = self._open()

    def _open(self) -> Source:
        return open_source(f"{self._plan.videos[self._use]}?loop=1", self._plan.role)

    def read(self) -> Frame | None:
        plan, begun = self._plan, time.monotonic()
        self._due = max(self._due + 1 / self.fps, begun - 0.5)
        time.sleep(max(0.0, self._due - begun))
        fault = plan.random.choice(FAULTS) if plan.random.random() < 1 / MEAN_FRAMES else None
        skipped = self._suffer(fault) if fault else 0
        frame = self._video.read()
        now = time.monotonic()
        if plan.done or frame is None or now - begun > HANG_SECONDS / 2:  # or its thread might be replaced
            raise LostError(f"{self.name} is over, or too late")
        image = np.zeros((4, 4, 7)) if fault == "no picture" else frame.image
        self._next += 1 + skipped
        plan.made += 1 + skipped
        return Frame(image, self._next - 1, now + self._clock, now)

    def _suffer(self, fault: str) -> int:
        """Let the fault happen, and return how many numbers are skipped."""
        plan = self._plan
        plan.faults[fault] += 1
        if fault == "absent":
            plan.absent_until = time.monotonic() + plan.random.uniform(0, 1.5)
        if fault == "hangs":
            time.sleep(HANG_SECONDS + 0.5)
        if fault in ("unplugged", "absent", "hangs"):
            raise LostError(f"{self.name}: {fault}")
        if fault == "another size":
            self._use = 1 - self._use
            self._video.close()
            self._video = self._open()
        if fault == "clock set":
            self._clock += plan.random.uniform(-100, 100)
        if fault == "stutters":
            time.sleep(plan.random.uniform(0.05, 0.7))
        # Before a source's first frame nobody can know of a gap.
        return plan.random.randint(1, 20) if fault == "skips" and self._next else 0

    def close(self) -> None:
        self._video.close()


class Reader(threading.Thread):
    """Reads a pipe to its end, with pauses."""

    def __init__(self, pipe: int, seed: int) -> None:
        super().__init__(name="reader", daemon=True)
        self._pipe, self._random = pipe, random.Random(seed)

    def run(self) -> None:
        with suppress(OSError):
            while os.read(self._pipe, 2**18):
                if self._random.random() < 1 / 5000:
                    time.sleep(1)


def resident() -> int:
    """Return the resident memory in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def state() -> tuple[int, int]:
    """Return the number of threads and of open file descriptors."""
    return threading.active_count(), len(os.listdir("/proc/self/fd"))


@dataclass
class Result:
    """What a soak came to."""

    report: Report
    pictures: int
    """That were shown: fused, alone, held."""
    seconds: float
    cpu_seconds: float
    growth: int
    """Bytes of resident memory, from the end of the warm-up to the end."""
    peak: int
    before: tuple[int, int]
    """Threads and file descriptors."""
    after: tuple[int, int]
    plans: dict[Role, Plan]

    def broken(self) -> Iterator[str]:
        """Yield the limits that do not hold."""
        if self.growth >= MOST_GROWTH:
            yield f"the resident memory has grown by {self.growth / 2**20:.1f} MB"
        if self.after[0] > self.before[0]:
            yield f"threads: {self.before[0]} before, {self.after[0]} after"
        if self.after[1] > self.before[1]:
            yield f"file descriptors: {self.before[1]} before, {self.after[1]} after"
        for source in self.report.sources:
            accounted = source.fused + source.unpaired + source.dropped + source.failed
            made = self.plans[source.role].made
            if not accounted == source.captured == made:
                yield f"{source.name}: {made} made, {source.captured} captured, {accounted} accounted for"
        for sink in self.report.sinks:
            if sink.written + sink.dropped != self.pictures:
                yield f"{sink.name}: {sink.written} + {sink.dropped} of {self.pictures} pictures"
        if self.report.error:
            yield self.report.error


def soak(frames: int, seed: int = 0, fps: float = 60.0) -> Result:
    """Run until the visible camera has made so many frames."""
    share_arenas()  # as `edgefuse stream` does
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_recordings(folder)
        plans: dict[Role, Plan] = {
            "ir": Plan("ir", fps / 2, seed, [folder / "ir.mkv", folder / "ir-small.mkv"]),
            "vis": Plan("vis", fps, seed + 1, [folder / "vis.mp4", folder / "vis-small.mp4"]),
        }
        fuser = Fuser(threads=1)
        fuser(np.zeros((240, 320), np.uint8), np.zeros((240, 320, 3), np.uint8))
        before, start, cpu = state(), time.monotonic(), time.process_time()
        report, pictures, memory = _run(plans, fuser, folder, frames)
        seconds, cpu = time.monotonic() - start, time.process_time() - cpu
        time.sleep(HANG_SECONDS + 1)  # abandoned threads come back
        gc.collect()
    tenth = max(1, len(memory) // 10)
    growth = int(np.median(memory[-tenth:]) - np.median(memory[:tenth])) if memory else 0
    return Result(report, pictures, seconds, cpu, growth, max(memory, default=0), before, state(), plans)


def _run(plans: dict[Role, Plan], fuser: Fuser, folder: Path, frames: int) -> tuple[Report, int, list[int]]:
    """Stream, and return the report, the number of pictures, and the memory now and then after warm-up."""
    stop, pictures, memory = StopRequest(), 0, []
    cameras = {
        role: Camera(f"soak-{role}", plan.open, silence=replace(SILENCE[role], stuck_read=HANG_SECONDS))
        for role, plan in plans.items()
    }
    with ExitStack() as pipes:
        reader, out = os.pipe()
        pipes.callback(os.close, reader)
        thread = Reader(reader, plans["ir"].seed)
        pipes.callback(thread.join)
        pipes.callback(os.close, out)
        thread.start()
        sinks = [
            VideoOut(folder / "soak.mp4", None, segment=5, max_size=20 * 10**6),
            RawOut(out),
            Callback(lambda frame: frame.fused.shape),
        ]
        config = LiveConfig(quality=200)
        with Session(cameras["ir"], cameras["vis"], fuser, config, sinks=sinks, stop=stop) as session:
            for frame in session:
                pictures += 1
                made = plans["vis"].made
                if made >= min(WARM_UP, frames // 2) and frame.index % 50 == 0:
                    memory.append(resident())
                if made >= frames and not plans["vis"].done:
                    for plan in plans.values():
                        plan.done = True
                    threading.Timer(1.0, stop, ["enough"]).start()
                del frame
    return session.snapshot(), pictures, memory


def main() -> None:
    parser = argparse.ArgumentParser(description="Soak test of the live loop.")
    parser.add_argument("--frames", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--fps", type=float, default=60.0, help="of the visible camera; infrared has half")
    given = parser.parse_args()
    result = soak(given.frames, given.seed, given.fps)
    report = result.report
    for source in report.sources:
        plan = result.plans[source.role]
        print(
            f"{source.name}: {plan.made} made; {source.captured} captured = "
            f"{source.fused} fused + {source.unpaired} unpaired + {source.dropped} dropped + "
            f"{source.failed} failed; lost {source.losses} times, reopened {source.reconnects} times, "
            f"{source.stuck_threads} threads replaced"
        )
        print("  " + ", ".join(f"{name} {count}" for name, count in plan.faults.items()))
    for sink in report.sinks:
        print(
            f"{Path(sink.name).name}: {result.pictures} pictures = {sink.written} written + "
            f"{sink.dropped} dropped; {sink.error or 'no error'}"
        )
    print(
        f"{report.frames} pairs fused in {result.seconds:.0f} s "
        f"({result.cpu_seconds:.0f} s of processor time); "
        f"resident memory grew by {result.growth / 2**20:+.1f} MB after warm-up "
        f"(peak {result.peak / 2**20:.0f} MB); threads {result.before[0]} → {result.after[0]}, "
        f"file descriptors {result.before[1]} → {result.after[1]}"
    )
    broken = list(result.broken())
    print(*(f"BROKEN: {limit}" for limit in broken), sep="\n")
    sys.exit(bool(broken))


if __name__ == "__main__":
    main()
