"""What `edgefuse stream` prints while it runs, and at the end."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from edgefuse.cli.console import Output
from edgefuse.errors import counted

if TYPE_CHECKING:
    from edgefuse.runtime.live import Report, SourceReport

__all__ = ["live_status", "print_report", "verdict"]

NAMES = {"ir": "infrared", "vis": "visible"}
WAITING = ("pair", "total", "output")
"""Stages that in recordings, which are read ahead, mostly measure how long a frame waits for its turn."""
MAX_DROPPED = 0.05
"""Share of the visible frames beyond which the machine counts as too slow for the camera."""
MAX_STARVED = 0.05
"""Share of the time that threads may wait for a core."""


@contextmanager
def live_status(console: Output) -> "Iterator[Callable[[Report], None] | None]":
    """Show a line of live status while there is a terminal."""
    if not console.is_terminal:
        yield None
        return
    last_frames, last_seconds = 0, 0.0
    with console.status("waiting for the first pair") as line:

        def show(report: "Report") -> None:
            nonlocal last_frames, last_seconds
            rate = (report.frames - last_frames) / max(report.seconds - last_seconds, 1e-9)
            last_frames, last_seconds = report.frames, report.seconds
            cameras = (f"{NAMES[s.role]} {s.state}, {s.dropped + s.unpaired} dropped" for s in report.sources)
            line.update(f"{counted(report.frames, 'frame')}, {rate:.1f} per second; {'; '.join(cameras)}")

        yield show


def print_report(report: "Report", console: Output) -> None:
    """Print a verdict in one line, then tables of stages, sources and outputs, and a summary."""
    problems, sentence = verdict(report)
    console.say(sentence, "bold" if problems else "bold green")
    stages = Table(title="time per stage in ms", title_justify="left")
    stages.add_column("stage")
    for column in ("p50", "p95", "p99", "max", "count"):
        stages.add_column(column, justify="right")
    for name, times in report.stages.items():
        if report.live or name not in WAITING:
            values = (times.p50, times.p95, times.p99, times.max)
            stages.add_row(name, *(f"{1000 * value:.2f}" for value in values), str(times.count))
    if report.stages:
        console.print(stages)
    _print_frames(report, console)
    for line in _facts(report):
        console.say(line)


def verdict(report: "Report") -> tuple[list[str], str]:
    """Return what went wrong, and one line on how the run went."""
    problems = list(_problems(report))
    facts = [f"{report.fps:.1f} fps"]
    latency = report.stages.get("output") or report.stages.get("total")
    if report.live and latency:
        to = "output" if "output" in report.stages else "fused picture"
        facts.append(f"{1000 * latency.p50:.0f} ms from camera to {to}")
    if not sum(s.dropped for s in report.sources) + sum(s.dropped for s in report.sinks):
        facts.append("nothing dropped")
    return problems, "; ".join([f"{'Problems' if problems else 'All well'}: {', '.join(facts)}", *problems])


def _problems(report: "Report") -> Iterator[str]:
    for source in report.sources:
        if not source.captured:
            yield f"{NAMES[source.role]} gave no picture"
        elif source.losses:
            yield f"{NAMES[source.role]} was lost {_times(source.losses)}, for {source.downtime_s:.1f} s"
        if source.failed:
            yield f"{counted(source.failed, 'frame')} of {NAMES[source.role]} could not be used"
    visible = report.sources[1]
    if report.live and visible.dropped > MAX_DROPPED * visible.captured:
        yield f"too slow: {visible.dropped / visible.captured:.0%} of the visible frames were dropped"
    if report.starved_s > MAX_STARVED * report.seconds:
        yield f"this machine is too busy: threads waited {report.starved_s:.1f} s for a core"
    for sink in report.sinks:
        if sink.error:
            yield f"{sink.name} failed"
        elif sink.dropped:
            yield f"{sink.name} was too slow for {counted(sink.dropped, 'frame')}"


def _print_frames(report: "Report", console: Output) -> None:
    table = Table(title="frames", title_justify="left")
    for column in ("", "name"):
        table.add_column(column, overflow="fold")
    for column in ("in", "fused", "unpaired", "dropped", "failed"):
        table.add_column(column, justify="right")
    for source in report.sources:
        counts = (source.captured, source.fused, source.unpaired, source.dropped, source.failed)
        table.add_row(NAMES[source.role], escape(source.name), *map(str, counts))
    for sink in report.sinks:
        kind = "output, failed" if sink.error else "output"
        table.add_row(kind, escape(sink.name), str(sink.written), "", "", str(sink.dropped), "")
    console.print(table)


def _facts(report: "Report") -> Iterator[str]:
    """Yield the lines below the tables."""
    for source in report.sources:
        yield from _camera_facts(source)
    if report.held:
        yield f"{counted(report.held, 'frame')} fused with an earlier infrared frame, labelled"
    if report.shown_alone or report.repeated:
        yield f"without a partner: {report.shown_alone} shown alone, {report.repeated} held or black"
    delays = {"skew": report.skew} | {f"age of {role}": ages for role, ages in report.ages.items()}
    for name, delay in delays.items():
        if delay.count:
            shares = (f"{label} {count / delay.count:.1%}" for label, count in delay.bins())
            yield f"{name}, ms: {', '.join(shares)}"
    if (clock := report.clock) is not None:
        yield (
            f"infrared clock: {1000 * clock.offset:+.1f} ms against the visible one, "
            f"drift {clock.drift:+.1f} ppm, set {_times(clock.jumps)}"
        )
    if (quality := report.quality) is not None:
        means = ", ".join(f"{name} {value:.3f}" for name, value in quality.means.items())
        yield (
            f"quality of {counted(quality.scored, 'frame')} ({quality.skipped} skipped, "
            f"{quality.failed} failed), protocol {quality.protocol}: {means or 'none scored'}"
        )
    if (alignment := report.alignment) is not None and alignment.measured + alignment.unclear:
        yield alignment.sentence()
    yield (
        f"{counted(report.frames, 'frame')} in {report.seconds:.1f} s, {report.fps:.1f} per second, "
        f"{100 * report.cpu_seconds / max(report.seconds, 1e-9):.0f} % of a core; "
        f"ended: {report.ended or 'still running'}"
    )


def _camera_facts(source: "SourceReport") -> Iterator[str]:
    if source.losses or source.reconnects or source.stuck_threads or source.state == "waiting":
        yield (
            f"{NAMES[source.role]}: lost {_times(source.losses)}, for {source.downtime_s:.1f} s; reopened "
            f"{_times(source.reconnects)}; {source.stuck_threads} stuck threads replaced; "
            f"{source.state} at the end"
        )
    if source.calibrations:
        yield f"{source.name}: {counted(source.calibrations, 'shutter calibration')}"


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"
