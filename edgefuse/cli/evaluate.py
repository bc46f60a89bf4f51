"""`edgefuse evaluate`."""

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from edgefuse.errors import EdgefuseError, InputError

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.table import Table

    from edgefuse.evaluate import Candidate, Evaluation
    from edgefuse.evaluate.tables import Titled

__all__ = ["evaluate"]


def evaluate(
    ir: Path = typer.Option(..., help="Folder of infrared images."),
    vis: Path = typer.Option(..., help="Folder of visible images of the same size and file stems."),
    model: list[str] = typer.Option(
        [], help="Shipped model or .onnx file; may be repeated.", show_default="default model"
    ),
    fused: list[Path] = typer.Option([], help="Folder of images fused elsewhere; may be repeated."),
    trivial: bool = typer.Option(True, help="Also score the fusions that need no network."),
    protocol: str = typer.Option("field", help="field, paper (fused stretched to 0..255) or strict."),
    metrics: str = typer.Option(
        "EN,MI,VIF,Qabf,SSIM", help="Names separated by commas, in any case; `all` for all."
    ),
    limit: int | None = typer.Option(
        None, help="Score so many of the pairs that all folders have.", show_default="all"
    ),
    video: bool = typer.Option(False, "--video", help="The pairs are numbered frames: measure flicker."),
    skip_bad: bool = typer.Option(False, "--skip-bad", help="Exit with 0 although pairs were left out."),
    jobs: int | None = typer.Option(None, help="Worker processes.", show_default="one a core it may use"),
    robust: bool = typer.Option(False, "--robust", help="Also fuse noisy, blurred, shifted … sources."),
    compare: tuple[str, str] | None = typer.Option(
        None, help="Two models, folders or trivial fusions: B minus A, with confidence.", metavar="A B"
    ),
    json: Path | None = typer.Option(None, help="Write all scores as JSON."),
    csv: Path | None = typer.Option(None, help="Write one row a pair and candidate."),
    html: Path | None = typer.Option(None, help="Write a report with plots and pictures to look at."),
) -> None:
    """Score models and folders of fused images over pairs, beside the trivial fusions.

    Pairs have equal file stems and must be of one size. A pair that one candidate lacks counts for none; it
    is listed, and the exit status is then not 0.
    """
    from edgefuse.evaluate import Settings, write_csv, write_html, write_json
    from edgefuse.evaluate import compare as run_comparison
    from edgefuse.evaluate import evaluate as run
    from edgefuse.evaluate.tables import (
        compare_table,
        degradations,
        level_table,
        robust_tables,
        summary_table,
    )

    settings = Settings(protocol, _names(metrics), video, robust)
    if jobs is not None and jobs < 1:
        raise InputError(f"jobs is {jobs}, it must be at least 1")
    _check_targets(json, csv, html)
    candidates, compared = _candidates(model, fused, trivial, compare)
    stdout, stderr = Console(), Console(stderr=True)
    result = _scored(stderr, partial(run, ir, vis, candidates, settings, limit=limit, jobs=jobs or _cores()))
    comparison = run_comparison(result, *compared) if compared else None
    _print_all(stdout, lambda stacked: [summary_table(result, stacked)])
    _print_all(stdout, lambda stacked: robust_tables(result, stacked))
    if robust:
        _print_all(stdout, lambda _: [level_table(result)])
        stdout.print(degradations(), soft_wrap=True)
    if comparison:
        _print_all(stdout, lambda _: [compare_table(comparison)])
    if json:
        write_json(json, result, comparison)
    if csv:
        write_csv(csv, result)
    if html:
        write_html(html, result, comparison)
    if result.problems:
        _list_problems(stderr, result)
        if not skip_bad:
            raise typer.Exit(1)


def _scored(console: Console, run: "Callable[..., Evaluation]") -> "Evaluation":
    """Evaluate under a progress bar."""
    columns = (TextColumn("Scoring"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=None)
        try:
            return run(progress=lambda done, total: bar.update(task, completed=done, total=total))
        except KeyboardInterrupt:
            raise EdgefuseError("stopped before all pairs were scored, nothing is written") from None


def _cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on Windows or macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _names(text: str) -> tuple[str, ...]:
    """Return the metrics that a comma-separated text names; `all` stands for all of them."""
    from edgefuse.metrics import METRICS

    names = [name.strip() for name in text.split(",") if name.strip()]
    return tuple(each for name in names for each in (METRICS if name.lower() == "all" else [name]))


def _print_all(console: Console, tables: "Callable[[bool], list[Titled]]") -> None:
    """Print tables, of which no number is cut off: rather are the lines long."""
    width = console.width
    stacked = any(_width(shown.table, console) > width for shown in tables(False))
    for title, table, caption in tables(stacked):
        console.print(title, soft_wrap=True, highlight=False)
        console.width = max(width, _width(table, console))
        console.print(table)
        console.width = width
        if caption:
            console.print(f"[dim]{caption}[/]", soft_wrap=True, highlight=False)
        console.print()


def _width(table: "Table", console: Console) -> int:
    return console.measure(table, options=console.options.update(width=10_000)).maximum


def _check_targets(*paths: Path | None) -> None:
    """Refuse a file that cannot be written before the work and not after it."""
    given = [path.resolve() for path in paths if path]
    if twice := next((path for path in given if given.count(path) > 1), None):
        raise InputError(f"{twice} is named for two kinds of results, give each a file of its own")
    for path in paths:
        if path and (path.is_dir() or not path.parent.is_dir()):
            why = "it is a folder" if path.is_dir() else f"there is no folder {path.parent}"
            raise InputError(f"cannot write {path}: {why}")


def _candidates(
    models: list[str], folders: list[Path], with_trivial: bool, compare: tuple[str, str] | None
) -> "tuple[list[Candidate], tuple[str, str] | None]":
    """Return what is scored, and the names of what is compared."""
    from edgefuse.evaluate import BASELINES, folder, model, named, trivial
    from edgefuse.evaluate.candidates import unique
    from edgefuse.weights import DEFAULT_MODEL

    compared = [named(text) for text in compare or ()]
    if len(compared) > len(set(compared)):
        raise InputError(
            f"--compare has {compare[0] if compare else ''!r} twice, it needs two different ones"
        )
    # Named by its option and not by what is there: a folder called nano is not the model.
    chosen = compared + [trivial(name) if name in BASELINES else model(name) for name in models]
    chosen = chosen + [folder(path) for path in folders] or [model(DEFAULT_MODEL)]
    if with_trivial:
        chosen += [trivial(name) for name in BASELINES]
    chosen = unique(chosen)
    return chosen, (chosen[0].name, chosen[1].name) if compared else None


def _list_problems(console: Console, result: "Evaluation") -> None:
    console.print(f"[yellow]Left out: {len(result.problems)} of the stems[/]")
    for problem in result.problems:
        console.print(f"  {escape(problem.stem)}: {escape(problem.reason)}", highlight=False, soft_wrap=True)
