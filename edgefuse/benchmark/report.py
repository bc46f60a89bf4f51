"""A benchmark as tables, JSON and a page, and what changed since an earlier one."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import msgspec

from edgefuse.benchmark.measure import FORMAT, PARTS, SHOWN_STAGES, BenchReport, Measured
from edgefuse.errors import InputError
from edgefuse.evaluate.report import boxes
from edgefuse.evaluate.tables import number
from edgefuse.files import read_bytes, replace_file
from edgefuse.tables import Cell, Column, Mark, Row, Table
from edgefuse.tables import html as render

MEDIANS = "median of the rounds, and their range"
LEAST_CHANGE, LEAST_SECONDS = 0.03, 1e-4
"""Share of the old value, and a time, below which a change is not worth a word."""
MARKS: dict[str, Mark] = {"slower": "worse", "faster": "better"}


def write_report(path: Path, report: BenchReport) -> None:
    """Write a report as JSON; `InputError` if it cannot be written."""
    data = msgspec.json.format(msgspec.json.encode(report), indent=1)
    replace_file(path, lambda partial: partial.write_bytes(data))


def read_report(path: Path) -> BenchReport:
    """Read what `write_report` wrote.

    Raises:
        InputError: it cannot be read, or is something else.
    """
    try:
        report = msgspec.json.decode(read_bytes(path), type=BenchReport)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not a report of `edgefuse bench --json`: {error}") from None
    if report.format > FORMAT:
        raise InputError(f"{path} is of edgefuse {report.version}, which is newer: update edgefuse")
    return report


def write_html(path: Path, report: BenchReport, comparison: Table | None = None) -> None:
    """Write a report as one page that loads nothing from elsewhere; `InputError` if it cannot be written."""
    shown = {name: [1000 * value for value in each.quantiles] for name, each in report.times.items()}
    rounds = {
        f"{name}, round {number}": [1000 * value]
        for name in ("total", "fuse")
        for number, value in enumerate(report.times[name].rounds, 1)
    }
    text = render(
        "benchmark.html.j2",
        title=f"{report.config.model} on {report.device}",
        machine=report.machine.sentence(),
        measured=report.measured,
        version=report.version,
        tiles=_headline(report),
        times=times(report),
        facts=facts(report),
        comparison=comparison,
        plots=[boxes("time, ms", shown), boxes("median of each round, ms", rounds)],
    )
    replace_file(path, lambda partial: partial.write_text(text, "utf-8"))


def _headline(report: BenchReport) -> dict[str, str]:
    """Return what is asked first; name → value."""
    total = report.times["total"]
    return {
        "throughput, unpaced": f"{report.throughput.median:.1f} fps",
        "camera to fused picture, p50": f"{1000 * total.p50:.1f} ms",
        "camera to fused picture, p99": f"{1000 * total.p99:.1f} ms",
        "memory at most": _megabytes(report.peak_bytes),
        f"model, {report.precision}": f"{report.file_bytes / 1000:.0f} kB",
        f"of {report.share_of} in 8 or 16 bits": f"{report.low_precision_share:.0%}",
    }


def times(report: BenchReport) -> Table:
    """Return the times of parts and stages."""
    columns = [Column(name) for name in ("p50", "p95", "p99", "max", "rounds", "count")]
    rows = []
    for name, each in report.times.items():
        values = [Cell(f"{1000 * value:.2f}") for value in (each.p50, each.p95, each.p99, each.max)]
        low, high = min(each.rounds), max(each.rounds)
        cells = [*values, Cell(f"{1000 * low:.2f}-{1000 * high:.2f}"), Cell(str(each.count))]
        rows.append(Row(name, cells, aside=name in PARTS))
    covered = (f"{name}: {text}" for name, text in (PARTS | SHOWN_STAGES).items() if name in report.times)
    size = "x".join(map(str, report.config.size))
    title = f"time in ms at {size}, {report.pace_fps:.1f} frames per second from memory"
    return Table(title, columns, rows, f"rounds: range of their medians. {'; '.join(covered)}")


def facts(report: BenchReport) -> dict[str, dict[str, str]]:
    """Return what is no time: resources, and how true the answers are; title → name → text."""
    return {"resources": _resources(report), "quality, protocol field": _quality(report)}


def changes(report: BenchReport, old: BenchReport) -> Table:
    """Compare with an earlier report.

    A quantity has changed if all rounds of one report lie beyond all rounds of the other (of five rounds
    each, chance alone does that once in 126 times), by `LEAST_CHANGE` at least.
    """
    rows = []
    for name, new in _quantities(report).items():
        before = _quantities(old).get(name)
        if before is not None:
            ratio = new.median / before.median - 1 if before.median else 0.0
            verdict = _verdict(new, before)
            shown = Cell(_shown(before)), Cell(_shown(new)), Cell(f"{100 * ratio:+.0f} %")
            rows.append(Row(name, [*shown, Cell(verdict, MARKS.get(verdict, ""))]))
    columns = [Column("before", MEDIANS), Column("now", MEDIANS), Column("change"), Column("verdict")]
    return Table(f"compared with {old.measured}", columns, rows, " ".join(_differences(report, old)))


def _verdict(new: Measured, old: Measured) -> str:
    change = abs(new.median - old.median)
    if change < LEAST_CHANGE * old.median or (new.unit == "s" and change < LEAST_SECONDS):
        return "same"
    above, below = min(new.rounds) > max(old.rounds), max(new.rounds) < min(old.rounds)
    if not above and not below:
        return "in the spread"
    return "faster" if above == (new.unit == "fps") else "slower"


def _differences(report: BenchReport, old: BenchReport) -> Iterator[str]:
    """Say what makes the two reports hard to compare."""
    same = replace(report.config, rounds=old.config.rounds, seconds=old.config.seconds)
    if same != old.config:
        yield f"Measured differently: {old.config} before, {report.config} now."
    for what, now, before in (
        ("device", report.device, old.device),
        ("pace", f"{report.pace_fps:.1f} fps", f"{old.pace_fps:.1f} fps"),
        ("processor", report.machine.cpu, old.machine.cpu),
        ("number of cores", report.machine.usable_cores, old.machine.usable_cores),
        ("governor", report.machine.governor, old.machine.governor),
        ("set of versions", report.machine.versions, old.machine.versions),
    ):
        if now != before:
            yield f"Another {what}: {before} before, {now} now."
    if max(report.machine.load or 0, old.machine.load or 0) > 1:
        yield f"The machine was busy: load {old.machine.load} before, {report.machine.load} now."


def _quantities(report: BenchReport) -> dict[str, Measured]:
    return {**report.times, "throughput": report.throughput, "processor": report.cpu}


def _shown(value: Measured) -> str:
    scale, unit = (1000.0, "ms") if value.unit == "s" else (1.0, value.unit)
    low, high = scale * min(value.rounds), scale * max(value.rounds)
    return f"{scale * value.median:.1f} {unit} ({low:.1f}-{high:.1f})"


def _resources(report: BenchReport) -> dict[str, str]:
    rate, cpu, cores = report.throughput, report.cpu, report.cores
    weights = f", {report.parameters} weights" if report.parameters else ""
    return {
        "throughput": f"{rate.median:.1f} fps ({min(rate.rounds):.1f}-{max(rate.rounds):.1f}), unpaced",
        "processor": f"{1000 * cpu.median:.1f} ms a frame, {cores.median:.2f} cores in use meanwhile",
        "memory": f"{_megabytes(report.peak_bytes)} at most, {_megabytes(report.resident_bytes)} at the end",
        "model": f"{report.file}, {report.file_bytes / 1000:.1f} kB, {report.precision}{weights}",
        "in 8 or 16 bits": f"{report.low_precision_share:.0%} of the {report.share_of}",
        "opened in": f"{report.open_s:.2f} s",
        "runs on": f"{report.device}, threads: {report.config.threads or 'all cores'}",
        "dropped": f"{report.dropped:.1%} of the visible frames",
        "heat": _heat(report),
    }


def _quality(report: BenchReport) -> dict[str, str]:
    rows = {}
    if (parity := report.parity) is not None:
        psnr = "all equal" if parity.psnr is None else f"PSNR {parity.psnr:.1f} dB"
        rows["parity"] = f"up to {parity.max_difference:.0f} grey levels, {psnr}, against {parity.reference}"
    if (made := report.verification) is not None:
        psnr = "infinite" if made.psnr is None else f"{made.psnr:.1f} dB"
        passed = "all gates passed" if made.passed else "a gate FAILED"
        rows["when exported"] = f"{passed}; lowest PSNR against the checkpoint {psnr}, on {made.compared_on}"
    scores = {"sim": report.quality, **report.card_quality}
    for name, values in scores.items():
        rows[f"on {name}"] = ", ".join(
            f"{metric} {number(value, metric)}" for metric, value in values.items()
        )
    return rows


def _heat(report: BenchReport) -> str:
    after = report.after
    told = [
        f"{name} {before:.0f} → {after.temperatures.get(name, before):.0f} °C"
        for name, before in report.machine.temperatures.items()
    ]
    if after.clock_mhz:
        told.append(f"{after.clock_mhz:.0f} MHz at the end")
    if after.throttled is not None and report.machine.throttled is not None:
        told.append(f"slowed down {after.throttled - report.machine.throttled} times")
    return ", ".join(told) or "no sensors here"


def _megabytes(count: int | None) -> str:
    return "unknown" if count is None else f"{count / 1e6:.0f} MB"
