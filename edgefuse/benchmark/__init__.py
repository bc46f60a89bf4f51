"""How fast a model is on this machine, how much it takes, and how true it is: `edgefuse bench`."""

from edgefuse.benchmark.measure import BenchConfig, BenchReport, cases, measure_model
from edgefuse.benchmark.report import changes, facts, read_report, times, write_html, write_report

__all__ = [
    "BenchConfig",
    "BenchReport",
    "cases",
    "changes",
    "facts",
    "measure_model",
    "read_report",
    "times",
    "write_html",
    "write_report",
]
