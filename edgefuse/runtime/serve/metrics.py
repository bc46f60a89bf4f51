"""What a run tells machines: health, and metrics for Prometheus, both made of one `Report`."""

import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, NamedTuple

from edgefuse.machine import resident_bytes
from edgefuse.runtime.frames import NAMES
from edgefuse.runtime.live import Report
from edgefuse.runtime.timing import EDGES, Durations

MAX_AGE = 2.0
"""Seconds after which the last picture is too old."""
WELL = ("live", "calibrating")
WINDOW_SECONDS = 10.0
"""Over which what is dropped and how late pictures are is measured; longer, if nobody has asked meanwhile."""


@dataclass(frozen=True)
class Limits:
    """Beyond which a run counts as degraded; None: never."""

    dropped: float | None = None
    """Share of the frames, 0 to 1."""
    latency: float | None = None
    """Mean seconds from camera to output."""


class _Sample(NamedTuple):
    at: float
    frames: tuple[tuple[int, int], ...] = ((0, 0), (0, 0))
    """Captured and dropped, of each camera."""
    pictures: int = 0
    seconds: float = 0.0
    """From camera to output, of all pictures together."""


class Recent:
    """What a run has done in the last seconds, from one request to another."""

    def __init__(self) -> None:
        self._samples: deque[_Sample] = deque([_Sample(-float("inf"))])

    def since(self, report: Report) -> tuple[float | None, float | None]:
        """Return the share of the frames that was dropped, and the mean latency in seconds; None: unknown.

        The share is that of the camera that has dropped less: the faster one always has frames to spare.
        """
        delay = report.stages.get("output") or report.stages.get("total") or Durations()
        frames = tuple((source.captured, source.dropped) for source in report.sources)
        now = _Sample(time.monotonic(), frames, delay.count, delay.sum)
        while len(self._samples) > 1 and self._samples[1].at <= now.at - WINDOW_SECONDS:
            self._samples.popleft()
        then = self._samples[0]
        if now.at - self._samples[-1].at > WINDOW_SECONDS / 100:
            self._samples.append(now)
        moved = [(a - c, b - d) for (a, b), (c, d) in zip(now.frames, then.frames, strict=True)]
        shares = [dropped / captured for captured, dropped in moved if captured > 0]
        count = now.pictures - then.pictures
        latency = (now.seconds - then.seconds) / count if count > 0 else None
        return min(shares, default=None), latency


@dataclass(frozen=True)
class Health:
    """Whether a run does what it should, now."""

    ok: bool
    problems: tuple[str, ...]
    cameras: dict[str, str]
    """Name of the camera → its state."""
    engine: str
    """What the network really runs on."""
    last_frame_age_s: float | None
    """Since the last picture of any kind; None: there was none yet."""
    dropped: float | None
    """Share of the frames over the last `WINDOW_SECONDS`; None: there were none."""
    latency_s: float | None
    """Mean from camera to output over that time."""


def health_of(
    report: Report, engine: str, age: float | None, recent: Recent, limits: Limits = Limits()
) -> Health:
    """Return the health of a run.

    Args:
        report: of the session, taken just now.
        engine: what the network runs on.
        age: seconds since the last picture; None: there was none yet.
        recent: remembers what earlier reports said.
        limits: of a live run, beyond which it is degraded.
    """
    dropped, latency = recent.since(report)
    problems = [f"{s.camera} is {s.state}" for s in report.sources if report.live and s.state not in WELL]
    if age is None or age > MAX_AGE:
        problems.append("no picture yet" if age is None else f"the last picture is {age:.1f} s old")
    problems += [sink.error for sink in report.sinks if sink.error]
    if report.ended:
        problems.append(f"ended: {report.ended}")
    if report.live and _exceeds(dropped, limits.dropped):
        problems.append(f"{dropped:.0%} of the frames were dropped, the limit is {limits.dropped:.0%}")
    if report.live and _exceeds(latency, limits.latency):
        problems.append(f"{latency:.2f} s from camera to output, the limit is {limits.latency:g} s")
    cameras = {source.camera: str(source.state) for source in report.sources}
    age, dropped, latency = (None if each is None else round(each, 3) for each in (age, dropped, latency))
    return Health(not problems, tuple(problems), cameras, engine, age, dropped, latency)


def _exceeds(value: float | None, limit: float | None) -> bool:
    return value is not None and limit is not None and value > limit


