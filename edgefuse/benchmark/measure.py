"""Measuring a model: its network alone, the fuser, and the live loop with frames from memory.

The stages are those of `runtime.timing.STAGES`, timed by the `Session` that `edgefuse stream` runs.
Everything is measured in several rounds; their spread tells a change from chance.
"""

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import edgefuse
from edgefuse.errors import EdgefuseError, InputError
from edgefuse.images import Image, luma, measure_levels
from edgefuse.machine import Machine, describe_machine, peak_bytes, resident_bytes
from edgefuse.metrics import CORE_METRICS, score
from edgefuse.metrics.statistics import decibels
from edgefuse.runtime.cameras.camera import Camera
from edgefuse.runtime.engines import ENGINES, Engine, file_for, open_engine
from edgefuse.runtime.engines.fuser import Fuser, network_input
from edgefuse.runtime.frames import Frame, Role
from edgefuse.runtime.live import Report, Session
from edgefuse.runtime.sinks import Callback
from edgefuse.runtime.sources import Source
from edgefuse.runtime.timing import STAGES, percentiles
from edgefuse.sim import Rig, RigConfig
from edgefuse.spec import ModelSpec, VerificationReport
from edgefuse.weights import DEFAULT_MODEL, shipped

FORMAT = 1
PARTS = {
    "network": "the engine alone, a part of fuse",
    "fuser": "one call of Fuser, which is fuse without the threads beside it",
}
"""What is timed apart from the stages → what its time covers."""
SHOWN_STAGES = {name: text for name, text in STAGES.items() if not name.startswith("capture_")}
"""From memory, capturing is waiting only."""
PICTURES = 16
"""Different frames, taken in turn."""
LEAST, MOST = 6, 400
"""Frames of one round."""
PACE = 25.0
"""Frames per second at which latency is measured, or less on a machine that cannot do it."""
UTILISATION = 0.7
"""Share of the throughput, at most, at which latency is measured: nothing queues up then."""
QUANTILES = 100
SCORED = 4
"""Pairs that metrics and parity are measured on."""


@dataclass(frozen=True)
class BenchConfig:
    """What is measured."""

    model: str = DEFAULT_MODEL
    engine: str | None = None
    size: tuple[int, int] = (640, 480)
    """Width and height of both cameras."""
    threads: int | None = None
    rounds: int = 5
    seconds: float = 20.0
    """For all rounds together, about."""

    def __post_init__(self) -> None:
        if self.rounds < 2:
            raise InputError(f"rounds is {self.rounds}, it must be at least 2: the spread is measured too")
        if not 0 < self.seconds < math.inf:
            raise InputError(f"seconds is {self.seconds:g}, it must be over 0")


@dataclass(frozen=True)
class Measured:
    """One quantity over all rounds."""

    unit: str
    """Of the values below: `s`, `fps` or `cores`."""
    rounds: tuple[float, ...]
    """The median, or the one value, of each round."""
    count: int = 0
    p50: float = 0.0
    p95: float = 0.0
    p99: float = 0.0
    max: float = 0.0
    quantiles: tuple[float, ...] = ()
    """From the least to the largest, for plots."""

    @property
    def median(self) -> float:
        """Of the rounds."""
        return statistics.median(self.rounds)

    @classmethod
    def of(cls, unit: str, rounds: Sequence[NDArray[np.float64]]) -> "Measured":
        """Return the statistics of the values of several rounds."""
        values = np.concatenate(rounds)
        p50, p95, p99 = percentiles(values)
        quantiles = np.quantile(values, np.linspace(0, 1, QUANTILES))
        medians = tuple(float(np.median(each)) for each in rounds)
        return cls(unit, medians, len(values), p50, p95, p99, float(values.max()), tuple(quantiles.tolist()))


@dataclass(frozen=True)
class Parity:
    """How far the answers are from those of the reference."""

    reference: str
    max_difference: float
    """Grey levels, of any pixel."""
    psnr: float | None
    """Lowest of all pairs, dB; None: all are equal."""


@dataclass(frozen=True)
class BenchReport:
    """All that `edgefuse bench` found out."""

    measured: str
    """When, ISO 8601 in UTC."""
    version: str
    machine: Machine
    after: Machine
    """The machine after the measurement: clocks and temperatures change under load."""
    config: BenchConfig
    file: str
    file_bytes: int
    network: str
    precision: str
    device: str
    """What the network really ran on."""
    parameters: int | None
    """Weights; None: not a shipped model."""
    open_s: float
    """To load the model, and build an engine where one is built."""
    pace_fps: float
    """Frames per second at which the stages were timed."""
    times: dict[str, Measured]
    """By the names of `PARTS` and `SHOWN_STAGES`."""
    throughput: Measured
    """Fused frames per second from memory, as fast as possible."""
    cpu: Measured
    """Processor seconds for one frame of that."""
    cores: Measured
    """In use meanwhile."""
    dropped: float
    """Share of the visible frames that were dropped at `pace_fps`."""
    resident_bytes: int | None
    peak_bytes: int | None
    """Of the whole process, with Python and its libraries."""
    parity: Parity | None
    """None: nothing to compare with."""
    low_precision_share: float
    """Share of the work that is done in 8 or 16 bits, 0 to 1."""
    share_of: str
    """What it is a share of: `multiplications` or `layers`."""
    verification: VerificationReport | None
    quality: dict[str, float] = field(default_factory=dict)
    """Metrics of the fused pictures of the simulated rig, protocol `field`."""
    card_quality: dict[str, dict[str, float]] = field(default_factory=dict)
    """Of a shipped model, on its test sets."""
    format: int = FORMAT


