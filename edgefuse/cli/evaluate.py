"""`edgefuse evaluate`."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

if TYPE_CHECKING:
    from edgefuse.evaluate import Candidate, Evaluation, Mean

__all__ = ["evaluate"]

SHOWN = 10


def evaluate(
    ir: Path = typer.Option(..., help="Folder of infrared images."),
    vis: Path = typer.Option(..., help="Folder of visible images of the same size and file stems."),
    model: list[str] = typer.Option(
        [], help="Shipped model or .onnx file; may be repeated.", show_default="default model"
    ),
    fused: list[Path] = typer.Option([], help="Folder of images fused elsewhere; may be repeated."),
    trivial: bool = typer.Option(True, help="Also score the fusions that need no network."),
    protocol: str = typer.Option("field", help="field, paper (fused stretched to 0..255) or strict."),
    metrics: str = typer.Option("EN,MI,VIF,Qabf,SSIM", help="Names separated by commas, or `all`."),
    limit: int | None = typer.Option(None, help="Score so many pairs only.", show_default="all"),
    video: bool = typer.Option(False, "--video", help="The pairs are consecutive frames: measure flicker."),
    skip_bad: bool = typer.Option(False, "--skip-bad", help="Exit with 0 although pairs were left out."),
    jobs: int | None = typer.Option(None, help="Worker processes.", show_default="one a core"),
) -> None:
    """Score models and folders of fused images over pairs, beside the trivial fusions.

    Pairs have equal file stems and must be of one size. A pair that one candidate lacks counts for none; it
    is listed, and the exit status is then not 0.
    """
    from edgefuse.evaluate import Settings
    from edgefuse.evaluate import evaluate as run
    from edgefuse.metrics import METRICS

    names = tuple(METRICS) if metrics == "all" else tuple(name.strip() for name in metrics.split(","))
    settings = Settings(protocol, names, video)
    stderr = Console(stderr=True)
    columns = (TextColumn("Scoring"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=stderr, transient=True) as bar:
        task = bar.add_task("", total=None)
        result = run(
            ir,
            vis,
            _candidates(model, fused, trivial),
            settings,
            limit=limit,
            jobs=jobs or os.cpu_count() or 1,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    Console().print(_table(result))
    if result.problems:
        _list_problems(stderr, result)
        if not skip_bad:
            raise typer.Exit(1)


def _candidates(models: list[str], folders: list[Path], with_trivial: bool) -> "list[Candidate]":
    from edgefuse.evaluate import TRIVIAL, folder, named, trivial
    from edgefuse.weights import DEFAULT_MODEL

    chosen = [named(name) for name in models] + [folder(path) for path in folders]
    chosen = chosen or [named(DEFAULT_MODEL)]
    return chosen + [trivial(name) for name in TRIVIAL] if with_trivial else chosen


def _table(result: "Evaluation") -> Table:
    from edgefuse.evaluate import best, summarise
    from edgefuse.metrics import MEASURES, PROTOCOLS

    settings, summary = result.settings, summarise(result)
    table = Table(
        title=f"{escape(str(result.ir))} + {escape(str(result.vis))}: {_count(len(result.pairs), 'pair')}, "
        f"protocol [bold]{settings.protocol}[/]",
        title_justify="left",
        caption=f"{PROTOCOLS[settings.protocol].summary}. Means over the pairs; "
        "the second number is that of the weaker source.",
        caption_justify="left",
        box=None,
        padding=(0, 2, 0, 0),
    )
    table.add_column("")
    winners = {column: best(summary, column) for column in settings.columns}
    for column in settings.columns:
        measure = MEASURES[column]
        table.add_column(f"{column} {'↑' if measure.higher_is_better else '↓'}", justify="right")
    for candidate in result.candidates:
        row = summary[candidate.name]
        cells = [_cell(row[c], c, candidate.name in winners[c]) for c in settings.columns]
        table.add_row(escape(candidate.name), *cells)
    return table


def _cell(mean: "Mean", column: str, wins: bool) -> str:
    from edgefuse.evaluate.summary import places

    if not mean.pairs:
        return "–"
    total = f"{mean.total:.{places(column)}f}"
    weaker = "" if mean.weaker != mean.weaker else f" [dim]{mean.weaker:.{places(column)}f}[/]"
    return (f"[bold green]{total}[/]" if wins else total) + weaker


def _list_problems(console: Console, result: "Evaluation") -> None:
    console.print(f"[yellow]Left out: {_count(len(result.problems), 'stem')}[/]")
    for problem in result.problems[:SHOWN]:
        console.print(f"  {escape(problem.stem)}: {escape(problem.reason)}", highlight=False, soft_wrap=True)
    if len(result.problems) > SHOWN:
        console.print(f"  and {len(result.problems) - SHOWN} more")


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"
