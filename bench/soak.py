"""Thousands of frames through the whole pipeline, with cameras that fail at random: does anything leak?

    python bench/soak.py                     # 100,000 visible frames of 320x240, about half an hour
    python bench/soak.py --frames 2000       # a minute or less

Two cameras in memory at a rate that the machine can just keep up with; at random, but the same for a seed,
they are unplugged, are absent for a while, hang in a read, send pictures that are none, come back in another
size, set their clock, stutter and skip numbers. Pairing, the real model, a video in parts under a size cap,
quality in the background. At the end: growth of the resident memory after 10,000 frames, threads and file
descriptors against those at the start, and the account of every frame. Exit status 1 if a limit is broken.
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
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from edgefuse import Fuser
from edgefuse.errors import LostError
from edgefuse.runtime import supervise
from edgefuse.runtime.live import LiveConfig, Report, Session, Stop, report_of
from edgefuse.runtime.sinks import Callback, FusedFrame, SinkWriter, VideoOut
from edgefuse.runtime.sources import Frame, Role, Source
from edgefuse.runtime.supervise import Connection

SIZE = (320, 240)
MOST_GROWTH = 10 * 2**20
WARM_UP = 10_000  # frames after which the memory is looked at; half of a shorter run
HANG_SECONDS = 0.6

FAULTS = ("unplugged", "absent", "hangs", "no picture", "another size", "clock set", "stutters", "skips")
MEAN_FRAMES = 400  # between two faults


@dataclass
class Plan:
    """The faults of one camera, drawn as it goes along, and what it has given."""

    seed: int
    fps: float
    role: Role
    made: int = 0
    """Frames that were handed over, and numbers that were skipped."""
    faults: dict[str, int] = field(default_factory=lambda: dict.fromkeys(FAULTS, 0))
    absent_until: float = 0.0

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        noise = np.random.default_rng(self.seed)
        shape = (SIZE[1], SIZE[0]) if self.role == "ir" else (SIZE[1], SIZE[0], 3)
        self.pictures = [noise.integers(0, 256, shape, np.uint8) for _ in range(4)]
        self.small = [np.ascontiguousarray(picture[::2, ::2]) for picture in self.pictures]

    def open(self) -> Source:
        if time.monotonic() < self.absent_until:
            raise LostError(f"soak-{self.role} is not there")
        return SoakCamera(self)


class SoakCamera(Source):
    """A camera in memory, with the faults of its plan."""

    live, length, limit = True, None, 0.0

    def __init__(self, plan: Plan) -> None:
        self.name, self.fps, self._plan = f"soak-{plan.role}", plan.fps, plan
        self._next = 0
        self._due = time.monotonic()
        self._clock = 0.0
        self._pictures = plan.pictures

    def read(self) -> Frame | None:
        plan = self._plan
        self._due = max(self._due + 1 / self.fps, time.monotonic() - 0.5)
        time.sleep(max(0.0, self._due - time.monotonic()))
        image = self._pictures[self._next % len(self._pictures)]
        if plan.random.random() < 1 / MEAN_FRAMES:
            fault = plan.random.choice(FAULTS)
            plan.faults[fault] += 1
            if fault == "no picture":
                image = np.zeros((4, 4, 7), np.float64)
            else:
                self._suffer(fault)
        now = time.monotonic()
        self._next += 1
        plan.made += 1
        return Frame(image, self._next - 1, now + self._clock, now)

    def _suffer(self, fault: str) -> None:
        plan = self._plan
        if fault == "absent":
            plan.absent_until = time.monotonic() + plan.random.uniform(0, 1.5)
        if fault in ("unplugged", "absent"):
            raise LostError(f"{self.name} was unplugged")
        if fault == "hangs":
            time.sleep(HANG_SECONDS + 0.5)
            raise LostError(f"{self.name} hung")
        if fault == "another size":
            self._pictures = plan.small if self._pictures is plan.pictures else plan.pictures
        if fault == "clock set":
            self._clock += plan.random.uniform(-100, 100)
        if fault == "stutters":
            time.sleep(plan.random.uniform(0.05, 0.7))
        if fault == "skips":
            skipped = plan.random.randint(1, 20)
            self._next += skipped
            plan.made += skipped

    def close(self) -> None:
        pass


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
    seconds: float
    growth: int
    """Bytes of resident memory, from the end of the warm-up to the end."""
    peak: int
    threads: tuple[int, int]
    """Before and after."""
    descriptors: tuple[int, int]
    made: dict[Role, int]
    faults: dict[Role, dict[str, int]]

    def broken(self) -> Iterator[str]:
        """Yield the limits that do not hold."""
        if self.growth >= MOST_GROWTH:
            yield f"the resident memory has grown by {self.growth / 2**20:.1f} MB"
        if self.threads[1] > self.threads[0]:
            yield f"threads: {self.threads[0]} before, {self.threads[1]} after"
        if self.descriptors[1] > self.descriptors[0]:
            yield f"file descriptors: {self.descriptors[0]} before, {self.descriptors[1]} after"
        for source in self.report.sources:
            accounted = source.fused + source.passed + source.dropped + source.failed
            if accounted != source.captured:
                yield f"{source.name}: {accounted} of {source.captured} captured frames accounted for"
            # A frame that a thread had in hand when it was abandoned, or the run ended, was never captured.
            missing = self.made[source.role] - source.captured
            if not 0 <= missing <= source.abandoned + 1 + 20 * self.faults[source.role]["skips"]:
                yield f"{source.name}: {self.made[source.role]} made, {source.captured} captured"
        if self.report.error:
            yield self.report.error


def soak(frames: int, seed: int = 0, fps: float = 60.0) -> Result:
    """Run until the visible camera has made so many frames."""
    supervise.READ_PATIENCE = HANG_SECONDS
    plans: dict[Role, Plan] = {"ir": Plan(seed, fps / 2, "ir"), "vis": Plan(seed + 1, fps, "vis")}
    stop, seen = Stop(), [0]
    memory: list[int] = []

    def watch(_: FusedFrame) -> None:
        seen[0] += 1

    fuser = Fuser(threads=1)
    fuser(*(plan.pictures[0] for plan in plans.values()))
    with tempfile.TemporaryDirectory() as folder:
        before, start = state(), time.monotonic()
        cameras = {role: Connection(f"soak-{role}", plan.open) for role, plan in plans.items()}
        session = Session(cameras["ir"], cameras["vis"], fuser, LiveConfig(quality=200), stop=stop)
        sinks = [VideoOut(Path(folder) / "soak.mp4", None, segment=5, max_size=20 * 2**20), Callback(watch)]
        writers = [SinkWriter(sink, session.times, lambda: False) for sink in sinks]
        with session:
            for frame in session:
                for writer in writers:
                    writer.put(frame)
                made = plans["vis"].made
                if made >= min(WARM_UP, frames // 2) and frame.index % 50 == 0:
                    memory.append(resident())
                if made >= frames:
                    stop("enough")
                del frame
        for writer in writers:
            writer.finish(time.monotonic() + 10)
        report = report_of(session, writers)
        time.sleep(HANG_SECONDS + 1)  # abandoned threads come back
        gc.collect()
        after = state()
    # The quality thread ends by itself; the start's state had none.
    tenth = max(1, len(memory) // 10)
    growth = int(np.median(memory[-tenth:]) - np.median(memory[:tenth])) if memory else 0
    return Result(
        report,
        time.monotonic() - start,
        growth,
        max(memory, default=0),
        (before[0], after[0]),
        (before[1], after[1]),
        {role: plan.made for role, plan in plans.items()},
        {role: plan.faults for role, plan in plans.items()},
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Soak test of the live loop.")
    parser.add_argument("--frames", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--fps", type=float, default=60.0, help="of the visible camera; infrared has half")
    given = parser.parse_args()
    result = soak(given.frames, given.seed, given.fps)
    report = result.report
    for source in report.sources:
        print(
            f"{source.name}: {result.made[source.role]} made; {source.captured} captured = "
            f"{source.fused} fused + {source.passed} alone + {source.dropped} dropped + "
            f"{source.failed} failed; lost {source.losses} times, opened again {source.reconnects} times, "
            f"{source.abandoned} threads replaced"
        )
        print("  " + ", ".join(f"{name} {count}" for name, count in result.faults[source.role].items()))
    print(
        f"{report.frames} pairs fused in {result.seconds:.0f} s; resident memory grew by "
        f"{result.growth / 2**20:+.1f} MB after warm-up (peak {result.peak / 2**20:.0f} MB); "
        f"threads {result.threads[0]} → {result.threads[1]}, "
        f"file descriptors {result.descriptors[0]} → {result.descriptors[1]}"
    )
    for sink in report.sinks:
        print(f"{sink.name}: {sink.written} written, {sink.dropped} dropped, {sink.error or 'no error'}")
    broken = list(result.broken())
    print(*(f"BROKEN: {limit}" for limit in broken), sep="\n")
    sys.exit(bool(broken))


if __name__ == "__main__":
    main()
