"""`edgefuse doctor`."""

from dataclasses import asdict

import typer

from edgefuse.cli.console import ExitCode, stdout

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