class Replay(Source):
    """Frames in memory as a recording: what comes in costs nothing but the frames' times."""

    live = False

    def __init__(self, images: Sequence[Image], count: int, fps: float) -> None:
        self.name, self.length, self.fps = "frames in memory", count, fps
        self._images, self._next = images, 0

    def read(self) -> Frame | None:
        """Return the next frame."""
        index, self._next = self._next, self._next + 1
        if index >= (self.length or 0):
            return None
        return Frame(self._images[index % len(self._images)], index, index / self.fps, time.monotonic())

    def close(self) -> None:
        """Nothing is held open."""


def cases(fuser: Fuser, ir: Image, vis: Image) -> dict[str, Callable[[], object]]:
    """Return the work of each of `PARTS` on one pair of images of equal size."""
    inputs = network_inputs(fuser.engine, ir, vis)
    return {"network": lambda: fuser.engine.run(inputs), "fuser": lambda: fuser(ir, vis)}


def network_inputs(engine: Engine, ir: Image, vis: Image) -> dict[str, NDArray[np.generic]]:
    """Return what a graph takes for a pair: infrared uint8 `[H, W]`, visible uint8 `[H, W, 3]` BGR."""
    spec, grey = engine.spec, luma(vis)
    found: dict[str, NDArray[np.generic]]
    if spec.end_to_end:
        colour = vis if spec.colours == "bgr" else vis[..., ::-1]
        found = {"ir": ir[None, :, :, None], "vis": np.ascontiguousarray(colour)[None]}
    else:
        found = {"sources": network_input(ir, grey, spec.size_divisor)}
    return found | ({"levels": measure_levels(ir, grey)[None, : spec.level_count]} if spec.levels else {})


def measure_model(
    config: BenchConfig, progress: Callable[[int, int], None] = lambda _done, _total: None
) -> BenchReport:
    """Measure a model on this machine.

    Args:
        config: what is measured.
        progress: called with the rounds that are done, and all of them.

    Raises:
        EdgefuseError: the model or the engine cannot be used, or not at this size.
    """
    machine, begun = describe_machine(), datetime.now(timezone.utc).isoformat(timespec="seconds")
    start = time.perf_counter()
    with Fuser(config.model, config.threads, config.engine) as fuser:
        opened = time.perf_counter() - start
        pairs = _pairs(config.size)
        rounds, pace = _rounds(fuser, pairs, config, progress)
        path = _file(config, fuser)
        card = shipped().get(config.model.removesuffix("-int8").removesuffix("-fp32"))
        share, share_of = _low_precision(fuser.spec)
        return BenchReport(
            begun,
            edgefuse.__version__,
            machine,
            describe_machine(),
            config,
            path.name,
            path.stat().st_size,
            fuser.spec.model,
            fuser.spec.precision,
            fuser.engine.device,
            card.parameters if card else None,
            opened,
            pace,
            rounds.times(),
            rounds.single("fps", lambda r: r.fps),
            rounds.single("s", lambda r: r.cpu_seconds / r.frames),
            rounds.single("cores", lambda r: r.cpu_seconds / r.seconds),
            rounds.dropped(),
            resident_bytes(),
            peak_bytes(),
            _parity(config, fuser, pairs[:SCORED]),
            share,
            share_of,
            fuser.spec.verification,
            _quality(fuser, pairs[:SCORED]),
            card.quality if card else {},
        )


@dataclass
class _Rounds:
    """What the rounds have found so far."""

    values: dict[str, list[NDArray[np.float64]]] = field(default_factory=dict)
    fast: list[Report] = field(default_factory=list)
    paced: list[Report] = field(default_factory=list)

    def times(self) -> dict[str, Measured]:
        names = (name for name in (*PARTS, *SHOWN_STAGES) if name in self.values)
        return {name: Measured.of("s", self.values[name]) for name in names}

    def single(self, unit: str, value: Callable[[Report], float]) -> Measured:
        return Measured.of(unit, [np.array([value(report)]) for report in self.fast])

    def dropped(self) -> float:
        captured = sum(report.sources[1].captured for report in self.paced)
        return sum(report.sources[1].dropped for report in self.paced) / max(1, captured)


