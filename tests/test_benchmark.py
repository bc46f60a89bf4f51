"""`edgefuse bench`: what it measures, what it says about the machine, and what it calls slower."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from edgefuse import machine
from edgefuse.benchmark import BenchConfig, BenchReport, changes, measure_model, read_report, write_report
from edgefuse.benchmark.measure import PARTS, SHOWN_STAGES, Measured
from edgefuse.cli import app
from edgefuse.errors import InputError
from edgefuse.runtime.timing import STAGES
from edgefuse.tables import Table

pytest.importorskip("onnxruntime", reason="no engine is installed")


@pytest.fixture(scope="module")
def report() -> BenchReport:
    return measure_model(BenchConfig(size=(64, 48), rounds=2, seconds=0.2))


def test_every_stage_is_that_of_the_live_loop(report: BenchReport) -> None:
    assert list(report.times) == [*PARTS, *SHOWN_STAGES]
    assert set(SHOWN_STAGES) < set(STAGES)
    for each in report.times.values():
        assert 0 < each.p50 <= each.p95 <= each.p99 <= each.max
        assert len(each.rounds) == 2
        assert each.quantiles[-1] == pytest.approx(each.max)
    assert report.times["output"].p50 >= report.times["fuse"].p50


def test_what_it_takes_and_how_true_it_is(report: BenchReport) -> None:
    assert report.throughput.median > 0
    assert report.cpu.median > 0
    assert report.file_bytes > 10_000
    assert report.parameters == 37520
    if report.precision == "int8":
        assert report.low_precision_share > 0.5
    assert report.parity is not None
    assert report.parity.max_difference < 10
    assert report.quality["SSIM"] > 0.5
    assert "roadscene/test" in report.card_quality
    exact = measure_model(BenchConfig("nano-fp32", size=(32, 32), rounds=2, seconds=0.05))
    assert exact.parity is not None
    assert (exact.parity.max_difference, exact.parity.psnr, exact.low_precision_share) == (0, None, 0)


def test_a_report_is_read_as_it_was_written(report: BenchReport, tmp_path: Path) -> None:
    write_report(tmp_path / "a.json", report)
    assert read_report(tmp_path / "a.json") == report
    for text in ("", "{}", '{"benchmarks": []}', "\xff"):
        (tmp_path / "b.json").write_bytes(text.encode("latin-1"))
        with pytest.raises(InputError, match=r"b\.json is not a report of `edgefuse bench"):
            read_report(tmp_path / "b.json")
    write_report(tmp_path / "c.json", replace(report, format=99))
    with pytest.raises(InputError, match="update edgefuse"):
        read_report(tmp_path / "c.json")


def verdicts(table: Table) -> dict[str, str]:
    return {row.label: row.cells[-1].text for row in table.rows}


def test_slower_is_what_lies_beyond_the_spread(report: BenchReport) -> None:
    def with_rounds(times: tuple[float, ...], rate: tuple[float, ...]) -> BenchReport:
        fuse = replace(report.times["fuse"], rounds=times)
        return replace(report, times=report.times | {"fuse": fuse}, throughput=Measured("fps", rate))

    old = with_rounds((0.010, 0.011, 0.012), (90, 95, 100))
    for times, rate, time_verdict, rate_verdict in (
        ((0.013, 0.014, 0.0125), (80, 85, 89), "slower", "slower"),
        ((0.009, 0.008, 0.0099), (101, 120, 110), "faster", "faster"),
        ((0.0119, 0.014, 0.013), (91, 80, 85), "in the spread", "in the spread"),
        ((0.0111, 0.0111, 0.0111), (94, 95, 94), "same", "same"),
    ):
        found = verdicts(changes(with_rounds(times, rate), old))
        assert (found["fuse"], found["throughput"]) == (time_verdict, rate_verdict)
    assert verdicts(changes(report, report)) == dict.fromkeys(
        [*report.times, "throughput", "processor"], "same"
    )
    other = replace(report, config=replace(report.config, model="cnn"), device="another")
    note = changes(report, other).note
    assert "Measured differently" in note
    assert "Another device" in note


def test_the_command_writes_json_and_a_page(tmp_path: Path) -> None:
    found, page = tmp_path / "a.json", tmp_path / "a.html"
    args = ["bench", "--size", "32x32", "--rounds", "2", "--seconds", "0.05", "--threads", "1"]
    first = CliRunner().invoke(app, [*args, "--json", str(found)])
    assert first.exit_code == 0, first.output
    for word in ("network", "output", "p99", "throughput", "governor", "in 8 or 16 bits", "parity", "SSIM"):
        assert word in first.output
    second = CliRunner().invoke(app, [*args, "--html", str(page), "--compare", str(found)])
    assert second.exit_code == 0, second.output
    assert "compared with" in second.output
    text = page.read_text("utf-8")
    assert text.count("<svg") == 2
    assert "Compared with" in text
    assert not any(loaded in text for loaded in ("<link", "<script", "http://", "https://", "@import"))


@pytest.mark.parametrize("wrong", ["--rounds 1", "--seconds 0", "--size 8", "--json no/a.json"])
def test_what_cannot_be_measured_is_refused_at_once(wrong: str) -> None:
    done = CliRunner().invoke(app, ["bench", *wrong.split()])
    assert isinstance(done.exception, InputError)


def test_the_machine_is_described(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {
        "devices/system/cpu/cpu0/cpufreq/scaling_governor": "powersave\n",
        "devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "1200000\n",
        "devices/system/cpu/cpu1/cpufreq/scaling_cur_freq": "1800000\n",
        "devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq": "3000000\n",
        "devices/system/cpu/cpu0/thermal_throttle/core_throttle_count": "4\n",
        "class/thermal/thermal_zone0/temp": "71500\n",
        "class/thermal/thermal_zone0/type": "x86_pkg_temp\n",
        "class/thermal/thermal_zone1/temp": "broken\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    program = tmp_path / "bin" / "nvidia-smi"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho 'NVIDIA H200, 570.1, 1980 MHz, 1980 MHz, 3201 MHz, 41, 118.2 W'\n")
    program.chmod(0o755)
    monkeypatch.setattr(machine, "SYS", tmp_path)
    monkeypatch.setenv("PATH", str(program.parent) + os.pathsep + os.environ["PATH"])
    found = machine.describe_machine()
    assert (found.governor, found.clock_mhz, found.max_clock_mhz, found.throttled) == (
        "powersave",
        1500,
        3000,
        4,
    )
    assert found.temperatures == {"x86_pkg_temp": 71.5}
    assert found.gpus[0]["name"] == "NVIDIA H200"
    for fact in ("governor powersave", "1500 of 3000 MHz", "72 °C", "4 times", "clocks.sm 1980 MHz"):
        assert fact in found.sentence()
    program.write_text("#!/bin/sh\nexit 9\n")
    assert machine.describe_machine().gpus == []


def test_memory_is_known_on_linux() -> None:
    now, peak = machine.resident_bytes(), machine.peak_bytes()
    assert now is not None
    assert peak is not None
    assert peak >= 10_000_000
    assert np.isclose(now, peak, rtol=1)