def metrics_of(report: Report, age: float | None) -> bytes:
    """Return a report in Prometheus' text format."""
    from prometheus_client import CollectorRegistry, generate_latest

    class Collector:
        def collect(self) -> Iterator[Any]:
            return _families(report, age)

    registry = CollectorRegistry()
    registry.register(Collector())
    return generate_latest(registry)


def _families(report: Report, age: float | None) -> Iterator[Any]:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    stages = {(stage,): times for stage, times in report.stages.items()}
    yield _histogram("edgefuse_stage_seconds", "Time of each stage", ["stage"], stages)
    yield _histogram("edgefuse_skew_seconds", "Between the two frames of a pair", [], {(): report.skew})
    ages = {(NAMES[role],): times for role, times in report.ages.items()}
    yield _histogram("edgefuse_frame_age_seconds", "From capture to fusion", ["camera"], ages)
    frames = CounterMetricFamily(
        "edgefuse_frames", "Frames by camera and outcome", labels=["camera", "outcome"]
    )
    states = GaugeMetricFamily("edgefuse_camera_up", "Whether the camera gives pictures", labels=["camera"])
    for source in report.sources:
        name = source.camera
        for outcome in ("fused", "unpaired", "dropped", "failed"):
            frames.add_metric([name, outcome], getattr(source, outcome))
        states.add_metric([name], source.state in WELL)
    yield frames
    yield states
    yield from _camera_counters(report)
    pictures = CounterMetricFamily("edgefuse_pictures", "Pictures by kind", labels=["kind"])
    for kind, count in (
        ("fused", report.frames - report.held),
        ("infrared held", report.held),
        ("alone", report.shown_alone),
        ("repeated", report.repeated),
    ):
        pictures.add_metric([kind], count)
    yield pictures
    outputs = CounterMetricFamily(
        "edgefuse_output_frames", "Pictures by output and outcome", labels=["output", "outcome"]
    )
    failed = GaugeMetricFamily("edgefuse_output_failed", "Whether the output has failed", labels=["output"])
    for number, sink in enumerate(report.sinks):
        outputs.add_metric([str(number), "written"], sink.written)
        outputs.add_metric([str(number), "dropped"], sink.dropped)
        failed.add_metric([str(number)], sink.error is not None)
    yield outputs
    yield failed
    if report.quality is not None:
        quality = GaugeMetricFamily("edgefuse_quality", "Mean of a metric of quality", labels=["metric"])
        for metric, value in report.quality.means.items():
            quality.add_metric([metric], value)
        yield quality
    if report.alignment is not None and report.alignment.known:
        off, change = report.alignment.off_px, report.alignment.agreement_change
        yield GaugeMetricFamily("edgefuse_alignment_off_pixels", "Infrared is off by", value=off)
        what = "Agreement of edges against that at the beginning, -0.12 is 12 % less"
        yield GaugeMetricFamily("edgefuse_alignment_agreement_change", what, value=change)
    yield CounterMetricFamily("edgefuse_cpu_seconds", "Processor time", value=report.cpu_seconds)
    yield CounterMetricFamily("edgefuse_starved_seconds", "Threads waited for a core", value=report.starved_s)
    if age is not None:
        yield GaugeMetricFamily("edgefuse_last_picture_age_seconds", "Since the last picture", value=age)
    if (memory := resident_bytes()) is not None:
        yield GaugeMetricFamily("edgefuse_memory_bytes", "Resident memory", value=memory)


def _camera_counters(report: Report) -> Iterator[Any]:
    from prometheus_client.core import CounterMetricFamily

    for key, what in (
        ("losses", "How often the camera was lost"),
        ("reconnects", "How often it was reopened"),
        ("calibrations", "Shutter calibrations"),
        ("stuck_threads", "Read threads that got stuck"),
        ("downtime_s", "Seconds without it"),
    ):
        name = f"edgefuse_camera_{key.removesuffix('_s')}" + ("_seconds" if key.endswith("_s") else "")
        family = CounterMetricFamily(name, what, labels=["camera"])
        for source in report.sources:
            family.add_metric([source.camera], getattr(source, key))
        yield family


def _histogram(name: str, what: str, labels: list[str], series: dict[Any, Durations]) -> Any:
    from prometheus_client.core import HistogramMetricFamily

    family = HistogramMetricFamily(name, what, labels=labels)
    ends = [*(str(edge) for edge in EDGES), "+Inf"]
    for values, times in series.items():
        buckets = list(zip(ends, accumulate(times.buckets), strict=True))
        family.add_metric(list(values), buckets, times.sum)
    return family