def _rounds(
    fuser: Fuser,
    pairs: Sequence[tuple[Image, Image]],
    config: BenchConfig,
    progress: Callable[[int, int], None],
) -> tuple[_Rounds, float]:
    """Measure round by round, everything in each: what changes on the machine meanwhile hits all alike."""
    work = cases(fuser, *pairs[0])
    once = max(_seconds(work["fuser"], 3).min(), 1e-5)
    each = config.seconds / config.rounds / 4
    count = max(LEAST, min(MOST, int(each / once)))
    fastest = _run(fuser, pairs, count).fps  # a warm-up too
    pace = min(PACE, UTILISATION * fastest)
    paced_count = max(LEAST, min(MOST, int(2 * each * pace)))
    found = _Rounds()
    for done in range(config.rounds):
        progress(done, config.rounds)
        for name, case in work.items():
            found.values.setdefault(name, []).append(_seconds(case, max(LEAST, count // 2)))
        found.fast.append(_run(fuser, pairs, count))
        found.paced.append(_run(fuser, pairs, paced_count, pace, found.values))
    return found, pace


def _seconds(work: Callable[[], object], count: int) -> NDArray[np.float64]:
    """Return how long each of several runs takes, after one that does not count."""
    work()
    times = np.empty(count)
    for n in range(count):
        start = time.perf_counter()
        work()
        times[n] = time.perf_counter() - start
    return times


def _run(
    fuser: Fuser,
    pairs: Sequence[tuple[Image, Image]],
    count: int,
    pace: float | None = None,
    values: dict[str, list[NDArray[np.float64]]] | None = None,
) -> Report:
    """Run the live loop once; with a pace as cameras, whose stage times are added to `values`."""
    sides: dict[Role, list[Image]] = {"ir": [pair[0] for pair in pairs], "vis": [pair[1] for pair in pairs]}
    cameras = [Camera.of(Replay(images, count, pace or PACE)) for images in sides.values()]
    if pace is not None:
        cameras = [camera.paced() for camera in cameras]
    session = Session(cameras[0], cameras[1], fuser, sinks=[Callback(lambda _: None)])
    with session:
        for _ in session:
            pass
    report = session.snapshot()
    if report.error is not None or not report.frames:
        raise EdgefuseError(f"the live loop failed in the benchmark: {report.error or 'nothing was fused'}")
    if values is not None:
        for name, latest in session.times.latest().items():
            if name in SHOWN_STAGES:
                values.setdefault(name, []).append(latest)
    return report


def _pairs(size: tuple[int, int]) -> list[tuple[Image, Image]]:
    rig = Rig(RigConfig(size=size))
    return [(rig.frame("ir", 25 * n), rig.frame("vis", 25 * n)) for n in range(PICTURES)]


def _file(config: BenchConfig, fuser: Fuser) -> Path:
    """Return the file that the engine runs."""
    name = next((name for name, kind in ENGINES.items() if type(fuser.engine) is kind), "cpu")
    return file_for(config.model, name)


def _low_precision(spec: ModelSpec) -> tuple[float, str]:
    if spec.precision == "fp32" or spec.verification is None:
        return 0.0, "multiplications"
    if spec.verification.int8_share is not None:
        return spec.verification.int8_share, "multiplications"
    layers = spec.verification.layers
    return layers.get(spec.precision, 0) / max(1, sum(layers.values())), "layers"


def _parity(config: BenchConfig, fuser: Fuser, pairs: Sequence[tuple[Image, Image]]) -> Parity | None:
    """Compare with the shipped fp32 file, else the same file, in ONNX Runtime on the CPU."""
    name = config.model.removesuffix("-int8").removesuffix("-fp32")
    reference = f"{name}-fp32" if name in shipped() else config.model
    if ENGINES["cpu"].missing() is not None or reference.endswith(".engine"):
        return None
    with Fuser(open_engine(reference, "cpu", config.threads)) as other:
        worst, psnr = 0.0, math.inf
        for ir, vis in pairs:
            difference = np.abs(fuser(ir, vis).astype(np.float64) - other(ir, vis))
            worst = max(worst, float(difference.max()))
            error = float((difference**2).mean())
            psnr = min(psnr, decibels(error / 255**2))
        return Parity(f"{reference} in {other.engine.device}", worst, None if math.isinf(psnr) else psnr)


def _quality(fuser: Fuser, pairs: Sequence[tuple[Image, Image]]) -> dict[str, float]:
    """Return the mean metrics of what is fused of some pairs."""
    rows = [score(fuser.fuse_luma(ir, luma(vis)), ir, luma(vis), metrics=CORE_METRICS) for ir, vis in pairs]
    means = {name: [row[name] for row in rows if name in row] for name in CORE_METRICS}
    return {name: statistics.fmean(values) for name, values in means.items() if values}
