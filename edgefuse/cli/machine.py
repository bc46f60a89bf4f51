"""The commands about this machine: `edgefuse bench`, `doctor` and `service`."""

import getpass
from dataclasses import asdict
from pathlib import Path
from typing import Any

import typer

from edgefuse.cli.console import ExitCode, progress, stderr, stdout
from edgefuse.errors import InputError
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


STYLES = {"ok": "green", "warning": "yellow", "problem": "bold red"}


def doctor(
    as_json: bool = typer.Option(False, "--json", help="Print the findings as JSON."),
) -> None:
    """Check this machine: what works, what does not.

    Each finding says what to do; the exit code is 1 if there is a problem.
    """
    from edgefuse.doctor import examine

    console = stdout(quiet=as_json)
    findings = []
    for found in examine():
        findings.append(found)
        console.say(f"{found.status:8}{found.check}: {found.text}", STYLES[found.status])
        if found.fix:
            console.say(f"{'':8}→ {found.fix}")
    problems = sum(found.status == "problem" for found in findings)
    warnings = sum(found.status == "warning" for found in findings)
    if as_json:
        known = {"ok": not problems, "findings": [asdict(found) for found in findings]}
        stdout().say_json(known)
    console.say(f"{problems} problems, {warnings} warnings, {len(findings) - problems - warnings} ok")
    if problems:
        raise typer.Exit(ExitCode.ERROR)


def service(
    context: typer.Context,
    args: list[str] = typer.Argument(
        metavar="-- STREAM-OPTIONS", help="Options of `edgefuse stream`, after two dashes."
    ),
    user: str | None = typer.Option(None, "--user", metavar="NAME", help="Who runs it. [you]"),
    folder: Path = typer.Option(
        Path(), "--folder", metavar="FOLDER", help="Where it runs, for relative paths. [the current one]"
    ),
    environment: Path = typer.Option(
        Path("/etc/edgefuse.env"),
        "--env-file",
        metavar="FILE",
        help="Lines NAME=value, for ${NAME} in sources.",
    ),
) -> None:
    """Print a systemd unit for a stream.

    The unit has a watchdog. Such as: edgefuse service -- --ir cam0 --vis cam1
    """
    from edgefuse.runtime.cameras.camera import check_distinct
    from edgefuse.runtime.service import make_unit
    from edgefuse.runtime.sources.base import Spec

    words = args[1:] if args[0] == "stream" else args
    group: Any = context.find_root().command
    with group.commands["stream"].make_context("edgefuse stream", [*words]) as parsed:
        if parsed.params.get("show"):
            raise InputError("a service has no display: leave --show out, or look at it with --serve 8080")
        ir, vis, file = (str(parsed.params.get(name) or "") for name in ("ir", "vis", "config"))
        if not file and not (ir and vis):
            raise InputError(f"{'--vis' if ir else '--ir'} is missing: a service needs both cameras")
        if ir and vis and "${" not in ir + vis:  # what stands for a secret is not known yet
            check_distinct(Spec.parse(ir), Spec.parse(vis))
    typer.echo(
        make_unit(words, folder.absolute(), user or getpass.getuser(), environment.absolute()), nl=False
    )
