"""`edgefuse bench`."""

from pathlib import Path

import typer

from edgefuse.cli.console import progress, stderr, stdout
from edgefuse.files import check_writable
from edgefuse.weights import DEFAULT_MODEL


def bench(
    model: str = typer.Option(DEFAULT_MODEL, metavar="NAME|FILE", help="Shipped model, .onnx or .engine."),
    engine: str | None = typer.Option(
        None, metavar="NAME", help="cpu, cuda, openvino or tensorrt.", show_default="first that can be used"
    ),
    size: str = typer.Option("640x480", metavar="WxH", help="Size of both cameras."),
    threads: int | None = typer.Option(None, metavar="N", help="CPU threads.", show_default="all cores"),
    rounds: int = typer.Option(
        5, metavar="N", help="How often everything is measured, which gives the spread."
    ),
    seconds: float = typer.Option(20.0, metavar="X", help="For all rounds together, about."),
    json: Path | None = typer.Option(None, metavar="FILE", help="Write the report as JSON, for --compare."),
    html: Path | None = typer.Option(None, metavar="FILE", help="Write a page with plots."),
    compare: Path | None = typer.Option(
        None, metavar="FILE", help="An earlier --json: say what got slower, beyond the spread of the rounds."
    ),
) -> None:
    """Measure a model on this machine.

    Time per stage, throughput, memory, and how true its answers are. Frames come from memory, through
    the same loop as in `edgefuse stream`.
    """
    from edgefuse.benchmark import (
        BenchConfig,
        changes,
        facts,
        measure_model,
        read_report,
        times,
        write_html,
        write_report,
    )
    from edgefuse.images import parse_size
    from edgefuse.tables import show

    for path in (json, html):
        if path is not None:
            check_writable(path)
    old = read_report(compare) if compare is not None else None
    config = BenchConfig(model, engine, parse_size(size), threads, rounds, seconds)
    out = stdout()
    with progress(stderr(), "Measuring", rounds) as shown:
        report = measure_model(config, shown)
    comparison = changes(report, old) if old is not None else None
    out.say(f"{model} on {report.device}", "bold")
    out.say(report.machine.sentence())
    show(out, [times(report)])
    for title, rows in facts(report).items():
        out.say(title, "bold")
        for name, text in rows.items():
            out.say(f"{name:18}{text}")
        out.say("")
    if comparison is not None:
        show(out, [comparison])
    if json is not None:
        write_report(json, report)
    if html is not None:
        write_html(html, report, comparison)
